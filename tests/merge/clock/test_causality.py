"""Causality refuses offsets that cannot be right, and no others."""

from __future__ import annotations

from collections import Counter

from distprof.merge.clock.causality import Interval, contradictions, refused_hosts


def collective(shift_ns: int = 0, bound_ns: int = 0) -> list[Interval]:
    """Host b enqueues last, at 100 of the true clock; ``shift_ns`` is the error of the offset of host b."""
    return [Interval("a", 0, 110, 0), Interval("b", 100 + shift_ns, 112 + shift_ns, bound_ns)]


def test_a_right_offset_contradicts_nothing() -> None:
    assert contradictions([collective(), collective(5), collective(-5)]) == {}


def test_a_member_that_completes_before_the_last_one_came_is_a_contradiction() -> None:
    assert contradictions([collective(11), collective(9), collective(50)]) == {("a", "b"): 2}


def test_within_the_bounds_nothing_is_contradicted() -> None:
    assert contradictions([collective(40, bound_ns=30)]) == {}
    assert contradictions([collective(41, bound_ns=30)]) == {("a", "b"): 1}


def test_an_offset_in_the_other_direction_shows_where_the_other_host_comes_last() -> None:
    late = [Interval("a", 100, 110, 0), Interval("b", 0 - 50, 112 - 50, 0)]
    assert contradictions([late]) == {("b", "a"): 1}


def test_members_of_one_host_and_unknown_completions_say_nothing() -> None:
    one_host = [Interval("a", 0, 5, 0), Interval("a", 50, 60, 0)]
    unknown = [Interval("a", 0, None, 0), Interval("b", 50, 60, 0)]
    assert contradictions([one_host, unknown, []]) == {}


def test_the_reference_is_never_refused() -> None:
    assert refused_hosts(Counter({("a", "b"): 1, ("c", "a"): 7}), "a") == {"b", "c"}
    assert refused_hosts(Counter(), "a") == frozenset()


def test_one_wrong_host_does_not_take_others_with_it() -> None:
    assert refused_hosts(Counter({("b", "c"): 5, ("c", "d"): 4, ("a", "c"): 1}), "a") == {"c"}
