"""Collectives of one number in one group that differ from rank to rank, so that they never complete."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from distprof.launcher.daemon.hang_watch.evidence import NodeEvidence

#: Collectives in which all members give tensors of one size.
_OF_EQUAL_SIZE = frozenset(
    {"all_reduce", "allreduce", "broadcast", "reduce", "reduce_scatter_tensor", "all_gather_into"}
)


@dataclass(frozen=True)
class Mismatch:
    """The collective ``number`` of a group; the first entry has the most ranks."""

    group: str  # the key
    number: int
    calls: tuple[tuple[str, tuple[int, ...]], ...]  # (op, with its size where sizes differ) and the ranks that call it

    @property
    def odd(self) -> tuple[int, ...]:
        """The ranks that differ from the most; all ranks, where there is no majority."""
        (_, most), *others = self.calls
        if any(len(ranks) == len(most) for _, ranks in others):
            return tuple(sorted(rank for _, ranks in self.calls for rank in ranks))
        return tuple(sorted(rank for _, ranks in others for rank in ranks))


def find_mismatch(evidence: NodeEvidence) -> Mismatch | None:
    """Returns the first collective that runs on a rank, and that another rank has entered as something else."""
    return next(_mismatches(evidence), None)


def _mismatches(evidence: NodeEvidence) -> Iterator[Mismatch]:
    seen: dict[tuple[str, int], dict[int, tuple[str, str]]] = {}
    running = set()
    for rank in evidence.ranks:
        for op in rank.ops:
            if op.number >= 0 and op.group:
                seen.setdefault((op.group, op.number), {})[rank.rank] = op.op, op.size
                if not op.done:
                    running.add((op.group, op.number))
    for key in sorted(running):
        ops = {op for op, _ in seen[key].values()}
        sized = len(ops) == 1 and ops <= _OF_EQUAL_SIZE
        calls: dict[str, list[int]] = {}
        for rank_number, (op_name, size) in sorted(seen[key].items()):
            calls.setdefault(f"{op_name} of {size}" if sized and size else op_name, []).append(rank_number)
        if len(calls) > 1:
            most_first = sorted(calls.items(), key=lambda call: (-len(call[1]), call[1]))
            yield Mismatch(*key, tuple((call, tuple(ranks)) for call, ranks in most_first))
