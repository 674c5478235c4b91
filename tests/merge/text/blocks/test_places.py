"""The topology on the first page, and the Places block."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.reports import report_of

from distprof.merge.text.blocks.header import header_block
from distprof.merge.text.blocks.places import places_block
from distprof.merge.wording import number_series


def lines(**job: int) -> list[str]:
    return list(places_block(report_of(steps=1, **job)))


def test_no_places_in_small_or_data_parallel_jobs() -> None:
    assert lines(dp=4, tp=2) == []
    assert lines(dp=40) == []


def test_every_place_has_a_line() -> None:
    found = lines(dp=10, tp=2, pp=2, ep=5, layers=2, experts=5)
    assert [line.split() for line in found[3:8]] == [
        ["tp", "pp", "mp", "count", "ranks"],
        ["0", "0", "0", "10", "0,", "2,", "...,", "18"],
        ["0", "1", "2", "10", "20,", "22,", "...,", "38"],
        ["1", "0", "1", "10", "1,", "3,", "...,", "19"],
        ["1", "1", "3", "10", "21,", "23,", "...,", "39"],
    ]
    assert found[9].split()[0] == "ep" and len(found) == 15


def test_many_regular_places_have_a_line_an_axis() -> None:
    assert [line.split() for line in lines(dp=16, tp=8, pp=4, layers=4, experts=0)[3:]] == [
        ["The", "coordinate", "of", "a", "rank", "on", "an", "axis", "is", "rank", "//", "stride", "%", "size."],
        ["axis", "size", "stride", "group", "of", "rank", "0"],
        ["tp", "8", "1", "0-7"],
        ["pp", "4", "128", "0,", "128,", "...,", "384"],
    ]


def test_many_irregular_places_are_cut() -> None:
    report = report_of(steps=1, dp=1, tp=5, pp=8, layers=8, experts=0)
    swapped = {7: report.ranks[8].coordinates, 8: report.ranks[7].coordinates}
    rows = tuple(replace(row, coordinates=swapped.get(row.rank, row.coordinates)) for row in report.ranks)
    assert list(places_block(replace(report, ranks=rows)))[-1] == "and 8 more places."


@given(st.sets(st.integers(0, 5000), min_size=1))
def test_ranks_fit_on_a_line(ranks: set[int]) -> None:
    text = number_series(sorted(ranks))
    assert len(text) <= 78 and text.startswith(str(min(ranks)))


@pytest.mark.parametrize(
    ("source", "sources", "words"),
    [
        ("device_mesh", {}, "(from the dimension names of the DeviceMesh)"),
        ("deepspeed", {"dp": "deepspeed", "tp": "assumed"}, "(from deepspeed)"),
        (
            "deepspeed",
            {"dp": "deepspeed", "ep": "process_groups"},
            "(from deepspeed; ep from the descriptions of process groups)",
        ),
    ],
)
def test_the_first_page_has_the_source_of_the_topology(source: str, sources: dict[str, str], words: str) -> None:
    report = report_of(dp=4, ep=2)
    text = " ".join(header_block(replace(report, topology=replace(report.topology, source=source, sources=sources))))
    assert words in " ".join(text.split())
