"""Tests of configuration files: which one is read, what it may contain, and one sentence for each error."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distprof.config.files import Config, chosen_file, decide_options, read_config
from distprof.config.options import ALL, WINDOW
from distprof.errors import UsageError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def values(config: Config) -> dict[str, object]:
    return {name: value.value for name, value in config.layer.items()}


def test_without_a_file_nothing_is_decided() -> None:
    assert read_config(None) == Config()


def test_pyproject_has_a_table_and_our_own_file_goes_before_it(here: Path) -> None:
    (here / "pyproject.toml").write_text('[project]\nname = "x"\n[tool.distprof]\nwarmup = 7\n')
    assert values(read_config(None)) == {"warmup": 7}
    (here / "distprof.toml").write_text("timed = 2\n")
    assert values(read_config(None)) == {"timed": 2}


@pytest.mark.parametrize("text", ["", "[tool.ruff]\nline-length = 100\n", "[tool]\n", "[project]\nname = 'x'\n"])
def test_a_pyproject_that_does_not_speak_of_us_says_nothing(here: Path, text: str) -> None:
    (here / "pyproject.toml").write_text(text)
    assert read_config(None) == Config()


def test_a_file_that_was_asked_for_is_the_only_one(here: Path) -> None:
    (here / "distprof.toml").write_text("timed = 2\n")
    (here / "sub").mkdir()
    (here / "sub" / "pyproject.toml").write_text("[tool.distprof]\nwarmup = 7\n")
    assert values(read_config(Path("sub/pyproject.toml"))) == {"warmup": 7}


def test_the_environment_may_name_the_file() -> None:
    assert chosen_file(None, {"DISTPROF_CONFIG": "a.toml"}) == Path("a.toml")
    assert chosen_file(Path("b.toml"), {"DISTPROF_CONFIG": "a.toml"}) == Path("b.toml")
    assert chosen_file(None, {"DISTPROF_CONFIG": ""}) is None


def test_every_option_is_a_key_spelled_as_on_the_command_line(here: Path) -> None:
    texts = {int: "3", bool: "true", str: '"x"', float: "1.5"}
    lines = [f"{option.flag.removeprefix('--')} = {texts[option.kind]}" for option in ALL]
    (here / "x.toml").write_text("\n".join(lines))
    assert values(read_config(Path("x.toml"))).keys() == {option.name for option in ALL}
    (here / "x.toml").write_text('output_file = "x"')
    assert values(read_config(Path("x.toml"))) == {"output_file": "x"}


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("x.toml", "warm_up = 3", "x.toml has an unknown key 'warm_up': did you mean 'warmup'?"),
        (
            "x.toml",
            "[distprof]\nwarmup = 3",
            "x.toml has an unknown key 'distprof': known are collective-timing, collectives, count, ",
        ),
        ("x.toml", 'warmup = "3"', "'warmup' in x.toml is '3': give a whole number, 0 or more"),
        ("x.toml", "count = 0", "'count' in x.toml is 0: give true or false"),
        ("x.toml", "top = 0", "'top' in x.toml is 0: give a whole number, 1 or more"),
        ("x.toml", "warmup =", "the configuration x.toml is no TOML: Invalid value (at "),
        ("x.toml", "warmup = 1\xff", "the configuration x.toml is not UTF-8 text"),
        (
            "pyproject.toml",
            "[tool.distprof]\ntimes = 1",
            "[tool.distprof] of pyproject.toml has an unknown key 'times'",
        ),
        ("pyproject.toml", "[tool]\ndistprof = 3", "[tool.distprof] of pyproject.toml is 3: give a table"),
    ],
)
def test_what_makes_no_sense_is_told_with_file_and_key(here: Path, name: str, text: str, sentence: str) -> None:
    (here / name).write_text(text, encoding="latin-1")
    with pytest.raises(UsageError) as refused:
        read_config(Path(name))
    assert str(refused.value).startswith(sentence)


@pytest.mark.parametrize("name", ["nosuch.toml", "nosuch.json", "."])
def test_a_file_that_cannot_be_read_is_told(name: str) -> None:
    with pytest.raises(UsageError, match=r"^the configuration \S+ cannot be read: \w"):
        read_config(Path(name))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_told(here: Path) -> None:
    (here / "distprof.toml").touch(mode=0)
    with pytest.raises(UsageError, match="cannot be read: Permission denied"):
        read_config(None)


def test_only_requested_settings_of_a_file_are_read(here: Path) -> None:
    (here / "distprof.toml").write_text('name = "x"\ntimed = 4\n')
    layer = decide_options(
        WINDOW, {"warmup": 1, "timed": None}, {"DISTPROF_COUNT": "0", "DISTPROF_NAME": "y"}, read_config(None)
    )
    assert {name: value.value for name, value in layer.items()} == {"timed": 4, "count": False, "warmup": 1}


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("x.toml", f"warmup = {'[' * 5000}{']' * 5000}", "the configuration x.toml is no TOML: maximum recursion"),
        ("x.toml", f"warmup = {'9' * 5000}", "the configuration x.toml is no TOML: Exceeds the limit"),
        ("x.toml", f"warmup = 0x{'f' * 5000}", "'warmup' in x.toml is int too large to show: give a whole number from"),
        ("x.toml", f"warmup = '{'9' * 5000}'", f"'warmup' in x.toml is '{'9' * 99}...: give a whole number"),
        ("x.toml", f"{'x' * 5000} = 1", f"x.toml has an unknown key '{'x' * 99}...: known are "),
        ("x.toml", 'out = "a\\u0000b"', "'out' in x.toml is 'a\\x00b': give a text that can name a file"),
        ("x.toml", "peak-tflops = nan", "'peak-tflops' in x.toml is nan: give a number from 1e-06 to 1e+09"),
        ("x.json", "[" * 100_000, "the configuration x.json is neither a .toml nor JSON: "),
        ("x.json", f'{{"flops_profiler": {"9" * 5000}}}', "the configuration x.json is neither a .toml nor JSON: "),
        (
            "x.json",
            '{"flops_profiler": {"output_file": "\\ud800"}}',
            "'flops_profiler.output_file' in x.json is '\\ud800': give a text that can name a file",
        ),
        ("x.json", '{"flops_profiler": {"profile_step": 1e400}}', "'flops_profiler.profile_step' in x.json is inf: "),
        ("x.json", f'{{"flops_profiler": {"[" * 900}{"]" * 900}}}', "'flops_profiler' in x.json is "),
    ],
)
def test_what_no_file_should_hold_is_told_in_a_short_sentence(here: Path, name: str, text: str, sentence: str) -> None:
    (here / name).write_text(text)
    with pytest.raises(UsageError) as refused:
        read_config(Path(name))
    assert str(refused.value).startswith(sentence)
    assert len(str(refused.value)) < 400 and "\n" not in str(refused.value)


def test_a_file_without_an_end_is_read_to_a_bound() -> None:
    with pytest.raises(UsageError, match="has more than 16,777,216 characters: it is none"):
        read_config(Path("/dev/zero"))


@settings(max_examples=40)
@given(data=st.data())
def test_any_file_is_a_configuration_or_one_sentence(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\ud800")
    values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
    keys = st.sampled_from(["warmup", "output_file", "module_depth", "top_modules", "recompute_fwd_factor"]) | st.text()
    section = data.draw(st.dictionaries(keys, values) | values)
    file = tmp_path_factory.mktemp("any") / data.draw(st.sampled_from(["x.json", "x.toml"]))
    text = json.dumps({"flops_profiler": section}) if file.suffix == ".json" else data.draw(st.text() | toml())
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        read_config(file)
    except UsageError as refused:
        assert "\n" not in str(refused) and len(str(refused)) < 1000


def toml() -> st.SearchStrategy[str]:
    names = st.sampled_from([option.flag.removeprefix("--") for option in ALL])
    texts = (
        st.integers().map(str) | st.floats().map(str) | st.text().map(json.dumps) | st.sampled_from(["true", "[[]]"])
    )
    return st.tuples(names, texts).map(" = ".join)
