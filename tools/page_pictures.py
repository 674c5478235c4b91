"""Takes pictures of a report's page in Chromium: its first screen in light colours, and its timeline in dark ones.

python tools/page_pictures.py runs/demo/report/report.html docs/images
"""

from __future__ import annotations

import argparse
import sys
import types
from importlib import import_module
from pathlib import Path

from PIL import Image

#: (file, theme, element at the top of the picture, height in pixels)
PICTURES = (
    ("page_answer.png", "light", "body", 820),
    ("page_timeline.png", "dark", "#timeline", 820),
)


def take(page: Path, folder: Path) -> None:
    # As in tests/conftest.py: with tests on sys.path, tests/distprof would shadow distprof.
    support = types.ModuleType("support")
    support.__path__ = [str(Path(__file__).parents[1] / "tests" / "support")]
    sys.modules["support"] = support
    with import_module("support.page.browser").started() as browser:
        for name, theme, top, height in PICTURES:
            browser.open(page.resolve())
            browser.driver.set_window_size(1180, height)
            browser.run("page.setTheme(arguments[0])", theme)
            browser.run("document.querySelector(arguments[0]).scrollIntoView()", top)
            browser.driver.save_screenshot(str(folder / name))
            with Image.open(folder / name) as picture:  # fewer colours make the file small
                picture.convert("RGB").quantize(128).save(folder / name, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Take the pictures of a report's page.")
    parser.add_argument("page", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    take(arguments.page, arguments.folder)


if __name__ == "__main__":
    main()
