"""``distprof export --to perfetto``: read back with Perfetto's own classes, and by its real trace processor."""

from __future__ import annotations

import gzip
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.synthetic import MS, WALL_NS, WARMUP, Job, rank_records, write_run
from support.traces.made_up import COLLECTIVES, TURNS, TimelineOf
from support.traces.trace_processor import TraceProcessor

from distprof.records import ClockOffset, Header, Plan, Record, Step

pytest.importorskip("perfetto", reason="the package perfetto is not installed")

WORLD, STEPS = 8, 3
TRACE = "report/trace.perfetto-trace.gz"
MESSAGES = WORLD // 2


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "run"
    return write_run(folder, bend=TimelineOf(WORLD), dp=4, tp=2, ep=2, slow_rank=5, steps=STEPS)


@pytest.fixture
def trace(run: Path, here: Callable[..., Any]) -> Path:
    exported = here("export", run, "--to", "perfetto")
    assert exported.returncode == 0, exported.stderr
    assert exported.stderr.splitlines() == [
        f"distprof: trace of 8 ranks in {run / TRACE}, to be opened in https://ui.perfetto.dev"
    ]
    return run / TRACE


class Parsed:
    """A trace as its packets: the slices of each track, in the order in which they were written."""

    def __init__(self, path: Path) -> None:
        from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent

        self.processes: dict[int, str] = {}
        self.tracks: dict[int, tuple[str, int]] = {}  # uuid -> (name, uuid of the process)
        self.slices: dict[int, list[tuple[str, int, int]]] = {}  # by track: (name, start, end)
        self.flows: Counter[int] = Counter()
        self.counters: dict[str, list[int]] = {}
        data = Trace()
        data.ParseFromString(gzip.decompress(path.read_bytes()))
        self.packets = len(data.packet)
        for packet in data.packet:
            if packet.HasField("track_descriptor"):
                self._describe(packet.track_descriptor)
            elif packet.track_event.type == TrackEvent.TYPE_COUNTER:
                name = self.tracks[packet.track_event.track_uuid][0]
                self.counters.setdefault(name, []).append(packet.track_event.counter_value)
            else:
                self._slice(packet, TrackEvent)

    def _describe(self, descriptor: Any) -> None:
        if descriptor.HasField("process"):
            self.processes[descriptor.uuid] = descriptor.process.process_name
        else:
            self.tracks[descriptor.uuid] = (descriptor.name, descriptor.parent_uuid)

    def _slice(self, packet: Any, kinds: Any) -> None:
        event, found = packet.track_event, self.slices.setdefault(packet.track_event.track_uuid, [])
        if event.type == kinds.TYPE_SLICE_END:
            name, start, _ = found[-1]
            found[-1] = (name, start, packet.timestamp)
        else:
            found.append((event.name, packet.timestamp, packet.timestamp))
            self.flows.update(event.flow_ids)

    def of(self, track: str) -> list[tuple[str, int, int]]:
        named = {uuid for uuid, (name, _) in self.tracks.items() if name == track}
        return [one for uuid in named for one in self.slices[uuid]]


def test_ranks_are_processes_named_by_their_places(trace: Path) -> None:
    names = list(Parsed(trace).processes.values())
    assert names[:2] == ["rank 0 (node0, dp 0, tp 0, ep 0)", "rank 1 (node0, dp 0, tp 1, ep 0)"]
    assert len(names) == WORLD


def test_every_record_has_its_slice(trace: Path) -> None:
    parsed = Parsed(trace)
    assert len(parsed.of("iterations")) == WORLD * STEPS
    assert len(parsed.of("modules")) == WORLD * STEPS * TURNS
    assert len(parsed.of("collectives")) == WORLD * STEPS * COLLECTIVES + 2 * MESSAGES * STEPS
    assert {name for name, _, _ in parsed.of("pauses")} == {"compilation"}
    names = {name for name, _, _ in parsed.of("modules")}
    assert names == {"GPT", "embed", "embed (backward)", "(outside modules)", "blocks", "blocks (backward)"}
    phases = {name for name, _, _ in parsed.of("phases")}
    assert phases == {"data wait", "forward", "outside modules", "backward", "optimizer", "other"}


def test_slices_of_one_track_do_not_overlap(trace: Path) -> None:
    parsed = Parsed(trace)
    for slices in parsed.slices.values():
        assert all(before[2] <= after[1] for before, after in pairwise(slices))


