"""The one base of every error that a user sees."""

from __future__ import annotations


class DistprofError(Exception):
    """One clear sentence for the user: what is wrong, where, and what to do.

    The command line prints it after ``distprof: `` and exits with :attr:`exit_code`; it never shows a traceback for it.
    """

    exit_code = 1


class UsageError(DistprofError):
    """The call was wrong (an option, a missing script): exit code 2."""

    exit_code = 2


class DataError(DistprofError):
    """A run, a shard or a record is not what it should be: exit code 1."""


def said(error: BaseException) -> str:
    """What an exception says, and never nothing: of one without a word, where it was raised."""
    try:
        words = str(error)
    except Exception:  # of a class of the script's
        words = ""
    if words.strip():
        return words
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is None:
        return "it says no more"
    return f"raised in {place.tb_frame.f_code.co_filename.rpartition('/')[2]}, line {place.tb_lineno}"
