"""Tests of the progress line, which appears on terminals only."""

from __future__ import annotations

import io

from support.simulated.clock import FakeClock

from distprof.commands.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def said(stream: io.StringIO, waited_ms: float) -> str:
    clock = FakeClock()
    progress = Progress(stream, clock)
    progress.files(1, 8)
    clock.advance_ms(waited_ms)
    progress.files(8, 8)
    progress.say("draws skew_map")
    progress.clear()
    return stream.getvalue()


def test_progress_replaces_its_line_and_vanishes() -> None:
    erase = "\r\x1b[K"
    assert said(Terminal(), 1001) == f"{erase}distprof: read 8 of 8 shards{erase}distprof: draws skew_map{erase}"


def test_nothing_is_said_within_a_second_or_to_a_file() -> None:
    assert said(Terminal(), 999) == ""
    assert said(io.StringIO(), 60_000) == ""
