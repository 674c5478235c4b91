"""Tests of the metrics of ranks: what is known of a page is shown, with its unit; what is not has no metric."""

from __future__ import annotations

import json
import os
import re
import runpy
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from distprof.config.settings import Settings
from distprof.errors import UsageError
from distprof.heartbeat import page_folder
from distprof.heartbeat.page import Page, create_page, open_page
from distprof.heartbeat.slot import DeviceMacs, State, StepFigures, WindowWork
from distprof.heartbeat.slot_reader import read_slots
from distprof.heartbeat.slot_writer import SlotRank, SlotWriter
from distprof.launcher.daemon.metrics.availability import check_metrics, why_not_here
from distprof.launcher.daemon.metrics.collector import RankCollector, registry_of
from distprof.launcher.daemon.metrics.rank_metrics import SeenRank, iteration_buckets
from distprof.launcher.daemon.metrics.start import start_metrics
from distprof.launcher.daemon.metrics.utilization import known_peaks, mfu
from distprof.launcher.daemon.slow_rank.history import RankLooks
from distprof.launcher.run_setup import choose_options
from distprof.peaks.table import Engine, Peaks
from distprof.run_folder import Manifest, RunFolder

prometheus_client = pytest.importorskip("prometheus_client")
S = 1_000_000_000


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    monkeypatch.setattr(page_folder, "bases", lambda: [tmp_path])
    found = open_page(create_page())
    yield found
    found.close()


class Rank:
    """A rank of which a test says how long its iterations take; its clock stands between them."""

    def __init__(self, page: Page, number: int = 0, gpu_uuid: str = "") -> None:
        self.now_ns = 5 * S
        index = page.claim(number)
        assert index is not None
        who = SlotRank(number, 2, number, 0, "node-7", "cuda" if gpu_uuid else "cpu", 0, gpu_uuid)
        self.slot = SlotWriter(page, index, who, lambda: self.now_ns)
        self.slot.place(f"dp {number}")
        self.slot.iteration_begins(0, State.QUIET, 0, 0, counts=False)
        self.iteration = 0

    def iterate(self, *durations_ns: int) -> None:
        for duration_ns in durations_ns:
            self.now_ns += duration_ns
            self.iteration += 1
            self.slot.iteration_begins(self.iteration, State.QUIET, 0, 0)


def samples(
    page: Page, *, dead: int = -1, mfu: float | None = None, now_ns: int = 20 * S, looks: RankLooks | None = None
) -> dict[str, float]:
    """Returns the samples as Prometheus reads them, by name and labels other than those that all have."""
    ranks = [SeenRank(one, one.rank != dead, now_ns, 1 << 20, mfu, looks) for _, one in read_slots(page)]
    text = prometheus_client.generate_latest(registry_of(RankCollector("a run", lambda: ranks))).decode()
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            name, _, labels = series.partition("{")
            of = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            assert (of.pop("run"), of.pop("host"), of.pop("place")) == ("a run", "node-7", f"dp {of['rank']}")
            found["".join([name, *(f" {label}={of[label]}" for label in sorted(of))])] = float(value)
    return found


def test_a_new_rank_has_no_figures_that_were_not_measured(page: Page) -> None:
    Rank(page)
    found = samples(page)
    names = {name.partition(" ")[0] for name in found}
    histogram = {f"distprof_iteration_seconds_{part}" for part in ("bucket", "count", "sum")}
    always = {"rank_up", "iteration", "heartbeat_age_seconds", "resident_memory_bytes", "window", "rank_info"}
    assert names == histogram | {f"distprof_{name}" for name in always}
    assert found["distprof_heartbeat_age_seconds rank=0"] == 15
    assert {value for name, value in found.items() if "iteration_seconds" in name} == {0}


