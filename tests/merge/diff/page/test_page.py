"""The page of a comparison holds its figures, and asks for nothing; these tests need no browser."""

from __future__ import annotations

import base64
import gzip
import json
import re
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
from support.simulated.sides import changed_side, side

from distprof.merge.diff.compare import compare
from distprof.merge.diff.data import Diff
from distprof.merge.diff.page.cards import cards
from distprof.merge.diff.page.page import render_page
from distprof.merge.diff.page.tables import tables


@lru_cache(maxsize=1)
def slower() -> Diff:
    return compare(side(), changed_side("head", 3.0))


def data_of(page: bytes) -> Any:
    (packed,) = re.findall(r'id="data">([^<]*)<', page.decode())
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def test_the_same_comparison_gives_the_same_small_page() -> None:
    assert render_page(slower()) == render_page(slower())
    assert len(render_page(slower())) < 200_000


def test_nothing_in_the_page_has_an_address_elsewhere() -> None:
    text = render_page(slower()).decode()
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    markup = re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    addresses = re.findall(r'\b(?:src|href|action|data|srcset)="([^"]*)"', markup)
    assert addresses and all(one.startswith(("#", "data:,")) for one in addresses)
    assert not re.findall(r"\bon\w+=|\bstyle=", markup)


def test_the_answer_comes_first() -> None:
    first, places, verdict, *_ = cards(slower())
    assert (first.name, first.title) == ("conclusion", "The second run is slower")
    assert (places.title, places.evidence[0][0]) == ("1 place slower", "forward of head")
    assert (verdict.title, verdict.state) == ("No new culprit", "fine")
    equal = [card.title for card in cards(compare(side(), side(seed=1)))]
    assert equal[:2] == ["No change beyond the noise", "No module changed beyond the noise"]
    noisy, *_ = cards(compare(side(), changed_side("head", 3.0, waited=0.8)))
    assert noisy.state == "unknown" and "The noise is large: " in noisy.sentence
    apart = cards(compare(side(), side(mode="forward", counted=False)))
    assert apart[0].title == "The runs cannot be compared"
    assert [card.title for card in cards(compare(side(steps=5), side(steps=5, seed=3)))][:2] == [
        "The noise is not known",
        "Modules are not judged",
    ]


def test_the_tables_hold_the_comparison() -> None:
    drawn = data_of(render_page(slower()))["tables"]
    places, changes = drawn["places"], slower().places.changes
    assert [row[1] for row in places["rows"]] == pytest.approx([one.first_ns for one in changes], rel=1e-4)
    assert [row[4] for row in places["rows"]] == pytest.approx([one.cost_ns for one in changes], rel=1e-4)
    (row,) = places["marked"]
    assert places["rows"][row][0] == "forward of head" and places["rows"][row][3]["side"] == "cost"
    assert {row[3]["side"] for place, row in enumerate(places["rows"]) if place not in places["marked"]} == {"noise"}
    (median, *_) = drawn["figures"]["rows"]
    figure = slower().figures[0]
    assert [median[3][name] for name in ("value", "low", "high")] == pytest.approx(
        [figure.change, figure.low, figure.high], rel=1e-4
    )
    work = tables(compare(side(), side(layers=5)))["work"]
    assert ["blocks.4.attn.qkv", "params", None] in [list(row[:3]) for row in work.rows]
    setup = tables(compare(side(dp=2), side(dp=4)))["setup"]
    assert ["ranks", "2", "4"] in [list(row[:3]) for row in setup.rows]


def test_names_are_escaped() -> None:
    evil = "<script>window.hacked = 1</script>"
    text = render_page(replace(slower(), first=evil, notes=(evil,))).decode()
    assert evil not in text and text.count("&lt;script&gt;window.hacked") >= 3
