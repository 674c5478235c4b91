"""Tests of both clocks, and of the anchor between them when one of them jumps."""

from __future__ import annotations

from support.simulated.clock import FakeClock

from distprof.clock import Anchor, SystemClock, anchor

MS = 1_000_000


def test_a_fake_clock_moves_only_by_hand() -> None:
    clock = FakeClock(wall_ns=10 * MS, mono_ns=3)
    clock.advance_ms(1.5)
    assert (clock.wall_ns(), clock.mono_ns()) == (11_500_000, 1_500_003)
    clock.jump_wall_ms(-5)
    assert (clock.wall_ns(), clock.mono_ns()) == (6_500_000, 1_500_003)


def test_an_anchor_keeps_its_wall_time_when_the_wall_clock_jumps() -> None:
    clock = FakeClock(wall_ns=1_000 * MS, mono_ns=70 * MS)
    placed = anchor(clock)
    clock.advance_ms(20)
    clock.jump_wall_ms(3_600_000)
    clock.advance_ms(5)
    assert placed.wall_of(clock.mono_ns()) == 1_025 * MS
    assert placed.wall_of(placed.mono_ns) == 1_000 * MS
    assert placed.wall_of(60 * MS) == 990 * MS  # timestamps before the anchor are converted too


class Preempted(FakeClock):
    """A clock that is preempted in the middle of the first anchors, as on a busy machine."""

    def __init__(self, losses_ms: list[float]) -> None:
        super().__init__()
        self._losses_ms = losses_ms

    def wall_ns(self) -> int:
        wall = super().wall_ns()
        if self._losses_ms:
            self.advance_ms(self._losses_ms.pop(0))
        return wall


def test_an_anchor_is_made_in_a_moment_without_interruption() -> None:
    clock = Preempted([30, 0, 8])
    assert anchor(clock) == Anchor(wall_ns=FakeClock().wall_ns() + 30 * MS, mono_ns=30 * MS)


class Slow(FakeClock):
    """A clock that takes some time to read."""

    def mono_ns(self) -> int:
        self.advance_ms(2)
        return super().mono_ns()


def test_an_anchor_lies_in_the_middle_of_its_looks() -> None:
    placed = anchor(Slow(wall_ns=0, mono_ns=50 * MS))
    assert (placed.wall_ns, placed.mono_ns) == (2 * MS, 53 * MS)


def test_the_system_clocks_agree_with_their_anchor() -> None:
    clock = SystemClock()
    placed = anchor(clock)
    first, second = clock.mono_ns(), clock.mono_ns()
    assert first <= second
    assert abs(placed.wall_of(clock.mono_ns()) - clock.wall_ns()) < 50 * MS
