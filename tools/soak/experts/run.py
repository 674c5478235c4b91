"""The experts part of the soak: tokens, a device or both, and the saving that equal loads would bring.

The saving is compared with the same job in which all experts get as many tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from distprof.merge.analyse import analyse
from distprof.merge.load.run import load_run
from distprof.merge.report import ONLY_DEVICE, ONLY_TOKENS, TOKENS_AND_DEVICE, Report
from soak.console_output import Progress
from soak.forked_jobs.judging import judge_each, record

#: What the report has to say of each kind of job.
CAUSES = {"hot": ONLY_TOKENS, "slow": ONLY_DEVICE, "both": TOKENS_AND_DEVICE, "even": ""}
#: The kinds whose saving is compared with a job of equal loads.
HOT = ("hot", "both")
_MOST_ERROR = 0.1


@dataclass
class Tally:
    """What the reports said; errors are those of the predicted saving, as shares of the iteration with equal loads."""

    right: int = 0
    wrong: list[str] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not self.wrong and max(self.errors, default=0.0) <= _MOST_ERROR

    def add_cause(self, name: str, report: Report) -> None:
        (layer,) = report.experts
        found = layer.tokens_or_device.cause if layer.tokens_or_device is not None else "nothing"
        if found == CAUSES[name.partition("-")[0]]:
            self.right += 1
        else:
            self.wrong.append(f"{name}: {found or 'neither'}")

    def add_saving(self, report: Report, forced: Report) -> None:
        (layer,) = report.experts
        forced_ns = _iteration_ns(forced)
        predicted_ns = _iteration_ns(report) - (layer.load_cost_ns or 0.0)
        self.errors.append(abs(predicted_ns - forced_ns) / forced_ns)

    def __str__(self) -> str:
        lines = [
            f"tokens, a device, both or neither: {self.right} of {self.right + len(self.wrong)} right",
            *self.wrong,
        ]
        if self.errors:
            most = f"{max(self.errors):.1%} of an iteration at most"
            lines.append(
                f"iterations with equal loads, predicted and measured, differ by {most} ({len(self.errors)} jobs)"
            )
        return "\n".join(lines)


def run(jobs: int, progress: Progress) -> bool:
    """Records so many jobs of each kind; False where a report is wrong."""
    tally = Tally()
    judge_each("experts", jobs, partial(_judge, tally), progress)
    print(tally, flush=True)
    return tally.is_clean


def _judge(tally: Tally, folder: Path, number: int) -> None:
    """Records and judges one job of each kind, and with equal loads those that have a hot expert."""
    for kind in CAUSES:
        name = f"{kind}-{number}"
        names = [name, f"{name}-forced"] if kind in HOT else [name]
        record("experts", folder, names)
        report, *forced = (analyse(load_run(folder / one)) for one in names)
        tally.add_cause(name, report)
        for one in forced:
            tally.add_saving(report, one)


def _iteration_ns(report: Report) -> float:
    iterations = report.summary.iterations
    assert iterations is not None
    return iterations.median_ns
