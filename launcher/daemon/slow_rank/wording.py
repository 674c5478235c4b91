"""Sentences about a rank that is the slowest again and again."""

from __future__ import annotations

from distprof.launcher.daemon.slow_rank.history import Slowest


def sentence(found: Slowest) -> str:
    """Returns a sentence without its full stop."""
    return (
        f"rank {found.rank} has been the slowest in {found.iterations} of the last {found.sampled} sampled iterations, "
        f"which costs about {found.lost:.0%} of the time"
    )


def end_sentence(before: Slowest) -> str:
    return f"rank {before.rank} is no longer the slowest again and again"
