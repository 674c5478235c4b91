"""A Chromium without a screen, in which tests open the report's page: the packages chromium and chromium-driver.

Where they are missing, tests of the page are skipped by name; with DISTPROF_BROWSER=required, as in ``.ci/run``, they
fail.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

_PATIENCE_S = 120
_FLAGS = (
    *("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--window-size=1280,900"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
)


class Browser:
    """One session; each page starts with an empty log and no choice of colours."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path) -> None:
        """Opens a page, and waits until it is drawn."""
        self.driver.get("about:blank")
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
        self.driver.get(page.as_uri())
        assert self.wait("return document.documentElement.dataset.ready") == "yes", self.text("#failed")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, script: str) -> Any:
        """Returns the first result of ``script`` that is true."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, _PATIENCE_S, 0.05).until(lambda driver: driver.execute_script(script))

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def text(self, selector: str) -> str:
        return str(self.run("return document.querySelector(arguments[0]).textContent", selector))

    def texts(self, selector: str) -> list[str]:
        script = "return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)"
        found: list[str] = self.run(script, selector)
        return found

    def press(self, *keys: str) -> None:
        self.driver.switch_to.active_element.send_keys(*keys)

    def hover(self, selector: str, x: float, y: float) -> None:
        """Moves the mouse to a place of an element, in pixels from its upper left corner."""
        from selenium.webdriver import ActionChains

        element = self.find(selector)
        self.run("arguments[0].scrollIntoView({block: 'center'})", element)
        size = element.size
        moves = ActionChains(self.driver, duration=0)
        moves.move_to_element_with_offset(
            element, round(x - size["width"] / 2), round(y - size["height"] / 2)
        ).perform()

    def complaints(self) -> list[str]:
        """Returns what the console has, and empties it."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Returns the addresses that were asked for since the page was opened, without what its policy stopped."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        failed = [one["params"] for one in events if one["method"] == "Network.loadingFailed"]
        stopped = {one["requestId"] for one in failed if one.get("blockedReason") == "csp"}
        sent = [one["params"] for one in events if one["method"] == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in sent if one["requestId"] not in stopped]


def installed() -> AbstractContextManager[Browser] | None:
    """Returns a browser to start, or None where the packages are missing."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    return None if program is None or driver is None else _session(program, driver)


def started() -> AbstractContextManager[Browser]:
    """Returns a browser to start; skips or fails the test where there is none."""
    found = installed()
    if found is not None:
        return found
    missing = "chromium and chromedriver are not both installed: the report's page is not tested"
    if os.environ.get("DISTPROF_BROWSER") == "required":
        pytest.fail(f"{missing}, and DISTPROF_BROWSER=required asks for it", pytrace=False)
    pytest.skip(missing)


@contextmanager
def _session(program: str, driver: str) -> Iterator[Browser]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*_FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    session = webdriver.Chrome(options=options, service=Service(driver))
    try:
        session.set_script_timeout(_PATIENCE_S)
        yield Browser(session)
    finally:
        session.quit()


#: Writes a page of a name and returns its path.
WritePage = Callable[[str, bytes], Path]
