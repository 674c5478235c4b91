"""Measures what distprof costs: ``make bench`` runs it and writes ``docs/BENCHMARKS.md``.

__main__   the parts, and the page              reports         the tables of each part, with budgets
effort     how often each part measures         table           numbers as Markdown
steps      a step with and without recording    variants        what a step is measured with
gpt        the models and their training step   process         commands in their own processes
jobs       start-up and memory of whole jobs    shards          bytes of a step, and of a week
ring       reading torch's flight recorder      moe             tokens of experts
scale      merges of synthetic runs; worlds     synthetic_runs  writes these runs
nodes      daemons: of many nodes, of one       estimate        means with their intervals
traces     a job's traces of torch.profiler, as Holistic Trace Analysis reads them
"""
