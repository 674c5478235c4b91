"""The whole text: DeepSpeed's line names, a golden copy, and formulas that hold for any golden copy."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.reports import report_of

from distprof.merge.report import Report
from distprof.merge.text import TextOptions, render

GOLDEN = Path(__file__).parent / "golden" / "summary.txt"
JOB = {"dp": 4, "tp": 2, "ep": 2, "layers": 4, "steps": 4, "noise": 0.0, "slow_rank": 5, "hot": 3.0}

LABELS = (
    "world size",
    "data parallel size",
    "model parallel size",
    "batch size per GPU",
    "params per GPU",
    "params of model = params per GPU * mp_size",
    "fwd MACs per GPU",
    "fwd flops per GPU",
    "fwd flops of model = fwd flops per GPU * mp_size",
    "fwd latency",
    "fwd FLOPS per GPU = fwd flops per GPU / fwd latency",
    "bwd latency",
    "bwd FLOPS per GPU = (bwd + recomputed) flops per GPU / bwd latency",
    "fwd+bwd FLOPS per GPU = all flops per GPU / (fwd+bwd latency)",
    "step latency",
    "iter latency",
    "FLOPS per GPU = all flops per GPU / iter latency",
    "samples/second",
)
UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "s": 1.0, "ms": 1e-3, "us": 1e-6}


def on_cuda(report: Report) -> Report:
    return replace(report, run=replace(report.run, device="cuda"))


def text_of(report: Report, **options: object) -> str:
    return render(report, TextOptions(**options))  # type: ignore[arg-type]


def summary_line(text: str, label: str) -> str:
    found = re.search(rf"^{re.escape(label)}: +(.*)$", text, re.MULTILINE)
    assert found, label
    return found[1]


def figure(text: str, label: str) -> float:
    number, unit = re.match(r"([\d.]+) ?([KMGT]?)(?:MACs|FLOPS)?", summary_line(text, label)).groups()  # type: ignore[union-attr]
    if "latency" in label and "=" not in label:
        unit = summary_line(text, label).split()[1]
    return float(number) * UNITS[unit]


def test_golden() -> None:
    """After an intended change, run UPDATE_GOLDEN=1 pytest tests/merge/text/test_text.py, and read the difference."""
    text = text_of(report_of(**JOB))
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("label", LABELS)
def test_deepspeed_lines(label: str) -> None:
    report = report_of(**JOB)
    assert summary_line(text_of(on_cuda(report)), label)
    assert summary_line(text_of(report), label.replace("GPU", "rank")), "a CPU rank is no GPU"


def test_deepspeed_blocks_are_in_order() -> None:
    text = text_of(on_cuda(report_of(**JOB)))
    titles = re.findall(r"^-{26,} (.*) -{26,}$", text, re.MULTILINE)
    assert titles == [
        "distprof",
        "Aggregated Profile per GPU",
        "Detailed Profile per GPU",
        "Where the time goes",
        "Flops of one iteration per GPU",
        "Ranks",
        "Memory",
        "Skew",
        "Experts",
    ]
    assert "\nProfile Summary at step 6-9:\nNotations:\n" in text


def test_formulas_in_labels_hold() -> None:
    text = text_of(on_cuda(report_of(**JOB)))
    flops, fwd, bwd = (figure(text, name) for name in ("fwd flops per GPU", "fwd latency", "bwd latency"))
    backward = figure(text, "bwd flops per GPU") + figure(text, "recomputed flops per GPU")
    assert figure(text, LABELS[10]) == pytest.approx(flops / fwd, rel=0.01)
    assert figure(text, LABELS[12]) == pytest.approx(backward / bwd, rel=0.01)
    assert figure(text, LABELS[13]) == pytest.approx((flops + backward) / (fwd + bwd), rel=0.01)
    assert figure(text, LABELS[16]) == pytest.approx((flops + backward) / figure(text, "iter latency"), rel=0.01)
    assert figure(text, LABELS[5]) == pytest.approx(2 * figure(text, "params per GPU"), rel=0.01)


def test_text_without_tree_fits_in_120_columns() -> None:
    text = text_of(report_of(dp=40, tp=2, ep=8, layers=4, experts=64, slow_rank=5), detail=False)
    assert max(map(len, text.splitlines())) <= 120


def test_no_detail_leaves_out_the_tree_only() -> None:
    report = report_of(**JOB)
    with_tree, without = text_of(report).split("\n\n"), text_of(report, detail=False).split("\n\n")
    assert [block for block in with_tree if block in without] == without
    assert "Detailed Profile" not in "".join(without)


def test_names_from_a_shard_are_printable() -> None:
    report = report_of(**JOB)
    hostile = "\x1b]0;owned\x07\x1b[2J\u202egpj"
    modules = tuple(replace(module, class_name=hostile, extra_repr="a\nb") for module in report.modules)
    ranks = tuple(replace(row, host=hostile) for row in report.ranks)
    run = replace(report.run, name=hostile, notes=(hostile,))
    text = text_of(replace(report, run=run, modules=modules, ranks=ranks))
    assert not set(text) & {"\x1b", "\x07", "\u202e"}
    assert "\\x1b]0;owned" in text
    assert "a b)" in text


def test_missing_ranks_are_on_the_first_page() -> None:
    report = report_of(**JOB)
    recorded = tuple(rank for rank in report.run.ranks if rank not in (1, 2, 3, 6))
    run = replace(
        report.run,
        ranks=recorded,
        missing_ranks=(1, 2, 3, 6),
        incomplete={4: "killed", 5: "killed", 7: "no model"},
        notes=("a shard is torn", "a topology was assumed"),
    )
    summary = replace(report.summary, exact_covers_all=False)
    head, _, rest = text_of(replace(report, run=run, summary=summary)).partition("Profile Summary")
    assert "4 of 8 ranks recorded; missing: 1-3, 6\n" in head
    assert "incomplete: ranks 4-5 (killed)\n" in head
    assert "incomplete: rank 7 (no model)\n" in head
    assert "note:     a shard is torn\nnote:     a topology was assumed\n" in head
    assert "params of model, at least:" in rest


def test_unmeasured_figures_are_na_with_one_reason() -> None:
    text = text_of(report_of(dp=3, mode="forward", counted=False))
    assert summary_line(text, "fwd MACs per rank") == "n/a"
    assert summary_line(text, "bwd latency") == "n/a"
    assert len(re.findall("counting was switched off", text)) == 1
    assert re.search(r"n/a: bwd MACs per rank, [^:]*step latency[^:]*:\s+only forwards were", text)
    assert " 0 MACs" not in text


def test_gradient_accumulation_is_shown() -> None:
    assert summary_line(text_of(report_of(dp=2, micro_batches=4)), "micro-batches per iteration") == "4"
    assert "\nmicro-batches per iteration" not in text_of(report_of(dp=2))


def test_ops_without_a_formula_are_named() -> None:
    assert "\nnot counted: aten.sort x " in text_of(report_of(dp=2))


def test_many_ops_without_a_formula_are_cut() -> None:
    report = report_of(dp=2)
    ops = {f"aten.op{number}": number for number in range(30, 0, -1)}
    text = text_of(replace(report, summary=replace(report.summary, uncounted_ops=ops)))
    assert "not counted: aten.op30 x 30, aten.op29 x 29, " in text
    assert "18 more in summary.json\n" in text.replace("\n  ", " ")
