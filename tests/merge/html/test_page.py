"""The page holds the report's own figures and tables, and asks for nothing; these tests need no browser."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import runpy
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support.page.many_ranks import grown
from support.reports import collectives_of, report_of, with_findings_on_experts

from distprof.merge.export import table_files
from distprof.merge.export.table_files import csv_files
from distprof.merge.export.tables import all_tables
from distprof.merge.html import glossary, page
from distprof.merge.html.cards import cards
from distprof.merge.html.drawings.charts import charts
from distprof.merge.html.drawings.heat_maps import heat_maps
from distprof.merge.html.drawings.model import BYTES, RATIO, TIME
from distprof.merge.html.drawings.tables import tables
from distprof.merge.html.notes import notes
from distprof.merge.html.page import render_page
from distprof.merge.report import (
    SLOW,
    Burst,
    HangRow,
    LongStep,
    ReducedWindow,
    Report,
    SlowGroup,
    SlowInWindow,
    Straggler,
)

ROOT = Path(__file__).parents[3]
JOB: dict[str, Any] = {"dp": 4, "tp": 2, "ep": 2, "layers": 4, "slow_rank": 5, "hot": 3.0, "steps": 6}
#: uplot 1.6.32 as the registry of npm has it: https://registry.npmjs.org/uplot/-/uplot-1.6.32.tgz
VENDORED = {
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}


class Reader(HTMLParser):
    """Collects the elements of a page with their attributes, and the text of its scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside.append((tag, dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] in ("script", "style"):
            tag, attributes, text = self.inside.pop()
            self.inside.append((tag, attributes, text + data if self.lasttag == tag else text))


def read(report: Report) -> Reader:
    return Reader(render_page(report).decode())


def unpacked(packed: str) -> bytes:
    return gzip.decompress(base64.b64decode(packed))


def data_of(page: Reader) -> Any:
    (packed,) = [text for _, attributes, text in page.inside if attributes.get("id") == "data"]
    return json.loads(unpacked(packed))


def test_the_same_report_gives_the_same_bytes() -> None:
    assert render_page(report_of(**JOB)) == render_page(report_of(**JOB))


def test_only_the_own_script_and_style_may_run() -> None:
    text = render_page(report_of(**JOB)).decode()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    code = {tag: re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL) for tag in ("script", "style")}
    hashes = {tag: base64.b64encode(hashlib.sha256(only.encode()).digest()).decode() for tag, (only,) in code.items()}
    assert policy.replace("&#39;", "'") == (
        "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"script-src 'sha256-{hashes['script']}'; style-src 'sha256-{hashes['style']}'; img-src data:"
    )


def test_nothing_in_the_page_has_an_address_elsewhere() -> None:
    for tag, attributes in read(report_of(**JOB)).elements:
        for name, value in attributes.items():
            assert not name.startswith("on") and name != "style", f"{tag} has {name}"
            if name in ("src", "href", "action", "data", "srcset"):
                assert (value or "").startswith(("#", "data:,")), f"{tag} {name}={value}"


def test_the_figures_are_those_of_the_report() -> None:
    report = report_of(**JOB)
    data = data_of(read(report))
    ranks = data["tables"]["ranks"]
    place = [column["title"] for column in ranks["columns"]].index("iteration")
    assert [row[place] for row in ranks["rows"]] == pytest.approx([row.iteration_ns for row in report.ranks], rel=1e-4)
    assert [ranks["rows"][place][0] for place in ranks["marked"]] == [5]
    skew = data["heat_maps"]["skew"]
    for drawn, row in zip(skew["values"], report.skew.map.excess_ns, strict=True):
        assert drawn == pytest.approx(row, rel=1e-4)
    assert [5, report.skew.map.subjects.index("blocks.1.moe.router")] in skew["marked"]
    tree = data["tree"]
    assert tree["label"] == [module.label for module in report.modules]
    assert tree["forward_ns"] == pytest.approx([module.forward_ns for module in report.modules], rel=1e-4)


def test_loads_are_relative_to_the_mean_of_a_layer() -> None:
    report = report_of(**JOB)
    heat = heat_maps(report)["expert_load"]
    for row, layer in zip(heat.values, report.experts, strict=True):
        tokens = [tokens or 0 for tokens in layer.tokens]
        assert row == pytest.approx([own * len(tokens) / sum(tokens) for own in tokens])


