"""Tests of the size that torch's flight recorder gets from a launcher."""

from __future__ import annotations

import pytest

from distprof.config.flight_recorder import ring_variables
from distprof.config.settings import Settings


def test_the_ring_grows_with_the_window() -> None:
    assert ring_variables(Settings(timed=10), {}) == {"TORCH_FR_BUFFER_SIZE": "5500"}
    assert ring_variables(Settings(timed=1_000_000), {}) == {"TORCH_FR_BUFFER_SIZE": "20000"}
    assert ring_variables(Settings(timed=3), {}) == {}  # torch's own size suffices
    assert ring_variables(Settings(timed=0), {}) == {}


@pytest.mark.parametrize("name", ["TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE"])
def test_a_size_of_the_user_stays(name: str) -> None:
    assert ring_variables(Settings(timed=100), {name: "7"}) == {}


def test_without_collectives_nothing_is_set() -> None:
    assert ring_variables(Settings(timed=100, collectives=False), {}) == {}
