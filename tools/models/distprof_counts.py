"""distprof's count of one call of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

from distprof.merge.report import Report
from distprof.standalone.report import ALONE_IN_THE_WORLD, profile_of
from distprof.standalone.session import Session


class Counted:
    """Holds the report when the profile has ended."""

    report: Report


@contextmanager
def counting(model: nn.Module) -> Iterator[Counted]:
    """Profiles everything that ``model`` does inside this context."""
    session, counted = Session(model, (), ALONE_IN_THE_WORLD), Counted()
    session.start()
    try:
        yield counted
    finally:
        session.stop()
    counted.report = profile_of(session, type(model).__name__, ALONE_IN_THE_WORLD, average=False).report


def count(model: nn.Module, call: Callable[[], object]) -> Report:
    with counting(model) as counted:
        call()
    return counted.report
