"""Element-wise flops, compared with counts by hand from the documented conventions, and with decompositions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import log2
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distprof.flops.attribution import Attribution
from distprof.flops.counter import FlopMode

Run = Callable[[], object]
ROWS, WIDTH = 6, 8
ALL = ROWS * WIDTH


def flops(run: Run) -> int:
    """Returns the flops of a run; checks that every op has a formula, and that none multiplies matrices."""
    with FlopMode(Attribution()) as mode:
        run()
    assert not mode.uncounted
    assert not mode.macs
    return sum(mode.flops.values())


def both(run: Callable[[], Tensor]) -> tuple[int, int]:
    """Returns the flops of forward and of backward, with a given gradient."""
    kept: list[Tensor] = []
    forward = flops(lambda: kept.append(run()))
    gradient = torch.ones_like(kept[0])
    return forward, flops(lambda: kept[0].backward(gradient))


def ones(*shape: int) -> Tensor:
    return torch.ones(shape, requires_grad=True)


X, Y = ones(ROWS, WIDTH), ones(ROWS, WIDTH)
D = torch.ones(ROWS, WIDTH)  # needs no gradient


@pytest.mark.parametrize("run", [
    lambda: D + D, lambda: D - 1, lambda: 1 - D, lambda: D * D, lambda: D / 3, lambda: -D, lambda: D**2,
    D.sqrt,
    D.rsqrt, D.exp, D.log, D.abs, D.sin, D.erf,
    lambda: D.clamp(0, 1), lambda: torch.maximum(D, D), D.round, D.reciprocal, D.sigmoid,
    lambda: D.clone().add_(1), lambda: D.clone().mul_(2), lambda: D + torch.ones(WIDTH), lambda: torch.atan2(D, D),
    lambda: torch.add(D, D, out=torch.empty(ROWS, WIDTH)), D.sign, lambda: torch.xlogy(D, D),
    D.sum, lambda: D.sum(0), lambda: D.mean(1), lambda: D.amax(0), D.max, lambda: D.max(1),
    lambda: D.argmax(1), D.prod, lambda: D.cumsum(0),
    *(lambda f=f: f(D) for f in (F.relu, F.gelu, F.silu, F.elu, F.leaky_relu, F.hardswish, F.hardsigmoid, F.hardtanh,
                                 F.relu6, F.softplus, F.mish, F.selu, F.celu, F.logsigmoid, torch.tanh)),
])  # fmt: skip
def test_one_flop_an_element(run: Run) -> None:
    assert flops(run) == ALL


@pytest.mark.parametrize(
    "run",
    [
        lambda: D.view(-1), lambda: D.t().contiguous(), D.clone, lambda: torch.cat([D, D]), lambda: D[D > 0],
        lambda: torch.stack([D, D]), lambda: D > 0, lambda: (D > 0) & (D < 2), (D > 0).any,
        lambda: D.long() + 1, (D > 0).sum, lambda: D.cumsum(0, dtype=torch.int32), lambda: D.sum(dtype=torch.int64),
        lambda: D.to(torch.bfloat16), lambda: torch.zeros(3).fill_(2),
        lambda: torch.randn(3), lambda: torch.where(D > 0, D, D), lambda: D.masked_fill(D > 0, 1), D.tril,
        lambda: torch.topk(D, 2), D.sort, lambda: D.gather(0, torch.zeros(1, 1, dtype=torch.long)),
        lambda: F.embedding(torch.tensor([1, 2]), D), lambda: F.pad(D, (1, 1)), lambda: D.split(2), lambda: D.flip(0),
        lambda: F.one_hot(torch.tensor([1, 2]), 4), lambda: torch.arange(4), lambda: D.repeat(2, 2), lambda: D.roll(1),
        D.unbind, lambda: D.index_select(0, torch.tensor([1])), D[0, 0].item,
        lambda: D.expand(2, -1, -1),
        lambda: torch.empty_like(D).copy_(D), lambda: torch.unique(D), lambda: torch.bincount(torch.tensor([1])),
        lambda: F.interpolate(D.view(1, 1, ROWS, WIDTH), scale_factor=2), lambda: torch.equal(D, D), D.numpy,
        lambda: torch._foreach_zero_([torch.ones(3)]), lambda: torch._foreach_copy_([torch.ones(3)], [torch.ones(3)]),
    ],
)  # fmt: skip
def test_zero_cost_ops(run: Run) -> None:
    assert flops(run) == 0


@pytest.mark.parametrize(("run", "forward", "backward"), [
    (lambda: X * Y, 1, 2),  # each gradient is a product
    (lambda: X * 2, 1, 1),
    (lambda: F.relu(X), 1, 2),
    (lambda: F.gelu(X), 1, 2),
    (lambda: F.silu(X), 1, 2),
    (lambda: torch.tanh(X), 1, 2),
    (lambda: F.softmax(X, -1), 5, 4),
    (lambda: F.log_softmax(X, -1), 5, 4),
    (lambda: torch.addcmul(D, D, D), 2, None),
    (lambda: torch.addcmul(D, D, D, value=0.5), 3, None),
    (lambda: torch.addcdiv(D, D, D, value=-1), 3, None),
    (lambda: torch._foreach_addcdiv([D], [D], [D])[0], 2, None),
    (lambda: torch._foreach_addcdiv([D], [D], [D], [0.5])[0], 3, None),
    (lambda: torch._foreach_addcmul([D], [D], [D], value=0.5)[0], 3, None),
    (lambda: torch.add(D, D, alpha=1), 1, None),
    (lambda: torch.add(D, D, alpha=0.5), 2, None),
    (lambda: torch.sub(D, D, alpha=2), 2, None),
    (lambda: torch.rsub(D, D, alpha=2), 2, None),
    (lambda: torch.rsub(D, 1, alpha=2), 2, None),
    (lambda: D.clone().sub_(D, alpha=2), 2, None),
    (lambda: torch._foreach_add([D], [D], alpha=0.5)[0], 2, None),
    (lambda: torch._foreach_sub([D], [D])[0], 1, None),
    (lambda: torch.lerp(D, D, 0.5), 3, None),
    (D.var, 4, None),
    (lambda: torch.linalg.vector_norm(D), 2, None),
    (lambda: torch.logsumexp(D, 1), 4, None),
    (lambda: F.layer_norm(X, (WIDTH,)), 5, 9),
    (lambda: F.group_norm(X.view(2, 3, -1), 3), 5, 9),
    (lambda: F.batch_norm(X, None, None, training=True), 5, 9),
    (lambda: F.batch_norm(X, torch.ones(WIDTH), torch.ones(WIDTH)), 2, 1),
    (lambda: F.mse_loss(X, D, reduction="none"), 2, 2),
    (lambda: F.mse_loss(D, D), 3, None),
    (lambda: F.smooth_l1_loss(X, D, reduction="none"), 4, 3),
    (lambda: F.binary_cross_entropy(X, D, reduction="none"), 7, 5),
])  # fmt: skip
def test_conventions(run: Callable[[], Tensor], forward: int, backward: int | None) -> None:
    found = (flops(run), None) if backward is None else both(run)
    assert found == (forward * ALL, None if backward is None else backward * ALL)


def test_softmax_and_norms_equal_their_parts() -> None:
    """Decomposed by hand; single numbers a row (the root, epsilon) are left out."""

    def softmax() -> None:
        e = (D - D.amax(1, keepdim=True)).exp()
        e / e.sum(1, keepdim=True)

    def norm() -> None:
        centred = D - D.mean(1, keepdim=True)
        centred * centred.square().sum(1, keepdim=True) * torch.ones(WIDTH) + torch.ones(WIDTH)

    def rms() -> None:
        D * D.square().sum(1, keepdim=True) * torch.ones(WIDTH)

    assert flops(softmax) == flops(lambda: F.softmax(D, 1))
    assert flops(norm) == flops(lambda: F.layer_norm(D, (WIDTH,), torch.ones(WIDTH), torch.ones(WIDTH)))
    assert flops(rms) == 4 * ALL


@pytest.mark.parametrize(
    ("layer", "forward", "backward"),
    [
        (nn.LayerNorm(WIDTH), 7, 9 + 1 + 2 + 1),
        (nn.LayerNorm(WIDTH, bias=False), 6, 9 + 1 + 2),
        (nn.LayerNorm(WIDTH).requires_grad_(False), 7, 9 + 1),
        (nn.BatchNorm1d(WIDTH, track_running_stats=False), 7, 13),
        (nn.BatchNorm1d(WIDTH), 7, 13),
        (nn.BatchNorm1d(WIDTH).eval(), 4, 1 + 1 + 2 + 1),
    ],
)
def test_norms_with_weights(layer: nn.Module, forward: int, backward: int) -> None:
    with FlopMode(Attribution()):  # a first call creates the counter of batches
        layer(X)
    assert both(lambda: layer(X)) == (forward * ALL, backward * ALL)


def test_nll_loss() -> None:
    target = torch.tensor([1, 2, 3, 4, 5, 6])
    assert flops(lambda: F.cross_entropy(D, target)) == 5 * ALL + ROWS
    assert flops(lambda: F.nll_loss(D, target)) == ROWS


IMAGE = ones(2, 3, 8, 8)
PIXELS = 2 * 3 * 8 * 8


@pytest.mark.parametrize(
    ("run", "forward", "backward"),
    [
        (lambda: F.max_pool2d(IMAGE, 2), PIXELS, PIXELS // 4),
        (lambda: F.max_pool2d(IMAGE, 3, 1), 6 * 6 * 6 * 9, 6 * 6 * 6),
        (lambda: F.avg_pool2d(IMAGE, 2), PIXELS, PIXELS),
        (lambda: F.avg_pool2d(IMAGE, (2, 4)), PIXELS, PIXELS),
        (lambda: F.avg_pool1d(IMAGE[0], 2), PIXELS // 2, PIXELS // 2),
        (lambda: F.max_pool1d(IMAGE[0], 2), PIXELS // 2, PIXELS // 4),
        (lambda: F.adaptive_avg_pool2d(IMAGE, 2), PIXELS, PIXELS),
        (lambda: F.adaptive_max_pool2d(IMAGE, 2), PIXELS, 6 * 4),
        (lambda: F.interpolate(IMAGE, scale_factor=2), 0, 4 * PIXELS),
        (lambda: F.interpolate(IMAGE, size=(16, 16), mode="bilinear"), 7 * 4 * PIXELS, 8 * 4 * PIXELS),
        (lambda: F.interpolate(IMAGE, size=(16, 16), mode="bicubic"), 31 * 4 * PIXELS, 32 * 4 * PIXELS),
        (lambda: F.grid_sample(IMAGE, torch.zeros(2, 4, 4, 2), align_corners=False), 7 * 6 * 16, 16 * 6 * 16),
    ],
)
def test_pooling_and_resampling(run: Callable[[], Tensor], forward: int, backward: int) -> None:
    found = both(run)
    assert found == (forward, backward)


def test_scattered_sums() -> None:
    index = torch.tensor([0, 0, 1])
    part = torch.ones(3, WIDTH)
    assert flops(lambda: D.clone().index_add_(0, index, part)) == 3 * WIDTH
    assert flops(lambda: D.clone().scatter_add_(0, index[:, None].expand(3, WIDTH), part)) == 3 * WIDTH
    assert flops(lambda: D.clone().index_put_((index,), part, accumulate=True)) == 3 * WIDTH
    assert flops(lambda: D.clone().index_put_((index,), part)) == 0
    assert both(lambda: F.embedding(index, X)) == (0, 3 * WIDTH)


@pytest.mark.parametrize(("mode", "more"), [("sum", 0), ("mean", 2 * WIDTH), ("max", 0)])
def test_embedding_bags(mode: str, more: int) -> None:
    bag = nn.EmbeddingBag(10, WIDTH, mode=mode)
    run = lambda: bag(torch.tensor([1, 2, 3, 4, 5]), torch.tensor([0, 2]))  # noqa: E731
    assert flops(run) == 5 * WIDTH + more
    with torch.no_grad():
        assert flops(run) == 5 * WIDTH + more


@pytest.mark.parametrize(
    ("run", "transforms", "size"),
    [
        (lambda: torch.fft.fft(torch.ones(3, 16, dtype=torch.complex64)), 3, 16),
        (lambda: torch.fft.rfft(torch.ones(3, 16)), 1.5, 16),
        (lambda: torch.fft.irfft(torch.ones(3, 9, dtype=torch.complex64)), 1.5, 16),
        (lambda: torch.fft.fft2(torch.ones(3, 4, 16, dtype=torch.complex64)), 3, 64),
    ],
)
def test_fourier_transforms(run: Run, transforms: float, size: int) -> None:
    assert flops(run) == transforms * 5 * size * log2(size)


def parameters() -> list[nn.Parameter]:
    made = [nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(5))]
    for parameter in made:
        parameter.grad = torch.ones_like(parameter)
    return made


def flops_of_a_step(make: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]) -> int:
    """Returns the flops of the second step, when the state exists already."""
    optimizer = make(parameters())
    optimizer.step()
    return flops(optimizer.step)


@pytest.mark.parametrize(("make", "each"), [
    (lambda p: torch.optim.Adam(p, fused=True), 13),
    (lambda p: torch.optim.Adam(p, fused=True, amsgrad=True), 14),
    (lambda p: torch.optim.AdamW(p, fused=True), 15),
    (lambda p: torch.optim.SGD(p, fused=True), 2),
    (lambda p: torch.optim.SGD(p, fused=True, momentum=0.9), 5),
    (lambda p: torch.optim.SGD(p, fused=True, momentum=0.9, nesterov=True, weight_decay=0.1), 9),
    (lambda p: torch.optim.Adagrad(p, fused=True), 7),
])  # fmt: skip
def test_fused_optimizers(make: Any, each: int) -> None:
    assert flops_of_a_step(make) - each * (12 + 5) in (0, 2)  # 1 more a parameter: its count of steps


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad,
                                  torch.optim.RMSprop, torch.optim.Adadelta, torch.optim.NAdam])  # fmt: skip
def test_foreach_optimizers(kind: Any, foreach: bool) -> None:
    found = flops_of_a_step(lambda p: kind(p, foreach=foreach))
    other = flops_of_a_step(lambda p: kind(p, foreach=not foreach))
    assert abs(found - other) <= 2 * (12 + 5)


def test_foreach_ops() -> None:
    a, b = [torch.ones(3), torch.ones(4, 2)], [torch.ones(3), torch.ones(4, 2)]
    assert flops(lambda: torch._foreach_add(a, b)) == 11
    assert flops(lambda: torch._foreach_mul_(a, 2.0)) == 11
    assert flops(lambda: torch._foreach_addcmul_(a, b, b)) == 22
    assert flops(lambda: torch._foreach_addcmul_(a, b, b, value=2)) == 33
    assert flops(lambda: torch._foreach_norm(a)) == 22
    assert flops(lambda: torch.nn.utils.clip_grad_norm_(parameters(), 1.0)) == 3 * 17 + 2 * 2 + 4


def test_adding_to_an_existing_gradient() -> None:
    weight = ones(WIDTH)
    for _ in range(2):
        z, gradient = weight * 2, torch.ones(WIDTH)
        assert flops(lambda z=z, gradient=gradient: z.backward(gradient)) == WIDTH  # type: ignore[misc]


class Experts(nn.Module):
    """A router, the best two of four experts for each token, and their weighted sum."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, 4)
        self.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        shares, chosen = self.router(x).softmax(-1).topk(2)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            rows, place = (chosen == number).nonzero(as_tuple=True)
            out = out.index_add(0, rows, (expert(x[rows]) * shares[rows, place, None]).to(x.dtype))
        return out


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm, self.experts = nn.Embedding(10, WIDTH), nn.LayerNorm(WIDTH), Experts()
        self.qkv, self.head = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        q, k, v = self.qkv(self.norm(x)).view(1, -1, 2, 12).transpose(1, 2).chunk(3, -1)
        x = x + F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(x.shape)
        return self.head(F.dropout(x + self.experts(F.rms_norm(x, (WIDTH,)))))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout2d(),
        nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("model", "x"), [(Block(), torch.arange(6)), (convolutional(), torch.ones(6, 3, 8, 8))], ids=["transformer", "CNN"]
)
@pytest.mark.parametrize("fused", [False, True])
def test_all_ops_of_a_usual_step_have_formulas(model: nn.Module, x: Tensor, fused: bool) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), fused=fused)
    with FlopMode(Attribution()) as mode, torch.autocast("cpu", torch.bfloat16):
        F.cross_entropy(model(x), torch.arange(6)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert mode.uncounted == {}
    assert mode.macs
