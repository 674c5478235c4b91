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
* diff: pairs of equal runs, and of runs of which one has a module made 10 % slower; `distprof diff` must not call equal
  runs different, and names no other module;
* experts: jobs with a hot expert, a slow device, both or neither; the report must say which, and predict the iteration
  of the same job with equal loads to a tenth.

make soak ARGS="--mutations 20000 --kills 5 --full-disks 100 --messages 500 --cases 0 --experts 0 --hangs 0 --seed 7"
NO="--mutations 0 --kills 0 --full-disks 0 --messages 0 --diff 0 --hangs 0"
make soak ARGS="$NO --cases 'c*' --skew 0 --experts 0"
make soak ARGS="$NO --cases 0 --skew '*-w8-*' --experts 0"
make soak ARGS="$NO --cases 0 --skew 0 --experts 5"
make soak ARGS="--judge /tmp/skew --skew 'tp-*'"
make soak ARGS="--judge /tmp/skew --clock-error 10"
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    parser.add_argument("--diff", type=int, default=20, metavar="N", help="so many pairs of runs  [default: 20]")
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
    if options.clock_error is not None:
        if options.judge is None:
            parser.error("--clock-error needs the kept jobs of --judge")
        there = skew.kept(options.judge, options.skew)
        return 0 if clock_error.run(there, options.judge, options.clock_error, progress) else 1
    if options.judge is not None:
        return 0 if skew.judge_kept(options.judge, options.skew, progress) else 1
    if options.cases != "0" and not scripts(options.cases):
        parser.error(f"no case has a name like {options.cases!r}")
    jobs = [] if options.skew == "0" else skew.sample(options.skew, options.sample, options.seed, options.apart_from)
    if options.skew != "0" and not jobs:
        parser.error(f"no job with a planted fault has a name like {options.skew!r}")
    counts = {
        MUTATIONS: options.mutations,
        FULL_DISKS: options.full_disks,
        KILLS: options.kills,
        MESSAGES: options.messages,
    }
    held = [trials.run(kind, options.first, count, options.seed, progress) for kind, count in counts.items() if count]
    if options.cases != "0":
        held.append(cases.run(options.cases, options.at_once, progress))
    if options.diff:
        held.append(diff.run(options.diff, progress))
    if options.experts:
        held.append(experts.run(options.experts, progress))
    if options.hangs != "0":
        held.append(hangs.run(options.hangs, progress))
        held.append(not options.quiet_minutes or quiet.run(options.quiet_minutes, progress))
    if jobs:
        held.append(skew.run(jobs, options.keep, progress))
    print(last_word(not all(held), sys.stdout))
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
