"""Tests that folders match the map in CONTRIBUTING.md, and that imports go one way between them."""

from __future__ import annotations

import ast
import re
import runpy
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parent.parent
#: The units in the order of their imports: a unit imports itself and earlier units.  A unit is a folder, or a module
#: directly in ``distprof`` or ``merge``.
BASE = (
    *(
        "plain",
        "version",
        "printable",
        "rank_names",
        "suggestions",
        "external_exceptions",
        "errors",
        "safe_files",
        "safe_folders",
        "clock",
    ),
    *("console", "devices", "run_folder", "peaks", "records", "shard", "config", "rank"),
    *("heartbeat", "native"),
)
COUNTING = ("tensors", "hooks", "flops.formulas", "flops")
MODEL = ("module_walk", "topology", "frameworks", "model")
PROBES = ("probes", "probes.memory", "probes.compiled", "probes.collectives", "probes.timing", "probes.counting")
RANK_SIDE = (*COUNTING, *MODEL, *PROBES, "clock_sync", "recorder.windows", "recorder", "inject")
LAUNCHER = (
    *("launcher.store", "launcher.daemon.exchange", "launcher.daemon.hang_watch", "launcher.daemon.slow_rank"),
    *("launcher.daemon.metrics", "launcher.daemon"),
    *("launcher.gather", "launcher.remote", "launcher"),
)
ANALYSIS = (
    "merge.report",
    "merge.processors",
    "merge.arrays",
    "merge.wording",
    "merge.stats",
    "merge.quantities",
    "merge.load",
    "merge.job",
    "merge.analysis",
    "merge.clock",
    "merge.collectives",
    "merge.work",
    "merge.times",
    "merge.experts.recorded",
    "merge.experts",
    "merge.skew",
    "merge.host_rows",
    "merge.hang_rows",
    "merge.gain_grid",
    "merge.step_timeline",
    "merge.time_use",
    "merge.next_steps",
    "merge.warmup",
    "merge.reduced_windows",
    "merge.run_info",
    "merge.analyse",
    "merge.trace",
)
RENDERERS = (
    "merge.text.format",
    "merge.text.deepspeed",
    "merge.text.blocks.moe",
    "merge.text.blocks",
    "merge.text",
    "merge.plots",
    "merge.plots.experts",
    "merge.export.tables",
    "merge.export",
    "merge.html.drawings",
    "merge.html",
)
COMPARISON = ("merge.diff", "merge.diff.page")
COMPOSERS = ("trackers", "results", "standalone", "api", "commands", "commands.count", "commands.live", "__main__")
ORDER = (*BASE, *RANK_SIDE, *LAUNCHER, *ANALYSIS, *RENDERERS, *COMPARISON, *COMPOSERS)
#: The units that each side may import.
ALLOWED_UNITS = {
    RANK_SIDE: {*BASE, *RANK_SIDE},
    LAUNCHER: {*BASE, *LAUNCHER},
    ANALYSIS: {*BASE, *ANALYSIS} - {"console", "config"},
    RENDERERS: {
        "plain",
        "errors",
        "printable",
        "rank_names",
        "records",
        "merge.report",
        "merge.arrays",
        "merge.processors",
        "merge.stats",
        "merge.wording",
        "merge.quantities",
        "merge.trace",
    }
    | set(RENDERERS),
}
#: The third-party packages that each side may import.
ALLOWED_PACKAGES = {
    BASE: {"numpy", "msgpack", "tomllib", "tomli"},
    RANK_SIDE: {"numpy", "msgpack", "torch"},
    LAUNCHER: {"torch", "msgpack", "prometheus_client"},
    ANALYSIS: {"distributed", "numpy"},
    RENDERERS: {"numpy", "matplotlib", "jinja2", "markupsafe", "perfetto", "pyarrow"},
}
LONGEST_FILE = 500
MOST_MODULES = 16


def packages() -> dict[str, Path]:
    """Returns package name -> folder, by pyproject's mapping."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    mapping: dict[str, str] = tools["package-dir"]

    def folder(package: str) -> Path:
        root = max((name for name in mapping if f"{package}.".startswith(f"{name}.")), key=len)
        return ROOT / mapping[root] / Path(*package.removeprefix(root).strip(".").split("."))

    return {package: folder(package) for package in tools["packages"]}


def modules() -> dict[str, Path]:
    """Returns module name -> file of everything that is installed."""
    return {
        package if file.stem == "__init__" else f"{package}.{file.stem}": file
        for package, folder in packages().items()
        for file in sorted(folder.glob("*.py"))
    }


MODULES = modules()


def imports(file: Path) -> Iterator[str]:
    """Yields every name that a file imports, also under TYPE_CHECKING and inside functions."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute, so that names say where things live"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


@cache
def all_imports() -> dict[str, set[str]]:
    """Returns module name -> what it imports; not while tests are collected, which each worker does."""
    return {name: set(imports(file)) for name, file in MODULES.items() if name != "distprof"}


