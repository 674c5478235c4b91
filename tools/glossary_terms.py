"""Writes the words of docs/GLOSSARY.md for the report's page, which shows them as tooltips."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "GLOSSARY.md"
TERMS = ROOT / "merge" / "html" / "assets" / "glossary.json"
_LINK = re.compile(r"\[([^]]*)\]\([^)]*\)")


def entries(page: str) -> Iterator[dict[str, str]]:
    """Yields the rows of all tables of the page, each with the heading above it."""
    part = ""
    for line in page.splitlines():
        if line.startswith("## "):
            part = line.removeprefix("## ").strip()
        elif line.startswith("| ") and not line.startswith("| |"):
            word, *meaning = (_LINK.sub(r"\1", cell.strip()).replace("`", "") for cell in line.strip("| ").split(" | "))
            yield {"word": word, "meaning": ": ".join(meaning), "part": part}


def as_json(page: str) -> str:
    """Returns the file's text for a page."""
    return json.dumps(list(entries(page)), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TERMS.write_text(as_json(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
