"""Tests of what routers show in the counted step: padding, where a model is given an attention mask, and scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.recording import record
from torch import Tensor, nn

from distprof.records import ExpertRouting, RouterFigures

EXPERTS, WIDTH = 4, 8
#: Token i of sequence b chooses the experts ids[b, i]; the second sequence ends with two tokens of padding.
IDS = torch.tensor([[[0, 1], [1, 2], [3, 1]], [[0, 3], [2, 3], [2, 0]]])
MASK = torch.tensor([[1, 1, 1], [1, 0, 0]])
PADDING = [1, 0, 2, 1]  # of [2, 3] and [2, 0]


class Router(nn.Module):
    """Chooses as ``IDS`` says; ``flat``: for tokens one after the other."""

    top_k = 2

    def __init__(self, ids: Tensor, *, flat: bool) -> None:
        super().__init__()
        self.ids = ids.flatten(0, 1) if flat else ids
        self.weight = nn.Parameter(torch.rand(EXPERTS, WIDTH))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones(self.ids.shape), self.ids


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(EXPERTS, WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.sum(0)


class Layer(nn.Module):
    def __init__(self, ids: Tensor, *, flat: bool = True) -> None:
        super().__init__()
        self.router, self.experts = Router(ids, flat=flat), Experts()

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        self.router(x.flatten(0, 1))
        y: Tensor = self.experts(x)
        return y


class Model(nn.Module):
    """``turns``: its layers take sequences first."""

    def __init__(self, layer: Layer, *, turns: bool = False) -> None:
        super().__init__()
        self.layer, self.turns = layer, turns

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        y: Tensor = self.layer(x.transpose(0, 1) if self.turns else x, attention_mask=None)
        return y


class OfBatch(nn.Module):
    """Takes a batch as a map."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = Layer(IDS)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        y: Tensor = self.layer(batch["x"])
        return y


X = torch.ones(2, 3, WIDTH)


def counted(folder: Path, model: nn.Module, call: Callable[[Any], Tensor], passes: int = 1) -> list[RouterFigures]:
    """Returns what is recorded of the second iteration: in the first one the layers are found."""

    def job() -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            for _ in range(passes):
                call(model).sum().backward()
            optimizer.step()

    return [*record(folder, job, warmup=1, count=True, timed=0).one(ExpertRouting).figures]


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda model: model(X, attention_mask=MASK), id="by name"),
        pytest.param(lambda model: model(X, MASK.bool()), id="by place"),
        pytest.param(lambda model: model.layer(X, attention_mask=3 * MASK), id="numbers of sequences"),
    ],
)
@pytest.mark.parametrize("flat", [True, False])
def test_choices_of_padding_are_counted(tmp_path: Path, flat: bool, call: Callable[[Any], Tensor]) -> None:
    (seen,) = counted(tmp_path, Model(Layer(IDS, flat=flat)), call, passes=2)
    assert (seen.masked_tokens, seen.padding_tokens, seen.padding.tolist()) == (12, 4, [2 * one for one in PADDING])


def test_a_mask_in_a_batch_that_is_a_map_counts(tmp_path: Path) -> None:
    (seen,) = counted(tmp_path, OfBatch(), lambda model: model({"x": X, "attention_mask": MASK}))
    assert (seen.padding_tokens, seen.padding.tolist()) == (2, PADDING)


def test_layers_inside_may_take_sequences_first(tmp_path: Path) -> None:
    layer = Layer(IDS.transpose(0, 1))
    (seen,) = counted(tmp_path, Model(layer, turns=True), lambda model: model(X, attention_mask=MASK))
    assert (seen.padding_tokens, seen.padding.tolist()) == (2, PADDING)


@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(None, id="none"),
        pytest.param(torch.ones(2, 4), id="of other tokens"),
        pytest.param(torch.ones(2, 1, 3, 3), id="of pairs"),
    ],
)
def test_without_a_mask_of_the_router_s_tokens_nothing_is_said(tmp_path: Path, mask: Tensor | None) -> None:
    assert counted(tmp_path, Model(Layer(IDS)), lambda model: model(X, attention_mask=mask)) == []


