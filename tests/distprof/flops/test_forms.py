"""An op's overloads (in place, with ``out``, with numbers): all have a formula if one has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from distprof.flops.attribution import Attribution
from distprof.flops.counter import FlopMode
from distprof.flops.lookup import formula


def ops() -> Iterator[Any]:
    for name in torch._C._dispatch_get_all_op_names():
        library, _, rest = name.partition("::")
        packet, _, overload = rest.partition(".")
        if library == "aten":
            try:
                yield getattr(getattr(torch.ops.aten, packet), overload or "default")
            except (AttributeError, RuntimeError):  # exists only in C++
                continue


def test_all_overloads_have_a_formula_if_one_has() -> None:
    forms: dict[str, list[Any]] = defaultdict(list)
    for op in ops():
        name = op._overloadpacket.__name__
        forms[name if name.endswith("__") else name.removesuffix("_")].append(op)
    assert sum(map(len, forms.values())) > 2000
    known = {op for of_one in forms.values() for op in of_one if formula(op) is not None}
    lacking = [str(op) for of_one in forms.values() if known & {*of_one} for op in of_one if op not in known]
    assert not lacking


def flops(run: Callable[[], object]) -> int:
    with FlopMode(Attribution()) as mode:
        run()
    assert not mode.uncounted
    return sum(mode.flops.values())


X, Y = torch.full((3, 4), 0.5), torch.ones(3, 4)


def into(op: Any, *args: Any, **named: Any) -> Tensor:
    result: Tensor = op(*args, out=torch.empty(3, 4), **named)
    return result


@pytest.mark.parametrize(
    ("forms", "each"),
    [
        ([X.abs, X.clone().abs_, lambda: into(torch.abs, X)], 1),
        ([lambda: torch.copysign(X, Y), lambda: X.clone().copysign_(Y), lambda: X.clone().copysign_(-1.0)], 1),
        ([lambda: X < Y, lambda: X.clone().lt_(Y), lambda: X.clone().lt_(1), lambda: X.clone().eq_(1)], 0),
        ([X.isnan, X.clone().logical_not_], 0),
        ([lambda: torch.heaviside(X, Y), lambda: X.clone().heaviside_(Y)], 1),
        ([X.relu, X.clone().relu_], 1),
        ([lambda: X * Y, lambda: X.clone().mul_(Y), lambda: into(torch.mul, X, Y)], 1),
        ([lambda: torch.add(X, Y, alpha=2), lambda: X.clone().add_(Y, alpha=2), lambda: into(torch.add, X, Y, alpha=2)],
         2),
        ([lambda: torch.addcmul(X, Y, Y, value=2), lambda: X.clone().addcmul_(Y, Y, value=2)], 3),
        ([lambda: torch.true_divide(X, 2), lambda: X.clone().true_divide_(2)], 1),
        ([lambda: torch.gcd(X.int(), Y.int()), lambda: X.int().gcd_(Y.int())], 0),
    ],
)  # fmt: skip
def test_all_overloads_cost_the_same(forms: list[Callable[[], object]], each: int) -> None:
    assert [flops(form) for form in forms] == [each * X.numel()] * len(forms)
