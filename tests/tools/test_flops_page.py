"""Tests that docs/FLOPS.md equals the registry of formulas."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import flop_registry

from distprof.flops.formulas import sparse
from distprof.flops.registry import CHAPTERS
from distprof.flops.zero_cost import OPS

HOUSE = Path(__file__).parent.parent.parent
PAGE = (HOUSE / "docs" / "FLOPS.md").read_text(encoding="utf-8")
OWN = [chapter.rules for chapter in CHAPTERS if chapter is not sparse.CHAPTER]
NAMED = [op for rules in (*OWN, sparse.ONLY_SPARSE) for rule in rules for op in rule.ops]


def test_the_page_is_as_the_registry_makes_it() -> None:
    made = runpy.run_path(str(HOUSE / "tools" / "flops_page.py"))["page"]()
    assert made == PAGE, "run: make docs"


def test_each_formula_has_one_place_and_its_convention() -> None:
    assert sorted(NAMED) == sorted(set(NAMED))
    assert set(NAMED).isdisjoint(OPS)
    assert all(rule.macs and rule.flops and rule.source for chapter in CHAPTERS for rule in chapter.rules)


def test_torch_formulas_are_named_and_not_repeated() -> None:
    """Only torch versions that have all formulas are tested."""
    theirs = {str(op).removeprefix("aten.") for op in flop_registry if isinstance(op, torch._ops.OpOverloadPacket)}
    corrected = {op for op in theirs if "conv" in op} | {"addmm", "baddbmm"}
    assert theirs & set(NAMED) == corrected
    assert all(f"`{name}`" in PAGE for name in ("mm", "bmm", "_scaled_mm"))


@pytest.mark.skipif(tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13), reason="older versions lack some")
def test_an_op_that_is_named_is_torchs_own() -> None:
    """A misspelt name would match no op."""
    names = {op for op in [*NAMED, *OPS] if "::" not in op and not op.endswith("*")}
    overloads = [name.removeprefix("aten::") for name in torch._C._dispatch_get_all_op_names() if "aten::" in name]
    known = {name.split(".")[0] for name in overloads}
    assert {name for name in names if not known & {name, f"{name}_"}} == set()
