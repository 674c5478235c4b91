"""What a recorder must not do to a job: write into its files, keep its exceptions, speak in its output."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.scripts import Ended, NewWorkplace, Workplace

CASES = Path(__file__).parents[1] / "cases"


def twice(workplace: Workplace, case: str, *arguments: object, timed: int = 3) -> tuple[Ended, Ended]:
    """Plain, and under distprof."""
    words = ("python", CASES / case, *arguments)
    return workplace.start(*words).wait(), workplace.exec(*words, timed=timed)


def what_distprof_said(ended: Ended) -> list[str]:
    """But the last line, which is the launcher's."""
    return [line for line in ended.err.splitlines() if line.startswith("distprof: ")][:-1]


@pytest.mark.parametrize("streams", [[], ["streams"]])
def test_files_that_bear_the_number_of_the_shards_descriptor_are_the_scripts_own(
    new_workplace: NewWorkplace, streams: list[str]
) -> None:
    """With the standard streams closed what distprof says has no place to go to: not even such a file."""
    workplace = new_workplace()
    plain, recorded = twice(workplace, "fd_reused_user_file_corrupted.py", 3, *streams)
    *files, _ = plain.out.splitlines()
    assert files == [repr(b"my checkpoint\nend of my checkpoint\n")] * 3
    assert (plain.code, recorded.code, recorded.out) == (0, 0, plain.out)
    said = "distprof: rank 0 stops recording, what it recorded so far is kept: the script has closed the descriptor of"
    assert [line.startswith(said) for line in what_distprof_said(recorded)] == [True] * (not streams)
