"""Tests of what stays imported when distprof's imports are separated from the script's."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest

from distprof.inject.import_hook import separate_imports

NAME = "records_of_distprof"  # a module that distprof imports, and that no other test has


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the folder of a script, which comes first on the path."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    return folder


def still_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether distprof's module stays in ``sys.modules`` after its imports."""
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / f"{NAME}.py").write_text("", encoding="utf-8")
    with separate_imports([str(tmp_path / "ours"), *sys.path[1:]]):
        import_module(NAME)
    return NAME in sys.modules


def test_a_module_of_the_script_is_not_hidden(scripts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (scripts / f"{NAME}.py").write_text("", encoding="utf-8")
    assert not still_imported(tmp_path, monkeypatch)


def test_a_folder_without_code_is_no_module(scripts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clone of distprof beside the script is such a folder: the recorder lost its own modules."""
    (scripts / NAME).mkdir()
    assert still_imported(tmp_path, monkeypatch)


def test_a_checkout_of_distprof_does_not_hide_what_records(
    scripts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scripts / NAME / "inject").mkdir(parents=True)
    (scripts / NAME / "__init__.py").touch()
    (scripts / NAME / "inject" / "import_hook.py").touch()
    assert still_imported(tmp_path, monkeypatch)
