"""The house stands as it is drawn: its packages, the direction of its imports, and the size of its files."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

HOUSE = Path(__file__).parent.parent
#: What every part may stand on.  Each may import those before it, and the modules that belong to them.
BASE = {
    "errors",
    "ownership",
    "printable",
    "regular",
    "say",
    "clock",
    "records",
    "checks",
    "codec",
    "framing",
    "shard",
    "turns",
    "rundir",
    "settings",
    "output",
}
BASE |= {"processes", "claims", "launches", "options", "config", "deepspeed_config"}
MERGE_MAY = BASE - {"say", "settings", "output", "options", "config", "deepspeed_config"}
#: What puts the parts together, and is imported by nobody.
COMPOSERS = {"__main__", "commands", "api", "standalone"}
#: Within a rank, a part may import those that stand before it.
RANK_STOREYS = ({"frameworks", "flops", "tree", "schedule"}, {"probes"}, {"recorder"}, {"bootstrap"}, {"inject"})
LONGEST_FILE = 500


def packages() -> dict[str, Path]:
    """Package name -> folder, by pyproject's mapping."""
    tools = tomllib.loads((HOUSE / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    mapping: dict[str, str] = tools["package-dir"]

    def folder(package: str) -> Path:
        root = max((name for name in mapping if f"{package}.".startswith(f"{name}.")), key=len)
        return HOUSE / mapping[root] / Path(*package.removeprefix(root).strip(".").split("."))

    return {package: folder(package) for package in tools["packages"]}


def modules() -> dict[str, Path]:
    """Module name -> file, of everything that is installed."""
    return {
        package if file.stem == "__init__" else f"{package}.{file.stem}": file
        for package, folder in packages().items()
        for file in sorted(folder.glob("*.py"))
    }


MODULES = modules()


def imports(file: Path) -> Iterator[str]:
    """Every name that a file imports: under TYPE_CHECKING and inside functions, too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute, so that names say where things live"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


IMPORTS = {name: set(imports(file)) for name, file in MODULES.items() if name != "distprof"}


def part(module: str) -> str:
    """``distprof.probes.timing`` -> ``probes``: the part of the house that a module belongs to."""
    return module.split(".")[1] if module.startswith("distprof.") else ""


def edges(of: Iterable[str]) -> set[tuple[str, str]]:
    """(module, part that it imports) for the modules of some parts, imports within a part left out."""
    wanted = set(of)
    return {
        (module, part(other))
        for module, others in IMPORTS.items()
        for other in others
        if part(module) in wanted and part(other) and part(other) != part(module)
    }


PARTS = {part(module) for module in IMPORTS}
RANK = PARTS - BASE - COMPOSERS - {"launcher", "merge"}


def test_every_folder_with_code_is_installed() -> None:
    on_disk = {file.parent for top in ("distprof", "launcher", "merge") for file in (HOUSE / top).rglob("*.py")}
    assert on_disk == set(packages().values())


def test_the_parts_named_here_are_there() -> None:
    assert {"errors", "records", "shard", "rundir", "launcher", "merge", "commands", "probes", "recorder"} <= PARTS


def test_the_base_stands_on_itself() -> None:
    assert {(module, other) for module, other in edges(BASE) if other not in BASE} == set()


def test_the_launcher_stands_on_the_base() -> None:
    assert {(module, other) for module, other in edges({"launcher"}) if other not in BASE} == set()


def test_merging_needs_shards_only() -> None:
    assert {(module, other) for module, other in edges({"merge"}) if other not in MERGE_MAY} == set()


def test_the_rank_side_knows_neither_launcher_nor_merger() -> None:
    assert {(module, other) for module, other in edges(RANK) if other in {"launcher", "merge", *COMPOSERS}} == set()


def test_within_a_rank_nothing_looks_up() -> None:
    for height, storey in enumerate(RANK_STOREYS):
        above = set().union(*RANK_STOREYS[height + 1 :])
        assert {(module, other) for module, other in edges(storey) if other in above} == set()


@pytest.mark.parametrize("package", ["distprof.records", "distprof.merge.report"])
def test_what_is_told_in_several_files_is_imported_from_one_place(package: str) -> None:
    files = {name for name in MODULES if name.startswith(f"{package}.")}
    assert files
    assert {(module, other) for module in IMPORTS.keys() - files for other in IMPORTS[module] & files} == {
        (package, name) for name in files
    }


def test_composers_are_imported_by_nobody() -> None:
    assert {(module, other) for module, other in edges(PARTS - COMPOSERS) if other in COMPOSERS} == set()


def test_no_import_goes_round_in_circles() -> None:
    try:
        TopologicalSorter({name: others & IMPORTS.keys() for name, others in IMPORTS.items()}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize(
    ("parts", "allowed"),
    [
        (BASE, {"numpy", "msgpack", "tomllib", "tomli"}),
        (RANK, {"numpy", "msgpack", "torch"}),
        ({"merge"}, {"numpy", "matplotlib"}),
        ({"launcher"}, {"torch"}),
    ],
    ids=["base", "rank", "merge", "launcher"],
)
def test_each_part_needs_no_more_than_it_says(parts: set[str], allowed: set[str]) -> None:
    top = {
        (module, other.partition(".")[0]) for module in IMPORTS if part(module) in parts for other in IMPORTS[module]
    }
    strangers = {(module, name) for module, name in top if name not in sys.stdlib_module_names | allowed | {"distprof"}}
    assert strangers == set()


def test_only_the_plots_need_matplotlib() -> None:
    users = {module for module in IMPORTS if any(name.split(".")[0] == "matplotlib" for name in IMPORTS[module])}
    assert {module for module in users if not module.startswith("distprof.merge.plots")} == set()


@pytest.mark.parametrize("folder", ["distprof", "launcher", "merge", "examples", "tests", "tools"])
def test_no_file_is_too_long_for_one_reason_to_change(folder: str) -> None:
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in (HOUSE / folder).rglob("*.py")}
    assert {str(file): length for file, length in lengths.items() if length > LONGEST_FILE} == {}