def test_phases_fill_their_iterations(trace: Path) -> None:
    parsed = Parsed(trace)
    lasted = sum(end - start for _, start, end in parsed.of("iterations"))
    assert sum(end - start for _, start, end in parsed.of("phases")) == lasted
    first = min(start for _, start, _ in parsed.of("iterations"))
    assert first == WALL_NS + (WARMUP + 1) * 100 * MS


def test_arrows_join_all_members_of_a_collective_and_both_ends_of_a_message(trace: Path) -> None:
    members = Counter(Parsed(trace).flows.values())
    assert members == {WORLD: STEPS * COLLECTIVES, 2: STEPS * MESSAGES}


def test_a_collective_lasts_until_its_last_member_comes(trace: Path) -> None:
    ends = [end for name, _, end in Parsed(trace).of("collectives") if name == "all_reduce (world)"]
    start = WALL_NS + (WARMUP + 1) * 100 * MS
    assert Counter(ends)[start + MS] == WORLD  # the first one, in which rank 0 is 1 ms late


def test_counters_have_a_point_for_each_step(trace: Path) -> None:
    counters = Parsed(trace).counters
    assert sorted(counters) == ["peak memory (rss)", "samples of an iteration", "tokens of local experts"]
    assert {len(points) for points in counters.values()} == {WORLD * STEPS}
    assert max(counters["peak memory (rss)"]) == (300 + WORLD - 1) << 20


def test_the_verdict_lies_over_the_whole_trace(trace: Path) -> None:
    parsed = Parsed(trace)
    ((words, start, end),) = parsed.of("verdict")
    assert words.startswith("slowest: rank 5, ")
    iterations = parsed.of("iterations")
    assert start == min(one[1] for one in iterations)
    assert end >= max(one[2] for one in iterations)


def test_the_trace_processor_loads_it_without_an_error(trace: Path, tmp_path: Path) -> None:
    slices, overlap, flows, processes, problems, counters, args = TraceProcessor(trace, tmp_path).ask(
        "select t.name as track, count(*) as n, min(s.dur) as shortest from slice s join track t on s.track_id = t.id "
        "group by 1",
        "select count(*) as n from slice where depth > 0",
        "select count(*) as n from flow",
        "select name from process where name is not null order by pid",
        "select name from stats where severity in ('error', 'data_loss') and value > 0",
        "select count(*) as n from counter",
        "select distinct string_value as value from args where key = 'debug.last to come'",
    )
    found = {row["track"]: row["n"] for row in slices}
    collectives = WORLD * STEPS * COLLECTIVES + 2 * MESSAGES * STEPS
    assert found["iterations"] == WORLD * STEPS
    assert found["modules"] == WORLD * STEPS * TURNS
    assert found["collectives"] == collectives
    assert found["verdict"] == 1
    assert all(row["shortest"] >= 0 for row in slices)
    assert overlap == [{"n": 0}]
    assert flows == [{"n": STEPS * (COLLECTIVES * (WORLD - 1) + MESSAGES)}]  # arrows from each member to the next
    assert processes[0]["name"] == "rank 0 (node0, dp 0, tp 0, ep 0)"
    assert len(processes) == WORLD
    assert problems == []
    assert counters == [{"n": 3 * WORLD * STEPS}]
    assert {row["value"] for row in args} == {f"rank {rank}" for rank in range(COLLECTIVES)}


@pytest.mark.slow
def test_a_trace_of_264_ranks_opens(tmp_path: Path, here: Callable[..., Any]) -> None:
    """More ranks than a byte counts; a trace of 512 ranks and 10 steps, which takes 35 s, would be below 40 MiB."""
    ranks, steps = 264, 2
    made = write_run(tmp_path / "run", bend=TimelineOf(ranks), dp=33, tp=8, layers=1, experts=0, steps=steps)
    assert here("export", made).returncode == 0
    (counts,) = TraceProcessor(made / TRACE, tmp_path).ask(
        "select (select count(*) from slice) as slices, (select count(*) from process where name is not null) as ranks"
    )
    phases = 6
    expected = ranks * steps * (1 + phases + TURNS + COLLECTIVES + 1) + 2  # one message each, a pause, the verdict
    assert counts == [{"slices": expected, "ranks": ranks}]
    assert (made / TRACE).stat().st_size < (40 << 20) * ranks * steps / (512 * 10)


