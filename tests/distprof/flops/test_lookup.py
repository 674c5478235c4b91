"""Formulas, compared with independent counts.

These are written-out loops, closed forms, torch's own counter where it is right, and equal work in ops for which it is.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.work import Run, work
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from distprof.flops.attribution import Attribution
from distprof.flops.counter import FlopMode
from distprof.flops.lookup import formula

aten = torch.ops.aten


def backward(run: Callable[[], Tensor]) -> tuple[int, int]:
    """Returns the work of the backward of a sum, without the forward."""
    out = run()
    gradient = torch.ones_like(out)
    return work(lambda: out.backward(gradient))


def torch_macs(run: Run) -> int:
    """Returns the MACs by torch's counter."""
    with FlopCounterMode(display=False) as mode:
        run()
    return int(mode.get_total_flops()) // 2


def ones(*shape: int, grad: bool = False, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(shape, dtype=dtype, requires_grad=grad)


M, K, N, GROUPS = 3, 4, 5, 2
MKN = sum(1 for _ in itertools.product(range(M), range(K), range(N)))


@pytest.mark.parametrize(
    ("run", "macs", "more"),
    [
        (lambda: ones(M, K) @ ones(K, N), MKN, 0),
        (lambda: torch.addmm(ones(M, N), ones(M, K), ones(K, N)), MKN, M * N),
        (lambda: torch.addmm(ones(M, N), ones(M, K), ones(K, N), beta=0), MKN, 0),
        (lambda: torch.baddbmm(ones(2, M, N), ones(2, M, K), ones(2, K, N)), 2 * MKN, 2 * M * N),
        (lambda: torch.baddbmm(ones(2, M, N), ones(2, M, K), ones(2, K, N), beta=0), 2 * MKN, 0),
        (lambda: torch.addbmm(ones(M, N), ones(2, M, K), ones(2, K, N)), 2 * MKN, M * N),
        (lambda: torch.mv(ones(M, K), ones(K)), M * K, 0),
        (lambda: torch.addmv(ones(M), ones(M, K), ones(K)), M * K, M),
        (lambda: torch.dot(ones(K), ones(K)), K, 0),
        (lambda: torch.vdot(ones(K), ones(K)), K, 0),
        (lambda: torch.inner(ones(K), ones(K)), K, 0),
        (lambda: torch.addr(ones(M, N), ones(M), ones(N)), M * N, 0),
        (lambda: torch.outer(ones(M), ones(N)), 0, M * N),  # runs as an element-wise product
        (lambda: torch._int_mm(ones(17, 8, dtype=torch.int8), ones(8, 16, dtype=torch.int8)), 17 * 8 * 16, 0),
        (lambda: torch.einsum("bik,bkj->bij", ones(2, M, K), ones(2, K, N)), 2 * MKN, 0),
        (lambda: F.bilinear(ones(7, M), ones(7, N), ones(K, M, N)), 7 * MKN, 0),
        (lambda: F.bilinear(ones(7, M), ones(7, N), ones(K, M, N), ones(K)), 7 * MKN, 7 * K),
        (lambda: F.linear(ones(2, M, K), ones(N, K), ones(N)), 2 * MKN, 2 * M * N),
        (lambda: F.linear(ones(M, K), ones(N, K)), MKN, 0),
        (lambda: torch.mm(ones(M, K), ones(K, N), out=ones(M, N)), MKN, 0),
        (lambda: torch.addmm(ones(M, N), ones(M, K), ones(K, N), out=ones(M, N)), MKN, M * N),
    ],
)  # fmt: skip
def test_products(run: Run, macs: int, more: int) -> None:
    assert work(run) == (macs, more)


def grouped(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    call = formula(aten._grouped_mm.default)
    assert call is not None
    return call(None, ones(*a), ones(*b), ones(GROUPS))[0]


def test_grouped_matmuls() -> None:
    """Any of M, K and N may be split into groups; two 3-D operands are a batch."""
    assert grouped((M, K), (GROUPS, K, N)) == MKN
    assert grouped((GROUPS, M, K), (K, N)) == MKN
    assert grouped((M, K), (K, N)) == MKN
    assert grouped((GROUPS, M, K), (GROUPS, K, N)) == GROUPS * MKN


@pytest.mark.parametrize("name", ["_scaled_grouped_mm", "_scaled_grouped_mm_v2", "_scaled_mm_v2"])
def test_scaled_matmuls(name: str) -> None:
    if not hasattr(aten, name):
        pytest.skip("not in this torch")
    call = formula(getattr(aten, name).default)
    assert call is not None
    b = (GROUPS, K, N) if "grouped" in name else (K, N)
    assert call(ones(M, N), ones(M, K), ones(*b), ones(1), ones(1)) == (MKN, 2 * MKN)


@pytest.mark.skipif(not hasattr(torch, "_grouped_mm"), reason="this torch has no grouped matmul")
def test_backward_of_experts() -> None:
    rows = ones(10, 16, grad=True, dtype=torch.bfloat16)
    experts = ones(3, 16, 8, grad=True, dtype=torch.bfloat16)
    out = torch._grouped_mm(rows, experts, offs=torch.tensor([4, 4, 10], dtype=torch.int32))
    gradient = torch.ones_like(out)
    macs, more = work(lambda: out.backward(gradient))
    assert (macs, more) == (2 * 10 * 16 * 8, 0)


CONVOLUTIONS = [
    lambda groups: nn.Conv2d(4, 8, 3, padding=1, groups=groups),
    lambda groups: nn.Conv2d(4, 8, 3, stride=2, dilation=2, groups=groups, bias=False),
    lambda groups: nn.ConvTranspose2d(4, 8, 3, stride=2, output_padding=1, groups=groups),
    lambda groups: nn.ConvTranspose2d(4, 8, 2, groups=groups, bias=False),
]


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("make", CONVOLUTIONS)
def test_grouped_convolution(make: Callable[[int], nn.Module], groups: int) -> None:
    """Forward and backward equal those of as many small convolutions, which torch counts right."""
    whole, x = make(groups), ones(2, 4, 9, 9, grad=True)
    kind: Any = type(whole)
    more = {"output_padding": whole.output_padding} if whole.transposed else {}
    same = {name: getattr(whole, name) for name in ("stride", "padding", "dilation")}
    small = kind(4 // groups, 8 // groups, whole.kernel_size, **same, **more)
    out, bias = whole(x), whole.bias is not None
    part = ones(2, 4 // groups, 9, 9, grad=True)
    assert work(lambda: whole(x)) == (groups * torch_macs(lambda: small(part)), out.numel() if bias else 0)
    once = small(part)
    gradient, part_gradient = torch.ones_like(out), torch.ones_like(once)
    assert work(lambda: out.backward(gradient)) == (
        groups * torch_macs(lambda: once.backward(part_gradient)), out.numel() if bias else 0)  # fmt: skip


def test_backward_of_grouped_weights() -> None:
    conv, x = nn.Conv2d(8, 8, 3, groups=8, padding=1, bias=False), ones(1, 8, 32, 32, grad=True)
    out = conv(x)
    gradient = torch.ones_like(out)
    forward = 8 * 32 * 32 * 9
    assert work(lambda: out.backward(gradient, retain_graph=True)) == (2 * forward, 0)
    assert torch_macs(lambda: out.backward(gradient)) == (1 + 8) * forward


def test_convolution_counts_requested_gradients() -> None:
    conv, frozen = nn.Conv2d(4, 8, 3), nn.Conv2d(4, 8, 3).requires_grad_(False)
    forward = 8 * 7 * 7 * 4 * 9
    assert backward(lambda: conv(ones(1, 4, 9, 9))) == (forward, 8 * 7 * 7)
    assert backward(lambda: frozen(ones(1, 4, 9, 9, grad=True))) == (forward, 0)


ATTENTION = {"self": (16, 16, 8, 4), "cross": (16, 24, 8, 4), "grouped queries": (16, 16, 8, 2)}


@pytest.mark.parametrize("sizes", ATTENTION.values(), ids=ATTENTION)
def test_attention_on_cpu(sizes: tuple[int, int, int, int]) -> None:
    """Forward is as in the math backend; backward has five products, where the math backend needs four."""
    queries, keys, dim, key_heads = sizes
    q, k, v = (ones(2, heads, length, dim, grad=True)
               for heads, length in ((4, queries), (key_heads, keys), (key_heads, keys)))  # fmt: skip

    def run() -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=key_heads < 4)

    def by_math() -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            return run()

    product = 2 * 4 * queries * keys * dim
    beside = 5 * 2 * 4 * queries * keys + 2 * 4 * (queries + keys) * dim
    assert "FlashAttention" in type(run().grad_fn).__name__
    assert work(run) == work(by_math) == (2 * product, beside)
    assert torch_macs(by_math) == work(by_math)[0] == 2 * product
    assert backward(run)[0] == 5 * product
    assert backward(by_math)[0] == 4 * product


def test_attention_of_a_known_size() -> None:
    q = ones(1, 12, 64, 64, grad=True)
    assert work(lambda: F.scaled_dot_product_attention(q, q, q))[0] * 2 == 12_582_912
    assert backward(lambda: F.scaled_dot_product_attention(q, q, q))[0] * 2 == 31_457_280


def test_attention_with_different_value_size() -> None:
    call, back = (formula(getattr(aten, f"_scaled_dot_product_flash_attention_for_cpu{end}").default)
                  for end in ("", "_backward"))  # fmt: skip
    assert call is not None and back is not None
    q, k, v = ones(2, 3, 5, 8), ones(2, 3, 7, 8), ones(2, 3, 7, 6)
    scores = 2 * 3 * 5 * 7
    assert call(None, q, k, v)[0] == scores * (8 + 6)
    assert back(None, ones(2, 3, 5, 6), q, k, v)[0] == scores * (3 * 8 + 2 * 6)


@pytest.mark.slow
def test_flex_attention_counts_in_full() -> None:
    from torch.nn.attention.flex_attention import flex_attention

    q = ones(1, 2, 128, 8)
    with FlopMode(Attribution()) as mode:
        flex_attention(q, q, q)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    assert sum(mode.macs.values()) == 2 * (2 * 128 * 128 * 8)


def recurrent(layer: nn.Module) -> tuple[tuple[int, int], tuple[int, int]]:
    x = ones(5, 3, 8, grad=True)
    return work(lambda: layer(x)), backward(lambda: layer(x)[0])


def cell_by_hand(kind: type[nn.Module], bias: bool) -> tuple[int, int]:
    """Returns the work of one position of one sample, in ops that torch counts right."""
    cell = {nn.LSTM: nn.LSTMCell, nn.GRU: nn.GRUCell, nn.RNN: nn.RNNCell}[kind](8, 6, bias=bias)
    x, h, c = ones(1, 8), ones(1, 6), ones(1, 6)

    def step() -> None:
        gates = F.linear(x, cell.weight_ih, cell.bias_ih), F.linear(h, cell.weight_hh, cell.bias_hh)
        if kind is nn.LSTM:
            i, f, g, o = (gates[0] + gates[1]).chunk(4, 1)
            o.sigmoid() * (f.sigmoid() * c + i.sigmoid() * g.tanh()).tanh()
        elif kind is nn.RNN:
            (gates[0] + gates[1]).tanh()
        else:
            (r, z, n), (r2, z2, n2) = gates[0].chunk(3, 1), gates[1].chunk(3, 1)
            z, n = (z + z2).sigmoid(), (n + (r + r2).sigmoid() * n2).tanh()
            n + z * (h - n)

    with torch.no_grad():
        assert work(step)[0] == torch_macs(step)
        return work(step)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_on_cpu(kind: type[nn.Module], bias: bool) -> None:
    """An LSTM in oneDNN's kernel, and the others in ops of torch, equal their cells written out by hand."""
    macs, more = cell_by_hand(kind, bias)
    forward, back = recurrent(kind(8, 6, bias=bias))
    assert forward == (5 * 3 * macs, 5 * 3 * more)
    if kind is nn.LSTM:
        assert back == (2 * forward[0], 2 * forward[1])


def test_lstm_of_layers_and_directions() -> None:
    layer, x = nn.LSTM(8, 6, 2, bidirectional=True), ones(5, 3, 8)
    fused = work(lambda: layer(x))
    with torch.backends.mkldnn.flags(enabled=False):
        in_ops = work(lambda: layer(x))
    assert fused == in_ops
    assert fused[0] == 5 * 3 * 2 * (4 * 6 * (8 + 6) + 4 * 6 * (12 + 6))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_in_inference_mode(kind: type[nn.Module]) -> None:
    layer, x = kind(8, 6), ones(5, 3, 8)
    plain = work(lambda: layer(x))
    with torch.inference_mode():
        assert work(lambda: layer(x)) == plain


@pytest.mark.parametrize(("mode", "kind"), [(2, nn.LSTM), (3, nn.GRU), (1, nn.RNN)])
@pytest.mark.parametrize("bias", [True, False])
def test_cudnn_recurrent_layers(mode: int, kind: type[nn.Module], bias: bool) -> None:
    """Calls only the formula, with the weights of a real layer: all layers and directions are one op."""
    layer: Any = kind(8, 6, 2, bidirectional=True, bias=bias)
    macs, more = cell_by_hand(kind, bias)
    gates = {2: 4, 3: 3, 1: 1}[mode]
    deeper = gates * 6 * (12 + 6)
    x, h = ones(5, 3, 8), ones(4, 3, 6)
    arguments: tuple[Any, ...] = (
        x,
        list(layer.parameters()),
        4,
        None,
        h,
        h,
        mode,
        6,
        0,
        2,
        False,
        0.0,
        True,
        True,
        [],
        None,
    )
    call, back = formula(aten._cudnn_rnn.default), formula(aten._cudnn_rnn_backward.default)
    assert call is not None and back is not None
    found, flops = call(None, *arguments)
    assert found == 5 * 3 * 2 * (macs + deeper)
    assert flops - 2 * found == 5 * 3 * 4 * more
    for weights, times in ((True, 2), (False, 1)):
        again = back(None, *arguments[:6], None, None, None, None, *arguments[6:], None, [True, True, True, weights])
        assert again == (times * found, times * flops)


def test_cudnn_lstm_with_a_projection() -> None:
    layer = nn.LSTM(8, 6, proj_size=3, bias=False)
    call = formula(aten._cudnn_rnn.default)
    assert call is not None
    macs, flops = call(None, ones(5, 2, 8), list(layer.parameters()), 3, None, None, None, 2, 6, 3, 1)
    assert macs == 5 * 2 * (4 * 6 * (8 + 3) + 6 * 3)
    assert flops - 2 * macs == 5 * 2 * (2 * 4 * 6 + 5 * 6)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("gelu", [False, True])
def test_fused_encoder_equals_its_parts(padded: bool, gelu: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu" if gelu else "relu", batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2).eval()
    lengths = (3, 5) if padded else (5, 5)
    mask = torch.tensor([[place >= length for place in range(5)] for length in lengths]) if padded else None

    def parts() -> None:
        for length in lengths:
            encoder(ones(1, length, 8))

    with torch.no_grad():
        with FlopMode(Attribution()) as mode:
            encoder(ones(2, 5, 8), src_key_padding_mask=mask)
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            macs, more = work(parts)
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
    assert not mode.uncounted
    assert sum(mode.macs.values()) == macs
    assert sum(mode.flops.values()) - 2 * macs == more


def test_fused_multi_head_attention_equals_its_parts() -> None:
    attention, x = nn.MultiheadAttention(8, 2, batch_first=True).eval(), ones(2, 5, 8)
    macs = 4 * 2 * 5 * 8 * 8 + 2 * 2 * 5 * 5 * 8
    with torch.no_grad():
        scaled, softmax, biases = 2 * 2 * 5 * 8, 5 * 2 * 2 * 5 * 5, 4 * 2 * 5 * 8
        assert work(lambda: attention(x, x, x)) == (macs, biases + softmax + scaled)


def attended(device: str, masks: str, *, train: bool) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns the work of forward and backward of an attention layer on a device."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, device=device, dropout=0.0).train(train)
    x = torch.zeros(2, 6, 8, device=device, requires_grad=True)
    mask = {"": None, "float": torch.zeros(6, 6, device=device),
            "truth": torch.zeros(6, 6, dtype=torch.bool, device=device)}[masks]  # fmt: skip
    if not train:
        with torch.no_grad():
            return work(lambda: layer(x, src_mask=mask)), (0, 0)
    kept: list[Tensor] = []
    forward = work(lambda: kept.append(layer(x, src_mask=mask)))
    gradient = torch.ones_like(kept[0])
    return forward, work(lambda: kept[0].backward(gradient))


@pytest.mark.parametrize("masks", ["", "float", "truth"])
@pytest.mark.parametrize("train", [True, False])
def test_same_work_on_meta_and_cpu(masks: str, train: bool) -> None:
    """On cpu attention is one kernel, whose backward computes scores and probabilities again; on meta its parts run."""
    fused, parts = attended("cpu", masks, train=train), attended("meta", masks, train=train)
    assert fused[0] == parts[0]
    scores = 2 * 2 * 6 * 6
    if train:
        again = (scores * 4, scores * (2 + bool(masks)))
        assert fused[1] == (parts[1][0] + again[0], parts[1][1] + again[1])


@pytest.mark.parametrize("causal", [False, True])
def test_cuda_kernels_count_as_the_math_backend(causal: bool) -> None:
    q, k = ones(2, 3, 5, 8), ones(2, 3, 7, 8)
    with sdpa_kernel(SDPBackend.MATH):
        by_math = work(lambda: F.scaled_dot_product_attention(q, k, k, is_causal=causal))
    flash = formula(aten._scaled_dot_product_flash_attention.default)
    efficient = formula(aten._scaled_dot_product_efficient_attention.default)
    assert flash is not None and efficient is not None
    for macs, flops in (
        flash(None, q, k, k, 0.0, causal),
        flash(None, q, k, k, is_causal=causal),
        efficient((q,), q, k, k, None, False, 0.0, causal),
        *([] if causal else [efficient((q,), q, k, k, None, False)]),
    ):
        assert (macs, flops - 2 * macs) == by_math
    dropped = flash(None, q, k, k, 0.1, causal)[1] - flash(None, q, k, k, 0.0, causal)[1]
    assert dropped == 2 * 2 * 3 * 5 * 7, "a product and a selection, as a separate dropout"


@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="this torch has none")
def test_fused_head_and_loss() -> None:
    """Forward has all products of the layer's and the loss's forward and backward; backward only scales."""
    x, weight, target = ones(6, 8, grad=True), ones(10, 8, grad=True), torch.zeros(6, dtype=torch.long)
    importlib.import_module("torch.nn.modules.linear_cross_entropy")  # defines the op at its first use
    count = formula(torch.ops.torch_nn._linear_cross_entropy_batch_chunked.default)
    assert count is not None
    arguments = (x, weight, target, None, None, "mean", -100, 0.0, 2, "auto", torch.float32, False)
    once = 6 * 8 * 10
    assert count(None, *arguments, True, True, False) == (3 * once, 2 * 3 * once + 5 * 60)
    assert count(None, *arguments, False, False, False)[0] == once