def test_what_was_measured_is_shown_in_base_units(page: Page) -> None:
    rank = Rank(page, 1, "GPU-1")
    rank.iterate(S // 2, S // 2)
    phases = (S // 8, S // 4, -1, 0, -1, -1, -1)
    rank.slot.counters(StepFigures(1, S // 2, phases, 8, 8 * 32, 7 << 20, 99, 2.5))
    found = samples(page, mfu=0.25, looks=RankLooks(31, 50, 0.125, is_named=True))
    shown = {name.removesuffix(" rank=1"): value for name, value in found.items() if name.count("=") == 1}
    assert shown == {
        "distprof_rank_up": 1,
        "distprof_iteration": 2,
        "distprof_heartbeat_age_seconds": 14,
        "distprof_samples_per_second": 16,
        "distprof_tokens_per_second": 512,
        "distprof_mfu_ratio": 0.25,
        "distprof_expert_tokens": 99,
        "distprof_expert_overload_ratio": 2.5,
        "distprof_peak_memory_bytes": 7 << 20,
        "distprof_resident_memory_bytes": 1 << 20,
        "distprof_window": 0,
        "distprof_collective_wait_ratio": 0.125,
        "distprof_straggler": 1,
        "distprof_slowest_iterations": 31,
        "distprof_sampled_iterations": 50,
        "distprof_iteration_seconds_count": 2,
        "distprof_iteration_seconds_sum": 1,
    }
    phases_shown = {name.split()[1]: value for name, value in found.items() if "phase_seconds" in name}
    assert phases_shown == {"phase=data": 0.125, "phase=forward": 0.25, "phase=backward": 0}
    (info,) = [name for name in found if name.startswith("distprof_rank_info")]
    assert info.split()[1:] == [
        *("device=cuda", "gpu_uuid=GPU-1", "local_rank=1", f"pid={os.getpid()}", "rank=1", "world_size=2")
    ]


def test_a_dead_rank_is_down_and_has_no_gauges(page: Page) -> None:
    rank = Rank(page)
    rank.iterate(S)
    found = samples(page, dead=0)
    assert found["distprof_rank_up rank=0"] == 0
    assert not [name for name in found if name.startswith(("distprof_iteration ", "distprof_heartbeat"))]
    assert found["distprof_iteration_seconds_count rank=0"] == 1  # what it did stays


def test_a_page_may_hold_anything(page: Page) -> None:
    rank = Rank(page)
    rank.slot.counters(StepFigures(1, -5, (-7,) * 7, -3, -2, -9, -1, float("nan")))
    assert not [name for name in samples(page) if "expert" in name or "phase" in name or "nan" in name.lower()]


def test_buckets_count_the_iterations_up_to_their_bounds(page: Page) -> None:
    rank = Rank(page)
    durations = [900_000, 3_000_000, 10_000_000, 10_000_000, 1_500 * S]
    rank.iterate(*durations)
    ((_, info),) = read_slots(page)
    found = iteration_buckets(SeenRank(info, True, 0, None, None))
    assert found[-1] == ("+Inf", 5) and len(found) < 40
    bounds = [float(bound) for bound, _ in found[:-1]]
    assert bounds == sorted(set(bounds)) and bounds[0] < 0.0011 and bounds[-1] > 100
    for bound, count in found[:-1]:
        below = sum(duration < float(bound) * S for duration in durations)
        above = sum(duration <= float(bound) * S * 1.001 for duration in durations)
        assert below <= count <= above, bound


def test_mfu_is_the_time_at_the_peak_over_the_time_that_it_took() -> None:
    macs = (DeviceMacs("H", 0, "bf16", 3_000), DeviceMacs("H", 0, "fp32", 500))
    peaks = Peaks(measured={Engine("H", 0, "bf16"): 2e-9, Engine("H", 0, "fp32"): 1e-9})
    # 6000 flops at 2000 a second and 1000 flops at 1000 a second are 4 seconds, on 2 devices, in 8 seconds.
    assert mfu(WindowWork(0, 8 * S, 2, macs), peaks) == pytest.approx(0.25)
    assert mfu(WindowWork(0, 8 * S, 2, macs), Peaks(measured={Engine("H", 0, "bf16"): 1e-6})) is None
    assert mfu(WindowWork(), peaks) is None


def test_the_peak_that_the_run_was_given_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = RunFolder(tmp_path)
    assert known_peaks(run).given is None  # no manifest
    run.write_manifest(Manifest("x", "x", (), 1, 0, {"peak_tflops": 12.5}))
    assert known_peaks(run).given == 12.5
    run.write_manifest(Manifest("x", "x", (), 1, 0, {"peak_tflops": "many"}))
    assert known_peaks(run).given is None


def test_a_taken_port_is_named_and_tried_again(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Rank(page)
    (tmp_path / "nodes").mkdir()
    ranks = [one for _, one in read_slots(page)]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = Settings(metrics=taken.getsockname()[1])
        assert "in use" in why_not_here(settings)
        metrics = start_metrics(settings, RunFolder(tmp_path), "key", lambda: ranks, dict)
        metrics.refresh()
        assert not (tmp_path / "nodes" / "key.targets.json").exists()
    later = time.monotonic() + 60
    monkeypatch.setattr(time, "monotonic", lambda: later)
    metrics.refresh()
    (found,) = json.loads((tmp_path / "nodes" / "key.targets.json").read_text())
    assert found["targets"] == [f"127.0.0.1:{settings.metrics}"]
    monkeypatch.undo()
    metrics.close()
    assert why_not_here(settings) == "" and not (tmp_path / "nodes" / "key.targets.json").exists()


def test_options_are_checked_before_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = choose_options({"metrics": 0, "metrics_textfile": "here"}, {"DISTPROF_METRICS_HOST": "::1"})
    assert (options.settings.metrics, options.settings.metrics_host) == (0, "::1")
    assert options.settings.metrics_textfile == str(tmp_path / "here")  # the daemon has another current folder
    for given in ({"metrics": 70_000}, {"metrics": -1}, {"metrics": 9400, "daemon": False}):
        with pytest.raises(UsageError):
            choose_options(given, {})
    monkeypatch.setattr("distprof.launcher.daemon.metrics.availability.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'distprof\[metrics\]'"):
        check_metrics(replace(Settings(), metrics=1), daemon=True)


def test_the_page_of_the_docs_has_all_metrics() -> None:
    code = runpy.run_path(str(Path(__file__).parents[4] / "tools" / "metrics_page.py"))
    page = code["PAGE"].read_text(encoding="utf-8")
    assert "| `distprof_mfu_ratio` |" in page
    assert page == code["with_table"](page), "python tools/metrics_page.py writes it anew"
