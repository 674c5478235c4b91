"""The page in a real Chromium: it complains of nothing, asks for nothing, and does what it offers."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.page.browser import Browser, WritePage
from support.page.many_ranks import grown
from support.reports import collectives_of, report_of

from distprof.merge.export.table_files import csv_files
from distprof.merge.export.tables import all_tables
from distprof.merge.html.page import render_page
from distprof.merge.report import RankTimeline, Report, Span, StepTimeline
from distprof.records import Header, Record, Tree

JOB: dict[str, Any] = {"dp": 4, "tp": 2, "ep": 2, "layers": 4, "slow_rank": 5, "hot": 3.0, "steps": 6}
EVIL = (
    "<script>window.hacked = 1</script>",
    "\"'><img src=x onerror='window.hacked = 2'>",
    "\u202egnorts\u2066",
    "{{ 7 * 7 }}${7 * 7}</style></script><!--",
    "long" * 1250,
)

pytestmark = pytest.mark.slow


@lru_cache(maxsize=1)
def eight() -> Report:
    report = report_of(**JOB)
    return replace(report, collectives=collectives_of(8), timeline=timeline_of(8))


def timeline_of(ranks: int) -> StepTimeline:
    """Returns an iteration of 10 ms: forward, then backward; all wait for rank 5 in the last 2 ms of forward."""
    ms = 1_000_000

    def rank_of(rank: int) -> RankTimeline:
        late = rank == 5
        return RankTimeline(
            rank,
            phases=(Span("forward", 0, 5 * ms), Span("backward", 5 * ms, 10 * ms)),
            modules=(Span("blocks.0", 0, (5 if late else 3) * ms), Span("blocks.0 (backward)", 5 * ms, 10 * ms)),
            collectives=(Span("all_reduce (dp)", (5 if late else 3) * ms, 5 * ms),),
            waits=() if late else (Span("for rank 5 in all_reduce (dp)", 3 * ms, 5 * ms),),
            pauses=(),
        )

    return StepTimeline(7, tuple(map(rank_of, range(ranks))), left_out=3)


@pytest.fixture(scope="module")
def page_of_eight(write_page: WritePage) -> Path:
    return write_page("eight", render_page(eight()))


@pytest.fixture(scope="module")
def page_of_many(write_page: WritePage) -> Path:
    """256 ranks on 32 hosts."""
    return write_page("many", render_page(grown(eight(), 256)))


@pytest.fixture
def opened(browser: Browser, page_of_eight: Path) -> Browser:
    browser.open(page_of_eight)
    return browser


@pytest.fixture
def many(browser: Browser, page_of_many: Path) -> Browser:
    browser.open(page_of_many)
    return browser


def slot(name: str) -> str:
    return f"[data-table={name}]"


def column(browser: Browser, name: str, title: str) -> list[str]:
    """Returns the cells of a column, as they are shown."""
    titles = browser.texts(f"{slot(name)} thead th")
    place = next(place for place, own in enumerate(titles) if own.startswith(title)) + 1
    return browser.texts(f"{slot(name)} tbody tr:not(.group) td:nth-child({place})")


def head(browser: Browser, name: str, title: str) -> str:
    """Returns the selector of the head of a column."""
    return f"{slot(name)} thead th:nth-child({browser.texts(f'{slot(name)} thead th').index(title) + 1})"


def click(browser: Browser, selector: str) -> None:
    element = browser.find(selector)
    browser.run("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


@pytest.mark.parametrize("ranks", [1, 8, 256, pytest.param(16_384, marks=pytest.mark.slow)])
def test_it_opens_without_a_complaint_or_a_request(browser: Browser, write_page: WritePage, ranks: int) -> None:
    report = report_of(dp=1, layers=2) if ranks == 1 else grown(eight(), ranks)
    path = write_page(f"of-{ranks}", render_page(report))
    browser.open(path)
    assert browser.complaints() == []
    assert {address for address in browser.requests() if not address.startswith("data:")} == {path.as_uri()}
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth"), "wider than the window"
    shown = browser.run("return [...document.querySelectorAll('.slot')].map((one) => one.children.length)")
    assert shown and all(shown)


def test_nothing_can_be_sent_or_loaded(opened: Browser) -> None:
    """The policy of the page stops what a name would start if it were not escaped."""
    tried = opened.driver.execute_async_script(
        """
        const done = arguments[arguments.length - 1], found = [];
        document.addEventListener("securitypolicyviolation", (event) => found.push(event.effectiveDirective));
        const image = new Image(); image.src = "http://127.0.0.1:9/x.png";
        const code = document.createElement("script");
        code.textContent = "window.hacked = 1";
        document.body.append(code);
        const end = () => done([found.sort(), window.hacked === undefined]);
        fetch("http://127.0.0.1:9/").catch(() => setTimeout(end, 200));
        """
    )
    assert tried == [["connect-src", "img-src", "script-src-elem"], True]
    assert not [address for address in opened.requests() if address.startswith("http")]


def test_names_are_escaped(browser: Browser, write_page: WritePage) -> None:
    def change(rank: int, record: Record) -> Record | None:
        if isinstance(record, Header):
            return replace(record, host=EVIL[rank % len(EVIL)], script=EVIL[0], device_name=EVIL[1])
        if isinstance(record, Tree):
            rows = list(record.rows)
            for place, evil in enumerate(EVIL):
                rows[4 + place] = replace(rows[4 + place], name=f"blocks.0.{evil}", class_name=evil, extra_repr=evil)
            return replace(record, rows=tuple(rows))
        return record

    from support.reports import changed_report

    report = changed_report(change, dp=5, layers=2, slow_rank=3)
    report = replace(report, run=replace(report.run, name=EVIL[1], notes=EVIL))
    browser.open(write_page("evil", render_page(report)))
    assert browser.complaints() == []
    assert browser.run("return window.hacked") is None
    assert browser.text("h1").strip() == f"distprof {EVIL[1]}"
    slow, *hosts = column(browser, "hosts", "host")
    assert (slow, hosts[:3]) == (EVIL[3], [EVIL[0], EVIL[1], r"\u202egnorts\u2066"])
    assert len(hosts[3]) == 300, "shown without its middle"
    assert browser.run("return document.querySelectorAll('main img, header img').length") == 0
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth"), "a long name widens the page"


def test_tables_sort_by_every_column_in_both_directions(opened: Browser) -> None:
    times = [float(time) for time in column(opened, "ranks", "iteration")]
    button = (
        f"{slot('ranks')} thead th:nth-child({opened.texts(slot('ranks') + ' thead th').index('iteration (ms)') + 1})"
    )
    click(opened, f"{button} button")
    assert [float(time) for time in column(opened, "ranks", "iteration")] == sorted(times, reverse=True)
    assert opened.find(button).get_attribute("aria-sort") == "descending"
    click(opened, f"{button} button")
    assert [float(time) for time in column(opened, "ranks", "iteration")] == sorted(times)
    assert opened.find(button).get_attribute("aria-sort") == "ascending"


def test_values_that_are_missing_come_last(browser: Browser, write_page: WritePage) -> None:
    first, *others = eight().ranks
    report = replace(eight(), ranks=(replace(first, iteration_ns=None), *others))
    browser.open(write_page("missing", render_page(report)))
    head = (
        f"{slot('ranks')} thead th:nth-child({browser.texts(slot('ranks') + ' thead th').index('iteration (ms)') + 1})"
    )
    for _ in range(2):
        click(browser, f"{head} button")
        assert column(browser, "ranks", "iteration")[-1] == "n/a"


def test_no_rank_is_the_slowest_in_a_phase_in_which_all_are_alike(browser: Browser, write_page: WritePage) -> None:
    iteration, *phases = eight().skew.phases
    shown = [str(iteration.slowest_rank), *["-"] * len(phases)]
    skew = replace(eight().skew, phases=(iteration, *(replace(phase, excess_ns=0.0) for phase in phases)))
    browser.open(write_page("alike", render_page(replace(eight(), skew=skew))))
    assert column(browser, "skew_phases", "slowest rank") == shown
    click(browser, f"{head(browser, 'skew_phases', 'slowest rank')} button")
    assert column(browser, "skew_phases", "slowest rank") == shown


def test_ranks_fold_by_host_and_are_found_by_words(many: Browser) -> None:
    groups = f"{slot('ranks')} tr.group"
    assert len(many.all(groups)) == 32
    named = [rank for rank in range(256) if rank in {one.rank for one in eight().verdict.ranks.named}]
    assert named == [5] and "with a named one" in many.texts(groups)[0]
    assert column(many, "ranks", "rank") == [str(rank) for rank in range(8)], "the host of the named rank is open"
    click(many, f"{groups}:last-child button")
    assert column(many, "ranks", "rank")[-1] == "255"
    search = many.find(f"{slot('ranks')} input[type=search]")
    search.send_keys("rank 77")
    assert column(many, "ranks", "rank") == ["77"] and many.text(f"{slot('ranks')} .count") == "1 of 256 rows"
    search.clear()
    search.send_keys("node31")
    assert column(many, "ranks", "rank") == [str(rank) for rank in range(248, 256)]
    search.clear()
    search.send_keys("no such host")
    assert column(many, "ranks", "rank") == []


def resize(browser: Browser, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


#: The labels of the tables of which columns are hidden at the right, and of those that show it.
HIDDEN_AND_MARKED = """
const labels = (boxes) => boxes.map((one) => one.ariaLabel), boxes = [...document.querySelectorAll(".scroll")];
const hidden = boxes.filter((one) => one.scrollWidth - one.clientWidth - one.scrollLeft > 2);
const marked = boxes.filter((one) => getComputedStyle(one).maskImage !== "none");
return [labels(hidden), labels(marked)];"""


def test_tables_fit_a_screen_and_scroll_in_their_box_on_a_phone(opened: Browser) -> None:
    try:
        resize(opened, 1180)
        opened.wait("return document.querySelector('.scroll.more') === null")
        assert opened.run(HIDDEN_AND_MARKED) == [[], []]
        resize(opened, 390)
        opened.wait("return document.querySelectorAll('.scroll.more').length > 5")
        hidden, marked = opened.run(HIDDEN_AND_MARKED)
        assert "Ranks" in hidden and hidden == marked
        assert opened.run("return document.documentElement.scrollWidth <= innerWidth"), "the page itself is too wide"
        box = f"document.querySelector('{slot('ranks')} .scroll')"
        opened.run(f"{box}.scrollTo(10_000, 0)")
        opened.wait(f"return !{box}.classList.contains('more')")
        lefts = f"return [{box}, {box}.querySelector('td')].map((one) => Math.round(one.getBoundingClientRect().left))"
        left, of_rank = opened.run(lefts)
        assert of_rank - left <= 1, "the number of the rank stays in view"
    finally:
        opened.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_named_rank_is_marked(opened: Browser) -> None:
    marked = opened.texts(f"{slot('ranks')} tr.marked td:first-child")
    assert marked == ["5"]
    assert opened.text("#card-ranks h3").strip() == "Rank 5: slow"
    assert "forward of blocks.1.moe.router" in opened.text("#card-ranks .plain")


def names(browser: Browser) -> list[str]:
    return [text[2:] for text in browser.texts("[data-tree] tbody button")]


def test_modules_unfold_with_the_mouse_and_with_keys(opened: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    click(opened, "[data-tree] .tools button:nth-of-type(2)")
    assert names(opened) == ["DistributedDataParallel"]
    click(opened, "[data-tree] tbody button")
    assert names(opened) == ["DistributedDataParallel", "GPT"]
    opened.press(Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
    assert names(opened)[2:] == ["embed", "blocks", "norm", "head"]
    opened.press(Keys.ARROW_LEFT)
    assert names(opened) == ["DistributedDataParallel", "GPT"]
    assert opened.run("return document.activeElement.getAttribute('aria-expanded')") == "false"
    click(opened, "[data-tree] .tools button:nth-of-type(1)")
    assert len(names(opened)) == len(eight().modules)


def test_modules_are_found_and_sorted_by_self_time(opened: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    opened.find("[data-tree] input[type=search]").send_keys("router")
    assert names(opened) == [m.label for m in eight().modules if "router" in m.label]
    opened.press(Keys.CONTROL + "a", Keys.BACKSPACE)
    click(opened, "[data-tree] input[type=checkbox]")
    self_times = {m.label: (m.forward_self_ns or 0) + (m.backward_self_ns or 0) for m in eight().modules}
    assert names(opened)[0] == max(self_times, key=lambda label: self_times[label])


def test_a_cell_of_the_skew_map_tells_its_figures(opened: Browser) -> None:
    skew = eight().skew.map
    place = skew.subjects.index("blocks.1.moe.router")
    canvas = opened.find("[data-heat=skew] canvas[tabindex]")
    left, width = 130, min((canvas.size["width"] - 130 - 20) / len(skew.subjects), 64)
    opened.hover("[data-heat=skew] canvas[tabindex]", left + (place + 0.5) * width, 8 + 5.5 * 22)
    excess = skew.excess_ns[5][place]
    assert excess is not None
    expected = f"rank 5, blocks.1.moe.router (fwd): self time above the others of its cohort +{excess / 1e6:.2f} ms"
    assert opened.text("#tip") == f"{expected}, named by the verdict"
    assert opened.text("[data-heat=skew] output") == opened.text("#tip")


def test_the_skew_map_is_read_and_zoomed_with_keys(many: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    many.run("document.querySelector('[data-heat=skew] canvas[tabindex]').focus()")
    many.press(Keys.ARROW_RIGHT)
    assert many.text("[data-heat=skew] output").startswith("rank 5, blocks.1.moe.router (fwd): ")
    many.press(Keys.ARROW_DOWN)
    assert many.text("[data-heat=skew] output").startswith("rank 6, ")
    high = many.find("[data-heat=skew] canvas[tabindex]").size["height"]
    many.press("+", "+", "+", "+")
    assert many.find("[data-heat=skew] canvas[tabindex]").size["height"] < high, "few rows need less height"
    many.press("0")
    assert many.find("[data-heat=skew] canvas[tabindex]").size["height"] == high


def test_a_thin_slow_rank_is_seen_among_many(browser: Browser, write_page: WritePage) -> None:
    """Rank 1,234 of 2,000 has less than a pixel; its colour is in the picture."""
    report = grown(report_of(dp=8, layers=2, steps=4), 2000)
    excess = [list(row) for row in report.skew.map.excess_ns]
    excess[1234][0] = 1e9
    skew = replace(report.skew.map, excess_ns=tuple(map(tuple, excess)))
    browser.open(write_page("thin", render_page(replace(report, skew=replace(report.skew, map=skew)))))
    script = """
    const canvas = document.querySelector("[data-heat=skew] canvas[tabindex]"), ctx = canvas.getContext("2d");
    const x = 132 * devicePixelRatio, found = [];
    for (let y = 0; y < canvas.height; y += 1) {
      const [r, g, b] = ctx.getImageData(x, y, 1, 1).data;
      if (r - b > 60) found.push(y / devicePixelRatio);
    }
    return found;"""
    lines = browser.run(script)
    assert lines and all(8 + 560 * 1230 / 2000 <= line <= 8 + 560 * 1240 / 2000 for line in lines)


def test_of_ranks_that_share_a_pixel_the_remarkable_one_is_drawn(browser: Browser, write_page: WritePage) -> None:
    """Every eighth of 4,096 ranks has a long forward: its colour comes every two pixels, and not in bands."""
    browser.open(write_page("columns", render_page(grown(eight(), 4096))))
    script = """
    const canvas = document.querySelector("[data-chart=phases_by_rank] canvas"), ctx = canvas.getContext("2d");
    const from = Math.round(canvas.width * 0.2), until = Math.round(canvas.width * 0.9), found = [];
    const middle = Math.round(canvas.height * 0.54);  // above the forward of most ranks, within that of the slow ones
    for (let x = from; x < until; x += 1) {
      const [r, , b] = ctx.getImageData(x, middle, 1, 1).data;
      if (b > r) found.push(x);
    }
    return found;"""
    blue = browser.run(script)
    assert len(blue) > 100
    assert max(after - before for before, after in pairwise(blue)) <= 4


def test_a_chart_tells_the_figures_under_the_mouse_and_the_keys(opened: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    over = "[data-chart=phases_by_rank] .u-over"
    size = opened.find(over).size
    opened.hover(over, size["width"] * 0.5 / 8.2 * 1.2, size["height"] / 2)
    row = eight().ranks[0]
    assert f"forward {(row.phases_ns['forward'] or 0) / 1e6:.2f} ms" in opened.text("#tip")
    opened.run("document.querySelector('[data-chart=phases_by_rank] .figure').focus()")
    opened.press(Keys.ARROW_RIGHT)
    assert opened.text("[data-chart=phases_by_rank] output").startswith("rank 1: ")


def test_the_timeline_tells_who_waits_for_whom(opened: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    canvas = "[data-timeline] canvas"
    assert "3 other ranks are left out" in opened.text("[data-timeline] .note")
    opened.hover(canvas, 64 + 0.4 * (opened.find(canvas).size["width"] - 74), 2.5 * 30)
    lines = opened.text("#tip").split("\n")
    assert lines[0].startswith("rank 2, ") and float(lines[0].split()[2]) == pytest.approx(4, abs=0.1)
    assert lines[1:] == [
        "phase: forward, 5.00 ms",
        "wait: for rank 5 in all_reduce (dp), 2.00 ms",
        "collective: all_reduce (dp), 2.00 ms",
    ]
    opened.run("document.querySelector('[data-timeline] canvas').focus()")
    opened.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_DOWN, "+", "+")
    assert opened.text("[data-timeline] output").startswith("rank 5, ")
    assert "module: blocks.0, 5.00 ms" in opened.text("[data-timeline] output")


def test_light_and_dark(opened: Browser) -> None:
    def back() -> str:
        return str(opened.run("return getComputedStyle(document.body).backgroundColor"))

    light, pixel = back(), "return document.querySelector('[data-heat=skew] canvas[tabindex]').toDataURL()"
    drawn = opened.run(pixel)
    click(opened, "#theme")
    assert opened.run("return document.documentElement.dataset.theme") == "dark"
    assert back() != light and opened.run(pixel) != drawn
    opened.run("localStorage.clear()")


def test_the_system_chooses_the_colours_at_first(browser: Browser, page_of_eight: Path) -> None:
    browser.open(page_of_eight)
    for theme in ("dark", "light"):
        feature = {"name": "prefers-color-scheme", "value": theme}
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        browser.wait(f"return document.documentElement.dataset.theme === '{theme}'")


def test_words_are_explained_with_the_mouse_and_with_keys(opened: Browser) -> None:
    opened.run("document.querySelector('#card-figures [data-term=MFU]').focus()")
    assert opened.text("#tip").startswith("MFU: model flops utilization")
    opened.hover(f"{slot('skew_phases')} thead th:nth-child(6) button", 5, 5)
    assert opened.text("#tip") == "excess: how far a rank lies above the median of the others of its cohort"


def test_the_whole_page_is_reached_by_tab(opened: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    opened.press(Keys.TAB)
    assert opened.run("return document.activeElement.className") == "skip"
    opened.press(Keys.ENTER, Keys.TAB)
    assert opened.run("return document.activeElement.closest('section').id") == "answer"
    script = """
    const reachable = [...document.querySelectorAll("a, button, input, summary, canvas, [tabindex]")];
    return reachable.filter((one) => one.tabIndex >= 0 && one.offsetParent).map((one) => one.closest("section")?.id);"""
    sections = {"iterations", "modules", "ranks", "skew", "collectives", "experts", "memory", "tables", "glossary"}
    assert sections <= set(opened.run(script))


def test_a_table_is_saved(opened: Browser, tmp_path: Path) -> None:
    opened.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path), "eventsEnabled": True}
    )
    click(opened, '[data-download="ranks.csv"]')
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(opened.driver, 60, 0.05).until(lambda _: (tmp_path / "ranks.csv").exists())
    expected = csv_files(all_tables(eight()))["tables/ranks.csv"]
    WebDriverWait(opened.driver, 60, 0.05).until(lambda _: (tmp_path / "ranks.csv").read_bytes() == expected)


def test_it_prints_in_light_colours_without_controls(opened: Browser) -> None:
    click(opened, "#theme")
    opened.run(
        "window.themes = []; addEventListener('beforeprint', () => themes.push(document.documentElement.dataset.theme))"
    )
    printed = opened.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert len(printed["data"]) > 20_000
    assert opened.run("return [themes[0], document.documentElement.dataset.theme]") == ["light", "dark"]
    opened.run("localStorage.clear()")
    opened.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not opened.find("nav").is_displayed() and not opened.find("#theme").is_displayed()
    assert opened.find(f"{slot('ranks')} table").is_displayed()
