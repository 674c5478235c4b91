"""What one check has found: a row of the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

KEPT, FAILED, SEEN, NEEDS_GPU = "kept", "**failed**", "", "needs a GPU"


@dataclass(frozen=True)
class Finding:
    """``verdict`` is one of the words above; :data:`SEEN` stands for a measurement without an expectation."""

    what: str
    measured: str
    expected: str = ""
    verdict: str = SEEN


#: The checks of one part of the page, on this device.
Part = Callable[[torch.device], list[Finding]]


def needs_gpu(*what: str) -> list[Finding]:
    """Returns rows for what cannot be checked on this machine."""
    return [Finding(one, "", "", NEEDS_GPU) for one in what]


def equal(what: str, measured: object, expected: object) -> Finding:
    """Returns the row of a value that has to be exact."""
    return Finding(what, str(measured), str(expected), KEPT if measured == expected else FAILED)


def near(what: str, measured: float, expected: float, unit: str, relative: float, absolute: float = 0.0) -> Finding:
    """Returns the row of a value that may differ from ``expected`` by a share of it, or by ``absolute``."""
    allowed = max(relative * abs(expected), absolute)
    return Finding(
        what,
        f"{measured:,.3f} {unit}",
        f"{expected:,.3f} {unit} ± {allowed:,.3f}",
        KEPT if abs(measured - expected) <= allowed else FAILED,
    )


def at_most(what: str, measured: float, bound: float, unit: str = "") -> Finding:
    """Returns the row of a value with an upper bound."""
    shown = f"{measured:,.2f} {unit}".strip()
    return Finding(what, shown, f"at most {bound:g} {unit}".strip(), KEPT if measured <= bound else FAILED)
