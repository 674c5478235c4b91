"""All ops of common layers, losses and activations have formulas, in forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distprof.flops.attribution import Attribution
from distprof.flops.counter import FlopMode

Run = Callable[[], Any]


def x(*shape: int) -> Tensor:
    return torch.rand(shape, requires_grad=True)


def uncounted(run: Run) -> dict[str, int]:
    with FlopMode(Attribution()) as mode:
        leaves = torch.utils._pytree.tree_leaves(run())
        wanted = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]
        torch.autograd.backward([leaf.abs().sum() for leaf in wanted])
    assert mode.error is None
    return mode.uncounted


IMAGE, LINE, VOLUME, TOKENS = (2, 4, 8, 8), (2, 4, 8), (2, 4, 6, 6, 6), (2, 5, 8)
LABELS = torch.tensor([1, 0, 2])
ACTIVATIONS = [
    nn.ReLU, nn.ReLU6, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid, nn.LogSigmoid,
    nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Hardshrink, nn.Softshrink, nn.Tanhshrink, nn.Softplus, nn.Softsign,
    nn.LeakyReLU, nn.RReLU, nn.PReLU, nn.GLU, nn.Softmin, nn.Softmax, nn.LogSoftmax, nn.Softmax2d, nn.Dropout,
    nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.Identity, nn.Flatten,
]  # fmt: skip
LAYERS: list[tuple[Callable[[], nn.Module], tuple[int, ...]]] = [
    (lambda: nn.Linear(8, 3), TOKENS),
    (lambda: nn.Conv1d(4, 4, 3, padding=1, padding_mode="reflect"), LINE),
    (lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1, padding_mode="circular"), IMAGE),
    (lambda: nn.Conv3d(4, 4, 3, padding=1, padding_mode="replicate"), VOLUME),
    (lambda: nn.ConvTranspose1d(4, 4, 3), LINE), (lambda: nn.ConvTranspose2d(4, 4, 3, stride=2), IMAGE),
    (lambda: nn.ConvTranspose3d(4, 4, 3), VOLUME),
    (lambda: nn.BatchNorm1d(4), LINE), (lambda: nn.BatchNorm2d(4), IMAGE), (lambda: nn.BatchNorm3d(4), VOLUME),
    (lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True), IMAGE), (lambda: nn.GroupNorm(2, 4), IMAGE),
    (lambda: nn.LayerNorm(8), TOKENS), (lambda: nn.RMSNorm(8), TOKENS),
    (lambda: nn.LocalResponseNorm(2), IMAGE), (lambda: nn.CrossMapLRN2d(2), IMAGE),
    *((lambda kind=kind: kind(2), shape)
      for shape, kinds in ((LINE, (nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d)),
                           (IMAGE, (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d,
                                    nn.PixelUnshuffle, nn.PixelShuffle, nn.ChannelShuffle)),
                           (VOLUME, (nn.MaxPool3d, nn.AvgPool3d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d)))
      for kind in kinds),
    (lambda: nn.LPPool2d(2, 2), IMAGE), (lambda: nn.FractionalMaxPool2d(2, output_size=4), IMAGE),
    *((lambda mode=mode: nn.Upsample(scale_factor=2, mode=mode), shape)
      for shape, modes in ((LINE, ("nearest", "linear", "nearest-exact")),
                           (IMAGE, ("nearest", "bilinear", "bicubic", "nearest-exact")),
                           (VOLUME, ("nearest", "trilinear")))
      for mode in modes),
    *((lambda kind=kind: kind(1), IMAGE)
      for kind in (nn.ReflectionPad2d, nn.ReplicationPad2d, nn.ZeroPad2d, nn.CircularPad2d)),
    (lambda: nn.Unfold(2), IMAGE), (lambda: nn.Fold(3, 2), (2, 16, 4)),
    (lambda: nn.LSTM(8, 4, 2, bidirectional=True, batch_first=True), TOKENS), (lambda: nn.GRU(8, 4), TOKENS),
    (lambda: nn.RNN(8, 4, nonlinearity="relu"), TOKENS), (lambda: nn.LSTM(8, 4, proj_size=2), TOKENS),
    (lambda: nn.LSTMCell(8, 4), (3, 8)), (lambda: nn.GRUCell(8, 4), (3, 8)), (lambda: nn.RNNCell(8, 4), (3, 8)),
    (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), TOKENS),
    (lambda: nn.AdaptiveLogSoftmaxWithLoss(8, 12, [4, 8]).log_prob, (3, 8)),  # type: ignore[list-item,return-value]
    (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 3)), TOKENS),
    (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(8, 3)), TOKENS),
]  # fmt: skip
OTHERS: dict[str, Run] = {
    "embedding": lambda: nn.Embedding(9, 4, padding_idx=0, max_norm=1.0)(LABELS),
    "embedding bag": lambda: nn.EmbeddingBag(9, 4, mode="sum")(LABELS[None], per_sample_weights=x(1, 3)),
    "bilinear": lambda: nn.Bilinear(8, 8, 3)(x(2, 8), x(2, 8)),
    "attention": lambda: nn.MultiheadAttention(8, 2, add_bias_kv=True)(x(*TOKENS), x(*TOKENS), x(*TOKENS)),
    "decoder": lambda: nn.TransformerDecoderLayer(8, 2, 16)(x(*TOKENS), x(*TOKENS)),
    "masked attention": lambda: F.scaled_dot_product_attention(
        x(2, 2, 5, 8), x(2, 2, 5, 8), x(2, 2, 5, 8), attn_mask=torch.ones(5, 5, dtype=torch.bool), dropout_p=0.1),
    "cosine": lambda: nn.CosineSimilarity()(x(3, 4), x(3, 4)),
    "distance": lambda: nn.PairwiseDistance()(x(3, 4), x(3, 4)),
    "cdist": lambda: torch.cdist(x(3, 4), x(5, 4)), "pdist": lambda: F.pdist(x(3, 4)),
    "dist": lambda: torch.dist(x(3), x(3)),
    "grid sample": lambda: F.grid_sample(x(*IMAGE), F.affine_grid(x(2, 2, 3), list(IMAGE))),
    "cross entropy": lambda: F.cross_entropy(x(3, 4), LABELS, label_smoothing=0.1),
    "nll2d": lambda: F.nll_loss(x(2, 4, 3, 3), torch.zeros(2, 3, 3, dtype=torch.long)),
    "multi margin": lambda: F.multi_margin_loss(x(3, 4), LABELS),
    "multilabel margin": lambda: F.multilabel_margin_loss(x(1, 3), LABELS[None]),
    "ctc": lambda: F.ctc_loss(x(5, 1, 4).log_softmax(-1), LABELS[None], torch.tensor([5]), torch.tensor([3])),
    "rfft": lambda: torch.fft.irfft(torch.fft.rfft(x(4, 8))), "fft2": lambda: torch.fft.fft2(x(4, 8)),
    "stft": lambda: torch.stft(x(32), 8, return_complex=True, window=torch.ones(8)),
    "rsub": lambda: torch.rsub(x(3), x(3)), "einsum": lambda: torch.einsum("bij,bjk->bik", x(2, 3, 4), x(2, 4, 5)),
    "outer": lambda: torch.outer(x(3), x(4)), "dot": lambda: torch.dot(x(3), x(3)),
    "mv": lambda: torch.mv(x(3, 4), x(4)), "addbmm": lambda: torch.addbmm(x(3, 5), x(2, 3, 4), x(2, 4, 5)),
    "rope": lambda: torch.view_as_real(torch.view_as_complex(x(2, 5, 4, 2)) * torch.polar(x(4), x(4))),
    "top k routing": lambda: x(6, 4).softmax(-1).topk(2).values, "sort": lambda: x(6).sort().values,
    "quantile": lambda: x(6).quantile(0.5), "logsumexp": lambda: x(3, 4).logsumexp(1),
    "scatter": lambda: torch.zeros(4, 2).scatter_add(0, torch.zeros(3, 2, dtype=torch.long), x(3, 2)),
    "index": lambda: x(4, 2)[LABELS].index_add(0, LABELS, x(3, 2)), "tril": lambda: x(4, 4).tril(),
    "norm": lambda: x(3, 4).norm(), "clip": lambda: nn.utils.clip_grad_norm_([nn.Parameter(x(3))], 1.0),
    "var": lambda: x(3, 4).var(), "median": lambda: x(5).median(), "cumsum": lambda: x(3, 4).cumsum(0),
}  # fmt: skip
LOSSES: list[Callable[[Tensor, Tensor], Tensor]] = [
    F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.binary_cross_entropy, F.kl_div,
    F.binary_cross_entropy_with_logits, F.poisson_nll_loss, F.soft_margin_loss, F.hinge_embedding_loss,
    F.multilabel_soft_margin_loss,
    lambda a, b: F.gaussian_nll_loss(a, b, torch.ones(3, 1)), lambda a, b: F.triplet_margin_loss(a, b, a * 0.5),
    lambda a, b: F.cosine_embedding_loss(a, b, torch.ones(3)), lambda a, b: F.margin_ranking_loss(a, b, b.sign()),
]  # fmt: skip


@pytest.mark.parametrize("kind", ACTIVATIONS, ids=lambda kind: kind.__name__)
def test_activations(kind: Callable[[], nn.Module]) -> None:
    assert not uncounted(lambda: kind()(x(*IMAGE)))


@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_layers(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    assert not uncounted(lambda: make()(x(*shape)))


@pytest.mark.parametrize("run", OTHERS.values(), ids=OTHERS)
def test_functions(run: Run) -> None:
    assert not uncounted(run)


@pytest.mark.parametrize("loss", LOSSES)
def test_losses(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    assert not uncounted(lambda: loss(x(3, 4), torch.rand(3, 4)))
