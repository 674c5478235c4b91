"""Tests that text from files and names is shown without terminal codes, and keeps its meaning in JSON."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprof.printable import on_one_line, printable, printable_json

#: Unicode's categories control, format, surrogate, private and unassigned, and separators except the space.
UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("blocks.0 (GPT) - café 東京 🚀", "blocks.0 (GPT) - café 東京 🚀"),
        ("\x1b[31mred\x9b0m\x7f", r"\x1b[31mred\x9b0m\x7f"),
        ("\u202etxt.exe\u2066\u061c\u200f", r"\u202etxt.exe\u2066\u061c\u200f"),
        ("a\tb\rc\u2028d\u00ade", r"a\tb\rc\u2028d\xade"),
        ("tag\U000e0041 \udcff", r"tag\U000e0041 \udcff"),
    ],
)
def test_unprintable_characters_are_escaped(text: str, shown: str) -> None:
    assert on_one_line(text) == printable(text) == shown


def test_line_breaks() -> None:
    assert printable("one\ntwo\n") == "one\ntwo\n"
    assert on_one_line("one\ndistprof: two") == r"one\ndistprof: two"


@given(st.text() | st.text(st.characters(categories=("Cc", "Cf", "Cs", "Zl", "Zp"))))
def test_result_is_printable(text: str) -> None:
    left = set(on_one_line(text)) - {" "}
    assert {unicodedata.category(character) for character in left} & UNSEEN == set()


@given(st.text() | st.dictionaries(st.text(), st.text(st.characters())))
def test_json_keeps_its_meaning(value: object) -> None:
    text = printable_json(json.dumps(value, ensure_ascii=False, indent=1))
    assert json.loads(text) == value
    assert all(line.isprintable() for line in text.split("\n"))
