"""Tests of a profile's text: compared with a golden file, and rules that its tables must keep."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from support.recording import Ticking, clock
from torch import Tensor, nn

from distprof import FlopsProfiler
from distprof.standalone import session

GOLDEN = Path(__file__).parent / "golden" / "profile.txt"
SCALES = {"": 1, "K": 1e3, "M": 1e6}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
        self.wait = Ticking(forward_ms=12, backward_ms=20)
        self.shared = nn.Linear(10, 10)
        self.blocks = nn.ModuleList(nn.Sequential(Ticking(4), nn.Linear(10, 10, bias=False)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.wait(self.first(x)).mean((2, 3)).repeat(1, 3)[:, :10]
        for _ in range(3):
            x = self.shared(x)
        for block in self.blocks:
            x = block(x)
        return x @ x.T


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Profiles a forward and its backward of 8 samples, on a clock that only the ticking modules advance."""
    file = tmp_path_factory.mktemp("profile") / "profile.txt"
    model = Net()
    profiler = FlopsProfiler(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "SystemClock", lambda: clock)
        profiler.start_profile()
    model(torch.ones(8, 1, 6, 6)).sum().backward()
    profiler.print_model_profile(profile_step=7, top_modules=2, output_file=str(file))
    profiler.end_profile()
    return file.read_text(encoding="utf-8")


def test_the_text_is_the_golden_one(text: str) -> None:
    blocks = re.split(r"^-{20,} (.*) -{20,}\n", text, flags=re.MULTILINE)
    own = dict(zip(blocks[1::2], blocks[2::2], strict=True))
    assert own["distprof"].startswith("run:      profile of Net")
    assert "Profile Summary at step 7:" in own["distprof"]
    tables = "".join(own[title] for title in ("Aggregated Profile per rank", "Detailed Profile per rank", "Ops"))
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(tables, encoding="utf-8")
    assert tables == GOLDEN.read_text(encoding="utf-8")


def test_the_numbers_are_those_of_pencil_and_paper(text: str) -> None:
    conv = 8 * 4 * 4 * 4 * 9
    forward = conv + 3 * 8 * 100 + 2 * 8 * 100 + 8 * 8 * 10
    backward = conv + 2 * (forward - conv)  # the image needs no gradient
    assert number(line(text, "fwd MACs per rank")) == pytest.approx(forward, rel=0.001)
    assert number(line(text, "bwd MACs per rank")) == pytest.approx(backward, rel=0.001)
    assert line(text, "fwd latency") == "20 ms" and line(text, "bwd latency") == "20 ms"
    assert line(text, "batch size per rank") == "8"


def test_modules_and_what_the_root_does_itself_add_up(text: str) -> None:
    rows = re.findall(r"^  \((\w+)\): .*?(?:\(|\n +)(\S+ ?[KM]?) = \S+ Params, (\S+) ([KM]?)MACs", text, re.MULTILINE)
    assert [name for name, *_ in rows] == ["first", "wait", "shared", "blocks"]
    inside = sum(float(value) * SCALES[scale] for *_, value, scale in rows)
    assert number(line(text, "fwd MACs per rank")) == pytest.approx(inside + 8 * 8 * 10, rel=0.01)
    assert number(line(text, "params per rank")) == pytest.approx(sum(number(row[1]) for row in rows), rel=0.01)


@pytest.mark.parametrize("kind", ["forward", "backward"])
def test_the_ops_of_each_kind_add_up_to_its_work(text: str, kind: str) -> None:
    ops = re.findall(rf"^\S+ +{kind} +\d+ +(\S+) ([KM]?)MACs", text, re.MULTILINE)
    together = sum(float(value) * SCALES[scale] for value, scale in ops)
    label = {"forward": "fwd", "backward": "bwd"}[kind]
    assert together == pytest.approx(number(line(text, f"{label} MACs per rank")), rel=0.01)


def test_it_is_ascii_without_trailing_blanks(text: str) -> None:
    assert text.isascii()
    assert not [row for row in text.splitlines() if row != row.rstrip()]


def line(text: str, label: str) -> str:
    """Returns the value of one line of the summary."""
    (found,) = [row for row in text.splitlines() if row.startswith(f"{label}:")]
    return found.partition(":")[2].strip()


def number(text: str) -> float:
    """Returns ``26.24 KMACs`` as a number."""
    found = re.match(r"([\d.]+) ?([KM]?)", text)
    assert found is not None
    return float(found[1]) * SCALES[found[2]]
