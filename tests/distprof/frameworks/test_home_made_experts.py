"""MoE layers as people write them, all in one model and one recording: their tokens are exact, or n/a.

Each layer keeps how many tokens each of its experts got in its last forward; ``None`` is another rank's expert.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.reports import expert_layer
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

import distprof
from distprof.merge.report import Report

WIDTH, EXPERTS, TOKENS, CAPACITY = 8, 4, 24, 5


def linears(number: int = EXPERTS) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(number))


Call = Callable[[nn.Module, Tensor], Tensor]


class Listed(nn.Module):
    """Runs ``call`` on the rows of each expert that its router, which returns scores, has chosen."""

    def __init__(self, top_k: int, name: str = "experts", *, call: Call) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, EXPERTS)
        self.add_module(name, linears())
        self._name, self._k, self._call = name, top_k, call
        self.tokens: list[int | None] = []

    def forward(self, x: Tensor) -> Tensor:
        weights, ids = self.choose(x)
        y, self.tokens = torch.zeros_like(x), []
        for number, expert in enumerate(getattr(self, self._name)):
            rows, places = torch.where(ids == number)
            self.tokens.append(None if expert is None else self.kept(len(rows)))
            if expert is not None:
                rows, places = rows[: self.kept(len(rows))], places[: self.kept(len(rows))]
                y = y.index_add(0, rows, self._call(expert, x[rows]) * weights[rows, places, None])
        return y

    def choose(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weights, ids = self.gate(x).softmax(-1).topk(self._k)
        return weights, ids

    def kept(self, rows: int) -> int:
        return rows


class Padded(Listed):
    """Runs each expert on its whole capacity, with rows of zeros."""

    def kept(self, rows: int) -> int:
        return min(rows, CAPACITY)


def on_capacity(expert: nn.Module, x: Tensor) -> Tensor:
    y: Tensor = expert(F.pad(x, (0, 0, 0, CAPACITY - len(x))))
    return y[: len(x)]


class RemoteCodeGate(nn.Module):
    """Returns ids, weights and a loss: a router of code that is loaded with a checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.top_k, self.n_routed_experts = 2, EXPERTS
        self.weight = nn.Parameter(torch.randn(EXPERTS, WIDTH))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores = F.linear(x, self.weight).softmax(-1)
        weights, ids = scores.topk(2)
        return ids, weights, scores.mean()


class RemoteCode(Listed):
    def __init__(self) -> None:
        super().__init__(2, call=lambda expert, x: expert(x))
        self.gate = RemoteCodeGate()  # type: ignore[assignment]

    def choose(self, x: Tensor) -> tuple[Tensor, Tensor]:
        ids, weights, _ = self.gate(x)
        return weights, ids


class LinearRouter(nn.Linear):
    """Is a Linear, and returns its choice."""

    top_k = 2

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        weights, ids = super().forward(x).softmax(-1).topk(2)
        return weights, ids


