"""Makes the table of docs/STACKS.md from the declarations at the tests in tests/stacks.

ZERO = Line("deepspeed", "DeepSpeed ZeRO 1, 2, 3")

@ZERO.finds("dp", "full sizes")
@ZERO.misses("what it offloads")
def test_zero() -> None: ...
"""

from __future__ import annotations

import inspect
import re
import runpy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from support.stacks import OPTIONAL, STACKS

HOUSE = Path(__file__).parents[2]
PAGE = HOUSE / "docs" / "STACKS.md"
HEAD = "| stack | version | found | not found |\n|---|---|---|---|\n"

Test = TypeVar("Test", bound=Callable[..., None])


@dataclass(frozen=True)
class Line:
    """A row of the table: what distprof finds of a stack in ``package``, and what not; ``tests`` are FILE::NAME."""

    package: str
    stack: str
    found: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    tests: set[str] = field(default_factory=set)

    def finds(self, *what: str) -> Callable[[Test], Test]:
        """Declares what is found, as the decorated test shows."""
        return self._shown_by(self.found, what)

    def misses(self, *what: str) -> Callable[[Test], Test]:
        """Declares what is not found, and what happens instead, as the decorated test shows."""
        return self._shown_by(self.missed, what)

    def _shown_by(self, cell: list[str], what: Iterable[str]) -> Callable[[Test], Test]:
        def declare(test: Test) -> Test:
            cell.extend(what)
            self.tests.add(f"{Path(inspect.getfile(test)).name}::{test.__name__}")
            return test

        return declare

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """The cells without the version, which is that of the installed package."""
        return self.stack, self.package, "; ".join(self.found), "; ".join(self.missed)

    def __str__(self) -> str:
        stack, package, *rest = self.cells
        cells = stack, f"{package} {version(package).partition('+')[0]}", *rest
        return "|" + "".join(f" {cell}".rstrip() + " |" for cell in cells) + "\n"


def declared() -> list[Line]:
    """Returns all lines: torch's first, then in the order of the lists of stacks."""
    order = ("torch", *STACKS, *OPTIONAL)
    return sorted(_lines(), key=lambda line: order.index(line.package))


def _lines() -> Iterator[Line]:
    for file in sorted((HOUSE / "tests" / "stacks").glob("test_*.py")):
        yield from (value for value in runpy.run_path(str(file)).values() if isinstance(value, Line))


def rows() -> list[list[str]]:
    """Returns the cells of the lines on the page."""
    lines: list[str] = re.findall(r"^\| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [[cell.strip() for cell in line.split(" |")] for line in lines[1:]]


def write(passed: set[str]) -> str:
    """Writes the table if the tests of all lines ``passed``; otherwise returns a sentence that names the others."""
    lines = declared()
    missing = sorted(set().union(*(line.tests for line in lines)) - passed)
    if missing:
        return f"docs/STACKS.md is left as it was: not passed in this run are {', '.join(missing)}"
    table = HEAD + "".join(map(str, lines))
    page = re.sub(r"^(\|.*\n)+", lambda _: table, PAGE.read_text(encoding="utf-8"), count=1, flags=re.MULTILINE)
    PAGE.write_text(page, encoding="utf-8")
    return ""
