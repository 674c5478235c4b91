"""Ops of other libraries: quantized and 2:4 sparse products, torchvision's kernels, torch's primitives."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from support.work import Run, counted, work
from torch import Tensor, nn

from distprof.flops.lookup import formula

aten, prims = torch.ops.aten, torch.ops.prims


@pytest.fixture(autouse=True)
def ignore_deprecation_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def by_formula(op: Any, *arguments: Any, **named: Any) -> tuple[int, int]:
    call = formula(op)
    assert call is not None
    macs, flops = call(*arguments, **named)
    return macs, flops - 2 * macs


X = torch.rand(5, 16)
needs_quantized = pytest.mark.skipif(
    not {"fbgemm", "onednn", "x86", "qnnpack"} & set(torch.backends.quantized.supported_engines), reason="no engine"
)


@needs_quantized
def test_dynamically_quantized_model() -> None:
    layers = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4, bias=False)).eval()
    quantized = torch.ao.quantization.quantize_dynamic(layers, {nn.Linear}, dtype=torch.qint8)
    with torch.no_grad():
        plain = work(lambda: layers(X))
        macs, more = work(lambda: quantized(X))
    assert macs == plain[0] == 5 * (16 * 8 + 8 * 4)
    assert more - plain[1] in (0, 5 * 4), "a layer without bias is packed with one on some engines"


@needs_quantized
def test_a_quantized_network() -> None:
    net = nn.Sequential(
        torch.ao.quantization.QuantStub(), nn.Conv2d(4, 6, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(96, 5),
        torch.ao.quantization.DeQuantStub(),
    ).eval()  # fmt: skip
    image = torch.rand(2, 4, 6, 6)
    net.qconfig = torch.ao.quantization.get_default_qconfig(torch.backends.quantized.engine)
    prepared = torch.ao.quantization.prepare(net)
    prepared(image)
    quantized = torch.ao.quantization.convert(prepared)
    outputs = 2 * 6 * 4 * 4
    with torch.no_grad():
        assert work(lambda: quantized(image)) == (outputs * 2 * 9 + 2 * 96 * 5, outputs + outputs + 2 * 5)


def test_packed_and_sparse_products() -> None:
    m, k, n = 6, 32, 16
    x, out = torch.ones(m, k), torch.ones(m, n)
    packed = torch.ones(1)  # in the library's own format
    assert by_formula(aten._weight_int4pack_mm.default, out, x, packed, 32, packed) == (m * k * n, 0)
    kept = torch.ones(n, k // 2)
    assert by_formula(aten._sparse_semi_structured_linear.default, out, x, kept, packed) == (m * k * n // 2, 0)
    assert by_formula(aten._sparse_semi_structured_linear.default, out, x, kept, packed, bias=packed) == (
        m * k * n // 2, m * n)  # fmt: skip
    if hasattr(aten, "_sparse_semi_structured_mm"):
        first = torch.ones(m, k // 2)
        assert by_formula(aten._sparse_semi_structured_mm.default, out, first, packed, x.t()) == (m * k * n // 2, 0)
        added = by_formula(aten._sparse_semi_structured_addmm.default, out, packed, first, packed, x.t())
        assert added == (m * k * n // 2, m * n)
    assert by_formula(aten._cslt_sparse_mm.default, out, packed, torch.ones(k, n)) == (m * k * n // 2, 0)


def define(library: torch.library.Library, name: str, schema: str, run: Callable[..., Any]) -> None:
    library.define(f"{name}{schema}")
    library.impl(name, run, "CompositeExplicitAutograd")


@pytest.fixture(scope="module")
def vision() -> Iterator[Any]:
    """Defines ops with torchvision's names and arguments, whose results have the right shapes."""
    if hasattr(torch.ops.torchvision, "deform_conv2d"):
        yield torch.ops.torchvision
        return
    library = torch.library.Library("torchvision", "DEF")
    strides = "SymInt stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w"
    define(
        library, "deform_conv2d",
        f"(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, {strides}, SymInt groups,"
        " SymInt offset_groups, bool use_mask) -> Tensor",
        lambda x, weight, offset, *_: x.new_ones(x.shape[0], weight.shape[0], *offset.shape[2:]),
    )  # fmt: skip
    define(
        library, "roi_align",
        "(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width,"
        " int sampling_ratio, bool aligned) -> Tensor",
        lambda x, rois, scale, height, width, *_: x.new_ones(rois.shape[0], x.shape[1], height, width),
    )  # fmt: skip
    define(
        library, "nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        lambda boxes, *_: torch.arange(boxes.shape[0]),
    )  # fmt: skip
    yield torch.ops.torchvision
    library._destroy()