class StackedExperts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(EXPERTS, WIDTH, WIDTH))

    def forward(self, x: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        return sum((((ids == e) * weights).sum(-1, keepdim=True) * (x @ self.weight[e]) for e in range(EXPERTS)), x * 0)


class Aliased(nn.Module):
    """Its router has two names; it is called twice in a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.router = self.gate = LinearRouter(WIDTH, EXPERTS)
        self.experts = StackedExperts()
        self.tokens: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        counts = torch.zeros(EXPERTS, dtype=torch.int64)
        for _ in range(2):
            weights, ids = self.router(x)
            counts += torch.bincount(ids.flatten(), minlength=EXPERTS)
            x = self.experts(x, ids, weights)
        self.tokens = counts.tolist()
        return x


class Compilable(nn.Module):
    """A layer that is one graph."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.experts = LinearRouter(WIDTH, EXPERTS), StackedExperts()

    def forward(self, x: Tensor) -> Tensor:
        weights, ids = self.router(x)
        y: Tensor = self.experts(x, ids, weights)
        return y


class CountsItself(Compilable):
    """Adds its tokens to a buffer, as torchtitan's layer does; a hook of the optimizer empties it."""

    tokens_per_expert: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("tokens_per_expert", torch.zeros(EXPERTS))

    def forward(self, x: Tensor) -> Tensor:
        weights, ids = self.router(x)
        with torch.no_grad():
            self.tokens_per_expert.add_(F.one_hot(ids, EXPERTS).sum((0, 1)))
        y: Tensor = self.experts(x, ids, weights)
        return y


class InLayer(nn.Module):
    """Keeps the weights of its experts itself; the choice stays in its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.top_k, self.gate = 2, nn.Linear(WIDTH, EXPERTS, bias=False)
        self.w1, self.w2 = (nn.Parameter(torch.randn(EXPERTS, WIDTH, WIDTH)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        weights, ids = self.gate(x).softmax(-1).topk(2)
        y = torch.einsum("td,tkde,tkef->tkf", x, self.w1[ids], self.w2[ids])
        return (y * weights[..., None]).sum(1)


class ExpertChoice(nn.Module):
    """Its experts choose their tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.weight = nn.Linear(WIDTH, EXPERTS), nn.Parameter(torch.randn(EXPERTS, WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        weights, rows = self.router(x).softmax(-1).t().topk(CAPACITY)
        y = torch.bmm(x[rows], self.weight) * weights[..., None]
        return torch.zeros_like(x).index_add(0, rows.flatten(), y.flatten(0, 1))


class SelectsInside(nn.Module):
    """Calls each expert with all tokens, and with a mask or the indices of those that it processes."""

    def __init__(self, *, by_mask: bool) -> None:
        super().__init__()
        self.gate, self.experts = nn.Linear(WIDTH, EXPERTS), nn.ModuleList(Selecting() for _ in range(EXPERTS))
        self._by_mask = by_mask

    def forward(self, x: Tensor) -> Tensor:
        chosen = F.one_hot(self.gate(x).topk(2).indices, EXPERTS).sum(1).bool().T
        if self._by_mask:
            return torch.stack([expert(x, mask) for expert, mask in zip(self.experts, chosen, strict=True)]).sum(0)
        places = [mask.nonzero().flatten() for mask in chosen]
        return torch.stack([expert(at, x) for expert, at in zip(self.experts, places, strict=True)]).sum(0)


class Selecting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        x, rows = (second, first) if first.dtype == torch.int64 else (first, second.nonzero().flatten())
        return torch.zeros_like(x).index_add(0, rows, self.inner(x[rows]))


class Vmapped(nn.Module):
    """Calls its first expert once for all of them, with their weights stacked."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.experts = nn.Linear(WIDTH, EXPERTS), linears()

    def forward(self, x: Tensor) -> Tensor:
        weights, buffers = stack_module_state([*self.experts])

        def run(weights: Any, buffers: Any) -> Tensor:
            y: Tensor = functional_call(self.experts[0], (weights, buffers), (x,))
            return y

        return torch.einsum("etd,te->td", torch.vmap(run)(weights, buffers), self.gate(x).softmax(-1))


@dataclass
class Decision:
    weights: Tensor
    ids: Tensor


class DecidingRouter(LinearRouter):
    """Returns its choice in a structure of its own."""

    def forward(self, x: Tensor) -> Decision:  # type: ignore[override]
        return Decision(*super().forward(x))


class GivenDecisions(nn.Module):
    """Hands the structure on to its experts."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.experts = DecidingRouter(WIDTH, EXPERTS), DecidedExperts()
        self.tokens: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        decision = self.router(x)
        self.tokens = torch.bincount(decision.ids.flatten(), minlength=EXPERTS).tolist()
        y: Tensor = self.experts(x, decision)
        return y


class DecidedExperts(StackedExperts):
    def forward(self, x: Tensor, decision: Decision) -> Tensor:  # type: ignore[override]
        return super().forward(x, decision.ids, decision.weights)


class ManyChoices(nn.Module):
    """Chooses more experts a token than any width of ids that is read without a stated k."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.experts = nn.Linear(WIDTH, 32), nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(32))
        self.tokens: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        ids = self.gate(x).topk(20).indices
        self.tokens = torch.bincount(ids.flatten(), minlength=32).tolist()
        return torch.stack([expert(x[(ids == e).any(1)]).sum(0) for e, expert in enumerate(self.experts)]).sum(0) + x


def here_and_elsewhere() -> Listed:
    """Returns a layer of which two experts live on another rank."""
    layer = Listed(2, call=lambda expert, x: expert(x))
    for number in (2, 3):
        layer.experts._modules[str(number)] = None  # type: ignore[union-attr]
    return layer


#: Layers whose tokens are exact, ...
EXACT: dict[str, Callable[[], nn.Module]] = {
    "remote_code": RemoteCode,
    "another_name": lambda: Listed(2, "ffns", call=lambda expert, x: expert(x)),
    "padded": lambda: Padded(1, call=on_capacity),
    "elsewhere": here_and_elsewhere,
    "aliased": Aliased,
    "many_choices": ManyChoices,
    "given_decisions": GivenDecisions,
}
#: ... and those of which nothing shows them.
UNKNOWN: dict[str, Callable[[], nn.Module]] = {
    "by_forward": lambda: Listed(2, call=lambda expert, x: expert.forward(x)),
    "in_layer": InLayer,
    "expert_choice": ExpertChoice,
    "mask_inside": lambda: SelectsInside(by_mask=True),
    "indices_inside": lambda: SelectsInside(by_mask=False),
    "vmapped": Vmapped,
}


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.layers = nn.ModuleDict({name: make() for name, make in {**EXACT, **UNKNOWN}.items()})

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return torch.stack([layer(x).square().mean() for layer in self.layers.values()]).sum()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Report]:
    torch.manual_seed(0)
    model, x = Model(), torch.randn(TOKENS, WIDTH)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with distprof.record(out=tmp_path_factory.mktemp("runs"), name="run", warmup=0, timed=3) as run:
        for _ in range(6):
            model(x).backward()
            optimizer.step()
            optimizer.zero_grad()
    return model, distprof.load(run).report


@pytest.mark.parametrize("name", EXACT)
def test_tokens_are_exact(recorded: tuple[Model, Report], name: str) -> None:
    model, report = recorded
    layer = expert_layer(report, f"layers.{name}")
    told: Any = model.layers[name].tokens
    assert layer.steps >= 2
    assert list(layer.tokens) == [None if count is None else layer.steps * count for count in told]


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_seen_is_not_told(recorded: tuple[Model, Report], name: str) -> None:
    layer = expert_layer(recorded[1], f"layers.{name}")
    assert (layer.num_experts, set(layer.tokens), layer.dead, layer.dropped) == (EXPERTS, {None}, (), None)


def test_notes_say_why(recorded: tuple[Model, Report]) -> None:
    notes = recorded[1].run.notes
    assert [note for note in notes if "routers chose" in note or "suspected" in note] == []
    reasons = " ".join(note for note in notes if "tokens of experts are n/a" in note)
    named = [name for name in UNKNOWN if f"layers.{name}" in reasons]
    assert sum(map(int, re.findall(r"and (\d+) more", reasons))) == len(UNKNOWN) - len(named) < 2
    assert not any(f"layers.{name}" in reasons for name in EXACT)
    assert {layer.name for layer in recorded[1].experts if layer.guessed} == {
        f"layers.{name}" for name in ("another_name", "in_layer", "expert_choice")
    }


def test_compiled_layers_are_named(tmp_path: Path) -> None:
    """Inside a compiled layer nothing is seen of its router and its experts, unless it counts their tokens itself."""
    torch.manual_seed(0)
    plain, counts = Compilable(), CountsItself()
    model, x = nn.Sequential(nn.Linear(WIDTH, WIDTH), plain, counts), torch.randn(TOKENS, WIDTH)
    for layer in (plain, counts):
        layer.compile(backend="eager")
    optimizer, counted = torch.optim.SGD(model.parameters(), lr=0.0), counts.tokens_per_expert

    def empty(*_: Any) -> None:
        told.append(counted.tolist())
        counted.zero_()

    told: list[list[float]] = []
    optimizer.register_step_pre_hook(empty)
    with distprof.record(out=tmp_path, name="run", warmup=0, timed=2) as run:
        for _ in range(5):
            for _ in range(2):
                model(x).sum().backward()
            optimizer.step()
    report = distprof.load(run).report
    named, counting = report.experts
    assert (named.name, set(named.tokens)) == ("1", {None})
    assert any(note.startswith("compiled, not seen: tokens of experts are n/a in 1: ") for note in report.run.notes)
    assert sum(told[-1]) == 2 * 2 * TOKENS
    assert (counting.steps, list(counting.tokens)) == (2, [2 * count for count in told[-1]])


class Lists(nn.Module):
    """Multiplies with parameters of a list, which nothing calls."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, EXPERTS)
        self.experts = nn.ParameterList(torch.randn(WIDTH, WIDTH) for _ in range(EXPERTS))

    def forward(self, x: Tensor) -> Tensor:
        chosen = self.gate(x).argmax(-1)
        parts = [(x[chosen == number] @ weight).sum() for number, weight in enumerate(self.experts)]
        return torch.stack(parts)


class Images(nn.Module):
    """Convolves each image with one expert, for which an image is many rows."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.experts = nn.Linear(WIDTH * WIDTH, EXPERTS), nn.ModuleList()
        self.experts.extend(nn.Conv2d(1, 1, 3, padding=1) for _ in range(EXPERTS))

    def forward(self, x: Tensor) -> Tensor:
        images, chosen = x.reshape(-1, 1, WIDTH, WIDTH), self.gate(x.reshape(-1, WIDTH * WIDTH)).argmax(-1)
        parts = [expert(images[chosen == number]).sum() for number, expert in enumerate(self.experts)]
        return torch.stack(parts)


def why_no_active(folder: Path, layer: nn.Module) -> tuple[int | None, str, tuple[str, ...]]:
    """Returns the active parameters of a model with this layer, why there are none, and the report's notes."""
    model, x = nn.Sequential(nn.Linear(WIDTH, WIDTH), layer), torch.randn(TOKENS, WIDTH)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with distprof.record(out=folder, name="run", warmup=0, timed=3) as run:
        for _ in range(5):
            model(x).square().mean().backward()
            optimizer.step()
    report = distprof.load(run).report
    assert report.model is not None
    return report.model.active_params, report.model.why_no_active, report.run.notes


@pytest.mark.parametrize("make", [Lists, Images])
def test_what_works_on_one_token_is_not_guessed(tmp_path: Path, make: Callable[[], nn.Module]) -> None:
    active, why, notes = why_no_active(tmp_path, make())
    assert (active, why) == (None, "the top-k is not known")
    assert not any("compiled" in note for note in notes)


def test_rows_of_padding_do_not_work_on_tokens(tmp_path: Path) -> None:
    """All experts get as many rows, of which some are no tokens: how many work on one token is not measured by them."""
    torch.manual_seed(0)
    active, why, _ = why_no_active(tmp_path, Padded(1, call=on_capacity))
    assert (active, why) == (None, "the top-k is not known")
