"""The counting mode: compared with torch's own counter, and with matmuls counted by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.worlds import rank_of
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from torch.utils.flop_counter import FlopCounterMode

from distprof.flops.attribution import FORWARD, OUTSIDE, Attribution, Owner
from distprof.flops.counter import FlopMode


@contextmanager
def counting() -> Iterator[FlopMode]:
    with FlopMode(Attribution()) as mode:
        yield mode


def count(run: Callable[[], object]) -> int:
    """Returns the flops of all MACs."""
    with FlopMode(Attribution()) as mode:
        run()
    return 2 * sum(mode.macs.values())


def torch_count(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as mode:
        run()
    return int(mode.get_total_flops())


X = torch.ones(2, 3, 8, 8)


@pytest.mark.parametrize(
    "run",
    [
        lambda: nn.Linear(8, 16)(torch.ones(4, 8)),
        lambda: nn.Linear(8, 16, bias=False)(torch.ones(2, 4, 8)),
        lambda: nn.Conv2d(3, 6, 3, padding=1)(X),
        lambda: nn.Conv2d(3, 6, 3, stride=2, groups=3)(X),
        lambda: nn.Conv1d(3, 6, 3)(X[0, :, :, 0]),
        lambda: nn.ConvTranspose2d(3, 6, 3)(X),
        lambda: torch.bmm(torch.ones(2, 3, 4), torch.ones(2, 4, 5)),
        lambda: torch.baddbmm(torch.ones(2, 3, 5), torch.ones(2, 3, 4), torch.ones(2, 4, 5)),
        lambda: torch.einsum("bij,bjk->bik", torch.ones(2, 3, 4), torch.ones(2, 4, 5)),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))(X),
        lambda: nn.MultiheadAttention(8, 2)(*[torch.ones(3, 2, 8)] * 3),
    ],
)
def test_agrees_with_torch(run: Callable[[], object]) -> None:
    assert count(run) == torch_count(run) > 0


@pytest.mark.parametrize("causal", [False, True])
def test_attention_on_cpu(causal: bool) -> None:
    """torch counts 0 for this kernel."""
    batch, heads, length, keys, dim = 2, 4, 16, 16 if causal else 24, 8
    query, key = torch.ones(batch, heads, length, dim), torch.ones(batch, heads, keys, dim)
    run = lambda: F.scaled_dot_product_attention(query, key, key, is_causal=causal)  # noqa: E731
    assert count(run) == 2 * (batch * heads * length * keys * dim) * 2


def test_attention_in_the_math_backend() -> None:
    query, key = torch.ones(2, 4, 16, 8), torch.ones(2, 4, 24, 8)

    def run() -> None:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            F.scaled_dot_product_attention(query, key, key)

    assert count(run) == 2 * (2 * 4 * 16 * 24 * 8) * 2


@pytest.mark.skipif(not hasattr(torch, "_grouped_mm"), reason="this torch has no grouped matmul")
def test_grouped_matmul() -> None:
    """With 10 rows in 3 groups, each row meets one [K, N] matrix."""
    rows = torch.ones(10, 16, dtype=torch.bfloat16)
    experts = torch.ones(3, 16, 8, dtype=torch.bfloat16)
    ends = torch.tensor([4, 4, 10], dtype=torch.int32)
    try:
        result = torch._grouped_mm(rows, experts, offs=ends)
    except (RuntimeError, NotImplementedError) as error:
        pytest.skip(f"not on this machine: {error}")
    assert result.shape == (10, 8)
    assert count(lambda: torch._grouped_mm(rows, experts, offs=ends)) == 2 * 10 * 16 * 8


def test_composites_are_decomposed() -> None:
    """In inference mode autograd does not decompose them."""
    linear, x = nn.Linear(8, 16), torch.ones(4, 8)
    with torch.inference_mode():
        assert count(lambda: linear(x)) == 2 * 4 * 8 * 16
        assert count(lambda: torch.matmul(torch.ones(2, 3, 4), torch.ones(4, 5))) == 2 * 2 * 3 * 4 * 5


def test_flops_go_to_the_present_owner() -> None:
    linear, x = nn.Linear(8, 16), torch.ones(4, 8)
    attribution = Attribution()
    with FlopMode(attribution) as mode:
        linear(x)
        attribution.enter(3)
        linear(x)
        linear(x)
        attribution.enter(5)
        linear(x)
        attribution.leave()
        attribution.leave()
    once = 4 * 8 * 16
    assert mode.macs == {Owner(FORWARD, OUTSIDE): once, Owner(FORWARD, 3): 2 * once, Owner(FORWARD, 5): once}
    assert mode.flops == {owner: 2 * macs + macs // 8 for owner, macs in mode.macs.items()}  # and the bias


def test_ops_without_a_formula_are_named() -> None:
    with counting() as mode:
        x = torch.eye(4)
        torch.linalg.matrix_exp(x)
        torch.linalg.matrix_exp(x)
        x.view(8, 2).transpose(0, 1)
    assert mode.uncounted == {"aten.linalg_matrix_exp": 2}


def test_dtensor_counts_local_work() -> None:
    with rank_of(4):
        mesh = init_device_mesh("cpu", (4,), mesh_dim_names=("tp",))
        weight = distribute_tensor(torch.ones(8, 16), mesh, [Shard(1)])
        x = distribute_tensor(torch.ones(4, 8), mesh, None)
        assert count(lambda: x @ weight) == 2 * 4 * 8 * 4
        assert count(lambda: x @ weight) == 2 * 4 * 8 * 4


def test_fake_tensors_are_no_work() -> None:
    with FakeTensorMode():
        x = torch.ones(4, 8)
        assert count(lambda: x @ x.t()) == 0


def test_other_modes_still_work() -> None:
    linear, x = nn.Linear(8, 16), torch.ones(4, 8)
    with FlopCounterMode(display=False) as theirs, counting() as ours:
        linear(x)
    assert theirs.get_total_flops() == 2 * sum(ours.macs.values()) == 2 * 4 * 8 * 16


def test_results_are_bitwise_equal() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 16), nn.Dropout(), nn.LayerNorm(16), nn.Linear(16, 2)), torch.randn(4, 8)

    def run() -> list[Tensor]:
        torch.manual_seed(1)
        model.zero_grad()
        loss = model(x).sum()
        loss.backward()
        return [loss, *(p.grad for p in model.parameters() if p.grad is not None)]

    plain = [tensor.clone() for tensor in run()]
    with FlopMode(Attribution()):
        counted = [tensor.clone() for tensor in run()]
    assert all(torch.equal(one, other) for one, other in zip(plain, counted, strict=True))


def test_failing_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in distprof's formula must not fail the user's matmul."""

    def fails(*_: Any, **__: Any) -> int:
        raise AttributeError("a signature of another torch")

    monkeypatch.setattr("distprof.flops.counter.formula", lambda op: fails if "addmm" in str(op) else None)
    linear, x = nn.Linear(8, 16), torch.ones(4, 8)
    with FlopMode(Attribution()) as mode:
        result = linear(x)
    assert torch.equal(result, linear(x))
    assert mode.uncounted["aten.addmm"] == 1


def test_error_of_the_op_passes() -> None:
    with counting(), pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert torch._C._len_torch_dispatch_stack() == 0
