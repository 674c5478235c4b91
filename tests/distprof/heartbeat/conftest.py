"""Fixtures for tests of the heartbeat page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from distprof.heartbeat import page_folder
from distprof.heartbeat.page import create_page
from distprof.heartbeat.page_folder import remove_folder


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the only folder in which pages are made."""
    monkeypatch.setattr(page_folder, "bases", lambda: [tmp_path])
    return tmp_path


@pytest.fixture
def token(base: Path) -> Iterator[str]:
    """Returns the token of a new page."""
    made = create_page()
    yield made
    remove_folder(made)
