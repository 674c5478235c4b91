"""Tests of the flops_profiler section of a DeepSpeed config."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from distprof.config.files import Config, read_config
from distprof.errors import UsageError

#: The other sections of a real config of a ZeRO job.
BESIDE = {"train_batch_size": 8, "zero_optimization": {"stage": 2}, "bf16": {"enabled": "auto"}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ds_config.json"


def read(path: Path, section: object) -> Config:
    path.write_text(json.dumps({**BESIDE, "flops_profiler": section}))
    return read_config(path)


def values(config: Config) -> dict[str, object]:
    return {name: value.value for name, value in config.layer.items()}


def test_deepspeeds_own_example_is_understood_whole(path: Path) -> None:
    constants = pytest.importorskip("deepspeed.profiling.constants")
    example = json.loads("{" + constants.FLOPS_PROFILER_FORMAT.partition("{")[2])["flops_profiler"]
    config = read(path, example)
    assert values(config) == {"enabled": True, "warmup": 1, "depth": -1, "top": 3, "detailed": True}
    assert config.remarks == ()
    known = {value for name, value in vars(constants).items() if f"{name}_DEFAULT" in vars(constants)}
    assert known == set(example), "no key of DeepSpeed's is missing above"


def test_an_output_file_asks_for_a_report_at_the_end(path: Path) -> None:
    assert values(read(path, {"output_file": "prof/out.txt"})) == {"output_file": "prof/out.txt", "merge": True}
    assert values(read(path, {"output_file": ""})) == values(read(path, {"output_file": None})) == {}


def test_the_recompute_factor_is_taken_and_said_to_be_needless(path: Path) -> None:
    config = read(path, {"recompute_fwd_factor": 1.0})
    assert values(config) == {}
    (remark,) = config.remarks
    assert remark.startswith(f"'flops_profiler.recompute_fwd_factor' in {path} is not needed: ")
    assert read(path, {"recompute_fwd_factor": 0}).remarks == ()


def test_config_without_the_section(path: Path) -> None:
    path.write_text(json.dumps(BESIDE))
    assert read_config(path) == Config({}, (f"{path} has no section 'flops_profiler': it changes nothing here",))


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        (
            {"profile_steps": 1},
            "'flops_profiler' in {} has an unknown key 'profile_steps': did you mean 'profile_step'?",
        ),
        ({"modul_depth": 1}, "'flops_profiler' in {} has an unknown key 'modul_depth': did you mean 'module_depth'?"),
        ({"profile_step": "5"}, "'flops_profiler.profile_step' in {} is '5': give a whole number, 0 or more"),
        ({"enabled": "true"}, "'flops_profiler.enabled' in {} is 'true': give true or false"),
        ({"module_depth": -2}, "'flops_profiler.module_depth' in {} is -2: give a whole number, -1 or more"),
        ({"recompute_fwd_factor": "x"}, "'flops_profiler.recompute_fwd_factor' in {} is 'x': give a number"),
        ([1], "'flops_profiler' in {} is [1]: give an object"),
    ],
)
def test_what_makes_no_sense_is_told_with_file_and_key(path: Path, section: Any, sentence: str) -> None:
    with pytest.raises(UsageError) as refused:
        read(path, section)
    assert str(refused.value) == sentence.format(path)


def test_comments_are_read_as_deepspeed_reads_them(path: Path) -> None:
    pytest.importorskip("hjson")
    path.write_text('{\n  // as people write it\n  "flops_profiler": {"profile_step": 3,},\n}')
    assert values(read_config(path)) == {"warmup": 3}


@pytest.mark.parametrize("text", ["[1, 2]", "3"])
def test_json_that_is_no_config_is_told(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(UsageError, match=r"is (list|int), not an object with sections"):
        read_config(path)


@pytest.mark.parametrize("hjson", [True, False])
def test_what_is_no_json_is_told_in_one_line(path: Path, hjson: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if hjson:
        pytest.importorskip("hjson")
    else:
        monkeypatch.setitem(sys.modules, "hjson", None)
    path.write_text('{"flops_profiler": {"enabled": }')
    with pytest.raises(UsageError) as refused:
        read_config(path)
    assert str(refused.value).startswith(f"the configuration {path} is neither a .toml nor JSON: ")
    assert "\n" not in str(refused.value)
    assert ("where hjson is installed" in str(refused.value)) is not hjson


def test_the_steps_of_earlier_releases_are_taken_and_said(path: Path) -> None:
    config = read(path, {"enabled": True, "start_step": 3, "end_step": 8, "module_depth": -1})
    assert values(config) == {"enabled": True, "warmup": 3, "timed": 5, "depth": -1}
    (remark,) = config.remarks
    assert remark.startswith(f"'flops_profiler' in {path}: start_step and end_step of an earlier DeepSpeed are taken")
    assert values(read(path, {"start_step": 3})) == {"warmup": 3}
    assert values(read(path, {"profile_step": 2, "end_step": 5})) == {"warmup": 2, "timed": 3}
    assert values(read(path, {"profile_step": 2, "start_step": 4})) == {"warmup": 2}
    for wrong in ({"start_step": 5, "end_step": 5}, {"start_step": -1}, {"end_step": "soon"}):
        with pytest.raises(UsageError, match=r"flops_profiler\.(start|end)_step"):
            read(path, wrong)
