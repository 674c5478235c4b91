"""Routers in code that torch's compiler has compiled: what they chose is exact where a graph returns it, else n/a."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from support.recording import Seen, record
from torch import Tensor, nn

from distprof.records import Error, ExpertLayers, ExpertRouting, Step

WIDTH, TOKENS, EXPERTS, K = 8, 32, 6, 2
STEPS, FIRST = 5, 3  # the number of the first timed step

pytestmark = [pytest.mark.usefixtures("fresh_compiler"), pytest.mark.slow]


class Router(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(EXPERTS, WIDTH))
        self.top_k = K

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores, ids = torch.topk(nn.functional.linear(x, self.weight).softmax(-1), self.top_k)
        return scores, ids


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(EXPERTS, WIDTH, WIDTH) / WIDTH)

    def forward(self, x: Tensor, scores: Tensor, ids: Tensor) -> Tensor:
        given = torch.zeros(len(x), EXPERTS, dtype=x.dtype).scatter(1, ids, scores)
        return torch.einsum("te,td,edf->tf", given, x, self.weight)


class MoE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.experts = Router(), Experts()

    def forward(self, x: Tensor) -> Tensor:
        scores, ids = self.gate(x)
        y: Tensor = self.experts(x, scores, ids)
        return x + y


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(MoE() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for block in reversed(self.blocks):  # not in the order of their rows
            x = block(x)
        return x


def whole(model: Model) -> Any:
    return torch.compile(model)


def in_place(model: Model) -> Any:
    model.compile()
    return model


def blocks(model: Model) -> Any:
    for block in model.blocks:
        block.compile()
    return model


def gates(model: Model) -> Any:
    for block in model.blocks:
        getattr(block, "gate").compile()  # noqa: B009  # mypy knows no attribute of a list's modules
    return model


def function(model: Model) -> Any:
    @torch.compile
    def call(x: Tensor) -> Tensor:
        y: Tensor = model(x)
        return y

    return call


class Argmax(Router):
    """Chooses one expert, without a call of topk."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores, ids = nn.functional.linear(x, self.weight).softmax(-1).max(-1, keepdim=True)
        return scores, ids


def batches() -> list[list[Tensor]]:
    """The micro-batches of each step."""
    torch.manual_seed(1)
    return [[torch.randn(TOKENS, WIDTH) for _ in range(2)] for _ in range(STEPS)]


def train(compiled: Callable[[Model], Any], router: type[Router] = Router, watch: Any = None) -> list[float]:
    """Returns the losses; ``watch(step, model)`` runs when a step has ended."""
    torch.manual_seed(0)
    model = Model()
    for block in model.blocks:
        block.gate = router()
    run = compiled(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for step, micro in enumerate(batches()):
        for x in micro:
            loss = run(x).square().mean()
            loss.backward()
            losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
        if watch is not None:
            watch(step)
    return losses


def eager_choices() -> dict[int, list[list[int]]]:
    """Returns what the routers choose in each step of the job without a compiler."""
    chosen = [Counter[int](), Counter[int]()]
    steps: dict[int, list[list[int]]] = {}

    def hooked(model: Model) -> Model:
        for number, block in enumerate(model.blocks):
            gate: Any = block.gate
            gate.register_forward_hook(lambda *call, n=number: chosen[n].update(call[2][1].flatten().tolist()))
        return model

    def step_ended(step: int) -> None:
        steps[step] = [[one[expert] for expert in range(EXPERTS)] for one in chosen]
        for one in chosen:
            one.clear()

    train(hooked, watch=step_ended)
    return steps


def recorded(folder: Path, compiled: Callable[[Model], Any], router: type[Router] = Router) -> tuple[Seen, list[float]]:
    losses: list[float] = []
    seen = record(folder, lambda: losses.extend(train(compiled, router)), warmup=2, count=True, timed=2)
    assert not seen.of(Error) and len(seen.of(Step)) == 2
    assert [layer.num_experts for layer in seen.of(ExpertLayers)[-1].layers] == [EXPERTS] * 2
    return seen, losses


def routed(seen: Seen) -> dict[int, list[list[int]]]:
    timed = [one for one in seen.of(ExpertRouting) if one.iteration >= FIRST]
    return {one.iteration: [layer.routed.tolist() for layer in one.layers] for one in timed}


@pytest.mark.parametrize("compiled", [whole, in_place, blocks, gates, function])
def test_choices_in_compiled_code_are_exact(tmp_path: Path, compiled: Callable[[Model], Any]) -> None:
    """The second layer runs first; each step has two micro-batches."""
    expected = eager_choices()
    without = train(compiled)
    before = dict(torch._dynamo.utils.counters["stats"])
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    seen, losses = recorded(tmp_path, compiled)
    assert losses == without, "the bits of the losses"
    assert dict(torch._dynamo.utils.counters["stats"]) == before, "as many graphs"
    assert not torch._dynamo.utils.counters["graph_break"]
    assert routed(seen) == {step: expected[step] for step in (FIRST, FIRST + 1)}


class Capacity(Router):
    """A router of a layer that may drop tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.capacity_factor = 1.25


def test_choices_are_taken_for_tokens_where_no_layer_speaks_of_a_capacity(tmp_path: Path) -> None:
    plain, limited = (recorded(tmp_path / one.__name__, whole, one)[0] for one in (Router, Capacity))
    for seen, handed in ((plain, True), (limited, False)):
        layers = [layer for one in seen.of(ExpertRouting) if one.iteration >= FIRST for layer in one.layers]
        assert [layer.handed for layer in layers] == [handed] * 4 and not any(layer.drops_known for layer in layers)


def test_a_choice_that_no_graph_returns_is_not_known(tmp_path: Path) -> None:
    seen, _ = recorded(tmp_path, whole, Argmax)
    assert routed(seen) == {}
