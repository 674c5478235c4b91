"""Measured peaks, kept for later merges."""

from __future__ import annotations

from pathlib import Path

import pytest

from distprof.errors import UsageError
from distprof.peaks.cache import cache_file, read_peak_cache, write_peak_cache
from distprof.peaks.table import Engine

CPU, GPU = Engine("Some CPU", 2, "fp32"), Engine("Some GPU", 0, "bf16")


def test_what_was_kept_is_read_and_later_figures_replace_earlier_ones(tmp_path: Path) -> None:
    path = tmp_path / "not" / "yet" / "peaks.json"
    assert read_peak_cache(path) == ({}, "")
    write_peak_cache(path, {CPU: 0.1, CPU._replace(threads=4): 0.2})
    write_peak_cache(path, {CPU: 0.125, GPU: 100.0})
    assert read_peak_cache(path) == ({CPU: 0.125, CPU._replace(threads=4): 0.2, GPU: 100.0}, "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"peaks": 1}',
        '{"peaks": [{"device": "x", "threads": 1}]}',
        '{"peaks": [{"device": "x", "threads": true, "arithmetic": "fp32", "tflops": 1}]}',
        '{"peaks": [{"device": 1, "threads": 1, "arithmetic": "fp32", "tflops": 1}]}',
        '{"peaks": [{"device": "x", "threads": 1, "arithmetic": "fp32", "tflops": 0}]}',
        '{"peaks": [{"device": "x", "threads": 1, "arithmetic": "fp32", "tflops": NaN}]}',
        '{"peaks": ' + "[" * 100_000,
    ],
    ids=lambda text: text[:80],
)
def test_a_file_that_holds_something_else_is_named_and_never_overwritten(tmp_path: Path, text: str) -> None:
    path = tmp_path / "peaks.json"
    path.write_text(text)
    figures, problem = read_peak_cache(path)
    assert figures == {} and problem.startswith(f"{path} holds no measured peaks (")
    with pytest.raises(UsageError, match="remove it, and measure again"):
        write_peak_cache(path, {CPU: 1.0})
    assert path.read_text() == text


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="choose a folder by XDG_CACHE_HOME"):
        write_peak_cache(tmp_path / "file" / "peaks.json", {CPU: 1.0})


def test_the_file_lies_where_this_users_caches_do() -> None:
    assert cache_file({"XDG_CACHE_HOME": "/x", "HOME": "/home/u"}) == Path("/x/distprof/peaks.json")
    assert cache_file({"HOME": "/home/u"}) == Path("/home/u/.cache/distprof/peaks.json")
    assert cache_file({"XDG_CACHE_HOME": "relative", "HOME": "/home/u"}) == Path("/home/u/.cache/distprof/peaks.json")
