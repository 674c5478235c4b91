"""Damages or forges shards, reads them, and merges some."""

from __future__ import annotations

from pathlib import Path

from soak.damage import DAMAGES
from soak.forgery import FORGERIES
from soak.originals import Random, original
from soak.reader_checks import VERDICTS, judge, judge_forged
from soak.trials import Kind, Outcome

_ORIGINALS = [original("run-a", 1, 4), original("run-b", 2, 40), original("run-c", 3, 2)]
_ABUSES = DAMAGES * 3 + FORGERIES * 5
#: The share of the forged shards that are also merged.
_MERGED_SHARE = 0.05


def mutate(rng: Random, folder: Path) -> Outcome:
    """Reads one mutated shard.  Leaves it in ``folder`` if it was read wrongly."""
    one, other = rng.sample(_ORIGINALS, 2)
    abuse = rng.choice(_ABUSES)
    data = abuse(rng, one, other)
    try:
        if abuse in FORGERIES:
            verdict = judge_forged(data, merged=rng.random() < _MERGED_SHARE)
        else:
            verdict = judge(data, (one, other))
    except BaseException:
        (folder / "failed.msgpack").write_bytes(data)
        raise
    return Outcome(abuse.__name__, verdict)


MUTATIONS = Kind("mutations", mutate, VERDICTS, "nothing but DataError, no wrong record, no silent loss")
