"""Tests of the settings of a recording: their sources, and how ranks get them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distprof.config.settings import SETTINGS_FILE, Settings, read_settings, resolve, write_settings
from distprof.errors import UsageError


def test_precedence_of_option_environment_and_default() -> None:
    environment = {"DISTPROF_WARMUP": "3", "DISTPROF_TIMED": "4", "DISTPROF_COUNT": "0"}
    assert resolve({}, warmup=None) == Settings()
    assert resolve(environment) == Settings(warmup=3, timed=4, count=False)
    assert resolve(environment, warmup=7, timed=None, count=True) == Settings(warmup=7, timed=4, count=True)


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"DISTPROF_WARMUP": "many"}, "DISTPROF_WARMUP is 'many': give a whole number, 0 or more"),
        ({"DISTPROF_TIMED": "-1"}, "DISTPROF_TIMED is -1: give a whole number"),
        ({"DISTPROF_COUNT": "yes"}, "DISTPROF_COUNT is 'yes': give 0 or 1"),
        ({"DISTPROF_COUNT": "0", "DISTPROF_TIMED": "0"}, "nothing is left to record"),
    ],
)
def test_values_that_make_no_sense_are_refused(environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        resolve(environment)


@pytest.mark.parametrize("name", ["warmup", "timed"])
def test_negative_iterations_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is -1"):
        resolve({}, **{name: -1})


def test_unknown_setting_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(TypeError, match="the call has an unknown key 'warm_up': did you mean 'warmup'"):
        resolve({}, warm_up=3)


def test_ranks_read_what_the_launcher_wrote(tmp_path: Path) -> None:
    settings = Settings(1, 2, True, True, "/runs/x", "id")
    write_settings(settings, tmp_path)
    assert read_settings(tmp_path) == settings
    assert [path.name for path in tmp_path.iterdir()] == [SETTINGS_FILE]


def test_how_to_count_and_not_to_count_are_not_given_together() -> None:
    assert resolve({"DISTPROF_COUNT_EAGER": "1"}).count_eager
    with pytest.raises(UsageError, match="count_eager says how to count, and counting is off"):
        resolve({}, count=False, count_eager=True)


def test_settings_of_another_version_are_read_for_what_is_known(tmp_path: Path) -> None:
    (tmp_path / SETTINGS_FILE).write_text(json.dumps({"timed": 3, "colour": "blue"}))
    assert read_settings(tmp_path) == Settings(timed=3)


def test_how_to_record_collectives_and_not_to_record_them_are_not_given_together() -> None:
    assert resolve({"DISTPROF_COLLECTIVES": "0"}) == Settings(collectives=False)
    assert resolve({"DISTPROF_COLLECTIVE_TIMING": "1"}) == Settings(collective_timing=True)
    with pytest.raises(UsageError, match="collective_timing says how to record collectives, which is off"):
        resolve({}, collectives=False, collective_timing=True)
