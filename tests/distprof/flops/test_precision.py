"""MACs by device and arithmetic, and the model's part of them: from real ops on fake GPU tensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.recording import record
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from distprof.devices import cpu_name
from distprof.flops.attention_recompute import BACKWARDS, recomputed_macs
from distprof.flops.precision import device_precision
from distprof.records import Counts, DeviceWork

aten = torch.ops.aten


def arithmetic(op: Any, *shapes: tuple[int, ...], device: str = "cuda", dtype: torch.dtype = torch.float32) -> str:
    """Returns the arithmetic of an op whose tensor arguments have these shapes."""
    with FakeTensorMode():
        tensors = [torch.empty(shape, device=device).to(dtype) for shape in shapes]
    return device_precision(op, tensors, {}, None).arithmetic


@pytest.fixture(autouse=True)
def restore_torch_settings() -> Iterator[None]:
    """Restores torch's settings."""
    matmul, conv = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = conv


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (torch.float64, "fp64"),
        (torch.float32, "fp32"),
        (torch.float16, "fp16"),
        (torch.bfloat16, "bf16"),
        (torch.float8_e4m3fn, "fp8"),
        (torch.float8_e5m2, "fp8"),
        (torch.int8, "int8"),
        (torch.complex64, "complex64"),
    ],
)
def test_operand_type_decides(dtype: torch.dtype, name: str) -> None:
    assert arithmetic(aten.mm.default, (2, 2), (2, 2), dtype=dtype) == name


def test_tf32_matmuls_by_torch_settings() -> None:
    assert arithmetic(aten.mm.default, (2, 2), (2, 2)) == "fp32"
    torch.set_float32_matmul_precision("high")
    assert arithmetic(aten.mm.default, (2, 2), (2, 2)) == "tf32"
    assert arithmetic(aten.mm.default, (2, 2), (2, 2), device="cpu") == "fp32"
    assert arithmetic(aten.mm.default, (2, 2), (2, 2), dtype=torch.bfloat16) == "bf16"


def test_tf32_convolutions_by_default() -> None:
    assert arithmetic(aten.convolution.default, (1, 2, 4, 4), (2, 2, 3, 3)) == "tf32"
    torch.backends.cudnn.allow_tf32 = False
    assert arithmetic(aten.convolution.default, (1, 2, 4, 4), (2, 2, 3, 3)) == "fp32"


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="torch 2.9")
def test_newer_setting_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        assert arithmetic(aten.mm.default, (2, 2), (2, 2)) == "tf32"
    finally:
        torch.backends.cuda.matmul.fp32_precision = "none"


def test_tf32_on_amd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", "6.2")
    torch.set_float32_matmul_precision("high")
    assert arithmetic(aten.mm.default, (2, 2), (2, 2)) == "fp32"
    monkeypatch.setenv("HIPBLASLT_ALLOW_TF32", "1")
    assert arithmetic(aten.mm.default, (2, 2), (2, 2)) == "tf32"
    assert arithmetic(aten.convolution.default, (1, 2, 4, 4), (2, 2, 3, 3)) == "fp32"


def test_packed_weights_and_lists() -> None:
    x, packed = torch.empty(2, 2, dtype=torch.bfloat16), torch.empty(2, 2, dtype=torch.int8)
    assert device_precision(aten._weight_int8pack_mm.default, (x, packed), {}, None).arithmetic == "bf16"
    assert device_precision(None, ([x, packed],), {}, None) == device_precision(None, (), {"x": x}, None)
    assert device_precision(None, (1,), {}, x).arithmetic == "bf16"
    assert device_precision(None, (1,), {}, None) == (None, "")


# ---- recomputed work -----------------------------------------------------------------------------------------------


def test_all_attention_backwards_are_known() -> None:
    overloads = {name.removeprefix("aten::").split(".")[0] for name in torch._C._dispatch_get_all_op_names()}
    fused = {name for name in overloads if name.endswith("attention_backward") or "attention_for_cpu_backward" in name}
    fused |= {name for name in overloads if name.endswith("overrideable_backward") and "attention" in name}
    own = {name for name in fused if "native_multi_head" not in name and "::" not in name}
    assert own <= BACKWARDS.keys()


