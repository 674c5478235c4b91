"""The page of a comparison in a real Chromium: it complains of nothing, asks for nothing, and does what it offers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.page.browser import Browser, WritePage
from support.reports import collectives_of
from support.simulated.sides import changed_side, side

from distprof.merge.diff.compare import compare
from distprof.merge.diff.data import Diff
from distprof.merge.diff.page.page import render_page
from distprof.merge.diff.samples import Side

pytestmark = pytest.mark.slow
PLACES = "[data-table=places]"


@pytest.fixture(scope="module")
def diff() -> Diff:
    """Returns a comparison that has all parts of the page."""
    first, second = side(), changed_side("head", 3.0)
    both = collectives_of(4)
    first = replace(first, report=replace(first.report, collectives=replace(both, rows=both.rows[1:])))
    run = replace(second.report.run, torch="2.99", script="<img src=x onerror='window.hacked = 1'>")
    report = replace(second.report, run=run, modules=second.report.modules[:-1], collectives=both)
    return compare(first, Side(report, second.places, second.own))


@pytest.fixture(scope="module")
def page(write_page: WritePage, diff: Diff) -> Path:
    return write_page("diff", render_page(diff))


@pytest.fixture
def opened(browser: Browser, page: Path) -> Browser:
    browser.open(page)
    return browser


def test_it_opens_without_a_complaint_or_a_request(opened: Browser, page: Path) -> None:
    assert opened.complaints() == []
    assert {address for address in opened.requests() if not address.startswith("data:")} == {page.as_uri()}
    assert opened.run("return window.hacked") is None
    shown = opened.run("return [...document.querySelectorAll('.slot')].map((one) => one.children.length)")
    assert len(shown) == 6 and all(shown)
    for width in (1280, 700):
        opened.driver.set_window_size(width, 900)
        assert opened.run("return document.documentElement.scrollWidth <= innerWidth"), f"wider than {width}"
    opened.driver.set_window_size(1280, 900)


def test_an_interval_tells_what_chance_allows(opened: Browser, diff: Diff) -> None:
    opened.hover(f"{PLACES} tbody tr:first-child td.interval", 40, 8)
    (first, *_) = diff.places.changes
    assert opened.text("#tip").startswith(f"+{100 * first.change:.1f} %, by chance between ")
    assert opened.text("#tip").endswith(": a real change")
    boxes = opened.run(
        """
        const track = document.querySelector("[data-table=places] tbody .track");
        return [".range", ".dot", ".zero"].map((one) => track.querySelector(one).getBoundingClientRect())
          .map((box) => [box.left, box.right]);"""
    )
    (low, high), (left, right), (zero, _) = boxes
    assert zero < low < (left + right) / 2 < high, "the bounds of a slower module lie to the right of zero"


def test_costs_go_to_the_right_and_gains_to_the_left(opened: Browser, diff: Diff) -> None:
    sides = opened.run(
        """
        return [...document.querySelectorAll("[data-table=places] td:nth-child(5) .track")].map((track) => {
          const [zero, bar] = [".zero", ".side"].map((one) => track.querySelector(one).getBoundingClientRect());
          return (bar.left + bar.right) / 2 > zero.left;
        });"""
    )
    assert sides == [one.cost_ns > 0 for one in diff.places.changes]


def test_changes_are_sorted_as_numbers(opened: Browser, diff: Diff) -> None:
    column = f"{PLACES} thead th:nth-child(4)"
    for down in (True, False):
        button = opened.find(f"{column} button")
        opened.run("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()
        assert opened.find(column).get_attribute("aria-sort") == ("descending" if down else "ascending")
        shown = opened.texts(f"{PLACES} tbody td.interval .words")
        expected = sorted((100 * one.change for one in diff.places.changes), reverse=down)
        assert [float(text.split(" %")[0]) for text in shown] == pytest.approx(expected, abs=0.06)


def test_it_is_filtered_and_printed_and_has_two_colour_schemes(opened: Browser, diff: Diff) -> None:
    opened.find(f"{PLACES} input[type=search]").send_keys("slower")
    assert opened.texts(f"{PLACES} tbody tr td:first-child") == ["forward of head"]
    back = "return getComputedStyle(document.body).backgroundColor"
    light = opened.run(back)
    opened.find("#theme").click()
    assert opened.run(back) != light
    opened.run("localStorage.clear()")
    printed = opened.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert len(printed["data"]) > 20_000
