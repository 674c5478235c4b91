"""Tests of a node's page: what a rank writes, other processes read, also while it writes and after it was killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from distprof.heartbeat import page_folder
from distprof.heartbeat.blocks import BlockReader, BlockWriter, read_block
from distprof.heartbeat.layout import ACTIVITY, IDENTITY, PAGE_BYTES, PROGRESS, SLOTS, slot_offset
from distprof.heartbeat.page import Page, create_page, open_page
from distprof.heartbeat.page_folder import NoPage, file_system, make_folder
from distprof.heartbeat.slot import (
    DeviceMacs,
    GroupProgress,
    LastCollective,
    RankInfo,
    Request,
    State,
    StepFigures,
    WindowWork,
)
from distprof.heartbeat.slot_reader import SlotReader, read_slots
from distprof.heartbeat.slot_writer import SlotRank, SlotWriter, write_request

WHO = SlotRank(11, 16, local_rank=3, node_rank=1, host="node-7", device="cpu", wall_ns=5, gpu_uuid="GPU-1")


def writer(token: str, who: SlotRank = WHO) -> tuple[SlotWriter, int]:
    page = open_page(token)
    index = page.claim(who.local_rank)
    assert index is not None
    return SlotWriter(page, index, who, time.perf_counter_ns), index


def only(token: str) -> RankInfo:
    ((_, found),) = read_slots(open_page(token))
    return found


def test_what_a_rank_writes_is_read(token: str) -> None:
    slot, index = writer(token)
    assert index == 3
    slot.place("dp 1, tp 0")
    assert not slot.iteration_begins(41, State.TIMED, 2, 50)
    slot.activity("backward", "layers.7.mlp")
    groups = [GroupProgress("tp", 2, 7, 120, 119), GroupProgress("dp", 8, 2**64 - 1, 40, -1)]
    slot.groups(groups)
    collective = LastCollective("tp", 2, 7, 120, 119, "all_gather")
    slot.collective(collective)
    figures = StepFigures(40, 12_000_000, (3_000_000, 4_000_000, -1, 5_000_000, -1, -1, 0), -1, 4096, 1 << 30, 77, 2.5)
    slot.counters(figures)
    macs = tuple(DeviceMacs("NVIDIA H200", 0, arithmetic, ord(arithmetic)) for arithmetic in "abcde")
    slot.work(WindowWork(2, 13_000_000, 1, macs))
    slot.error("the script", "RuntimeError: ü")
    position = SlotReader(open_page(token), index).position()
    assert position is not None and position.looked_ns > 0 and list(position.groups) == groups
    assert (position.iteration, position.state, position.is_recorded) == (41, State.TIMED, True)
    found = only(token)
    assert (found.rank, found.world_size, found.local_rank, found.node_rank) == (11, 16, 3, 1)
    assert (found.pid, found.host, found.place, found.device) == (os.getpid(), "node-7", "dp 1, tp 0", "cpu")
    assert (found.iteration, found.state, found.window, found.window_end) == (41, State.TIMED, 2, 50)
    assert (found.phase, found.module, list(found.groups)) == ("backward", "layers.7.mlp", groups)
    assert found.collective == collective
    assert found.last == figures
    assert found.work == WindowWork(2, 13_000_000, 1, macs[:0:-1])  # those with most MACs
    assert found.gpu_uuid == "GPU-1"
    assert (found.error_where, found.error, found.answer) == ("the script", "RuntimeError: ü", None)


def test_texts_are_cut_at_a_character(token: str) -> None:
    slot, _ = writer(token)
    slot.activity("forward", "ü" * 500)
    module = only(token).module
    assert set(module) == {"ü"} and 90 <= len(module) < 100


def test_durations_are_summed_up(token: str) -> None:
    now = [0]
    page = open_page(token)
    assert page.claim(0) == 0
    slot = SlotWriter(page, 0, WHO, lambda: now[0])
    for number in range(100):
        now[0] += 10_000_000 if number != 50 else 900_000_000
        slot.iteration_begins(number, State.QUIET, 0, 0)
    found = only(token)
    assert (found.duration_ns, found.began_ns) == (10_000_000, now[0])
    assert found.median_ns is not None and 10_000_000 <= found.median_ns <= 12_500_000
    assert found.smoothed_ns is not None and 10_000_000 <= found.smoothed_ns < 20_000_000
    slot.iteration_begins(0, State.QUIET, 0, 0, counts=False)  # the iterations so far were parts of one
    assert only(token).duration_ns is None


def test_a_request_reaches_the_rank_by_one_load_and_is_answered(token: str) -> None:
    slot, index = writer(token)
    daemon = open_page(token)
    assert not slot.iteration_begins(1, State.QUIET, 0, 0)
    asked = Request(number=4, start=20, counted=1, timed=10, window=1)
    write_request(daemon, index, asked)
    assert slot.iteration_begins(2, State.QUIET, 0, 0)
    assert slot.request() == asked
    assert not slot.iteration_begins(3, State.QUIET, 0, 0)  # it is known now
    slot.answer(4, 3, window=1)
    answer = only(token).answer
    assert answer is not None and (answer.request, answer.window, answer.iteration, answer.reason) == (4, 1, 3, "")
    slot.answer(5, 9, refusal="iteration 8 has passed")
    answer = only(token).answer
    assert answer is not None and (answer.request, answer.reason) == (5, "iteration 8 has passed")


def test_a_request_that_is_not_whole_yet_is_read_later(token: str) -> None:
    slot, index = writer(token)
    write_request(open_page(token), index, Request(1, 20, 1, 10, 1))
    page = open_page(token)
    page.memory[slot_offset(index) : slot_offset(index) + 8] = (2).to_bytes(8, sys.byteorder)  # its block comes later
    assert slot.iteration_begins(2, State.QUIET, 0, 0) and slot.request() is None
    write_request(page, index, Request(2, 30, 1, 10, 1))
    assert slot.iteration_begins(3, State.QUIET, 0, 0)
    found = slot.request()
    assert found is not None and found.start == 30


def test_a_restarted_rank_finds_its_slot_clean(token: str) -> None:
    slot, index = writer(token)
    slot.iteration_begins(7, State.TIMED, 3, 9)
    slot.error("there", "what")
    slot.activity("forward", "old")
    slot.collective(LastCollective("tp", 2, 7, 120, 119, ""))
    write_request(open_page(token), index, Request(1, 20, 1, 10, 1))
    slot._page.close()  # as the system does when a process ends
    again, second = writer(token, replace(WHO, world_size=8))
    assert second == index
    found = only(token)
    assert (found.world_size, found.iteration, found.error, found.module) == (8, 0, "", "")
    assert (found.median_ns, found.window, found.collective) == (None, 0, None)
    assert not again.iteration_begins(1, State.QUIET, 0, 0)  # the request was to the rank before


#: Writes as fast as it can: in each block all values follow from one number.
_WRITING = """
import sys, time
from pathlib import Path
from distprof.heartbeat import page_folder
page_folder.bases = lambda: [Path(sys.argv[1])]
from distprof.heartbeat.page import open_page
from distprof.heartbeat.slot import LastCollective, StepFigures
from distprof.heartbeat.slot_writer import SlotRank, SlotWriter
page = open_page(sys.argv[2])
index = page.claim(int(sys.argv[3]))
slot = SlotWriter(page, index, SlotRank(index, 2, index, 0, "host", "cpu", 0), time.perf_counter_ns)
print(index, flush=True)
number = 0
while True:
    number += 1
    slot.iteration_begins(number, number % 3, number + 1, number + 2)
    slot.activity(str(number), "x" * (number % 150) + str(number))
    slot.collective(LastCollective(str(number), number, number, number, number, str(number)))
    slot.counters(StepFigures(number, number, (number,) * 7, number, number, number, number, number))
