"""Third-party frameworks: found by their entry points, loaded late, and harmless when they fail."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
import torch
from support.examples import EXAMPLES
from torch import nn

from distprof.frameworks.protocol import ParameterLayout
from distprof.frameworks.registry import FrameworkRegistry
from distprof.model.topology import RankTopology
from distprof.topology.meshes import MeshRecorder

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

PLUGIN = EXAMPLES / "stack_plugin"


class Grid:
    """A grid of two rows and two columns."""

    def row_of(self, rank: int) -> list[int]:
        return [rank // 2 * 2, rank // 2 * 2 + 1]

    def column_of(self, rank: int) -> list[int]:
        return [rank % 2, rank % 2 + 2]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Installs the example with the entry points of its pyproject, as pip does."""
    install(tmp_path, tomllib.loads((PLUGIN / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(PLUGIN)
    yield
    for name in ("gridstack_distprof", "broken_distprof"):
        sys.modules.pop(name, None)


def install(folder: Path, groups: dict[str, dict[str, str]]) -> None:
    info = folder / "gridstack_distprof-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gridstack-distprof\nVersion: 1.0\n")
    lines = [f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in names.items()) for group, names in groups.items()]
    (info / "entry_points.txt").write_text("".join(lines))


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the stack look imported."""
    gridstack = ModuleType("gridstack")
    gridstack.GRID = Grid()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gridstack", gridstack)


def test_not_loaded_without_its_package(installed: None) -> None:
    assert "gridstack" not in {stack.name for stack in FrameworkRegistry().imported()}
    assert "gridstack_distprof" not in sys.modules


def test_axes_layouts_and_experts(installed: None, imported: None) -> None:
    stacks = FrameworkRegistry()
    topology = RankTopology(3, 4, MeshRecorder(), stacks).topology()
    assert (topology.source, topology.sizes["tp"], topology.sizes["dp"]) == ("gridstack", 2, 2)
    assert [topology.coordinates[axis] for axis in ("tp", "dp", "ep")] == [1, 1, 1]
    weight = nn.Parameter(torch.zeros(2, 4))
    assert stacks.layout(nn.Linear(1, 1), "weight", weight) == ParameterLayout(8, 8, 8)
    weight.gridstack_pieces = 2  # type: ignore[attr-defined]
    assert stacks.layout(nn.Linear(1, 1), "weight", weight) == ParameterLayout(8, 8, 16, ("tp",))
    layer = nn.Module()
    layer.gridstack_experts = nn.ModuleList([nn.Linear(2, 2)])
    layer.gridstack_num_experts = 4  # type: ignore[assignment]
    found = stacks.experts(layer)
    assert found is not None and (found.num_experts, len(found.modules)) == (4, 1)


def test_entry_points_may_have_another_class(installed: None, imported: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with the package importlib_metadata, a newer version of the standard library's module."""

    class Other:
        def __init__(self, entry: metadata.EntryPoint) -> None:
            self.name, self.value, self.load = entry.name, entry.value, entry.load

    found = [Other(entry) for entry in metadata.entry_points(group="distprof.frameworks")]
    monkeypatch.setattr("distprof.frameworks.registry.entry_points", lambda group: found)
    topology = RankTopology(3, 4, MeshRecorder(), FrameworkRegistry()).topology()
    assert (topology.source, topology.sizes["tp"]) == ("gridstack", 2)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise RuntimeError('no such grid')", "RuntimeError: no such grid"),
        ("Stack = 3", "is no distprof.frameworks.protocol.Framework"),
        ("", "has no attribute 'Stack'"),
        (
            "from distprof.frameworks.protocol import Framework\n"
            "class Stack(Framework):\n"
            "    name = 'gridstack'\n"
            "    def groups(self, models, rank):\n"
            "        raise KeyError('row')\n",
            "KeyError: 'row'",
        ),
    ],
)
def test_failing_stack_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, imported: None, code: str, why: str
) -> None:
    install(tmp_path, {"distprof.frameworks": {"gridstack": "broken_distprof:Stack"}})
    (tmp_path / "broken_distprof.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    topology = RankTopology(1, 4, MeshRecorder(), FrameworkRegistry()).topology()
    sys.modules.pop("broken_distprof", None)
    assert (topology.source, topology.coordinates["dp"]) == ("assumed", 1)
    (note,) = topology.notes
    assert note.startswith("the answer of gridstack") and why in note