def test_a_decoder_without_a_mask_of_its_own_has_none(tmp_path: Path) -> None:
    class Decoder(Model):
        def forward(self, x: Tensor, *, encoder_hidden_states: Tensor, attention_mask: Any = None) -> Tensor:  # type: ignore[override]
            return super().forward(x)

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = Model(Layer(IDS)), Decoder(Layer(IDS))

        def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
            y: Tensor = self.decoder(x, encoder_hidden_states=self.encoder(x, attention_mask))
            return y

    (seen,) = counted(tmp_path, Both(), lambda model: model(X, attention_mask=MASK))
    assert (seen.layer, seen.padding.tolist()) == (0, PADDING)


def test_an_output_whose_tokens_cannot_be_told_apart_is_left_out(tmp_path: Path) -> None:
    class Counting(Router):
        def forward(self, x: Tensor) -> Any:
            return torch.bincount(IDS.flatten(), minlength=EXPERTS)

    layer = Layer(IDS)
    layer.router = Counting(IDS, flat=True)
    assert counted(tmp_path, Model(layer), lambda model: model(X, attention_mask=MASK)) == []


LOGITS = torch.tensor([[2.0, -1.0, 0.5, 0.0], [0.0, 0.0, 0.0, -3.0], [1.0, 4.0, -2.0, 0.5]]).repeat(2, 1)


def entropy_of(shares: Any) -> float:
    """Returns the sum over tokens, of [tokens, experts]."""
    return float(-(np.where(shares > 0, shares * np.log(np.where(shares > 0, shares, 1)), 0)).sum() / np.log(EXPERTS))


def softmax(logits: Any) -> Any:
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


class Returning(Router):
    """Returns ids, and scores as ``form`` has them: as it is, or by a Linear inside."""

    def __init__(self, form: Callable[[Tensor], Tensor], *, inside: bool = False) -> None:
        super().__init__(IDS, flat=True)
        self.form, self.wg = form, nn.Linear(WIDTH, EXPERTS, bias=False) if inside else None
        if self.wg is not None:
            self.wg.weight.data = LOGITS.t() @ torch.linalg.pinv(DATA.flatten(0, 1).t())

    def forward(self, x: Tensor) -> Any:
        if self.wg is not None:
            self.wg(x)
            return self.ids
        return self.form(LOGITS), self.ids


DATA = torch.eye(6, WIDTH).reshape(2, 3, WIDTH)
SIGMOID = 1 / (1 + np.exp(-LOGITS.numpy()))
Z_LOSS = float((np.log(np.exp(LOGITS.double().numpy()).sum(-1)) ** 2).sum())


@pytest.mark.parametrize(
    ("router", "shares", "z_loss"),
    [
        pytest.param(lambda: Returning(lambda logits: logits), softmax(LOGITS.numpy()), [Z_LOSS], id="logits"),
        pytest.param(lambda: Returning(lambda logits: logits, inside=True), softmax(LOGITS.numpy()), [Z_LOSS], id="wg"),
        pytest.param(lambda: Returning(lambda logits: logits.softmax(-1)), softmax(LOGITS.numpy()), [], id="shares"),
        pytest.param(
            lambda: Returning(torch.sigmoid),
            SIGMOID / SIGMOID.sum(-1, keepdims=True),
            [],
            id="sigmoid",
        ),
    ],
)
def test_entropy_and_z_loss_are_those_of_all_scores(
    tmp_path: Path, router: Callable[[], Router], shares: Any, z_loss: list[float]
) -> None:
    layer = Layer(IDS)
    layer.router = router()
    (seen,) = counted(tmp_path, Model(layer), lambda model: model(DATA), passes=2)
    assert (seen.scored_tokens, seen.masked_tokens) == (12, 0)
    assert seen.entropy.tolist() == pytest.approx([2 * entropy_of(shares)], rel=1e-5)
    assert seen.z_loss.tolist() == pytest.approx([2 * one for one in z_loss], rel=1e-5)


def test_scores_of_the_chosen_experts_alone_show_no_entropy(tmp_path: Path) -> None:
    layer = Layer(IDS)
    chosen = torch.zeros(6, EXPERTS).scatter(1, IDS.flatten(0, 1), 0.5)
    layer.router = Returning(lambda logits: chosen)
    assert counted(tmp_path, Model(layer), lambda model: model(DATA)) == []
