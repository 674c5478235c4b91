"""One browser for all tests of the page, and pages that they share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.page.browser import Browser, WritePage, started


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with started() as session:
        yield session


@pytest.fixture(scope="session")
def write_page(tmp_path_factory: pytest.TempPathFactory) -> WritePage:
    folder = tmp_path_factory.mktemp("pages")

    def write(name: str, page: bytes) -> Path:
        path = folder / f"{name}.html"
        path.write_bytes(page)
        return path

    return write
