"""What the counts of experts cost on an accelerator: kernels to launch for each layer call, and nothing waits.

No accelerator is needed: the tensors are on the meta device, which takes the same way as one, and has no numbers, so
that whoever asks for one fails.  Each op is taken for a kernel, but for views and for memory that is not written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from distprof.frameworks.deepspeed import _read_gate
from distprof.frameworks.megatron import _read_map
from distprof.frameworks.routing_readers import read_arguments, read_choice, read_counts
from distprof.model.moe_layers import MoeLayer
from distprof.probes import experts
from distprof.probes.experts import ExpertTally

TOKENS, EXPERTS, TOP_K, CALLS = 32, 8, 2, 20
#: Ops that read numbers of a device, or sizes that depend on them.
WAITING = (
    "_local_scalar_dense",
    "item",
    "nonzero",
    "bincount",
    "masked_select",
    "unique",
    "equal.default",
    "is_nonzero",
)


class Launches(TorchDispatchMode):
    """Notes the kernels that ops on the meta device would launch, and refuses what would wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[str] = []

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(op)
        assert not any(word in name for word in WAITING), f"{name} waits for the device"
        result = op(*args, **(kwargs or {}))
        tensors = [one for one in (*_flat(args), *_flat(result)) if isinstance(one, Tensor)]
        if not any(tensor.is_meta for tensor in tensors):
            return result
        assert all(tensor.is_meta or not tensor.dim() for tensor in tensors), f"{name} copies from or to the device"
        if not op.is_view and "empty" not in name:
            self.kernels.append(name)
        return result


def _flat(values: Any) -> Iterator[Any]:
    for one in values if isinstance(values, (tuple, list)) else (values,):
        yield from _flat(one) if isinstance(one, (tuple, list)) else (one,)


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype, device="meta")


def ids(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
    return meta(*shape, dtype=dtype)


def layer(**readers: Any) -> MoeLayer:
    return MoeLayer("moe", 0, (), EXPERTS, EXPERTS, holder=2, router=1, top_k=TOP_K, **readers)


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Launches:
    """Counts also what distprof hides from the script's modes."""
    monkeypatch.setattr(experts, "_NoModes", nullcontext)
    return Launches()


def kernels_of_calls(launches: Launches, moe: MoeLayer, call: Callable[[], tuple[Any, Any]]) -> float:
    """Returns the kernels that are launched for each of the layer's calls, after the first."""
    tally = ExpertTally([moe])
    counted = 0
    for number in range(1 + CALLS):
        routed, handed = call()
        with launches:
            if number == 1:
                counted = len(launches.kernels)
            if moe.router in tally.leaving:
                tally.leaving[moe.router](routed)
            if moe.holder in tally.entering:
                tally.entering[moe.holder](handed, {})
    assert not any(sums.misread for sums in tally._sums)
    assert any(sums.counts for sums in tally._sums), "nothing was read"
    return (len(launches.kernels) - counted) / CALLS


def stacked(dtype: torch.dtype = torch.int64) -> tuple[Any, Any]:
    """A router returns the ids that its experts are called with."""
    chosen = ids(TOKENS, TOP_K, dtype=dtype)
    return (meta(TOKENS, EXPERTS), meta(TOKENS, TOP_K), chosen), (meta(TOKENS, 4), chosen)


CHOICE = partial(read_choice, top_k=TOP_K)
BOTH = {"read_router": CHOICE, "read_handed": partial(read_arguments, top_k=TOP_K)}
MAP = (meta(TOKENS, EXPERTS), meta(TOKENS, EXPERTS, dtype=torch.bool))
MEGATRON = partial(_read_map, top_k=TOP_K, weights=())
ROUTES = ids(TOP_K, TOKENS, dtype=torch.int32)


@pytest.mark.parametrize(
    ("readers", "call", "most"),
    [
        pytest.param(BOTH, stacked, 2, id="stacked"),
        pytest.param(BOTH, partial(stacked, torch.int32), 2, id="stacked, int32"),
        pytest.param({"read_router": CHOICE}, lambda: (ids(TOP_K, TOKENS).t(), ()), 2, id="turned"),
        pytest.param({"read_router": CHOICE}, lambda: (ids(4, TOKENS // 4, TOP_K), ()), 2, id="batches"),
        pytest.param({"read_router": partial(read_choice, top_k=1)}, lambda: (ids(TOKENS), ()), 2, id="top-1"),
        pytest.param({"read_router": CHOICE}, lambda: (MAP, ()), 2, id="mask"),
        pytest.param({"read_router": CHOICE}, lambda: (MAP[0], ()), 2, id="scores, 0 where not chosen"),
        pytest.param({"read_router": CHOICE}, lambda: (ids(EXPERTS), ()), 1, id="counts"),
        pytest.param({"read_router": CHOICE}, lambda: (ids(EXPERTS, dtype=torch.int32), ()), 1, id="counts, int32"),
        pytest.param({"read_router": read_choice}, lambda: (ids(EXPERTS, TOKENS), ()), 1, id="experts choose tokens"),
        pytest.param({"read_processed": read_counts}, lambda: ((), (meta(99, 4), meta(EXPERTS))), 1, id="experts' own"),
        pytest.param(
            {"read_router": partial(MEGATRON, padded=False)}, lambda: (MAP, ()), 1, id="Megatron"
        ),
        pytest.param(
            {"read_router": partial(MEGATRON, padded=True)}, lambda: (MAP, ()), 2, id="Megatron, padded"
        ),
        pytest.param(
            {"read_router": _read_gate},
            lambda: ((meta(), ids(), EXPERTS, ROUTES, meta(2), meta(2), ids(EXPERTS)), ()),
            2,
            id="DeepSpeed: ids, counts, capacity and loss",
        ),
    ],
)  # fmt: skip
def test_launches_of_a_layer_call(
    launches: Launches, readers: dict[str, Any], call: Callable[[], tuple[Any, Any]], most: int
) -> None:
    assert kernels_of_calls(launches, layer(**readers), call) <= most, launches.kernels[-12:]


def test_what_the_script_changes_before_the_step_ends_is_not_known() -> None:
    moe = layer(read_router=_read_gate)
    for changes in (False, True):
        tally, counts = ExpertTally([moe]), ids(EXPERTS)
        tally.leaving[moe.router]((meta(), ids(), EXPERTS, ROUTES, meta(2), meta(2), counts))
        if changes:
            counts.add_(1)
        tally._sums[0].finish()
        assert tally._sums[0].misread is changes


def test_experts_in_a_list_launch_nothing(launches: Launches) -> None:
    """The shapes of their inputs tell their tokens."""
    tally = ExpertTally([MoeLayer("moe", 0, (1, 2), num_experts=2, local=2)])
    tokens = meta(5, 4)
    with launches:
        for row in (0, 1, 2, 0, 1, 2):
            tally.entering[row]((tokens,), {})
    assert launches.kernels == []
    assert tally._sums[0].rows is not None
    assert tally._sums[0].rows.called


def test_what_waits_is_refused(launches: Launches) -> None:
    """The test can fail: numbers of a device cannot be had."""
    for wait in (Tensor.nonzero, Tensor.item, Tensor.bincount):
        with launches, pytest.raises(AssertionError, match="waits"):
            wait(ids(1))
    with launches, pytest.raises(AssertionError, match="copies"):
        meta(3).copy_(torch.rand(3))


def test_nothing_is_read_while_a_graph_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    assert experts.read_hidden(read.append, 1)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert experts.read_hidden(read.append, 2)
    assert read == [1]
