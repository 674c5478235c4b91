"""Writes the map of folders in CONTRIBUTING.md from the packages' docstrings: ``python tools/folder_map.py``."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HOUSE = Path(__file__).parent.parent
PAGE = HOUSE / "CONTRIBUTING.md"
_MAP = re.compile(r"(<!-- map -->\n).*?(<!-- /map -->\n)", re.DOTALL)


def folder_map() -> str:
    """Returns one paragraph for each folder: its path, its purpose and its modules."""
    tops = (HOUSE / "distprof", HOUSE / "launcher", HOUSE / "merge")
    packages = sorted(file.parent for top in tops for file in top.rglob("__init__.py"))
    return "".join(_paragraph(package) for package in packages)


def with_map(page: str) -> str:
    """Returns the page with a new map."""
    return _MAP.sub(lambda found: found[1] + folder_map() + found[2], page)


def _paragraph(package: Path) -> str:
    docstring = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or ""
    purpose = " ".join(docstring.split("\n\n")[0].split()).replace("``", "`")
    modules = sorted(file.stem for file in package.glob("*.py") if file.stem not in ("__init__", "__main__"))
    listed = f" `{'` `'.join(modules)}`" if modules else ""
    return f"- **{package.relative_to(HOUSE)}/**: {purpose}{listed}\n"


if __name__ == "__main__":
    PAGE.write_text(with_map(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
