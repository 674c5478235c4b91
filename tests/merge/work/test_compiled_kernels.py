"""Compiled code in the report: kernels that are listed instead of counted, and how the code ran."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from support.reports import changed_report

from distprof.merge.report import CompiledRegion, Report
from distprof.merge.text.blocks.profile import profile_summary
from distprof.records import Counts, Generated, Record


def changed_counts(**changes: object) -> Report:
    """Returns the report of two ranks whose counted steps have the given fields."""

    def change(_: int, record: Record) -> Record:
        return replace(record, **changes) if isinstance(record, Counts) else record  # type: ignore[arg-type]

    return changed_report(change, dp=2)


def test_generated_kernels_are_listed_by_region() -> None:
    kernels = (
        Generated(1, "cpp_fused_gelu_0", 3),
        Generated(-1, "triton_poi_1", 1),
        Generated(-1, "cpp_adam", 1, optimizer=True),
        Generated(1, "cpp_fused_1", 1),
    )
    report = changed_counts(generated=kernels)
    label = report.modules[1].label
    assert report.generated == (
        CompiledRegion(label, {"cpp_fused_1": 2, "cpp_fused_gelu_0": 6}),
        CompiledRegion("", {"triton_poi_1": 2}),
        CompiledRegion("(optimizer)", {"cpp_adam": 2}),
    )
    text = "\n".join(profile_summary(report))
    assert f"not counted, the compiler's own kernels in {label}: cpp_fused_gelu_0 x 6, cpp_fused_1 x 2\n" in text
    assert "not counted, the compiler's own kernels in a function of the script's: triton_poi_1 x 2" in text
    assert "not counted, the compiler's own kernels in (optimizer): cpp_adam x 2" in text


def test_an_unseen_forward_makes_no_figure() -> None:
    """All figures are n/a instead of 0: backward alone is not the work of an iteration."""
    report = changed_counts(micro_batches=0, calls=np.zeros(0, "<u4"))
    (note,) = report.run.notes
    assert note.startswith("an optimizer stepped on ranks 0-1, but no forward of a model was seen: ")
    summary = report.summary
    assert (summary.fwd_macs_per_rank, summary.bwd_flops_per_rank, summary.iter_latency_ns) == (None, None, None)
    reasons = {summary.unavailable[name] for name in ("fwd_macs_per_rank", "bwd_flops_per_rank", "iter_latency_ns")}
    assert reasons == {"no forward of a model was seen"}


def test_a_counted_step_in_eager_mode_is_noted() -> None:
    assert not changed_counts(compiled="compiled").run.notes
    (note,) = changed_counts(compiled="eager").run.notes
    assert "ran in eager mode in the counted step" in note


def test_refused_eager_mode_has_a_reason() -> None:
    (note,) = changed_counts(compiled="compiled", eager_refused="too little memory").run.notes
    assert note == "compiled code was not counted module by module on ranks 0-1: too little memory"


def test_modules_in_compiled_code_have_no_work() -> None:
    """Only the model itself is called, so only its total work is known."""
    whole = changed_counts().modules[0]
    calls = np.zeros(1, "<u4") + 1
    work = np.full(1, 1000, "<i8")
    kinds = ("forward_macs", "forward_flops", "backward_macs", "backward_flops", "recompute_macs", "recompute_flops")
    report = changed_counts(compiled="compiled", calls=calls, **dict.fromkeys(kinds, work))
    first, *inside = report.modules
    assert (first.macs, first.bwd_flops) == (1000, 1000)
    assert whole.macs
    assert len(inside) > 3
    assert {(m.macs, m.flops, m.self_macs, m.bwd_macs, m.bwd_flops, m.recompute_flops) for m in inside} == {(None,) * 6}
    (note,) = report.run.notes
    assert "distprof run --count-eager counts module by module" in note
    refused = changed_counts(compiled="compiled", eager_refused="too little memory", calls=calls)
    assert refused.modules[1].macs is None
    assert refused.run.notes == ("compiled code was not counted module by module on ranks 0-1: too little memory",)


def test_uncalled_modules_have_no_work_without_compiled_code() -> None:
    report = changed_counts(calls=np.zeros(1, "<u4") + 1, forward_macs=np.full(1, 1000, "<i8"))
    assert report.modules[1].macs == 0
    assert not report.run.notes


def test_attention_in_generated_kernels_is_named() -> None:
    kernels = (
        Generated(1, "cpp_fused_gelu_0", 3),
        Generated(1, "triton_tem_fused_flex_attention_1", 1),
        Generated(1, "triton_per_fused__softmax_scaled_dot_product_attention_2", 1),
    )
    report = changed_counts(generated=kernels)
    text = " ".join("\n".join(profile_summary(report)).split())
    label = report.modules[1].label
    assert (
        "not counted, attention in the compiler's own kernels: triton_tem_fused_flex_attention_1 x 2: "
        f"of {label}; --count-eager counts it"
    ) in text


def test_uncounted_ops_with_most_likely_work_come_first() -> None:
    uncounted = {"aten.a": 90, "lib.attention": 1, "aten.b": 100}
    report = changed_counts(uncounted=uncounted, uncounted_work={"aten.a": 10, "lib.attention": 10**9, "aten.b": 10})
    assert list(report.summary.uncounted_ops.items()) == [("lib.attention", 2), ("aten.b", 200), ("aten.a", 180)]
    assert "not counted: lib.attention x 2, aten.b x 200, aten.a x 180" in list(profile_summary(report))
    assert list(changed_counts(uncounted=uncounted).summary.uncounted_ops) == ["aten.b", "aten.a", "lib.attention"]