def test_deformable_convolution(vision: Any) -> None:
    x, weight, bias = torch.ones(2, 4, 8, 8), torch.ones(6, 2, 3, 3), torch.ones(6)
    offset, mask = torch.zeros(2, 18, 6, 6), torch.ones(2, 9, 6, 6)
    outputs, samples = 2 * 6 * 6 * 6, 2 * 6 * 6 * 4 * 9

    def run(use_mask: bool) -> Tensor:
        result: Tensor = vision.deform_conv2d(x, weight, offset, mask, bias, 1, 1, 0, 0, 1, 1, 2, 1, use_mask)
        return result

    plain = work(lambda: nn.functional.conv2d(x, weight, bias, groups=2))
    assert work(lambda: run(False)) == (plain[0], plain[1] + 7 * samples)
    assert work(lambda: run(True)) == (outputs * 2 * 9, outputs + 8 * samples)


def test_roi_align(vision: Any) -> None:
    x, rois = torch.ones(1, 3, 16, 16), torch.zeros(5, 5)
    assert work(lambda: vision.roi_align(x, rois, 1.0, 7, 7, 2, True)) == (0, 5 * 3 * 7 * 7 * 4 * 8)
    unknown = counted(lambda: vision.roi_align(x, rois, 1.0, 7, 7, -1, True))
    assert (unknown.uncounted, unknown.flops) == ({"torchvision.roi_align": 1}, {})
    assert work(lambda: vision.nms(torch.ones(9, 4), torch.ones(9), 0.5)) == (0, 0)


@pytest.mark.parametrize(
    ("run", "each"),
    [
        (lambda: prims.add(X, X), 1), (lambda: prims.exp(X), 1), (lambda: prims.mul(X, X), 1),
        (lambda: prims.lt(X, X), 0),
        (lambda: prims.sum(X, [1]), 1), (lambda: prims.amax(X, [1]), 1), (lambda: prims.var(X, [1], 1), 4),
        (lambda: prims.convert_element_type(X, torch.bfloat16), 0), (lambda: prims.transpose(X, [1, 0]), 0),
        (lambda: prims.broadcast_in_dim(X, [2, 5, 16], [1, 2]), 0), (lambda: prims.cat([X, X], 0), 0),
        (lambda: prims.where(X > 0, X, X), 0),
    ],
)  # fmt: skip
def test_primitives(run: Run, each: int) -> None:
    assert work(run) == (0, each * X.numel())


def test_queries_and_factories_are_not_listed() -> None:
    truths = torch.ones(3, dtype=torch.bool)
    assert work(lambda: (torch._is_all_true(truths), torch._is_any_true(truths))) == (0, 0)
    assert work(lambda: torch.hann_window(8, periodic=False))[0] == 0
    assert work(lambda: torch.quantize_per_tensor(X, 0.1, 0, torch.qint8).dequantize()) == (0, 0)


def test_fake_quantization() -> None:
    assert work(lambda: torch.fake_quantize_per_tensor_affine(X, 0.1, 0, -128, 127)) == (0, 6 * X.numel())


def test_onednn_convolution() -> None:
    x, weight = torch.ones(2, 4, 6, 6), torch.ones(6, 2, 3, 3)
    out = torch.ones(2, 6, 4, 4)
    assert by_formula(aten.mkldnn_convolution.default, out, x, weight, None, [0, 0], [1, 1], [1, 1], 2) == (
        out.numel() * 2 * 9, 0)  # fmt: skip