"""


def start_writing(base: Path, token: str, index: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _WRITING, str(base), token, str(index)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline().strip() == str(index)
    return process


def consistent(found: RankInfo) -> bool:
    number = found.iteration
    whole = (found.state, found.window, found.window_end) == (number % 3, number + 1, number + 2)
    module = found.module.lstrip("x")
    iteration, duration_ns, phases_ns, *others = found.last
    collective = found.collective
    whole = whole and collective is not None and {collective.group, collective.op} == {str(collective.number)}
    return whole and found.phase == module and len({iteration, duration_ns, *phases_ns, *others}) == 1


def test_no_torn_values_are_read_while_a_rank_writes_and_after_it_was_killed(base: Path, token: str) -> None:
    process = start_writing(base, token, 0)
    try:
        page, numbers = open_page(token), set()
        for _ in range(3000):
            found = SlotReader(page, 0).rank()
            assert found is not None and (found.iteration == 0 or consistent(found))
            numbers.add(found.iteration)
        assert len(numbers) > 10  # the writer was running meanwhile
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    last = SlotReader(page, 0).rank()
    assert last is not None and consistent(last) and last.iteration >= max(numbers)


def test_a_writer_that_was_killed_within_a_store_leaves_the_values_before(token: str) -> None:
    page = open_page(token)
    block = BlockWriter(page.memory, slot_offset(0), PROGRESS)
    for number in range(1, 4):
        block.write(*[number] * 7)
    for cut in range(PROGRESS.format.size + 4):
        scratch = bytearray(page.memory[slot_offset(0) : slot_offset(1)])
        whole = BlockWriter(memoryview(scratch), 0, PROGRESS)
        before = bytes(scratch)
        whole.write(*[4] * 7)
        offset = PROGRESS.offset  # of the copy with even numbers
        torn = memoryview(bytearray(before))
        torn[offset : offset + cut] = scratch[offset : offset + cut]
        assert read_block(torn, 0, PROGRESS) in ((3,) * 7, (4,) * 7)


def test_what_has_not_changed_is_not_read_again(token: str) -> None:
    page = open_page(token)
    parsed: list[int] = []

    def parse(values: Sequence[int]) -> int:
        parsed.append(values[0])
        return values[0]

    writer = BlockWriter(page.memory, slot_offset(0), PROGRESS)
    reader = BlockReader(page.memory, slot_offset(0), PROGRESS, parse)
    assert reader.read() is None and not parsed
    writer.write(*[1] * 7)
    assert [reader.read() for _ in range(3)] == [1, 1, 1] and len(parsed) == 1
    for number in range(2, 5):  # both copies in turn
        writer.write(*[number] * 7)
        assert reader.read() == number and len(parsed) == number
    newer = PROGRESS.starts(slot_offset(0))[0]
    page.memory[newer + 8] ^= 1  # a newer copy that is damaged: the other one is whole
    assert BlockReader(page.memory, slot_offset(0), PROGRESS, tuple).read() == (3,) * 7
    writer.write(*[5] * 7)
    assert reader.read() == 5 and len(parsed) == 5


def test_random_pages_are_read_without_an_error(base: Path, token: str) -> None:
    page, chosen = open_page(token), random.Random(16)
    slot, index = writer(token)
    slot.iteration_begins(7, State.QUIET, 0, 0)
    start = slot_offset(index)
    whole = bytes(page.memory[start : start + 8192])
    for _ in range(2000):
        damaged = bytearray(whole)
        for _ in range(chosen.randrange(1, 40)):
            damaged[chosen.randrange(64, 5500)] = chosen.randrange(256)
        page.memory[start : start + 8192] = bytes(damaged)
        list(read_slots(page))
    for _ in range(500):  # whole blocks with any values
        for layout, numbers in ((IDENTITY, 8), (PROGRESS, 7)):
            values = [chosen.getrandbits(64) for _ in range(numbers)]
            texts = [chosen.randbytes(size) for size in (64, 96, 16, 48)] if layout is IDENTITY else []
            BlockWriter(page.memory, start, layout).write(*values, *texts)
        BlockWriter(page.memory, start, ACTIVITY).write(2**64 - 1, chosen.randbytes(16), chosen.randbytes(192))
        list(read_slots(page))


def test_ranks_of_one_number_get_slots_of_their_own(base: Path, token: str) -> None:
    processes = [start_writing(base, token, 5)]
    try:
        page = open_page(token)
        assert page.claim(5) == 6  # another process has 5
    finally:
        processes[0].kill()
        processes[0].communicate()
    assert open_page(token).claim(5) == 5  # the system has released it


def test_a_page_with_no_slot_left(token: str) -> None:
    page = open_page(token)
    child = os.fork()
    if not child:
        other = open_page(token)
        taken = [other.claim(index) for index in range(SLOTS)]
        Path(f"{page_folder.bases()[0]}/all").write_text(str(taken == list(range(SLOTS))), encoding="ascii")
        time.sleep(600)
    try:
        ready = page_folder.bases()[0] / "all"
        until = time.monotonic() + 300
        while (not ready.exists() or not ready.read_text()) and time.monotonic() < until:
            time.sleep(0.01)
        assert ready.read_text() == "True" and page.claim(0) is None
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_page_is_private(base: Path, token: str) -> None:
    folder = base / f"distprof-{token}"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "page").stat().st_mode & 0o777 == 0o600
    assert (folder / "page").stat().st_blocks * 512 >= PAGE_BYTES  # a store never finds the file system full


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
@pytest.mark.parametrize("what", ["", "page"])
def test_a_page_of_another_user_is_refused(base: Path, token: str, what: str) -> None:
    path = base / f"distprof-{token}" / what
    os.chown(path, 12_345, -1)
    with pytest.raises(NoPage, match="belongs to another user"):
        open_page(token)
    os.chown(path, os.geteuid(), -1)
    open_page(token)


@pytest.mark.parametrize(("what", "mode"), [("", 0o750), ("page", 0o604)])
def test_a_page_that_others_can_reach_is_refused(base: Path, token: str, what: str, mode: int) -> None:
    (base / f"distprof-{token}" / what).chmod(mode)
    with pytest.raises(NoPage, match="open to other users"):
        open_page(token)


def test_links_pipes_and_other_files_are_refused(base: Path, token: str, tmp_path: Path) -> None:
    page = base / f"distprof-{token}" / "page"
    content = page.read_bytes()
    page.unlink()
    with pytest.raises(OSError):
        open_page(token)
    page.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_bytes(content)
    with pytest.raises(OSError):
        open_page(token)
    page.unlink()
    os.mkfifo(page, 0o600)
    with pytest.raises(NoPage, match="is no page"):
        open_page(token)
    page.unlink()
    for wrong in (content[:-1], content + b"x"):
        page.write_bytes(wrong)
        page.chmod(0o600)
        with pytest.raises(NoPage, match="is no page"):
            open_page(token)
    page.write_bytes(b"other" + content[5:])
    with pytest.raises(NoPage, match="another version"):
        open_page(token)


@pytest.mark.parametrize("token", ["", "../x", "a/b", "ABCDEFGH", "12345678/", "x" * 9, None, 7, b"abcdefgh"])
def test_a_token_is_never_a_path(tmp_path: Path, token: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_folder, "bases", lambda: [tmp_path])
    with pytest.raises(NoPage, match="no valid token"):
        open_page(token)


def test_no_page_on_a_network_or_where_nobody_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert file_system(Path("/proc")) == "proc"
    monkeypatch.setattr(page_folder, "bases", lambda: [Path("/proc"), tmp_path / "none"])
    with pytest.raises(NoPage, match=r"/proc is on proc, which is not known to be local; .*none is no folder"):
        make_folder()


def test_a_full_file_system_gives_no_page_and_leaves_nothing(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(NoPage, match="No space left"):
        create_page()
    assert list(base.iterdir()) == []


def test_a_page_stays_mapped_when_its_folder_is_removed(token: str) -> None:
    slot, index = writer(token)
    page = open_page(token)
    page_folder.remove_folder(token)
    slot.iteration_begins(9, State.QUIET, 0, 0)
    found = SlotReader(page, index).rank()
    assert found is not None and found.iteration == 9
    with pytest.raises(NoPage, match="its page is gone"):
        open_page(token)


def test_a_page_has_one_descriptor(token: str) -> None:
    page: Page = open_page(token)
    descriptors = len([*Path("/proc/self/fd").iterdir()])
    page.close()
    assert len([*Path("/proc/self/fd").iterdir()]) == descriptors - 1  # it was the only one
