"""Dense models whose parts look like routers and experts: nothing is said of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from support.moe.odd_names import BRANCHES, WIDTH, Model, ffn, record
from torch import Tensor, nn

import distprof


class Chain(nn.Module):
    """A model of as many layers as classes; ``first``: a classifier looks at its input, and not at its output."""

    def __init__(self, *, first: bool, number: int = BRANCHES) -> None:
        super().__init__()
        self.blocks, self.head = nn.ModuleList(ffn() for _ in range(number)), nn.Linear(WIDTH, number)
        self._first = first

    def forward(self, x: Tensor) -> Tensor:
        scores = self.head(x) if self._first else None
        for block in self.blocks:
            x = x + block(x)
        return x * (self.head(x) if scores is None else scores).sum(-1, keepdim=True)


class GatedChain(Chain):
    """A Linear looks at the input, and weighs each layer of the chain."""

    def forward(self, x: Tensor) -> Tensor:
        shares = self.head(x).sigmoid()
        for number, block in enumerate(self.blocks):
            x = x + block(x) * shares[..., number, None]
        return x


class Gpt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(WIDTH, WIDTH)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.0, batch_first=True) for _ in range(8)
        )
        self.classes = nn.Linear(WIDTH, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x)
        return x + self.classes(x)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.selector, self.branches = nn.Linear(WIDTH, BRANCHES), nn.ModuleList(ffn() for _ in range(BRANCHES))


class Ensemble(Branches):
    """All its branches see all tokens; ``weighted``: their outputs are scaled, as in a dense mixture."""

    def __init__(self, *, weighted: bool) -> None:
        super().__init__()
        self._weighted = weighted

    def forward(self, x: Tensor) -> Tensor:
        shares = self.selector(x).softmax(-1)
        every = torch.stack([branch(x) for branch in self.branches], -1)
        return (every * shares[..., None, :]).sum(-1) if self._weighted else every.mean(-1) + shares.sum()


class Heads(nn.Module):
    """Several outputs of one trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.tasks = (
            nn.Linear(WIDTH, BRANCHES),
            nn.ModuleList(nn.Sequential(nn.Linear(BRANCHES, WIDTH), nn.GELU()) for _ in range(BRANCHES)),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.trunk(x)
        return torch.stack([task(x) for task in self.tasks]).sum(0)


class Unet(nn.Module):
    """Works on fewer rows at each level; a Linear looks at the time first."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Linear(WIDTH, BRANCHES)
        self.levels = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 3, padding=1) for _ in range(BRANCHES))

    def forward(self, x: Tensor) -> Tensor:
        scale, images, found = self.time(x.mean(1)).sum(), x.transpose(1, 2), []
        for level in self.levels:
            images = level(images)
            found.append(images.mean() * scale)
            images = F.avg_pool1d(images, 2) if images.shape[-1] > 2 else images
        return x * torch.stack(found).sum()


class Pieces(Branches):
    """Each branch gets its own part of the tokens, whatever these are."""

    def forward(self, x: Tensor) -> Tensor:
        parts = x.chunk(BRANCHES, 1)
        every = [branch(part) for branch, part in zip(self.branches, parts, strict=True)]
        return torch.cat(every, 1) + self.selector(x).sum(-1, keepdim=True)


class PiecesAfter(Pieces):
    def forward(self, x: Tensor) -> Tensor:
        scores = self.selector(x)
        parts = x.chunk(BRANCHES, 1)
        every = [branch(part) for branch, part in zip(self.branches, parts, strict=True)]
        return torch.cat(every, 1) + scores.sum(-1, keepdim=True)


class Gated(nn.Module):
    """A gate weighs the outputs of its branches, which all see all tokens; ``chained``: of the layers of a chain."""

    def __init__(self, branches: Callable[[], nn.Module], *, chained: bool = False) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches() for _ in range(BRANCHES))
        self.gate, self._chained = nn.Linear(WIDTH, BRANCHES), chained

    def forward(self, x: Tensor) -> Tensor:
        shares, y = self.gate(x).sigmoid(), torch.zeros_like(x)
        for number, branch in enumerate(self.branches):
            y = y + branch(x + y if self._chained else x) * shares[..., number, None]
        return y


class SelectiveKernel(nn.Module):
    """Mixes convolutions as each image needs it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, BRANCHES)
        self.convs = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 3, padding=1) for _ in range(BRANCHES))

    def forward(self, x: Tensor) -> Tensor:
        shares, images = self.gate(x.mean(1)).softmax(-1), x.transpose(1, 2)
        parts = [conv(images) * shares[:, number, None, None] for number, conv in enumerate(self.convs)]
        return torch.stack(parts).sum(0).transpose(1, 2)


