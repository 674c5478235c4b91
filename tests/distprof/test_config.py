"""Configuration files: which one is read, what may stand in it, and one sentence for what may not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distprof.config import Config, chosen_file, decide, read_config
from distprof.errors import UsageError
from distprof.options import ALL, WINDOW


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
            "x.toml has an unknown key 'distprof': known are count, count-eager, depth, ",
        ),
        ("x.toml", 'warmup = "3"', "'warmup' in x.toml is '3': give a whole number, 0 or more"),
        ("x.toml", "count = 0", "'count' in x.toml is 0: give true or false"),
        ("x.toml", "top = 0", "'top' in x.toml is 0: give a whole number, 1 or more"),
        ("x.toml", "warmup =", "the configuration x.toml is no TOML: Invalid value (at "),
        ("x.toml", "warmup = 1\xff", "the configuration x.toml is no text in UTF-8"),
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


def test_a_file_that_decides_more_than_is_asked_is_read_for_what_is_asked(here: Path) -> None:
    (here / "distprof.toml").write_text('name = "x"\ntimed = 4\n')
    layer = decide(
        WINDOW, {"warmup": 1, "timed": None}, {"DISTPROF_COUNT": "0", "DISTPROF_NAME": "y"}, read_config(None)
    )
    assert {name: value.value for name, value in layer.items()} == {"timed": 4, "count": False, "warmup": 1}
