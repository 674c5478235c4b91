"""Tests of the table of options."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprof.commands.report_output import text_options
from distprof.config.option import Option
from distprof.config.option_sources import from_call, from_environment, unknown, unknown_variables, with_defaults
from distprof.config.options import ALL, RUN, SHOWN
from distprof.errors import UsageError
from distprof.merge.text import TextOptions
from distprof.peaks.table import Peaks

NUMBER = Option("some_number", int, "", least=-1)


def test_an_option_its_variable_and_its_key_have_one_name() -> None:
    assert (NUMBER.flag, NUMBER.variable) == ("--some-number", "DISTPROF_SOME_NUMBER")
    assert len({option.name for option in ALL}) == len(ALL)


@pytest.mark.parametrize("taken", ["RUN", "TOKEN", "CONFIG"])
def test_no_variable_means_something_else_already(taken: str) -> None:
    assert f"DISTPROF_{taken}" not in {option.variable for option in ALL}


@pytest.mark.parametrize(
    ("kind", "value", "sentence"),
    [
        (int, True, "there is True: give a whole number, -1 or more"),
        (int, -2, "there is -2: give a whole number, -1 or more"),
        (int, 1.0, "there is 1.0: give a whole number, -1 or more"),
        (bool, 1, "there is 1: give true or false"),
        (str, "", "there is '': give a text that is not empty"),
        (str, 3, "there is 3: give a text that is not empty"),
        (float, "much", "there is 'much': give a number"),
        (int, 10**30, f"there is 1{'0' * 30}: give a whole number from -1 to 1,000,000,000"),
        (str, "a\0b", "there is 'a\\x00b': give a text that can name a file"),
        (str, "\ud800", "there is '\\ud800': give a text that can name a file"),
        (float, float("nan"), "there is nan: give a number"),
        (float, float("inf"), "there is inf: give a number"),
        (float, 10**400, f"there is 1{'0' * 99}...: give a number"),
    ],
)
def test_a_value_of_another_kind_is_refused(kind: type, value: object, sentence: str) -> None:
    with pytest.raises(UsageError) as refused:
        Option("some_number", kind, "", least=-1).checked(value, "there")
    assert str(refused.value) == sentence


@pytest.mark.parametrize("value", [1e-320, 0, -1, 1e10, float("nan"), float("inf"), 10**400])
def test_a_peak_is_what_a_device_could_do(value: float) -> None:
    (peak,) = (option for option in ALL if option.name == "peak_tflops")
    with pytest.raises(UsageError, match=r"there is .*: give a number from 1e-06 to 1e"):
        peak.checked(value, "there")
    with pytest.raises(UsageError, match="is none"):
        Peaks(value)


@pytest.mark.parametrize("option", ALL, ids=lambda option: option.name)
@given(text=st.text() | st.integers().map(str) | st.floats().map(str) | st.just("9" * 5000))
def test_any_text_is_a_value_or_one_sentence(option: Option, text: str) -> None:
    try:
        value = option.parse(text, "there").value
    except UsageError as refused:
        assert str(refused).startswith("there is ") and len(str(refused)) < 250
    else:
        assert type(value) is option.kind
        json.dumps(value, allow_nan=False)


@pytest.mark.parametrize(("kind", "value"), [(int, -1), (bool, False), (str, "x"), (float, 2), (float, 0.5)])
def test_a_value_of_the_kind_is_taken_as_it_is(kind: type, value: object) -> None:
    assert Option("x", kind, "", least=-1).checked(value, "there") == (value, "there")


@pytest.mark.parametrize(
    ("kind", "text", "value"), [(int, "-1", -1), (bool, "1", True), (bool, "0", False), (str, "a b", "a b")]
)
def test_variables_are_texts(kind: type, text: str, value: object) -> None:
    option = Option("x", kind, "", least=-1)
    assert from_environment([option], {"DISTPROF_X": text, "DISTPROF_Y": "?"}) == {"x": (value, "DISTPROF_X")}


def test_what_is_not_given_is_left_to_others() -> None:
    assert from_call([NUMBER], {"some_number": None, "other": 1}) == from_call([NUMBER], {}) == {}
    assert from_call([NUMBER], {"some_number": 0}) == {"some_number": (0, "some_number")}


def test_an_unknown_key_is_named_with_the_nearest_or_with_all() -> None:
    known = ["warmup", "timed"]
    assert str(unknown("warm-up", known, "x.toml")) == "x.toml has an unknown key 'warm-up': did you mean 'warmup'?"
    assert str(unknown("colour", known, "x.toml")) == "x.toml has an unknown key 'colour': known are timed, warmup"


@pytest.mark.parametrize("option", ALL, ids=lambda option: option.name)
def test_defaults_are_values_of_their_options(option: Option) -> None:
    assert option.default_text or option.checked(option.default, "there").value is option.default
    assert option.help.startswith(f"{option.text} (default: ")


def test_reference_has_defaults_of_run() -> None:
    page = (Path(__file__).parents[3] / "docs" / "REFERENCE.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `--([a-z-]+).*`.* \| (.*) \|$", page, re.MULTILINE))
    for option in RUN:
        flag = option.flag.removeprefix("--")
        if option.kind is bool:  # a switch stands there as the one that is not the default
            assert rows[f"no-{flag}" if option.default else flag] == "off"
        elif option.name != "name":
            assert rows[flag].strip("`") == (option.default_text or str(option.default))


def test_text_report_has_defaults_of_the_table() -> None:
    assert text_options(with_defaults(SHOWN, {})) == TextOptions()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("DISTPROF_WARM_UP", "'DISTPROF_WARM_UP': did you mean 'DISTPROF_WARMUP'?"),
        ("DISTPROF_CONFG", "'DISTPROF_CONFG': did you mean 'DISTPROF_CONFIG'?"),
        ("DISTPROF_ZZZ", "'DISTPROF_ZZZ': known are DISTPROF_COLLECTIVES, DISTPROF_COLLECTIVE_TIMING, "),
    ],
)
def test_misspelt_variables_are_named(name: str, sentence: str) -> None:
    found = unknown_variables({name: "1", "PATH": "", "DISTPROF_TIMED": "2"})
    assert list(found) == [name]
    assert found[name].startswith(f"the environment has an unknown variable {sentence}")
    assert "DISTPROF_RUN" not in found[name], "it is not for users to set"


def test_known_variables_are_not_named() -> None:
    known = dict.fromkeys((option.variable for option in ALL), "")
    own = dict.fromkeys(
        ("DISTPROF_CONFIG", "DISTPROF_RUN", "DISTPROF_STACKS", "DISTPROF_BROWSER", "DISTPROF_PROMETHEUS"), ""
    )
    assert unknown_variables({**known, **own, "DISTPROFILE_X": ""}) == {}