def unit(module: str) -> str:
    """Returns a module's unit: ``distprof.probes.timing.probe`` -> ``probes.timing``, ``distprof.api`` -> ``api``."""
    inner = module.removeprefix("distprof.")
    is_package = MODULES[module].stem == "__init__"
    folder = inner if is_package else inner.rpartition(".")[0]
    return inner if folder in ("", "merge") else folder


def between_units() -> Iterator[tuple[str, str, str]]:
    """Yields (importing module, its unit, imported unit) wherever the units differ."""
    for module, others in all_imports().items():
        if module in ("distprof.merge", "distprof"):
            continue
        for other in others & MODULES.keys() - {"distprof", "distprof.merge"}:
            if unit(other) != unit(module):
                yield module, unit(module), unit(other)


def test_all_folders_are_installed() -> None:
    on_disk = {file.parent for top in ("distprof", "launcher", "merge") for file in (ROOT / top).rglob("*.py")}
    assert on_disk == set(packages().values())


def test_all_units_are_in_the_order() -> None:
    assert {unit(module) for module in all_imports()} - {"merge"} == set(ORDER)


def test_units_import_earlier_units_only() -> None:
    height = {name: number for number, name in enumerate(ORDER)}
    assert {edge for edge in between_units() if height[edge[2]] > height[edge[1]]} == set()


@pytest.mark.parametrize(("side", "allowed"), ALLOWED_UNITS.items(), ids=["rank", "launcher", "analysis", "renderers"])
def test_sides_are_separate(side: tuple[str, ...], allowed: set[str]) -> None:
    assert {edge for edge in between_units() if edge[1] in side and edge[2] not in allowed} == set()


def test_modules_import_in_no_cycle() -> None:
    found = all_imports()
    try:
        TopologicalSorter({name: others & found.keys() for name, others in found.items()}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("package", ["distprof.records", "distprof.merge.report"])
def test_records_and_report_are_imported_from_their_package(package: str) -> None:
    files = {name for name in MODULES if name.startswith(f"{package}.")}
    assert files
    found = all_imports()
    assert {(module, other) for module in found.keys() - files for other in found[module] & files} == {
        (package, name) for name in files
    }


@pytest.mark.parametrize(
    ("side", "allowed"), ALLOWED_PACKAGES.items(), ids=["base", "rank", "launcher", "analysis", "renderers"]
)
def test_third_party_packages(side: tuple[str, ...], allowed: set[str]) -> None:
    ours = {module: others for module, others in all_imports().items() if unit(module) in side}
    top = {(module, other.partition(".")[0]) for module, others in ours.items() for other in others}
    others = {(module, name) for module, name in top if name not in sys.stdlib_module_names | allowed | {"distprof"}}
    assert others == set()


def test_matplotlib_is_imported_by_plots_only() -> None:
    users = {
        module for module, others in all_imports().items() if any(name.split(".")[0] == "matplotlib" for name in others)
    }
    assert {module for module in users if not module.startswith("distprof.merge.plots")} == set()


def tracked_folders() -> list[Path]:
    tops = ("distprof", "launcher", "merge", "examples", "tests", "tools")
    return sorted({file.parent for top in tops for file in (ROOT / top).rglob("*.py")} - {ROOT / "tests" / "cases"})


@pytest.mark.parametrize("folder", tracked_folders(), ids=lambda folder: str(folder.relative_to(ROOT)))
def test_folder_size(folder: Path) -> None:
    files = [file for file in folder.glob("*.py") if file.name not in ("__init__.py", "conftest.py")]
    assert len(files) <= MOST_MODULES
    lengths = {file.name: len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_the_makefile_installs_again_when_c_sources_change() -> None:
    wildcards = re.findall(r"\$\(wildcard (\S+)\)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    named = {file for wildcard in wildcards for file in ROOT.glob(wildcard)}
    sources = {file for top in ("distprof", "launcher", "merge") for file in (ROOT / top).rglob("*.[ch]")}
    assert sources and sources <= named


def test_contributing_has_the_map_of_folders() -> None:
    code = runpy.run_path(str(ROOT / "tools" / "folder_map.py"))
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert "<!-- map -->" in page
    assert page == code["with_map"](page), "python tools/folder_map.py writes it anew"


#: Old names of modules that said little.
OLD_NAMES = {
    *("doors", "turns", "holders", "standing", "say", "claims", "absence", "checks", "rehearsals", "stacks", "owned"),
    *("layers", "module_list", "fused", "timed", "sums", "shortcut", "holdings", "standing_mode", "regions"),
    *("moved", "redone", "arithmetic", "custom", "built", "counted", "shown", "taken", "older", "engine"),
    *("outcome", "child", "align", "siblings", "labels", "numbering", "own_axes", "readings"),
    *("coverage", "unavailable", "measured", "replicas", "parts", "once", "hosted", "suspects", "culprit", "words"),
    *("front", "alone", "at_once", "uncompiled", "step_hook", "rundir", "rankdata", "jsonout", "spread", "medians"),
}


def test_no_module_has_an_old_name() -> None:
    assert {name for name in MODULES if name.rpartition(".")[2] in OLD_NAMES} == set()
