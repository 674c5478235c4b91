"""MFU and HFU, in the data and in the text, compared with results computed by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.reports import Change, changed_report
from support.synthetic import MS, Job, rank_records, shard_of

from distprof.merge.analyse import analyse
from distprof.merge.load.run import run_of_shards
from distprof.merge.report import Report
from distprof.merge.text import TextOptions, render
from distprof.peaks.table import Engine, Peaks
from distprof.records import FORWARD, Counts, DeviceWork, Generated, Plan, Record, Step

T = 10**12  # flops, MACs

GPU = "NVIDIA L40S"  # bf16 362.05, tf32 183 TFLOPS
WORK = DeviceWork("cuda:0", GPU, 0, "bf16", model_macs=36_205 * 10**8, executed_macs=54_307_500 * 10**5)  # 20, 30 ms


def report(work: tuple[DeviceWork, ...] = (WORK,), peaks: Peaks | None = None, change: Change | None = None) -> Report:
    """The report of four ranks whose iterations take 50, 50, 100 and 200 ms and whose counted step did ``work``."""

    def with_work(rank: int, record: Record) -> Record | None:
        if isinstance(record, Step):
            record = replace(record, duration_ns=(50, 50, 100, 200)[rank] * MS)
        if isinstance(record, Counts):
            record = replace(record, device_work=work, uncounted={})
        return change(rank, record) if change else record

    return changed_report(with_work, peaks=peaks or Peaks(), dp=4)


def text_of(made: Report) -> str:
    """Returns the report with every sentence on one line."""
    return render(made, TextOptions(detail=False)).replace("\n  ", " ")


def line(made: Report, label: str) -> str:
    """Returns the text behind a label of the Profile Summary."""
    summary = text_of(made).partition("Profile Summary")[2]
    return next(line for line in summary.splitlines() if line.startswith(label)).partition(":")[2].strip()


# ---- figures -------------------------------------------------------------------------------------------------------


def test_mfu_of_a_rank() -> None:
    rows = report().ranks
    assert [row.mfu for row in rows] == pytest.approx([0.4, 0.4, 0.2, 0.1])
    assert [row.hfu for row in rows] == pytest.approx([0.6, 0.6, 0.3, 0.15])


def test_mfu_of_the_job() -> None:
    def change(rank: int, record: Record) -> Record:
        doubled = replace(WORK, model_macs=2 * WORK.model_macs)
        return replace(record, device_work=(doubled,)) if rank == 3 and isinstance(record, Counts) else record

    used = report(change=change).utilization
    assert used.mfu is not None and used.hfu is not None
    assert used.mfu.job == pytest.approx((20 + 20 + 20 + 40) / 4 / 75)
    assert (used.mfu.min, used.mfu.max, used.mfu.ranks) == pytest.approx((0.2, 0.4, 4))
    assert used.hfu.job == pytest.approx(30 / 75)
    assert used.model_flops_per_rank == pytest.approx(1.25 * 2 * WORK.model_macs)
    assert used.hardware_flops_per_rank == pytest.approx(2 * WORK.executed_macs)
    assert not used.at_least and not used.unavailable


def test_each_arithmetic_is_divided_by_its_own_peak() -> None:
    tf32 = replace(WORK, arithmetic="tf32", model_macs=183 * T // 200, executed_macs=183 * T // 200)  # 10 ms
    used = report((WORK, tf32)).utilization
    assert used.mfu and used.mfu.max == pytest.approx((20 + 10) / 50)
    assert [(peak.arithmetic, peak.tflops) for peak in used.peaks] == [("bf16", 362.05), ("tf32", 183)]
    assert sum(peak.share for peak in used.peaks) == pytest.approx(1)


def test_a_rank_with_two_devices() -> None:
    used = report((WORK, replace(WORK, device="cuda:1"))).utilization
    assert used.mfu and used.mfu.max == pytest.approx(0.4)


def test_a_given_peak_is_per_device() -> None:
    used = report(peaks=Peaks(724.1)).utilization
    assert used.mfu and used.mfu.max == pytest.approx(0.2)
    assert [(peak.tflops, peak.source) for peak in used.peaks] == [(724.1, "--peak-tflops")]


def test_repeated_work_of_tp_ranks_counts_once() -> None:
    job = Job(dp=1, tp=2, layers=2, chip=GPU, arithmetic="bf16")
    made = analyse(run_of_shards([shard_of(rank_records(job, rank)) for rank in range(2)]))
    (alone,) = analyse(run_of_shards([shard_of(rank_records(replace(job, tp=1), 0))])).ranks
    used, work = made.utilization, made.model.forward
    assert used.model_flops_per_rank and used.hardware_flops_per_rank and work and alone.fwd_macs
    assert work.macs < work.executed_macs, "the router and the experts are on both ranks, whole"
    assert (
        used.model_flops_per_rank == pytest.approx(2 * 3 * work.macs / 2) == pytest.approx(2 * 3 * alone.fwd_macs / 2)
    )
    assert used.hardware_flops_per_rank == pytest.approx(2 * 3.5 * work.executed_macs / 2)


def test_mfu_without_training() -> None:
    shard = shard_of(rank_records(Job(dp=1, mode=FORWARD, chip=GPU, arithmetic="bf16"), 0))
    used = analyse(run_of_shards([shard])).utilization
    assert used.mfu is not None and used.mfu == used.hfu


# ---- lower bounds, and what is missing -----------------------------------------------------------------------------


def cpu(threads: int = 2, arithmetic: str = "fp32", macs: int = T) -> DeviceWork:
    return DeviceWork("cpu", "Some CPU", threads, arithmetic, macs, macs)


def test_mfu_is_a_lower_bound_with_uncounted_work() -> None:
    beside = report((WORK, cpu(macs=1000))).utilization
    assert beside.mfu and beside.mfu.max == pytest.approx(0.4) and beside.at_least

    def change(rank: int, record: Record) -> Record:
        return replace(record, uncounted={"aten.sort": 1}) if rank == 2 and isinstance(record, Counts) else record

    sorting = report(change=change)
    assert sorting.utilization.at_least
    assert line(sorting, "MFU").startswith("at least 26.67%")

    def compiled(rank: int, record: Record) -> Record:
        made = Generated(0, "triton_tem_fused_mm_0", 1)
        return replace(record, generated=(made,)) if isinstance(record, Counts) else record

    assert report(change=compiled).utilization.at_least


def test_an_arithmetic_without_a_peak_is_left_out() -> None:
    made = report((WORK, replace(WORK, arithmetic="complex64")))
    assert made.utilization.mfu and made.utilization.mfu.max == pytest.approx(0.4) and made.utilization.at_least
    assert (
        "MFU and HFU leave out what ranks 0-3 ran in complex64 on NVIDIA L40S: no peak is known" in made.run.notes[-1]
    )


def test_ranks_without_a_peak_are_left_out() -> None:
    def change(rank: int, record: Record) -> Record:
        return replace(record, device_work=(cpu(),)) if rank == 3 and isinstance(record, Counts) else record

    made = report(change=change)
    assert [row.mfu is None for row in made.ranks] == [False, False, False, True]
    assert made.utilization.mfu and made.utilization.mfu.ranks == 3
    assert made.run.notes[-2:] == (
        "MFU and HFU leave out rank 3",
        "MFU and HFU leave out what rank 3 ran in fp32 on Some CPU with 2 threads: no peak is known",
    )
    assert line(made, "MFU").endswith("(3 of 4 ranks)")


def test_the_reason_names_the_command_to_run() -> None:
    made = report((cpu(threads=2),))
    assert made.utilization.mfu is made.utilization.hfu is None
    assert made.utilization.unavailable == "no peak is known for fp32 on Some CPU with 2 threads"
    assert made.utilization.to_do == (
        "run 'distprof peak --threads 2' on that machine and merge again, or merge with --peak-tflops"
    )
    lines = render(made, TextOptions(detail=False)).splitlines()
    assert lines[lines.index("n/a: MFU, HFU: no peak is known for fp32 on Some CPU with 2 threads") + 1] == (
        f"  {made.utilization.to_do}"
    ), "a command that is folded into two lines cannot be copied"
    both = report((cpu(threads=1), cpu(threads=1, arithmetic="bf16"))).utilization
    assert both.unavailable == "no peak is known for fp32 on Some CPU with 1 thread, bf16 on Some CPU with 1 thread"
    assert both.to_do.startswith("run 'distprof peak --threads 1' on that machine")
    gpu = report((replace(WORK, name="Some GPU"),)).utilization
    assert gpu.to_do.startswith("run 'distprof peak' on that machine")


def test_a_measured_peak_holds_for_its_number_of_threads() -> None:
    work = cpu(threads=2, macs=10**9)
    made = report((work,), Peaks(measured={Engine("Some CPU", 2, "fp32"): 0.1}))
    assert made.utilization.mfu and made.utilization.mfu.max == pytest.approx(2 * 10**9 / 0.1e12 / 0.050)
    assert "peak per rank: 100 GFLOPS in fp32, Some CPU on 2 threads (measured by 'distprof peak')." in text_of(made)
    other = report((work,), Peaks(measured={Engine("Some CPU", 1, "fp32"): 0.1})).utilization
    assert "distprof peak --threads 2" in other.to_do


@pytest.mark.parametrize(
    ("gone", "reason"),
    [
        (Counts, "the run ended before its counted step"),
        (Step, "no rank has reached a timed step"),
    ],
)
def test_no_mfu_without_a_step(gone: type[Record], reason: str) -> None:
    used = report(change=lambda rank, record: None if isinstance(record, gone) else record).utilization
    assert used.mfu is None and used.unavailable == reason


def test_no_mfu_where_the_timed_step_is_counted() -> None:
    """This is so in a process that profiles itself."""

    def change(rank: int, record: Record) -> Record:
        return replace(record, iteration=7) if isinstance(record, Counts) else record

    used = report(change=change).utilization
    assert used.mfu is None
    assert used.unavailable == "the timed step is also the counted one, which counting makes longer"
    assert used.model_flops_per_rank is not None


def test_counting_switched_off_is_said_once() -> None:
    def change(rank: int, record: Record) -> Record | None:
        if isinstance(record, Plan):
            return replace(record, counted=0)
        return None if isinstance(record, Counts) else record

    assert text_of(report(change=change)).count("counting was switched off") == 1


def test_reasons_no_products_and_old_shards_differ() -> None:
    def no_macs(rank: int, record: Record) -> Record:
        return replace(record, forward_macs=record.forward_macs * 0) if isinstance(record, Counts) else record

    assert report((), change=no_macs).utilization.unavailable == "no matrix product ran"
    assert (
        report(()).utilization.unavailable
        == "the shards are of an earlier distprof, which did not record MACs by device"
    )


# ---- text ----------------------------------------------------------------------------------------------------------


def test_text_has_figure_peak_source_and_convention() -> None:
    made = report()
    text = text_of(made)
    assert line(made, "model flops per rank") == "7.24 T"
    assert line(made, "MFU") == "26.67%  [10% .. 40%]"
    assert line(made, "HFU") == "40%  [15% .. 60%]"
    assert "peak per rank: 362.05 TFLOPS in bf16, NVIDIA L40S (NVIDIA L40S data sheet)." in text
    assert "causal attention in full, attention's backward as 2 x its forward" in text
    assert "PaLM, arXiv:2204.02311, appendix B" in text


def test_a_peak_that_is_too_low_is_named() -> None:
    assert "this peak is too low" in text_of(report(peaks=Peaks(200.0)))
    assert "this peak is too low" not in text_of(report(peaks=Peaks(250.0)))


def test_ranks_table_has_mfu_and_hfu_where_they_differ() -> None:
    def titles(made: Report) -> list[str]:
        lines = render(made, TextOptions(detail=False)).splitlines()
        return next(line for line in lines if line.startswith(("rank ", "  rank "))).split()

    assert titles(report())[-6:] == ["other", "MFU", "HFU", "peak", "memory", "steps"]
    assert titles(report((replace(WORK, executed_macs=WORK.model_macs),)))[-5:-3] == ["other", "MFU"]
    assert "MFU" not in titles(report((cpu(),)))


def test_device_names_are_printable() -> None:
    made = report((replace(WORK, name="\x1b[2Jx\ny"),), Peaks(1.0))
    assert "\x1b" not in text_of(made) and "[2Jx y" in text_of(made)
