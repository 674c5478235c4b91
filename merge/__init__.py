"""Reads what the ranks recorded, and computes the report.

    load.run.load_run(path)    shard files -> LoadedRun: one RankData for each rank; shards are reduced as they are read
    analysis.start_analysis    LoadedRun -> Analysis: topology, pipelines and module union, which the sections share
      job                      the topology of the job, and one module tree of all ranks
      work, times              parameters, flops and utilization; times of modules, ranks and stages
      skew, experts            which rank is slow, and which expert is overloaded
    analyse.analyse(run)       LoadedRun -> report.Report: plain data, and all that renderers know
    text, export, plots        Report -> summary.txt, summary.json, plots

The report depends on the records alone, not on the clock, the path of the run or the order of the files.  Nothing here
imports torch.
"""
