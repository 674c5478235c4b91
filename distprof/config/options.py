"""The table of all options: name, type, default and help of each.

An option has one name in three places: ``--output-file`` on the command line, ``DISTPROF_OUTPUT_FILE`` in the
environment and ``output-file`` in a configuration file.  A new line in the table is enough for all three, and for the
help of the commands that take it.  Other modules read the defaults from ``DEFAULTS``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distprof.config.option import Option

#: The ``output_file`` that means stdout.
STDOUT = "-"
#: Whether to record at all.  It is no option of the command line: ``distprof run`` is typed to record.
ENABLED = Option("enabled", bool, "record at all", default=True)
#: The recording window; the ranks read these.
WINDOW = (
    Option("warmup", int, "first iterations, in which only phases are timed", "N", default=5),
    Option("timed", int, "iterations to time, after one in which flops are counted", "N", default=10),
    Option(
        "every",
        int,
        "record such a window again every N iterations; of old windows, only a summary is kept",
        "N",
        default_text="once",
        least=1,
    ),
    Option("count", bool, "count flops", default=True),
    Option(
        "count_eager",
        bool,
        "count compiled code module by module: in the counted step it runs in eager form, which changes the loss of "
        "that step (with dropout also of all later steps) and may double its peak memory; left out where memory is "
        "short",
        default=False,
    ),
    Option("collectives", bool, "record the collectives, sends and receives of timed iterations", default=True),
    Option(
        "collective_timing",
        bool,
        "switch NCCL's timing of collectives on in the window, for their durations: torch warns that it may make the "
        "watchdog hang, it costs time in each collective, and it stays on until the job ends",
        default=False,
    ),
)
OUT = Option(
    "out",
    str,
    "folder in which run folders are made, or a URL of fsspec (s3://BUCKET/RUNS) to which each is copied from runs/",
    "DIR",
    default="runs",
)
#: What the daemon of each node serves; it reads these itself.
METRICS = (
    Option(
        "metrics",
        int,
        "serve metrics of the ranks for Prometheus on this port of each node; 0: a free one, named in the run's folder",
        "PORT",
        default_text="no metrics",
        between=(0, 65_535),
    ),
    Option(
        "metrics_host", str, "address on which metrics are served; they have no password", "HOST", default="127.0.0.1"
    ),
    Option(
        "metrics_textfile",
        str,
        "write the metrics into a file of this folder, for node-exporter's textfile collector",
        "DIR",
        default_text="no file",
    ),
)
#: The options of ``distprof run`` and ``exec``.
RUN = (
    OUT,
    Option("name", str, "name of the run", "NAME", default_text="from the job, else from script and time"),
    *WINDOW,
    Option("merge", bool, "merge when the job has ended", default=False),
    Option(
        "daemon",
        bool,
        "start a small process on each node, which reads the heartbeat of its ranks for 'distprof top', 'status' and "
        "'trigger'",
        default=True,
    ),
    Option(
        "stall",
        float,
        "an iteration counts as stuck after S seconds, or after 20 times the 99th percentile of the rank's own, if "
        "that is longer; the first iterations, evaluation and checkpoints may take longer",
        "S",
        default=60.0,
        between=(0.1, 1e6),
    ),
    Option(
        "quiet",
        bool,
        "write no line into the job's log when a rank begins to be the slowest again and again, and when that ends",
        default=False,
    ),
    *METRICS,
)
#: The options that a run keeps in its folder for later merges.
SHOWN = (
    Option("depth", int, "show modules to this depth; 0: the model only, -1: all modules", "N", default=-1, least=-1),
    Option("top", int, "classes of module shown at each depth", "N", default=3, least=1),
    Option("detailed", bool, "show the module tree", default=True),
    Option("plots", bool, "draw plots; without them, plots of an earlier merge are removed", default=True),
    Option("page", bool, "write report.html; without it, that of an earlier merge is removed", default=True),
    Option(
        "peak_tflops",
        float,
        "peak TFLOPS of each device, for MFU",
        "X",
        default_text="the maker's figure, else what 'distprof peak' measured",
        between=(1e-6, 1e9),
    ),
)
#: The options of ``distprof merge``.  Where to write is never read from a run's folder, which may come from elsewhere.
REPORT = (
    *SHOWN,
    Option("full", bool, "print the whole report, not its first page only", default=False),
    Option("parquet", bool, "write the tables as Parquet files too, with pyarrow", default=False),
    Option("jobs", int, "processes that read a large run", "N", default_text="one for each processor", least=1),
    Option("output_file", str, "write the report's text to this file; - is stdout", "FILE", default=STDOUT),
)
#: All options; a configuration file may set each of them.
ALL = (ENABLED, *RUN, *REPORT)
#: name of an option -> its default; None where the run decides.
DEFAULTS: Mapping[str, Any] = {option.name: option.default for option in ALL}
