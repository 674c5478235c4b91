"""Tests that no message of distprof is empty, whatever text a script's exceptions have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.recording import recorder
from torch import nn

from distprof.errors import said
from distprof.records import Error
from distprof.run_folder import RunFolder
from distprof.shard.reader import read_shard


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


def caught(error: Exception) -> Exception:
    try:
        raise error
    except Exception as raised:
        return raised


def test_an_exception_without_a_word_is_told_by_its_place() -> None:
    assert said(caught(ValueError("what"))) == "what"
    for mute in (AssertionError(), ValueError(" \n"), Mute()):
        assert said(caught(mute)) == f"raised in test_errors.py, line {caught.__code__.co_firstlineno + 2}"
    assert said(AssertionError()) == "it says no more"


def test_what_ends_a_recording_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("distprof.model.registry.parameters_of", broken)
    recording = recorder(tmp_path)
    recording.arm()
    nn.Linear(1, 1)(torch.ones(1))
    recording.finish()
    place = f"raised in test_errors.py, line {broken.__code__.co_firstlineno + 1}"
    assert f"AssertionError in entering a module: {place}" in capsys.readouterr().err
    (file,) = RunFolder(tmp_path).shard_files()
    (error,) = [record for record in read_shard(file).records if isinstance(record, Error)]
    assert error.message == f"AssertionError: {place}"
