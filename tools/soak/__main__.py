"""Damages shards and their writers, compares jobs with and without distprof, and exits with 1 if anything was lost.

* mutations: bytes of shards are flipped, cut, moved and spliced, records are forged; the reader returns all whole
  records, and reports the damage;
* kills: a rank of a real job of two, or its daemon, is killed at a random moment; every step that was finished is in
  its shard, merge reports which ranks are complete, the exit code is torchrun's, and nothing hangs;
* full disks: a file system is full, or a limit on the size of a file is reached, at a random byte; records that fitted
  are there;
* messages: a daemon gets messages, pages, and files and keys of other nodes, all of them damaged; it lives, and nothing
  is written;
* cases: the scripts of tests/cases, which once showed a fault, have the same results with distprof as without;
* skew: jobs of several architectures with a planted fault each, or none, are recorded, and the verdict of their report
  is judged.  --keep keeps what they recorded: cases that are there are not recorded again; --judge judges a kept folder
  and does nothing else; --clock-error puts half of the ranks of kept jobs on a second host, whose clock is off;
* hangs: jobs that hang, each in its own way, and jobs that only seem to, and what the hang watch says of each; then a
  job trains for ten minutes beside others that keep all processors busy, and nothing may be said of it;
* diff: pairs of equal runs, and of runs of which one has a module made 10 % slower, each recorded three times;
  `distprof diff` must not call equal runs different, and names no other module;
* experts: jobs with a hot expert, a slow device, both or neither; the report must say which, and predict the iteration
  of the same job with equal loads to a tenth.

make soak ARGS="--mutations 20000 --kills 5 --full-disks 100 --messages 500 --seed 7"
make soak ARGS="--only mutations kills full-disks messages cases"
make soak ARGS="--only cases --cases 'c*'"
make soak ARGS="--only skew --skew '*-w8-*'"
make soak ARGS="--only experts --experts 1"
make soak ARGS="--judge /tmp/skew --skew 'tp-*'"
make soak ARGS="--judge /tmp/skew --clock-error 10"
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from soak import cases, trials
from soak.console_output import Progress, last_word
from soak.diff import run as diff
from soak.disks import FULL_DISKS
from soak.experts import run as experts
from soak.hangs import quiet
from soak.hangs import run as hangs
from soak.kills import KILLS
from soak.messages import MESSAGES
from soak.mutations import MUTATIONS
from soak.scripts import scripts
from soak.skew import clock_error
from soak.skew import run as skew
from soak.skew.cases import Case
from soak.trials import Kind

Part = Callable[[argparse.Namespace, Progress], bool]


def _trials(kind: Kind) -> Part:
    return lambda options, progress: trials.run(kind, options.first, _asked(options, kind.name), options.seed, progress)


def _cases(options: argparse.Namespace, progress: Progress) -> bool:
    return cases.run(options.cases, options.at_once, progress)


def _diff(options: argparse.Namespace, progress: Progress) -> bool:
    return diff.run(options.diff, progress)


def _experts(options: argparse.Namespace, progress: Progress) -> bool:
    return experts.run(options.experts, progress)


def _hangs(options: argparse.Namespace, progress: Progress) -> bool:
    right = hangs.run(options.hangs, progress)
    return (not options.quiet_minutes or quiet.run(options.quiet_minutes, progress)) and right


def _skew(options: argparse.Namespace, progress: Progress) -> bool:
    return skew.run(_planted(options), options.keep, progress)


#: What runs a part, and returns whether all of it held; in this order.
PARTS: dict[str, Part] = {
    **{kind.name: _trials(kind) for kind in (MUTATIONS, FULL_DISKS, KILLS, MESSAGES)},
    "cases": _cases,
    "diff": _diff,
    "experts": _experts,
    "hangs": _hangs,
    "skew": _skew,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), help="some of the parts")
    for kind, default in ((MUTATIONS, 100_000), (FULL_DISKS, 1_000), (KILLS, 50), (MESSAGES, 10_000)):
        parser.add_argument(f"--{kind.name}", type=int, default=default, metavar="N", help=f"default: {default:,}")
    parser.add_argument("--seed", type=int, default=1, help="of all random choices  [default: 1]")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first trial of each kind")
    parser.add_argument("--cases", default="*", metavar="NAME", help="names of cases, as a shell's pattern; 0: none")
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="so many cases at a time  [default: 1]")
    parser.add_argument("--skew", default="*", metavar="NAME", help="names of jobs with planted faults; 0: none")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="so many of these jobs  [default: 0, all]")
    parser.add_argument(
        "--apart-from", type=Path, metavar="DIR", help="none of the jobs that this folder of --keep has: held-out ones"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keeps what these jobs recorded, to judge it again")
    parser.add_argument("--judge", type=Path, metavar="DIR", help="only judges what --keep kept")
    parser.add_argument(
        "--clock-error",
        type=float,
        metavar="MS",
        help="with --judge: does a clock that is so far off change a verdict?",
    )
    parser.add_argument(
        "--diff", type=int, default=20, metavar="N", help="so many comparisons, of three runs a side  [default: 20]"
    )
    parser.add_argument("--experts", type=int, default=5, metavar="N", help="so many jobs of each kind  [default: 5]")
    parser.add_argument("--hangs", default="*", metavar="NAME", help="names of jobs that hang; 0: none")
    parser.add_argument(
        "--quiet-minutes", type=float, default=10.0, metavar="N", help="of a job that does not hang  [default: 10]"
    )
    return parser


def main() -> int:
    parser = _parser()
    options = parser.parse_args()
    progress = Progress(sys.stderr)
    if options.clock_error is not None and options.judge is None:
        parser.error("--clock-error needs the kept jobs of --judge")
    if options.judge is not None:
        return 0 if _judge_kept(options, progress) else 1
    chosen = [name for name in PARTS if name in options.only and _asked(options, name) not in (0, "0")]
    if "cases" in chosen and not scripts(options.cases):
        parser.error(f"no case has a name like {options.cases!r}")
    if "skew" in chosen and not _planted(options):
        parser.error(f"no job with a planted fault has a name like {options.skew!r}")
    held = [PARTS[name](options, progress) for name in chosen]
    print(last_word(not all(held), sys.stdout))
    return 0 if all(held) else 1


def _judge_kept(options: argparse.Namespace, progress: Progress) -> bool:
    if options.clock_error is None:
        return skew.judge_kept(options.judge, options.skew, progress)
    return clock_error.run(skew.kept(options.judge, options.skew), options.judge, options.clock_error, progress)


def _asked(options: argparse.Namespace, part: str) -> Any:
    """Returns the number or the pattern of a part."""
    return getattr(options, part.replace("-", "_"))


def _planted(options: argparse.Namespace) -> list[Case]:
    """Returns the jobs with planted faults; the same options give the same sample."""
    return skew.sample(options.skew, options.sample, options.seed, options.apart_from)


if __name__ == "__main__":
    sys.exit(main())
