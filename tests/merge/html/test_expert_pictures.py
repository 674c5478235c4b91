"""What the page shows of experts, under the mouse and the keys of a real Chromium."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.page.browser import Browser, WritePage
from support.reports import report_of

from distprof.merge.html.page import render_page
from distprof.merge.report import TOKENS_AND_DEVICE, TokensOrDevice

pytestmark = pytest.mark.slow


def drag(browser: Browser, selector: str, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drags the mouse over an element, from and to places as parts of its size."""
    from selenium.webdriver import ActionChains

    element = browser.find(selector)
    browser.run("arguments[0].scrollIntoView({block: 'center'})", element)
    places = [
        [round((part - 0.5) * element.size[one]) for part, one in zip(place, ("width", "height"), strict=True)]
        for place in (start, end)
    ]
    moves = ActionChains(browser.driver, duration=0).move_to_element_with_offset(element, *places[0]).click_and_hold()
    moves.move_to_element_with_offset(element, *places[1]).release().perform()


@pytest.fixture(scope="module")
def page_of_experts(write_page: WritePage) -> Path:
    return write_page("experts", render_page(report_of(dp=8, ep=8, layers=64, experts=64, steps=6, hot=3, routes=True)))


def test_the_map_of_experts_is_read_and_zoomed_with_the_mouse(browser: Browser, page_of_experts: Path) -> None:
    browser.open(page_of_experts)
    canvas = "[data-heat=expert_load] canvas[tabindex]"
    size = browser.find(canvas).size
    browser.hover(canvas, size["width"] / 2, size["height"] / 2)
    assert re.fullmatch(r"blocks\.\d+\.moe, expert \d+: load / mean of its layer \d+\.\d\d", browser.text("#tip"))
    drag(browser, canvas, (0.3, 0.02), (0.6, 0.02))  # within the first row
    assert browser.find(canvas).size["height"] < size["height"]
    assert not browser.find("#tip").is_displayed(), "it has the figures of a cell that lies elsewhere now"
    browser.hover(canvas, 300, 12)
    assert browser.text("#tip").startswith("blocks.1.moe, expert ")


def test_a_chart_that_was_zoomed_tells_nothing_of_where_the_mouse_was(browser: Browser, page_of_experts: Path) -> None:
    browser.open(page_of_experts)
    over = "[data-chart=expert_balance] .u-over"
    size = browser.find(over).size
    browser.hover(over, size["width"] / 2, size["height"] / 2)
    assert browser.text("#tip").startswith("iteration ")
    drag(browser, over, (0.2, 0.5), (0.6, 0.5))
    assert not browser.find("#tip").is_displayed()


def test_tokens_against_time_tell_the_ep_rank(browser: Browser, write_page: WritePage) -> None:
    report = report_of(dp=2, ep=2, layers=2, experts=4, steps=4, noise=0)
    (layer,) = report.experts
    found = TokensOrDevice(TOKENS_AND_DEVICE, 0.5, 8e6, (1.5, 1.0), 3e6)
    timed = replace(layer, ep_tokens=(1600, 800), ep_own_ns=(12e6, 6e6), tokens_or_device=found, ep_cost_ns=3e6)
    browser.open(write_page("times", render_page(replace(report, experts=(timed,)))))
    over = "[data-chart=expert_times] .u-over"
    size = browser.find(over).size
    for place, rank, told in ((0.1, 1, "ep ranks 6.00 ms"), (0.9, 0, "slow for their tokens 12.00 ms")):
        browser.hover(over, size["width"] * place, size["height"] / 2)
        first, _, explained, *own = browser.text("#tip").split("\n")
        assert (first, own) == (f"ep rank {rank}", [told])
        assert explained.startswith("what the tokens explain ")


def test_an_expert_without_tokens_has_a_colour_of_its_own_and_ep_ranks_are_separated(
    browser: Browser, write_page: WritePage
) -> None:
    from selenium.webdriver.common.keys import Keys

    report = report_of(dp=2, ep=2, layers=2, experts=4, steps=2)
    (layer,) = report.experts
    dead = replace(layer, tokens=(*layer.tokens[:3], 0), dead=(3,))
    browser.open(write_page("dead", render_page(replace(report, experts=(dead,)))))
    canvas = "[data-heat=expert_load] canvas[tabindex]"
    colours = browser.run(f"""
    const canvas = document.querySelector("{canvas}"), ctx = canvas.getContext("2d"), ratio = devicePixelRatio;
    const left = canvas.width / ratio - 4 * 48 - 8;
    return [left + 3.5 * 48, left + 2 * 48 - 1].map((x) => [...ctx.getImageData(x * ratio, 12 * ratio, 1, 1).data]);""")
    (red, green, blue, _), line = colours
    assert green > red + 60 and green > blue, "the green of dead experts"
    assert max(line[:3]) < 60, "a dark line between experts 1 and 2"
    browser.run(f"document.querySelector('{canvas}').focus()")
    browser.press(*([Keys.ARROW_RIGHT] * 4))
    assert browser.text("[data-heat=expert_load] output") == "blocks.1.moe, expert 3: no token"


def ticks_of(browser: Browser, chart: str) -> list[str]:
    """Returns what a chart writes beside its axes when it is drawn again, without their titles."""
    browser.run(f"""
    const figure = document.querySelector("[data-chart={chart}] .figure"), pen = CanvasRenderingContext2D.prototype;
    const write = pen.fillText;
    window.written = [];
    pen.fillText = function (text, ...place) {{ window.written.push(String(text)); write.call(this, text, ...place); }};
    figure.focus();
    figure.dispatchEvent(new KeyboardEvent("keydown", {{ key: "0" }}));
    requestAnimationFrame(() => {{ pen.fillText = write; window.drawn = true; }});""")
    browser.wait("return window.drawn")
    written: list[str] = browser.run("return window.written")
    return [text for text in written if not text.isalpha()]


@pytest.mark.parametrize("dead", [(0, 1, 0, 2), (1, 1, 1, 1)])
def test_experts_without_a_token_are_whole_numbers(
    browser: Browser, write_page: WritePage, dead: tuple[int, ...]
) -> None:
    report = report_of(dp=2, ep=2, layers=2, experts=4, steps=4)
    (layer,) = report.experts
    assert layer.over_steps is not None
    over_steps = replace(layer.over_steps, dead=dead)
    browser.open(
        write_page("dead_steps", render_page(replace(report, experts=(replace(layer, over_steps=over_steps),))))
    )
    ticks = ticks_of(browser, "expert_dead")
    assert "1" in ticks and not [tick for tick in ticks if "." in tick]
    size = browser.find("[data-chart=expert_dead] .u-over").size
    browser.hover("[data-chart=expert_dead] .u-over", size["width"] / 2, size["height"] / 2)
    assert re.fullmatch(r"iteration \d+\nall layers [012]", browser.text("#tip"))
