"""Formulas of a script's own ops, in torch's registry and in distprof's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._higher_order_ops.triton_kernel_wrap import kernel_side_table
from torch.utils.flop_counter import flop_registry, register_flop_formula

import distprof
from distprof.errors import UsageError
from distprof.flops import user_formulas
from distprof.flops.attribution import FORWARD, OUTSIDE, Attribution, Owner
from distprof.flops.counter import FlopMode

OURS = Owner(FORWARD, OUTSIDE)


@torch.library.custom_op("distprof_tests::halves", mutates_args=())
def halves(a: Tensor, b: Tensor, scale: float = 0.5) -> Tensor:
    return (a @ b) * scale


@torch.library.custom_op("distprof_tests::both", mutates_args=())
def both(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).sum(0)


PACKET = torch.ops.distprof_tests.halves
A, B = torch.ones(3, 4), torch.ones(4, 5)


@pytest.fixture(autouse=True)
def restore_registries() -> Iterator[None]:
    before, torchs = dict(user_formulas.registered), dict(flop_registry)
    yield
    for registry, was in ((user_formulas.registered, before), (flop_registry, torchs)):
        registry.clear()
        registry.update(was)


def work(*arguments: Any, op: Any = halves, **keywords: Any) -> tuple[int, int]:
    """Returns the MACs and flops of one call."""
    with FlopMode(Attribution()) as mode:
        op(*arguments, **keywords)
    assert not mode.uncounted
    return mode.macs.get(OURS, 0), mode.flops.get(OURS, 0)


def flops(a: Any, b: Any, scale: float = 1.0, out_shape: Any = None) -> int:
    assert list(out_shape) == [a[0], b[1]]
    return int(2 * a[0] * a[1] * b[1] + a[0] * b[1])


def macs(a: Any, b: Any, scale: float = 1.0, out_shape: Any = None) -> int:
    return int(a[0] * a[1] * b[1])


def test_op_without_a_formula_is_listed() -> None:
    with FlopMode(Attribution()) as mode:
        halves(A, B)
        halves(A, B)
    assert mode.uncounted == {"distprof_tests.halves": 2}
    assert not mode.flops


def test_formula_registered_with_torch() -> None:
    register_flop_formula(PACKET)(lambda a, b, *rest, out_shape=None: 2 * a[0] * a[1] * b[1])
    assert work(A, B) == (60, 120)


def test_raw_formula_of_torch_gets_tensors() -> None:
    register_flop_formula(PACKET, get_raw=True)(lambda a, b, *rest, out_val: 2 * a.numel() * out_val.shape[1])
    assert work(A, B) == (60, 120)


def test_registration_between_counted_steps() -> None:
    with FlopMode(Attribution()) as mode:
        halves(A, B)
    assert mode.uncounted
    register_flop_formula(PACKET)(lambda a, b, *rest, out_shape=None: 8)
    assert work(A, B) == (4, 8)


@pytest.mark.parametrize("op", [halves, PACKET, PACKET.default], ids=["custom_op", "packet", "overload"])
def test_register_formula(op: Any) -> None:
    distprof.register_formula(op, flops, macs)
    assert work(A, B) == (60, 135)
    assert work(A, B, scale=0.25) == (60, 135)


def test_without_macs() -> None:
    distprof.register_formula(PACKET, flops)
    assert work(A, B) == (0, 135)


def test_last_registration_holds() -> None:
    register_flop_formula(PACKET)(lambda *args, **kwargs: 2)
    distprof.register_formula(PACKET, lambda *args, **kwargs: 4)
    distprof.register_formula(PACKET, lambda *args, **kwargs: 6)
    assert work(A, B) == (0, 6)


def test_replaces_a_builtin_formula() -> None:
    distprof.register_formula(torch.ops.aten.tanh, lambda x, out_shape=None: 7 * x[0] * x[1])
    assert work(A, op=torch.tanh) == (0, 84)


def test_shapes_of_tensors_in_lists() -> None:
    distprof.register_formula(both, lambda parts, out_shape=None: sum(rows * columns for rows, columns in parts))
    assert work([A, A, A], op=both) == (0, 36)


def test_raising_formula() -> None:
    distprof.register_formula(PACKET, lambda a, b: 1)  # takes no out_shape
    with FlopMode(Attribution()) as mode:
        assert torch.equal(halves(A, B), A @ B * 0.5)
    assert mode.uncounted == {"distprof_tests.halves": 1}
    assert mode.error is None


@pytest.mark.parametrize("op", ["distprof_tests::halves", len, None, torch.nn.Linear])
def test_not_an_op(op: Any) -> None:
    with pytest.raises(UsageError, match=r"is no op; give torch\.ops"):
        distprof.register_formula(op, flops)


@pytest.mark.parametrize(("bad", "what"), [({"flops": 3}, "flops"), ({"flops": flops, "macs": 3}, "macs")])
def test_not_a_function(bad: Any, what: str) -> None:
    with pytest.raises(UsageError, match=f"{what} must be a function"):
        distprof.register_formula(PACKET, **bad)
    assert PACKET not in user_formulas.registered


def test_imports_no_torch() -> None:
    script = (
        "import sys, distprof\n"
        "try:\n    distprof.register_formula(print, print)\n"
        "except distprof.errors.UsageError as error:\n    print(error)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-P" if sys.version_info >= (3, 11) else "-s", "-c", script],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout.splitlines()[-1] == "False"
    assert "is no op" in done.stdout


class JITFunction:
    """A stand-in for a Triton kernel, which needs a GPU: torch keeps it in a table, and distprof compares its type."""

    __module__ = "triton.runtime.jit"

    def __init__(self, name: str) -> None:
        self.__name__ = name


class Autotuner:
    def __init__(self, fn: Any) -> None:
        self.fn = fn


def launch(mode: FlopMode, kernel: Any) -> None:
    """Gives a mode the launch that torch.library.wrap_triton makes; nothing runs."""
    wrapper = torch.ops.higher_order.triton_kernel_wrapper_mutation
    number = kernel_side_table.add_kernel(kernel)
    keywords = {"kernel_idx": number, "constant_args_idx": 0, "grid": [(1,)], "kwargs": {"x": A}}
    mode._look_up(wrapper)
    mode._count(wrapper, None, (), keywords, None)


def test_formula_of_a_triton_kernel() -> None:
    """torch's registry has formulas of kernels as of ops, and calls them with the launch's arguments."""
    with_torch, with_us, bare = JITFunction("first"), JITFunction("second"), JITFunction("third")
    flop_registry[with_torch] = lambda *args, kwargs, out_val=None, **more: 2 * kwargs["x"].numel()
    distprof.register_formula(with_us, lambda *args, kwargs, out_shape=None, **more: 7, lambda *args, **more: 3)
    mode = FlopMode(Attribution())
    for kernel in (with_torch, Autotuner(with_us), bare, bare):
        launch(mode, kernel)
    assert (mode.macs[OURS], mode.flops[OURS]) == (12 + 3, 24 + 7)
    assert mode.uncounted == {"triton.third": 2}


def test_op_of_triton_kernels() -> None:
    @torch.library.triton_op("distprof_tests::of_kernels", mutates_args=())
    def of_kernels(a: Tensor, b: Tensor) -> Tensor:
        return a @ b

    assert work(A, B, op=of_kernels) == (60, 120)
    distprof.register_formula(of_kernels, lambda a, b, out_shape=None: 5)
    assert work(A, B, op=of_kernels) == (0, 5)
