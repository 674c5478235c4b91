"""What distprof costs, measured: ``make bench`` runs it and leaves ``docs/BENCHMARKS.md``.

__main__   what to measure, and the page        table      numbers as Markdown
steps      a step with and without recording    variants   what is switched on around it
gpt        the models, and a job of one         process    commands in processes of their own
jobs       start-up and memory of whole jobs    shards     bytes a step
merging    merges of generated runs
"""
