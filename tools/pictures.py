"""Renews what the README and the pages of docs/ show.

Of one run: pictures of its page in Chromium, two of its plots, and the first page of its report.  Of synthetic runs of
1, 256 and 4,096 ranks: pictures of their pages.

python tools/pictures.py runs/demo/report
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from tests_support import support

from distprof.merge.html.page import render_page
from distprof.merge.report import Report

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
PLOTS = ("skew_map.png", "expert_load.png")
_WIDTH, _HEIGHT = 1180, 820  # pixels of a picture
#: (file, theme, element at the top of the picture)
PICTURES = (("page_answer.png", "light", "body"), ("page_timeline.png", "dark", "#timeline"))
_JOB: dict[str, Any] = {"layers": 4, "experts": 16, "steps": 6, "hot": 3.0}
_SLOW = {**_JOB, "collectives": 4, "dp": 128, "tp": 2, "ep": 8, "slow_rank": 77, "slow_module": "blocks.3.moe.router"}
#: Pictures of synthetic jobs, which are arguments of tests/support/synthetic, and a number of ranks to grow to.
SYNTHETIC: tuple[tuple[tuple[str, str, str], dict[str, Any], int], ...] = (
    (("page_1_rank.png", "light", "[data-tree]"), {**_JOB, "dp": 1}, 1),
    (("page_256_ranks.png", "light", "#ranks"), _SLOW, 256),
    (("page_4096_ranks.png", "dark", "#skew"), _SLOW, 4096),
)
LAST_SHOWN = "memory "  # how the last line of the first page begins that the README shows


def take_pictures(page: Path) -> None:
    """Takes the pictures of ``page``, and those of the pages of synthetic jobs."""
    with support("page.browser").started() as browser, tempfile.TemporaryDirectory() as folder:
        for picture in PICTURES:
            take_picture(browser, page.resolve(), *picture)
        for picture, job, ranks in SYNTHETIC:
            synthetic = Path(folder) / "report.html"
            synthetic.write_bytes(render_page(report_of(job, ranks)))
            take_picture(browser, synthetic, *picture)


def report_of(job: dict[str, Any], ranks: int) -> Report:
    """Returns the report of a synthetic job, grown to ``ranks`` ranks."""
    report: Report = support("reports").report_of(**job)
    if ranks > len(report.ranks):
        report = support("page.many_ranks").grown(report, ranks, slow_alone=True)
    return report


def take_picture(browser: Any, page: Path, name: str, theme: str, top: str) -> None:
    """Writes a picture of a page from the element ``top`` on."""
    browser.open(page)
    browser.driver.set_window_size(_WIDTH, _HEIGHT)
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
