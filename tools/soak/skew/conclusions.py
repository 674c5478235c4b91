"""What a report concludes of slow ranks, read from its ``summary.json``: the one that a user's own tools would read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from distprof.merge.analyse import analyse
from distprof.merge.export.json import to_json
from distprof.merge.load.run import load_run


@dataclass(frozen=True)
class Conclusion:
    """The verdict, the place of the first rank that is named, and the cause and the cost where it gives them."""

    finding: str
    named: tuple[int, ...]  # slow by themselves
    one_of: tuple[int, ...]  # one of these is slow, and the report does not say which
    subject: str
    phase: str
    excess_ns: float | None
    cost_ns: float | None  # what an iteration would gain without them
    cause: str
    group: tuple[int, ...]  # of the slow link
    iteration_ns: float | None
    iterations: tuple[int, ...]  # the timed steps that were used
    overloaded_expert: int | None
    processor_share: float | None = None  # of an iteration, in which ranks were ready but no processor was free

    @property
    def words(self) -> str:
        """Returns the verdict in short."""
        who = f" {list(self.named or self.one_of or self.group)}" if self.named or self.one_of or self.group else ""
        where = f" {self.subject}/{self.phase}" if self.subject else ""
        why = f" ({self.cause})" if self.cause else ""
        cost = self.cost_ns if self.cost_ns is not None else self.excess_ns
        much = f" {cost / 1e6:.1f} ms" if cost is not None and (self.named or self.one_of) else ""
        of = f" of {self.iteration_ns / 1e6:.1f} ms" if self.iteration_ns else ""
        return f"{self.finding}{who}{where}{why}{much}{of}"


def conclude(run: Path) -> Conclusion:
    """Merges a run folder and returns what the report concludes.  Raises DataError as ``merge`` does."""
    return read_conclusion(json.loads(to_json(analyse(load_run(run)))))


def read_conclusion(report: dict[str, Any]) -> Conclusion:
    """Returns the conclusion of a report; fields that its schema lacks are None or empty."""
    ranks, expert = report["verdict"]["ranks"], report["verdict"]["expert"]
    named = tuple(one["rank"] for one in ranks["named"])
    likely = ranks.get("likely")
    alone = ranks["finding"] == "slow"
    first: dict[str, Any] = ranks["named"][0] if named else {}
    return Conclusion(
        finding=ranks["finding"],
        named=named if alone else () if likely is None else (likely,),
        one_of=() if alone or likely is not None else named,
        subject=first.get("subject", ""),
        phase=first.get("phase", ""),
        excess_ns=first.get("excess_ns"),
        cost_ns=ranks.get("cost_ns"),
        cause=ranks.get("cause") or "",
        group=tuple(ranks.get("group") or ()),
        iteration_ns=ranks["iteration_ns"],
        iterations=tuple(sorted({number for row in report["ranks"] for number in row["step_iterations"]})),
        overloaded_expert=expert["expert"] if expert["finding"] == "overloaded" else None,
        processor_share=_processor_share(report["ranks"]),
    )


def _processor_share(ranks: list[dict[str, Any]]) -> float | None:
    """Returns the share of their iterations in which ranks waited for a processor, the median over the ranks."""
    shares = [
        sum(row["step_processor_waits_ns"]) / sum(row["step_durations_ns"])
        for row in ranks
        if row.get("step_processor_waits_ns") and None not in row["step_processor_waits_ns"]
    ]
    return median(shares) if shares else None
