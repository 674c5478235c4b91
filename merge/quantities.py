"""Formats numbers as DeepSpeed does (at most two decimals, a space, a unit); "n/a" for unmeasured values."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from distprof.merge.report import Spread
from distprof.plain import dataclass

NOT_AVAILABLE = "n/a"
NS_PER_SECOND = 1e9
_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "K"), (1.0, ""))
_TIMES = ((1e9, "s"), (1e6, "ms"), (1e3, "us"))
_LEAST_PERCENT = 0.01
_BYTES = ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B"))


def quantity(value: float | None, unit: str = "") -> str:
    """Returns ``5.2 GMACs`` for ``5200000000, "MACs"``."""
    return _scaled(value, tuple((scale, prefix + unit) for scale, prefix in _PREFIXES))


def macs(value: float | None) -> str:
    """Returns a number of MACs such as ``5.2 GMACs``."""
    return quantity(value, "MACs")


def parameters(value: float | None) -> str:
    """Returns a number of parameters such as ``7.24 B``: in this field, B means billion, and G is not used."""
    return quantity(value).replace("G", "B")


def flops_per_second(value: float | None) -> str:
    """Returns a rate such as ``1.2 TFLOPS``."""
    return quantity(value, "FLOPS")


def duration(value_ns: float | None) -> str:
    """Returns a time in seconds, milliseconds or microseconds."""
    return _scaled(value_ns, _TIMES)


def byte_size(value: float | None) -> str:
    """Returns bytes in binary units."""
    return _scaled(value, _BYTES)


def percentage(part: float | None, whole: float | None) -> str:
    """Returns ``part`` / ``whole`` such as ``12.5%``; n/a when either is missing, 0% where ``whole`` is 0.

    There are two decimals, and below 0.01% two digits: what is not zero never reads 0%.
    """
    if part is None or whole is None:
        return NOT_AVAILABLE
    value = 100 * part / whole if whole else 0.0
    if 0 < abs(value) < _LEAST_PERCENT:
        return f"{Decimal(f'{value:.1e}').normalize():f}%"
    return f"{round(value, 2):g}%"


def whole_percent(share: float) -> str:
    """Returns ``12%`` for 0.12; a share that is not zero but less than half a percent reads ``<1%``."""
    text = f"{share:.0%}"
    return "<1%" if share > 0 and text == "0%" else text


def plain(value: float | None) -> str:
    """Returns a number without unit, with at most two decimals."""
    if value is None:
        return NOT_AVAILABLE
    return f"{value:.2f}".rstrip("0").rstrip(".")


def ratio(value: float | None) -> str:
    """Returns a quotient such as max / median, always with two decimals."""
    return NOT_AVAILABLE if value is None else f"{value:.2f}"


def duration_spread(spread: Spread | None) -> str:
    """Returns the median over ranks, then the least and the largest where ranks differ.

    No rank is named, because the largest inclusive time is usually that of a rank that waits.
    """
    if spread is None:
        return NOT_AVAILABLE
    least, most = duration(spread.min), duration(spread.max)
    return duration(spread.median) + (f"  [{least} .. {most}]" if least != most else "")


def parameters_spread(spread: Spread | None) -> str:
    """Returns a number of parameters: the mean over ranks, then the least and the largest where ranks differ."""
    if spread is None:
        return NOT_AVAILABLE
    least, most = parameters(spread.min), parameters(spread.max)
    return parameters(spread.mean) + (f"  [{least} .. {most}]" if least != most else "")


@dataclass(frozen=True)
class TimeUnit:
    """One unit for all times of a table or plot, so that its numbers are easy to compare."""

    name: str
    ns: float

    def format(self, value_ns: float | None) -> str:
        """Returns the number in this unit; the title of the table names the unit."""
        if value_ns is None:
            return NOT_AVAILABLE
        value = value_ns / self.ns
        return f"{value:.2f}" if abs(value) < 1000 else f"{value:.1f}"

    def shows_zero(self, value_ns: float) -> bool:
        """Whether :meth:`format` leaves nothing of a time."""
        return self.format(value_ns).lstrip("-") == self.format(0)


def common_unit(values_ns: Iterable[float | None]) -> TimeUnit:
    """Returns the unit for the largest value: seconds from 10 s up, microseconds below 1 ms, else milliseconds."""
    largest = max((abs(value) for value in values_ns if value is not None), default=0.0)
    if largest >= 1e10:
        return TimeUnit("s", 1e9)
    return TimeUnit("us", 1e3) if 0 < largest < 1e6 else TimeUnit("ms", 1e6)


def _scaled(value: float | None, units: tuple[tuple[float, str], ...]) -> str:
    if value is None:
        return NOT_AVAILABLE
    scale, unit = next((pair for pair in units if abs(value) >= pair[0]), units[-1])
    return f"{round(value / scale, 2):g} {unit}".rstrip()
