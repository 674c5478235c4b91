"""Renews what the README and the pages of docs/ show of one run: pictures of its page in Chromium (the first screen in
light colours, the timeline in dark ones), two of its plots, and the first page of its report.

python tools/pictures.py runs/demo/report
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import types
from importlib import import_module
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
PLOTS = ("skew_map.png", "expert_load.png")
#: (file, theme, element at the top of the picture, height in pixels)
PICTURES = (
    ("page_answer.png", "light", "body", 820),
    ("page_timeline.png", "dark", "#timeline", 820),
)
LAST_SHOWN = "memory "  # how the last line of the first page begins that the README shows


def take_pictures(page: Path) -> None:
    # As in tests/conftest.py: with tests on sys.path, tests/distprof would shadow distprof.
    support = types.ModuleType("support")
    support.__path__ = [str(ROOT / "tests" / "support")]
    sys.modules["support"] = support
    with import_module("support.page.browser").started() as browser:
        for name, theme, top, height in PICTURES:
            browser.open(page.resolve())
            browser.driver.set_window_size(1180, height)
            browser.run("page.setTheme(arguments[0])", theme)
            browser.run("document.querySelector(arguments[0]).scrollIntoView()", top)
            browser.driver.save_screenshot(str(IMAGES / name))
            with Image.open(IMAGES / name) as picture:  # fewer colours make the file small
                picture.convert("RGB").quantize(128).save(IMAGES / name, optimize=True)


def with_first_page(readme: str, summary: str) -> str:
    """Returns ``readme`` with the begin of ``summary`` as its first block of report, which begins with distprof: ..."""
    shown = re.match(rf".*?^{LAST_SHOWN}[^\n]*\n", summary, re.DOTALL | re.MULTILINE)
    if shown is None:
        raise SystemExit(f"the summary has no line that begins with {LAST_SHOWN!r}")
    block = f"```\n{shown[0]}```\n"
    return re.sub(r"^```\ndistprof: .*?^```\n", lambda _: block, readme, count=1, flags=re.DOTALL | re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(description="Renew what the README shows of one run.")
    parser.add_argument("report", type=Path, help="the folder of the run's report")
    report: Path = parser.parse_args().report
    for plot in PLOTS:
        shutil.copyfile(report / "plots" / plot, IMAGES / plot)
    take_pictures(report / "report.html")
    readme = ROOT / "README.md"
    summary = (report / "summary.txt").read_text(encoding="utf-8")
    readme.write_text(with_first_page(readme.read_text(encoding="utf-8"), summary), encoding="utf-8")


if __name__ == "__main__":
    main()
