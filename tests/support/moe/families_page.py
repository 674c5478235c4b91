"""The list of transformers' MoE layers in docs/EXPERTS.md, which the test of all families writes."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "EXPERTS.md"
_BEGIN, _END = "<!-- families -->\n", "<!-- /families -->\n"


def listed() -> set[str]:
    """Returns the layers that the page calls exact."""
    names = PAGE.read_text(encoding="utf-8").partition(_BEGIN)[2].partition("\n\n")[0]
    return set(re.findall(r"`(\w+)`", names))


def write(exact: Collection[str], others: Mapping[str, str]) -> None:
    """Writes the names of the ``exact`` layers, and a table of what the report has of the ``others``."""
    names = ", ".join(f"`{name}`" for name in sorted(exact))
    rows = "".join(f"| `{name}` | {what} |\n" for name, what in others.items())
    made = f"Exact, {len(exact)}: {names}.\n\n| layer | what the report has |\n|---|---|\n{rows}"
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    PAGE.write_text(before + begin + made + end + after, encoding="utf-8")