class Modalities(nn.Module):
    """Each kind of token, of which a sample has several, has its own encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.encoders = nn.Linear(WIDTH, 3), nn.ModuleList(ffn() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        shares = self.gate(x).sum(-1, keepdim=True)
        parts = x.split([5, 4, 3], 1)
        return shares * torch.cat([encoder(part) for encoder, part in zip(self.encoders, parts, strict=True)], 1)


class Kinds(nn.Module):
    """Adds an embedding of its kind to each token, and calls the encoder of this kind by its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds, self.encoders = nn.Parameter(torch.randn(3, WIDTH)), nn.ModuleList(ffn() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        parts = zip(self.encoders, x.split([4, 5, 3], 1), self.kinds, strict=True)
        return torch.cat([encoder.forward(part + kind) for encoder, part, kind in parts], 1)


class EnsembleByForward(nn.Module):
    """All members see all tokens, and none is called as a module."""

    def __init__(self) -> None:
        super().__init__()
        self.shares, self.members = nn.Linear(WIDTH, BRANCHES), nn.ModuleList(ffn() for _ in range(BRANCHES))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([member.forward(x) for member in self.members], -1) @ self.shares(x)[..., None]


class Pyramid(nn.Module):
    """Its levels get fewer rows of each sample, in all twice as many as there are tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.time, self.levels = nn.Linear(WIDTH, BRANCHES), nn.ModuleList(ffn() for _ in range(BRANCHES))

    def forward(self, x: Tensor) -> Tensor:
        scale, means = self.time(x).mean(), []
        for level, rows in zip(self.levels, (12, 6, 3, 3), strict=True):
            x = level(x[:, :rows])
            means.append(x.mean())
        return torch.stack(means) * scale


class GatedHeads(nn.Module):
    """The weights of all heads of attention are stacked; a gate weighs what the heads return."""

    def __init__(self, gate: str) -> None:
        super().__init__()
        self.queries, self.keys, self.values = (nn.Parameter(torch.randn(BRANCHES, WIDTH, 4)) for _ in range(3))
        self.outward = nn.Parameter(torch.randn(BRANCHES, 4, WIDTH))
        self.add_module(gate, nn.Linear(WIDTH, BRANCHES))
        self._gate = gate

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = (
            torch.einsum("btd,hde->bhte", x, weight) for weight in (self.queries, self.keys, self.values)
        )
        heads = F.scaled_dot_product_attention(queries, keys, values)
        shares = self.get_submodule(self._gate)(x).sigmoid().transpose(1, 2)
        return torch.einsum("bhte,hed->btd", heads * shares[..., None], self.outward)


class HeadByHead(nn.Module):
    """Multiplies all tokens with the weights of one head after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.decay, self.weights = nn.Linear(WIDTH, BRANCHES), nn.Parameter(torch.randn(BRANCHES, WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        shares = self.decay(x)
        return torch.stack([x @ weight * shares[..., n, None] for n, weight in enumerate(self.weights)]).sum(0)


class DynamicKernel(nn.Module):
    """Mixes its kernels for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.kernels = nn.Linear(WIDTH, BRANCHES), nn.Parameter(torch.randn(BRANCHES, WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        shares = self.gate(x.mean(1)).softmax(-1)
        return torch.bmm(x, torch.einsum("bk,kio->bio", shares, self.kernels))


NONE: dict[str, Callable[[], nn.Module]] = {
    "gated": lambda: Gated(ffn),
    "gated_layers": lambda: Gated(ffn, chained=True),
    "gated_heads": lambda: GatedHeads("gate"),
    "decayed_heads": lambda: GatedHeads("decay"),
    "head_by_head": HeadByHead,
    "dynamic_kernel": DynamicKernel,
    "selective_kernel": SelectiveKernel,
    "modalities": Modalities,
    "kinds": Kinds,
    "ensemble_by_forward": EnsembleByForward,
    "pyramid": Pyramid,
    "chain": lambda: Chain(first=False),
    "chain_of_8": lambda: Chain(first=False, number=8),
    "classifier_first": lambda: Chain(first=True),
    "gated_chain": lambda: GatedChain(first=True),
    "gpt": Gpt,
    "ensemble": lambda: Ensemble(weighted=False),
    "dense_mixture": lambda: Ensemble(weighted=True),
    "heads": Heads,
    "unet": Unet,
    "pieces": Pieces,
    "pieces_after": PiecesAfter,
}


def test_dense_models_are_neither(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Model(NONE)
    report = record(tmp_path, model)
    assert report.experts == ()
    assert not any("suspected" in note for note in report.run.notes)
    assert report.model is not None
    assert report.model.active_params == sum(p.numel() for p in model.parameters())


def test_a_script_that_counts_says_that_a_layer_is_one(tmp_path: Path) -> None:
    class Telling(Gated):
        def forward(self, x: Tensor) -> Tensor:
            distprof.record_experts(self, torch.tensor([1, 2, 3, 4]))
            return super().forward(x)

    report = record(tmp_path, Model({"gated": lambda: Telling(ffn)}))
    (layer,) = report.experts
    assert (layer.name, layer.num_experts) == ("parts.gated", BRANCHES)
