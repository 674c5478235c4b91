"""Tests of the values of ``--input`` of ``distprof count``."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distprof.commands.count.inputs import Input, parse, parse_all
from distprof.errors import UsageError


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("1,3,224,224", Input("", (1, 3, 224, 224))),
        ("7", Input("", (7,))),
        ("1,128:int64", Input("", (1, 128), "int64")),
        ("input_ids=1,128:int64", Input("input_ids", (1, 128), "int64")),
        ("x=0,4", Input("x", (0, 4))),
    ],
)
def test_an_input_is_name_sizes_and_type(text: str, given: Input) -> None:
    assert parse(text) == given
    assert str(given) == text


@pytest.mark.parametrize(
    "text", ["", "x", "1,", ",1", "1,-1", "1.5", "1x3", "=1", "a b=1", "a=b=1", "1,2:", "1 ,2", "½"]
)
def test_what_is_no_tensor_is_told_with_examples(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(text)
    assert str(refused.value).startswith(f"--input {text} is no tensor: give its sizes, as in 1,3,224,224 or ")


def test_a_name_is_given_once() -> None:
    with pytest.raises(UsageError, match=r"--input x=\.\.\. is given 2 times"):
        parse_all(["x=1", "2", "x=3"])
    assert len(parse_all(["1", "1"])) == 2


@settings(max_examples=40)
@given(st.text() | st.from_regex(r"([a-z]*=)?[0-9]{1,30}(,[0-9]{1,30})*(:\w+)?", fullmatch=True))
def test_any_text_is_an_input_or_one_sentence(text: str) -> None:
    try:
        read = parse(text)
    except UsageError as refused:
        assert str(refused).startswith("--input ")
    else:
        assert all(0 <= size < 1 << 63 for size in read.shape)