def test_colours_are_strong_only_where_a_rank_is_named() -> None:
    """Where nobody is named, the largest excess has at most half of the colours."""
    quiet = report_of(dp=8, steps=8)
    assert not quiet.verdict.ranks.named
    for name in ("skew", "steps_by_rank"):
        heat = heat_maps(quiet)[name]
        largest = max(abs(value - heat.middle) for row in heat.values for value in row if value is not None)
        assert heat.limit >= 2 * largest


def test_the_embedded_tables_are_the_files_of_the_report() -> None:
    report = report_of(**JOB)
    embedded = {
        str(attributes["data-file"]): unpacked(text)
        for _, attributes, text in read(report).inside
        if "data-file" in attributes
    }
    files = {name.rpartition("/")[2]: content for name, content in csv_files(all_tables(report)).items()}
    assert embedded == files


def test_a_table_that_is_too_large_is_named_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "_MOST_PACKED", 4000)
    text = render_page(report_of(**JOB)).decode()
    assert 'data-file="experts.csv"' in text and 'data-file="module_times.csv"' not in text
    assert re.search(r"in the folder <code>tables</code> beside it: [a-z_., ]*module_times\.csv", text)


def test_a_table_that_is_not_in_memory_is_only_a_file_beside_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    report = report_of(**JOB)
    tables = all_tables(report)
    whole = csv_files(tables)
    monkeypatch.setattr(table_files, "MOST_ROWS_IN_MEMORY", len(tables["experts"]))
    files = csv_files(tables)
    text = render_page(report, files).decode()
    assert 'data-file="experts.csv"' in text and 'data-file="module_times.csv"' not in text
    in_pieces = files["tables/module_times.csv"]
    assert not isinstance(in_pieces, bytes) and b"".join(in_pieces) == whole["tables/module_times.csv"]


def test_the_map_of_loads_has_lines_between_ep_ranks_and_marks_dead_experts() -> None:
    heat = heat_maps(report_of(dp=4, ep=4, layers=4, experts=8, steps=2))["expert_load"]
    assert (heat.separators, heat.separator_title, heat.zero) == ((2, 4, 6), "ep ranks", "no token")


def test_the_maps_of_experts_name_the_worst_layer() -> None:
    maps = heat_maps(with_findings_on_experts(report_of(dp=4, ep=4, layers=4, experts=8, steps=2, hot=5)))
    for name in ("expert_load", "expert_ranks"):
        assert "Worst: blocks.1.moe, expert 1 with" in maps[name].note and "cost 11.5 ms" in maps[name].note


def test_the_charts_of_experts_name_the_worst_layer() -> None:
    made = charts(with_findings_on_experts(report_of(dp=4, ep=4, layers=4, experts=8, steps=3, hot=5)))
    for name in ("expert_balance", "expert_entropy", "expert_times", "expert_drops"):
        assert "Worst: blocks.1.moe, expert 1 with" in made[name].note
    assert [name for name, chart in made.items() if chart.fits] == ["expert_entropy"], "all of it may be near 1"


def test_no_rank_is_the_slowest_where_all_are_alike_or_ranks_are_not_compared() -> None:
    report = report_of(**JOB)
    iteration, data, *phases = report.skew.phases
    alike = replace(data, excess_ns=4999.0, slowest_rank=0)  # 0.00 ms
    above = replace(data, excess_ns=5001.0, slowest_rank=3)
    skew = replace(report.skew, phases=(iteration, alike, above, *phases))
    for too_few, slowest in (("", [iteration.slowest_rank, None, 3]), ("no two ranks do the same work", [None] * 3)):
        table = tables(replace(report, skew=replace(skew, too_few=too_few)))["skew_phases"]
        place = [column.title for column in table.columns].index("slowest rank")
        assert [row[place] for row in table.rows[:3]] == slowest and table.columns[place].missing == "-"


def test_what_has_no_value_is_named_and_work_that_does_not_occur_is_no_missing_value() -> None:
    report = report_of(**JOB)
    (reason,) = [note.text for note in notes(report) if "no peak is known" in note.text]
    assert reason.startswith("MFU, HFU: ")
    work = tables(report)["work"]
    assert [column.missing for column in work.columns[1:]] == ["-"] * 4 and None in work.rows[0]


