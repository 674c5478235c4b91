"""Which share of the devices' peak was used."""

from __future__ import annotations

from distprof.plain import dataclass


@dataclass(frozen=True)
class PeakUsed:
    """The peak of one kind of device in one arithmetic, as MFU uses it."""

    device: str  # its own name
    threads: int  # of the CPU; 0: the whole device
    arithmetic: str  # number format of the products, as "bfloat16"
    tflops: float  # the peak, 10^12 flops in a second
    source: str  # where the peak is from, in words
    share: float  # of the model's MACs over all ranks


@dataclass(frozen=True)
class UtilizationSpread:
    """MFU or HFU as a share of 1: of the job over all timed steps, and the least and the largest of its ranks."""

    job: float  # of all ranks and timed steps together
    at_median: float  # of the job, at the median iteration
    min: float  # the least of a rank
    max: float  # the largest of a rank
    ranks: int  # with a value


@dataclass(frozen=True)
class Utilization:
    """Which share of the devices' peak was used; :mod:`distprof.merge.work.utilization` has the formulas.

    ``model_flops_per_rank`` (forward and backward, each once in the job) and ``hardware_flops_per_rank`` (all that ran)
    are 2 x MACs, means over the ranks.
    """

    mfu: UtilizationSpread | None  # of the matrix products of the model, each once
    hfu: UtilizationSpread | None  # of all that ran, recomputed ones included
    at_least: bool  # lower bounds: some work is not included
    model_flops_per_rank: float | None  # in one iteration
    hardware_flops_per_rank: float | None  # in one iteration
    peaks: tuple[PeakUsed, ...]  # one for each device and number format that was used
    unavailable: str  # why there is no MFU
    to_do: str  # what the user can do about it, may be empty