def test_steps_without_a_timeline_are_drawn_as_iterations(tmp_path: Path, here: Callable[..., Any]) -> None:
    made = write_run(tmp_path / "run", dp=2, steps=2)
    assert here("export", made).returncode == 0
    parsed = Parsed(made / TRACE)
    assert {name for name, _ in parsed.tracks.values()} >= {"iterations", "verdict"}
    assert {name for name, _ in parsed.tracks.values()}.isdisjoint({"phases", "modules", "collectives"})
    assert len(parsed.of("iterations")) == 4


def on_two_hosts(rank: int, records: list[Record], offsets: list[ClockOffset]) -> list[Record]:
    """The same run on two hosts: of every odd rank the wall clock is 1.5 s ahead, and the monotonic one 70 s."""
    header, *rest = records
    assert isinstance(header, Header)
    wall_ns, mono_ns = (1_500 * MS, 70_000 * MS) if rank % 2 else (0, 0)
    own = replace(
        header,
        host=f"node{rank % 2}",
        clock_domain=f"d{rank % 2}",
        wall_ns=header.wall_ns + wall_ns,
        mono_ns=header.mono_ns + mono_ns,
    )
    steps = [replace(one, start_wall_ns=one.start_wall_ns + wall_ns) if isinstance(one, Step) else one for one in rest]
    return TimelineOf(2)(rank, [own, *steps, *(offsets if rank else [])])


@pytest.mark.parametrize("compared", [True, False])
def test_ranks_of_two_hosts_stand_on_one_clock(tmp_path: Path, here: Callable[..., Any], compared: bool) -> None:
    offsets = [ClockOffset("d0", at * MS, -70_000 * MS, 5_000, 100) for at in (70_001, 72_000)] * compared
    made = write_run(tmp_path / "run", bend=lambda rank, own: on_two_hosts(rank, own, offsets), dp=2, steps=2)
    exported = here("export", made)
    assert exported.returncode == 0
    starts: dict[str, set[int]] = {}
    for name, start, _ in Parsed(made / TRACE).of("iterations"):
        starts.setdefault(name, set()).add(start)
    apart = {max(found) - min(found) for found in starts.values()}
    assert apart == ({0} if compared else {1_500 * MS})
    unknown = "the clock of node1 was not compared with that of node0: ranks of these hosts are drawn on their own wall"
    assert (unknown in exported.stderr) is not compared


def test_the_iteration_after_counting_is_called_so(tmp_path: Path, here: Callable[..., Any]) -> None:
    def settling(rank: int, records: list[Record]) -> list[Record]:
        return [replace(one, settling=1, timed=1) if isinstance(one, Plan) else one for one in records]

    made = write_run(tmp_path / "run", bend=settling, dp=2, steps=2)
    assert here("export", made).returncode == 0
    names = {name for name, _, _ in Parsed(made / TRACE).of("iterations")}
    assert names == {f"iteration {WARMUP + 1} (after counting, not used)", f"iteration {WARMUP + 2}"}


def test_out_names_the_file(run: Path, tmp_path: Path, here: Callable[..., Any]) -> None:
    assert here("export", run, "--out", tmp_path / "new" / "x.gz").returncode == 0
    assert Parsed(tmp_path / "new" / "x.gz").packets > WORLD


def test_without_the_package_one_sentence_says_what_to_install(
    run: Path, here: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "perfetto"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "perfetto", None)
    refused = here("export", run)
    assert refused.returncode == 2
    assert refused.stderr == "distprof: the package perfetto is missing: pip install 'distprof[perfetto]'\n"


def test_help_has_an_example(here: Callable[..., Any]) -> None:
    assert "distprof export runs/" in here("export", "--help").stdout


def test_the_same_run_gives_the_same_trace(run: Path, tmp_path: Path, here: Callable[..., Any]) -> None:
    for name in ("one.gz", "other.gz"):
        assert here("export", run, "--out", tmp_path / name).returncode == 0
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "other.gz").read_bytes()


def test_records_of_made_up_ranks_are_sound() -> None:
    records = TimelineOf(2)(0, rank_records(Job(dp=2), 0))
    assert len(records) > len(rank_records(Job(dp=2), 0))