def test_drops_and_dead_experts_have_charts_of_their_own() -> None:
    """Dropped choices are thousands where dead experts are some."""
    made = charts(with_findings_on_experts(report_of(dp=4, ep=4, layers=4, experts=8, steps=3)))
    assert [series.values for series in made["expert_drops"].series] == [[0, 1, 2]] * 2
    assert "expert_dead" not in made, "each expert has tokens in each step"
    assert [series.label for series in made["expert_entropy"].series][1:] == [
        "5th percentile of the layers",
        "worst layer",
    ]


def test_tokens_against_time_are_in_the_order_of_tokens() -> None:
    report = with_findings_on_experts(report_of(dp=4, ep=4, layers=4, experts=8, steps=2, hot=5, noise=0))
    layer = report.experts[0]
    times = charts(report)["expert_times"]
    assert times.x == sorted(tokens // 2 for tokens in layer.ep_tokens if tokens is not None)
    line, others, slow = times.series
    assert others.values == [20e6, None, 4e6, 4e6] and slow.values == [None, 6e6, None, None], "ranks 1, 2, 3, 0"
    assert line.values == pytest.approx([8e6 * x / (sum(times.x) / 4) for x in times.x])


def test_one_rank_has_no_parts_that_compare_ranks() -> None:
    report = report_of(dp=1, layers=2)
    ids = {attributes.get("id") for _, attributes in read(report).elements}
    assert {"answer", "modules", "iterations", "notes", "glossary"} <= ids
    assert not {"collectives", "pipeline", "card-ranks", "skew"} & ids
    assert "comparison" not in {note.about for note in notes(report)}
    assert "phases_by_rank" not in charts(report) and "skew" not in heat_maps(report)
    assert [series.label for series in charts(report)["steps"].series] == ["time"]


def test_axes_are_named_after_their_values() -> None:
    """Only times are called time, which the page writes with a unit."""
    made = charts(report_of(dp=4, ep=2, layers=2, experts=4))
    named = {name: (chart.kind, chart.y_title) for name, chart in made.items()}
    assert named["expert_balance"] == (RATIO, "MaxVio")
    assert named["memory_by_rank"] == (BYTES, "memory")
    assert {kind for kind, title in named.values() if title == "time"} == {TIME}


def test_collectives_have_a_table_and_a_chart() -> None:
    report = replace(report_of(dp=4), collectives=collectives_of(4))
    waits = charts(report)["waits_by_rank"]
    assert [series.values for series in waits.series] == [
        [one.wait_ns for one in report.collectives.waits],
        [one.lag_ns for one in report.collectives.waits],
    ]
    assert [row[1] for row in tables(report)["collectives"].rows] == ["all_reduce", "barrier"]


def test_bursts_have_a_card_and_a_table() -> None:
    report = report_of(dp=4)
    burst = Burst((6, 8), 3, (2,), False, "data", "data", 4e8, "")
    step = LongStep(6, 5e8, (2,), False, "data", "data", 4e8, "")
    report = replace(report, verdict=replace(report.verdict, bursts=(burst,)), long_steps=(step,))
    (card,) = [card for card in cards(report) if card.name == "bursts"]
    assert card.title == "2 iterations are long"
    assert card.sentence == "In 2 of 3 steps rank 2 loses 400 ms in data wait."
    assert list(tables(report)["bursts"].rows) == [["6, 8", 3, "2", "data wait", 4e8, ""]]
    assert list(tables(report)["long_steps"].rows) == [[6, 5e8, "2", "data wait", 4e8, ""]]


def test_hangs_have_a_table() -> None:
    hang = HangRow("deadlock", (3,), (0, 1), 7, 60.0, 0, None, "rank 3 does not come.", "rank 3: in step()", ("RAS",))
    report = replace(report_of(dp=4), hangs=(hang,))
    times = "found when the iteration had run for 60 s; the job did not go on"
    made = tables(report)["hangs"]
    assert list(made.rows) == [[7, "deadlock", "rank 3 does not come.", "rank 3: in step(). RAS", times]]
    assert any(attributes.get("data-table") == "hangs" for _, attributes in read(report).elements)


def test_windows_of_which_summaries_are_left_have_a_table() -> None:
    report = report_of(dp=4)
    slow = (SlowInWindow(3, "data", 4e6), SlowInWindow(1, "", 2e6))
    windows = (ReducedWindow(0, 6, 4, 5e7, 9e7, 0.25, slow), ReducedWindow(1, 106, 3, None, 8e7, None))
    report = replace(report, run=replace(report.run, reduced_windows=windows))
    made = data_of(read(report))["tables"]["reduced_windows"]
    assert made["rows"] == [
        [0, 6, 4, 5e7, 9e7, 0.25, "rank 3 (+4 ms data), rank 1 (+2 ms)"],
        [1, 106, 3, None, 8e7, None, ""],
    ]
    assert any(attributes.get("data-table") == "reduced_windows" for _, attributes in read(report).elements)


def test_a_host_that_is_slow_as_a_whole_is_named_in_its_place() -> None:
    report = report_of(dp=4)
    group = SlowGroup("host", "node2", (2, 3), (2, 3), "forward", "forward", 4e7, 0.2, 3, 3, 4)
    one = Straggler(2, "forward", "forward", 4e7, 0.2, 3, 3, 4, 1e7)
    ranks = replace(report.verdict.ranks, finding=SLOW, named=(one, replace(one, rank=3)), groups=(group,))
    (card, *_) = cards(replace(report, verdict=replace(report.verdict, ranks=ranks)))
    assert card.title == "Host node2: slow"
    assert card.evidence[0] == [
        *("2 of 2 ranks of host node2", "forward", "+40 ms", "20%", "3 of 3", "3 other hosts"),
    ]


def test_longer_waits_for_a_processor_are_told_from_the_excess() -> None:
    report = report_of(dp=4)
    one = Straggler(2, "throughout", "throughout", 4e7, 0.2, 3, 3, 4, 1e7, processor_wait_ns=2e8)
    named = (one, replace(one, rank=3, subject="layers.1", phase="forward"))
    ranks = replace(report.verdict.ranks, finding=SLOW, named=named)
    (card, *_) = cards(replace(report, verdict=replace(report.verdict, ranks=ranks)))
    assert [fact for fact in card.facts if "waits" in fact[0]] == [
        ("rank 2 waits for a processor", "200 ms longer than the others, besides"),
        ("rank 3 waits for a processor", "200 ms longer than the others, which its excess may hold"),
    ]


def test_words_are_those_of_the_glossary() -> None:
    code = runpy.run_path(str(ROOT / "tools" / "glossary_terms.py"))
    source = (ROOT / "docs" / "GLOSSARY.md").read_text(encoding="utf-8")
    own = ROOT / "merge" / "html" / "assets" / "glossary.json"
    assert own.read_text(encoding="utf-8") == code["as_json"](source), "python tools/glossary_terms.py writes it anew"
    words = {term.word: term.meaning for term in glossary.terms()}
    assert words["bubble"] == "the share of a pipeline's schedule in which a stage waits"
    assert words["tp"].startswith("tensor parallel: ") and words["shard (of a run)"].endswith("It holds records")


def test_explained_columns_are_words_of_the_glossary() -> None:
    words = {term.word for term in glossary.terms()}
    report = report_of(dp=4, tp=2, pp=2, ep=2, layers=4, micro_batches=2)
    used = {column.term for table in tables(report).values() for column in table.columns if column.term}
    assert used <= words, used - words


@pytest.mark.parametrize("name", VENDORED)
def test_the_library_is_the_published_one(name: str) -> None:
    content = (ROOT / "merge" / "html" / "vendor" / name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == VENDORED[name]


def test_the_library_has_its_licence_in_the_page_and_in_the_notice() -> None:
    licence = (ROOT / "merge" / "html" / "vendor" / "uPlot.LICENSE").read_text(encoding="utf-8")
    assert licence.startswith("The MIT License (MIT)\n\nCopyright (c) 2022 Leon Sorokin")
    text = render_page(report_of(dp=1)).decode()
    assert "Copyright (c) 2022 Leon Sorokin" in text and "uPlot (v1.6.32)" in text
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    assert "uPlot 1.6.32" in notice and licence.strip() in notice


@pytest.mark.parametrize(("ranks", "most"), [(1, 600_000), (8, 600_000), (256, 1_500_000), (16_384, 8_000_000)])
def test_the_page_is_small(ranks: int, most: int) -> None:
    """83 blocks have 999 modules."""
    small = report_of(dp=min(ranks, 8), ep=min(ranks, 8), layers=83, experts=16, steps=10)
    assert len(small.modules) >= 999
    assert len(render_page(small if ranks <= 8 else grown(small, ranks))) < most
