"""Measures what distprof costs: ``make bench`` runs it and writes ``docs/BENCHMARKS.md``.

__main__   what to measure, and the page        table           numbers as Markdown
steps      a step with and without recording    variants        what a step is measured with
gpt        the models and their training step   process         commands in their own processes
jobs       start-up and memory of whole jobs    shards          bytes for each step
scale      merges of synthetic runs             synthetic_runs  writes these runs
"""
