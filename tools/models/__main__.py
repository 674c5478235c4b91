from __future__ import annotations

import sys
from pathlib import Path

from models.page import page

PAGE = Path(__file__).parents[2] / "docs" / "MODELS.md"

if __name__ == "__main__":
    (Path(sys.argv[1]) if sys.argv[1:] else PAGE).write_text(page(), encoding="utf-8")
