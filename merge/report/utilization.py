"""How much of the devices' peak was used."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PeakUsed:
    """What one kind of device does at most in one arithmetic, as MFU has it."""

    device: str  # what it calls itself
    threads: int  # of the CPU; 0: the whole device
    arithmetic: str
    tflops: float
    source: str
    share: float  # of the model's MACs, of all ranks


@dataclass(frozen=True)
class UtilizationSpread:
    """MFU or HFU, 1 being all: of the job, and the least and the largest of its ranks."""

    job: float
    min: float
    max: float
    ranks: int  # that have it


@dataclass(frozen=True)
class Utilization:
    """How much of the devices' peak was used; see :mod:`distprof.merge.work.utilization` for what counts.

    ``model_flops_per_rank`` (forward and backward, each once in the job) and ``hardware_flops_per_rank`` (what ran) are
    2 x MACs, means over the ranks.
    """

    mfu: UtilizationSpread | None
    hfu: UtilizationSpread | None
    at_least: bool  # something that ran is not in it
    model_flops_per_rank: float | None
    hardware_flops_per_rank: float | None
    peaks: tuple[PeakUsed, ...]
    unavailable: str  # why there is no MFU
    to_do: str  # and what to type, if that helps
