"""Formatted numbers, units and spreads."""

from __future__ import annotations

import pytest

from distprof.merge.quantities import (
    byte_size,
    common_unit,
    duration,
    duration_spread,
    macs,
    parameters_spread,
    percentage,
    plain,
    quantity,
    whole_percent,
)
from distprof.merge.report import Spread
from distprof.merge.text.format.lines import join_blocks, table


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1 K"),
        (38_597_376, "38.6 M"),
        (5.2e9, "5.2 G"),
        (3.13993e12, "3.14 T"),
        (6.2e18, "6.2 E"),
        (-1500.0, "-1.5 K"),
        (None, "n/a"),
    ],
)
def test_quantity(value: float | None, text: str) -> None:
    assert quantity(value) == text


def test_units() -> None:
    assert macs(5.2e9) == "5.2 GMACs"
    assert macs(12) == "12 MACs"
    assert [duration(ns) for ns in (0, 120, 24_310_000, 1.89e9, None)] == [
        "0 us",
        "0.12 us",
        "24.31 ms",
        "1.89 s",
        "n/a",
    ]
    assert [byte_size(b) for b in (512, 600 * 2**20, 1.5 * 2**30, None)] == ["512 B", "600 MiB", "1.5 GiB", "n/a"]
    assert [plain(v) for v in (4.0, 433.068, None)] == ["4", "433.07", "n/a"]
    assert [percentage(1, 8), percentage(0, 0), percentage(None, 8)] == ["12.5%", "0%", "n/a"]


@pytest.mark.parametrize(
    ("share", "text", "whole"),
    [
        (0.0, "0%", "0%"),
        (0.5, "50%", "50%"),
        (0.12344, "12.34%", "12%"),
        (0.005, "0.5%", "<1%"),
        (0.0049, "0.49%", "<1%"),
        (1e-4, "0.01%", "<1%"),
        (9.9e-5, "0.0099%", "<1%"),
        (4.26e-7, "0.000043%", "<1%"),
        (2e-10, "0.00000002%", "<1%"),
    ],
)
def test_what_is_not_zero_never_reads_zero(share: float, text: str, whole: str) -> None:
    assert percentage(share, 1) == text
    assert whole_percent(share) == whole


def test_spreads() -> None:
    apart = Spread(min=22e6, median=24e6, max=65e6, mean=30e6, max_rank=5)
    assert duration_spread(apart) == "24 ms  [22 ms .. 65 ms]"
    assert parameters_spread(apart) == "30 M  [22 M .. 65 M]"
    assert duration_spread(Spread(24e6, 24e6, 24e6, 24e6, 0)) == "24 ms"
    assert duration_spread(None) == parameters_spread(None) == "n/a"


@pytest.mark.parametrize(("largest", "name"), [(9e5, "us"), (1e6, "ms"), (9.9e9, "ms"), (1e10, "s"), (0, "ms")])
def test_common_unit(largest: float, name: str) -> None:
    assert common_unit([None, 1.0, largest] if largest else [None]).name == name


def test_columns_are_aligned() -> None:
    lines = table(("name", "n"), [("a", "1"), ("long", "1000")], left=("name",))
    assert lines == ["name     n", "a        1", "long  1000"]


def test_blocks_are_separated_by_one_empty_line() -> None:
    assert join_blocks([["a", "b"], [], ["c"]]) == "a\nb\n\nc\n"
