"""Tests docs/HEARTBEAT.md against the code: the table of the layout, the numbers, and the page's reader."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distprof.heartbeat import layout, page_folder
from distprof.heartbeat.blocks import Layout
from distprof.heartbeat.durations import upper_ns
from distprof.heartbeat.page import create_page, open_page
from distprof.heartbeat.slot import State
from distprof.heartbeat.slot_writer import SlotRank, SlotWriter
from distprof.probes.collectives.group_status import members_number
from distprof.records import PHASES

PAGE = (Path(__file__).parent.parent / "docs" / "HEARTBEAT.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\d+) \| (\w+)[^|]*\| `([^`]+)` \|$", PAGE, re.MULTILINE)


def test_the_table_has_every_block() -> None:
    blocks = {name.lower(): block for name, block in vars(layout).items() if isinstance(block, Layout)}
    written = {name: (int(offset), f"<Q{values}") for offset, name, values in ROWS}
    assert written.pop("newest_request") == (layout.NEWEST_REQUEST, "<QQ")
    assert written.pop("total") == (layout.TOTAL, "<QQ")
    assert written.pop("histogram") == (layout.HISTOGRAM, "<Q128I") and layout.HISTOGRAM_END == 64 + 4 * 128
    assert written == {name: (block.offset, block.format.format) for name, block in blocks.items()}


def test_phases_are_those_of_the_records() -> None:
    assert layout.PHASES == PHASES


def test_the_numbers() -> None:
    assert f"version {layout.VERSION}" in PAGE
    assert f"a header of {layout.HEADER_BYTES} bytes and {layout.SLOTS} slots of {layout.SLOT_BYTES} bytes" in PAGE
    for state in State:
        assert f"{state.value} {state.name.lower()}" in PAGE
    assert [upper_ns(bucket - 1) for bucket in (1, 2, 5, 60)] == [
        (4 + bucket % 4) * 2 ** (13 + bucket // 4) for bucket in (1, 2, 5, 60)
    ]


def test_members_have_one_number_whatever_their_order() -> None:
    assert members_number((3, 1, 2, 0)) == members_number((0, 1, 2, 3)) != members_number((0, 1, 2))


def test_the_reader_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_folder, "bases", lambda: [tmp_path])
    token = create_page()
    page = open_page(token)
    for rank, iteration in ((8, 41), (9, 40)):
        index = page.claim(rank - 8)
        assert index is not None
        slot = SlotWriter(page, index, SlotRank(rank, 16, rank - 8, 1, "host", "cpu", 0), time.perf_counter_ns)
        for number in range(iteration + 1):
            slot.iteration_begins(number, State.QUIET, 0, 0)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "reader.py").write_text(code, encoding="utf-8")
    path = tmp_path / f"distprof-{token}" / "page"
    read = subprocess.run([sys.executable, tmp_path / "reader.py", path], capture_output=True, text=True, check=True)
    assert read.stdout == "rank 8 iteration 41\nrank 9 iteration 40\n"
