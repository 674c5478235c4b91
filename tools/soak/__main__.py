"""Damages shards and their writers, compares jobs with and without distprof, and exits with 1 if anything was lost.

* mutations: bytes of shards are flipped, cut, moved and spliced, records are forged; the reader returns all whole
  records, and reports the damage;
* kills: a rank of a real job of two is killed at a random moment; every step that it had finished is in its shard, and
  merge reports which ranks are complete;
* full disks: a file system is full, or a limit on the size of a file is reached, at a random byte; records that fitted
  are there;
* cases: the scripts of tests/cases, which once showed a fault, have the same results with distprof as without.

make soak ARGS="--mutations 20000 --kills 5 --full-disks 100 --cases 0 --seed 7"
make soak ARGS="--mutations 0 --kills 0 --full-disks 0 --cases 'c*' --at-once 4"
"""

from __future__ import annotations

import argparse
import sys

from soak import cases, trials
from soak.disks import FULL_DISKS
from soak.kills import KILLS
from soak.mutations import MUTATIONS
from soak.scripts import scripts
from soak.shown import Progress, last_word


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for kind, default in ((MUTATIONS, 100_000), (FULL_DISKS, 1_000), (KILLS, 50)):
        parser.add_argument(f"--{kind.name}", type=int, default=default, metavar="N", help=f"default: {default:,}")
    parser.add_argument("--seed", type=int, default=1, help="of all random choices  [default: 1]")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first trial of each kind")
    parser.add_argument("--cases", default="*", metavar="NAME", help="names of cases, as a shell's pattern; 0: none")
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="so many cases at a time  [default: 1]")
    options = parser.parse_args()
    if options.cases != "0" and not scripts(options.cases):
        parser.error(f"no case has a name like {options.cases!r}")
    counts = {MUTATIONS: options.mutations, FULL_DISKS: options.full_disks, KILLS: options.kills}
    progress = Progress(sys.stderr)
    held = [trials.run(kind, options.first, count, options.seed, progress) for kind, count in counts.items() if count]
    if options.cases != "0":
        held.append(cases.run(options.cases, options.at_once, progress))
    print(last_word(not all(held), sys.stdout))
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
