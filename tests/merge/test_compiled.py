"""Compiled code in the report: what is named instead of counted, and how it ran."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from support.synthetic import Job, in_memory

from distprof.merge.analyse import analyse
from distprof.merge.load import run_of_shards
from distprof.merge.report import CompiledRegion, Report
from distprof.merge.text.profile import profile_summary
from distprof.records import Counts, Generated, Record


def bent(**changes: object) -> Report:
    """A report of two ranks whose counted steps are changed so."""

    def changed(record: Record) -> Record:
        return replace(record, **changes) if isinstance(record, Counts) else record  # type: ignore[arg-type]

    shards = [replace(shard, records=list(map(changed, shard.records))) for shard in in_memory(Job(dp=2))]
    return analyse(run_of_shards(shards))


def test_generated_kernels_are_named_by_region_and_not_counted() -> None:
    kernels = (
        Generated(1, "cpp_fused_gelu_0", 3),
        Generated(-1, "triton_poi_1", 1),
        Generated(-1, "cpp_adam", 1, optimizer=True),
        Generated(1, "cpp_fused_1", 1),
    )
    report = bent(generated=kernels)
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


def test_a_forward_that_nobody_saw_makes_no_figure() -> None:
    """Not 0 of anything: backward alone is no iteration's work."""
    report = bent(micro_batches=0, calls=np.zeros(0, "<u4"))
    (note,) = report.run.notes
    assert note.startswith("an optimizer stepped on ranks 0-1, and no forward of a model was seen: ")
    summary = report.summary
    assert (summary.fwd_macs_per_rank, summary.bwd_flops_per_rank, summary.iter_latency_ns) == (None, None, None)
    reasons = {summary.unavailable[name] for name in ("fwd_macs_per_rank", "bwd_flops_per_rank", "iter_latency_ns")}
    assert reasons == {"no forward of a model was seen"}


def test_a_step_in_eager_form_says_so() -> None:
    assert not bent(compiled="compiled").run.notes
    (note,) = bent(compiled="eager").run.notes
    assert "ran in eager form in the counted step" in note


def test_eager_form_that_was_refused_says_why() -> None:
    (note,) = bent(compiled="compiled", eager_refused="too little memory").run.notes
    assert note == "compiled code was not counted module by module on ranks 0-1: too little memory"