@pytest.mark.parametrize("op", [name for name in BACKWARDS if hasattr(aten, name)])
def test_positions_of_query_and_value(op: str) -> None:
    names = [argument.name for argument in getattr(aten, op).default._schema.arguments]
    assert [names[place] for place in BACKWARDS[op]] == ["query", "value"]


def test_only_scores_are_recomputed() -> None:
    query, key, value = torch.empty(2, 3, 5, 8), torch.empty(2, 3, 7, 8), torch.empty(2, 3, 7, 16)
    scores = 2 * 3 * 5 * 7
    backward = aten._scaled_dot_product_flash_attention_backward.default
    macs = scores * (3 * 8 + 2 * 16)
    assert recomputed_macs(backward, macs, (None, query, key, value), {}) == scores * 8
    assert recomputed_macs(backward, macs, (None,), {"query": query, "value": value}) == scores * 8
    assert recomputed_macs(aten.mm.default, macs, (query, key), {}) == 0
    flex = torch.ops.higher_order.flex_attention_backward
    assert recomputed_macs(flex, macs, (query, key, value), {}) == scores * 8


# ---- in a counted step ---------------------------------------------------------------------------------------------


def one_step(folder: Path, model: nn.Module, x: Tensor) -> Counts:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def job() -> None:
        model(x).square().sum().backward()
        optimizer.step()

    return record(folder, job, count=True, timed=0).one(Counts)


def only(counts: Counts) -> DeviceWork:
    (work,) = counts.device_work
    return work


class Attention(nn.Module):
    def __init__(self, backend: SDPBackend) -> None:
        super().__init__()
        self.qkv, self.backend = nn.Linear(8, 24, bias=False), backend

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).view(2, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)
        with sdpa_kernel(self.backend):
            return F.scaled_dot_product_attention(query, key, value, is_causal=True)


@pytest.mark.parametrize("backend", [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH])
def test_model_work_is_the_same_on_all_backends(tmp_path: Path, backend: SDPBackend) -> None:
    work = only(one_step(tmp_path, Attention(backend), torch.ones(2, 5, 8, requires_grad=True)))
    projection, attention = 2 * 5 * 8 * 24, 2 * 2 * 5 * 5 * (4 + 4)
    redone = 2 * 2 * 5 * 5 * 4 if backend is SDPBackend.FLASH_ATTENTION else 0
    assert work.model_macs == 3 * (projection + attention)
    assert work.executed_macs == work.model_macs + redone
    assert (work.device, work.name, work.threads) == ("cpu", cpu_name(), torch.get_num_threads())
    assert work.arithmetic == "fp32"


def test_recompute_is_not_model_work(tmp_path: Path) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 16)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = checkpoint(self.inner, x, use_reentrant=True)
            return output

    work = only(one_step(tmp_path, Checkpointed(), torch.ones(4, 8, requires_grad=True)))
    assert (work.model_macs, work.executed_macs) == (3 * 4 * 8 * 16, 4 * 4 * 8 * 16)


def test_autocast(tmp_path: Path) -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cast, self.whole = nn.Linear(8, 16), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                x = self.cast(x)
            return self.whole(x.float())

    works = one_step(tmp_path, Mixed(), torch.ones(4, 8)).device_work
    assert {work.arithmetic: work.model_macs for work in works} == {"bf16": 2 * 4 * 8 * 16, "fp32": 3 * 4 * 16 * 4}


def test_device_work_covers_the_step(tmp_path: Path) -> None:
    counts = one_step(
        tmp_path, nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2)), torch.ones(2, 3, 4, 4)
    )
    total = sum(int(getattr(counts, f"{kind}_macs").sum()) for kind in ("forward", "backward", "recompute"))
    total += sum(amount for name, amount in counts.outside.items() if name.endswith("_macs"))
    assert only(counts).executed_macs == total
