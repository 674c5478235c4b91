"""A dozen of the soak's jobs with planted faults, really run, and the verdicts on them."""

from __future__ import annotations

import json
import statistics
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from support.forking.server import forking_python

from distprof.merge.load.run import load_run

pytestmark = pytest.mark.slow
TOOLS = Path(__file__).parents[2] / "tools"
DOZEN = (
    "ddp_mlp-none-w4-0a", "ddp_mlp-jitter-w4-0a", "ddp_mlp-fwd-w4-0a", "ddp_mlp-two-w8-0a", "ddp_mlp-opt-w4-0a",
    "ddp_gpt-bwd-w4-0a", "ddp_gpt-data-w4-0a", "ddp_gpt-pause-w4-0a", "fsdp2-fwd-w2-0a", "pp-none-w4-0a",
    "pp1f1b-fwd-w4-0a", "moe-bwd-w4-0a",
)  # fmt: skip
#: A fault is large if it costs this share of an iteration, and so many times what the iterations of a rank vary by.
LARGE, ABOVE_NOISE = 0.2, 3.0


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, clean_env: dict[str, str]) -> Path:
    """Returns the folder of the recorded jobs: all ranks are forks."""
    folder = tmp_path_factory.mktemp("dozen")
    words = [str(forking_python(clean_env)), "-m", "soak.skew.record", str(folder), "short"]
    subprocess.run(words, cwd=TOOLS, env=clean_env, input="\n".join(DOZEN), text=True, timeout=900, check=True)
    return folder


@pytest.fixture(autouse=True)
def _tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))


def test_hardly_anybody_is_named_wrongly_and_large_faults_are_found(recorded: Path) -> None:
    """Other jobs on the machine can make one verdict in a hundred wrong, and hide faults: all rates are the soak's."""
    judge: Any = import_module("soak.skew.judge")
    said, wrong, planted, found = [], 0, 0, 0
    for name in DOZEN:
        (case,) = import_module("soak.skew.cases").matching(name)
        judged = judge.judge(case, recorded / name, "run")
        said.append(f"{name}: {judged.outcome}: {judged.words}, {judged.lost_ms} ms were lost")
        assert judged.outcome != judge.FAILED, said[-1]
        wrong += judged.outcome == judge.WRONG
        if case.culprits and case.fault not in ("half", "pause") and large(judged.lost_ms, recorded / name / "run"):
            planted, found = planted + 1, found + (judged.outcome == judge.RIGHT)
    assert wrong <= 1, "\n".join(said)
    assert planted < 3 or found >= planted / 3, "\n".join(said)


def large(lost_ms: float, run: Path) -> bool:
    """Returns whether a loss is large against the iterations of the run and their noise."""
    noise, iterations = [], []
    for rank in load_run(run).ranks:
        (window,) = (window for window in rank.windows.values() if window.steps)
        times = [time / 1e6 for time in window.durations_ns.tolist()]
        iterations.append(statistics.median(times))
        noise.append(statistics.median(abs(time - iterations[-1]) for time in times))
    return lost_ms >= max(LARGE * statistics.median(iterations), ABOVE_NOISE * statistics.median(noise))


def test_a_wrong_clock_changes_hardly_any_verdict(recorded: Path) -> None:
    """Clocks of two hosts that are 10 ms off; the soak compares many jobs."""
    compare: Any = import_module("soak.skew.clock_error").compare
    cases = import_module("soak.skew.cases")
    names = [name for name in DOZEN if not name.startswith("pp")]
    compared = [compare(case, recorded / name, 10.0) for name in names for case in cases.matching(name)]
    changed = [f"{one.case.name}: {one.exact.words}; {one.wrong.words}" for one in compared if one.changed]
    assert len(compared) == len(names) and len(changed) <= 2, "\n".join(changed)


def test_what_was_lost_is_known_for_each_planted_fault(recorded: Path) -> None:
    lost = json.loads((recorded / "ddp_mlp-fwd-w4-0a" / "lost1.json").read_text())
    assert len(lost) == 16 and min(lost.values()) >= 30e6
