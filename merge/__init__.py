"""Reads what the ranks recorded, and computes the report.

    load.load_run(path)     files -> LoadedRun: one RankData a rank, and notes on the rest
      rankdata, window,       each shard is reduced as it is read: medians over steps, by row of the rank's module tree
      tree, parameters
    analyse.analyse(run)    LoadedRun -> report.Report: plain data, the contract with everything that renders it
      topology, align,        where ranks stand; one module tree for the job
      totals, summary,        how many parameters, flops and samples, in what time
      profile, ranks          a row for every module, and for every rank
      skew, experts           who is slow in what, and who got the tokens
    text, jsonout, plots    Report -> summary.txt, summary.json, pictures

The report depends on the records alone: neither on the clock, nor on where the shards lie, nor on the order of the
files.  Nothing here imports torch.
"""
