"""Tests of expert routing and loads in timed steps, from a model's forward to the records."""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from support.loops import X, sgd, step, training
from support.recording import Seen, record
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from distprof.frameworks import expert_finder
from distprof.frameworks.routing_readers import read_choice
from distprof.model.moe_layers import MoeLayer
from distprof.probes.experts import ExpertTally
from distprof.records import Error, ExpertLayers, ExpertLoad, ExpertRouting


class TopRouter(nn.Module):
    """Sends token i to the experts ``chosen[i]``."""

    def __init__(self, chosen: list[list[int]]) -> None:
        super().__init__()
        self.chosen = torch.tensor(chosen)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones(self.chosen.shape), self.chosen


class Listed(nn.Module):
    """A list of experts, each of which processes at most ``capacity`` tokens."""

    def __init__(self, chosen: list[list[int]], capacity: int = 99) -> None:
        super().__init__()
        self.num_experts, self.capacity = 4, capacity
        self.router = TopRouter(chosen)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        _, chosen = self.router(x)
        output = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            rows = (chosen == number).any(1).nonzero()[: self.capacity, 0]
            if len(rows):
                output = output.index_add(0, rows, expert(x[rows]))
        return output


class StackedExperts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4, 8, 8))

    def forward(self, x: Tensor, chosen: Tensor) -> Tensor:
        y: Tensor = torch.einsum("td,tkde->te", x, self.weight[chosen.clamp(min=0)])
        return y


class Stacked(nn.Module):
    """Experts in one module; tokens in ``dropped`` go to no expert."""

    def __init__(self, router: nn.Module, dropped: list[int]) -> None:
        super().__init__()
        self.router, self.experts, self.dropped = router, StackedExperts(), dropped

    def forward(self, x: Tensor) -> Tensor:
        chosen = self.router(x)[1].clone()
        chosen[self.dropped] = -1
        y: Tensor = self.experts(x, chosen)
        return y


class TokenChoiceTopKRouter(nn.Module):
    """A router with torchtitan's output: scores, ids [batch, length, k], scores of all experts."""

    top_k = 2

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ids = torch.tensor(ROUTE).unsqueeze(0)
        return torch.ones(ids.shape), ids, torch.rand(1, 4, 4)


class GroupedExperts(nn.Module):
    """Experts with torchtitan's arguments: tokens in the order of their experts, and the number for each."""

    def __init__(self) -> None:
        super().__init__()
        self.num_experts = 4
        self.w1 = nn.Parameter(torch.rand(2, 8, 8))

    def forward(self, x: Tensor, num_tokens_per_expert: Tensor) -> Tensor:
        return x @ self.w1.sum(0)


class OfTitan(nn.Module):
    """torchtitan's MoE layer on the rank with experts 0 and 1 of 4: five tokens arrive from all ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.experts = TokenChoiceTopKRouter(), GroupedExperts()

    def forward(self, x: Tensor) -> Tensor:
        self.router(x)
        y: Tensor = self.experts(torch.cat([x, x[:1]]), torch.tensor([3, 2]))
        return y


class TopKRouter(nn.Module):
    """A router with Megatron-core's output: probabilities, and a map [tokens, experts]."""

    topk = 2

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.rand(4, 4), torch.zeros(4, 4, dtype=torch.bool).scatter(1, torch.tensor(ROUTE), True)


class TEGroupedMLP(GroupedExperts):
    """Experts with Megatron-core's arguments."""

    __module__ = "megatron.core.transformer.moe.experts"
    num_local_experts = 4
    config = SimpleNamespace(moe_expert_capacity_factor=None)


class OfMegatron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.router, self.experts = TopKRouter(), TEGroupedMLP()

    def forward(self, x: Tensor) -> Tensor:
        self.router(x)
        y: Tensor = self.experts(torch.cat([x, x]), torch.tensor([4, 3, 0, 1]))
        return y[:4]


ROUTE = [[0, 1], [0, 3], [0, 1], [0, 1]]


def routing(seen: Seen) -> tuple[list[int], list[int], bool]:
    (one, *_) = seen.of(ExpertRouting)[0].layers
    return one.routed.tolist(), one.dropped.tolist(), one.drops_known


def test_chosen_and_processed_tokens_differ(tmp_path: Path) -> None:
    seen = record(tmp_path, training(2, nn.Sequential(Listed(ROUTE, capacity=2))), timed=2)
    assert [load.tokens.tolist() for load in seen.of(ExpertLoad)] == [[2, 2, 0, 1]] * 2
    assert routing(seen) == ([4, 3, 0, 1], [], False)
    assert len(seen.of(ExpertRouting)) == 2


def test_tokens_that_no_expert_gets_were_dropped(tmp_path: Path) -> None:
    seen = record(tmp_path, training(1, nn.Sequential(Stacked(TopRouter(ROUTE), [1]))))
    (layer,) = seen.one(ExpertLayers).layers
    assert (layer.num_experts, layer.local_experts, layer.counted) == (4, (0, 1, 2, 3), False)
    assert routing(seen) == ([4, 3, 0, 1], [1, 0, 0, 1], True)
    assert seen.of(ExpertLoad) == []


def test_layers_of_torchtitans_signatures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchtitan", ModuleType("torchtitan"))
    seen = record(tmp_path, training(1, nn.Sequential(OfTitan())))
    (layer,) = seen.one(ExpertLayers).layers
    assert (layer.num_experts, layer.top_k, layer.counted, len(layer.local_experts)) == (4, 2, True, 2)
    assert routing(seen) == ([4, 3, 0, 1], [], False)
    assert seen.one(ExpertLoad).tokens.tolist() == [3, 2]


@pytest.mark.parametrize("capacity", [None, 1.0])
def test_layers_of_megatrons_signatures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capacity: float) -> None:
    """The map has the tokens after dropping: of two choices a token, here none is missing."""
    state = ModuleType("megatron.core.parallel_state")
    monkeypatch.setitem(sys.modules, "megatron.core.parallel_state", state)
    monkeypatch.setattr(TEGroupedMLP, "config", SimpleNamespace(moe_expert_capacity_factor=capacity))
    seen = record(tmp_path, training(1, nn.Sequential(OfMegatron())))
    (layer,) = seen.one(ExpertLayers).layers
    assert (layer.num_experts, layer.top_k, layer.counted) == (4, 2, True)
    assert seen.one(ExpertLoad).tokens.tolist() == [4, 3, 0, 1]
    assert routing(seen) == ([4, 3, 0, 1], [], True)


def test_an_unknown_router_is_replaced_by_the_tokens_of_experts(tmp_path: Path) -> None:
    class Hidden:
        def __getitem__(self, place: int) -> Tensor:
            return torch.tensor(ROUTE)

    class Scores(nn.Module):
        """Returns its choice in an object of its own."""

        def forward(self, x: Tensor) -> Any:
            return Hidden()

    seen = record(tmp_path, training(1, nn.Sequential(Stacked(Scores(), [1]))))
    assert routing(seen) == ([3, 3, 0, 0], [], False)
    assert seen.of(ExpertRouting)[0].layers[0].handed


def test_micro_batches_add_up_and_recompute_does_not(tmp_path: Path) -> None:
    inner = nn.Sequential(nn.Linear(8, 8), Stacked(TopRouter(ROUTE), []))

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = torch.utils.checkpoint.checkpoint(self.inner, x, use_reentrant=False)
            return y

    model = Checkpointed()

    def job() -> None:
        optimizer = sgd(model)
        model(X).sum().backward()
        step(model, optimizer)

    assert routing(record(tmp_path, job))[0] == [8, 6, 0, 2]


def test_the_scripts_dispatch_modes_do_not_see_counting(tmp_path: Path) -> None:
    class Log(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.ops: list[str] = []

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.ops.append(str(func))
            return func(*args, **(kwargs or {}))

    model = nn.Sequential(Stacked(TopRouter(ROUTE), []))
    logs = [Log(), Log()]

    def job(log: Log) -> None:
        optimizer = sgd(model)
        with log:
            loss = model(X).sum()
        loss.backward()
        optimizer.step()

    job(logs[0])
    seen = record(tmp_path, lambda: job(logs[1]))
    assert routing(seen)[0] == [4, 3, 0, 1]
    assert logs[0].ops == logs[1].ops


def test_the_scripts_function_modes_do_not_see_counting(tmp_path: Path) -> None:
    class Log(TorchFunctionMode):
        def __init__(self) -> None:
            super().__init__()
            self.functions: list[str] = []

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.functions.append(func.__name__)
            return func(*args, **(kwargs or {}))

    model = nn.Sequential(Stacked(TopRouter(ROUTE), []), Listed(ROUTE))
    logs = [Log(), Log()]

    def job(log: Log) -> None:
        optimizer = sgd(model)
        with log:
            model(X).sum().backward()
        optimizer.step()

    job(logs[0])
    seen = record(tmp_path, lambda: job(logs[1]))
    assert routing(seen)[0] == [4, 3, 0, 1]
    more = Counter(logs[1].functions) - Counter(logs[0].functions)
    # Other probes read the batch and every module's tensors.
    assert set(more) <= {"__get__", "numel", "dim", "size", "register_post_accumulate_grad_hook"}


def test_a_failing_reader_makes_only_its_layer_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise ValueError

    monkeypatch.setattr(expert_finder, "read_arguments", fails)
    model = nn.Sequential(Stacked(TopRouter(ROUTE), []), Listed(ROUTE))
    seen = record(tmp_path, training(1, model))
    assert seen.of(Error) == []
    assert [one.layer for one in seen.one(ExpertRouting).layers] == [1]
    assert seen.one(ExpertLoad).tokens.tolist() == [4, 3, 0, 1]


def test_a_layer_that_is_not_called_is_unseen(tmp_path: Path) -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.moe = nn.Linear(8, 8), Listed(ROUTE)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.first(x)
            return y

    seen = record(tmp_path, training(1, Skips()))
    assert (seen.one(ExpertLoad).unseen, seen.of(ExpertRouting)) == ((0,), [])


def test_no_tensor_of_the_script_is_kept(tmp_path: Path) -> None:
    kept: list[weakref.ref[Tensor]] = []

    class Watched(TopRouter):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            scores, chosen = super().forward(x)[0], self.chosen.clone()
            kept.append(weakref.ref(chosen))
            return scores, chosen

    model = nn.Sequential(Stacked(Watched(ROUTE), []))

    def job() -> None:
        optimizer = sgd(model)
        loss = model(X).sum()
        alive = [reference() is not None for reference in kept]
        assert alive == [False] * len(alive)
        loss.backward()
        optimizer.step()

    assert routing(record(tmp_path, job))[0] == [4, 3, 0, 1]
    assert kept


class Plain(nn.Module):
    """A list of experts behind a router that returns scores; ``call`` runs an expert on the rows of its tokens."""

    def __init__(self, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.gate, self.call = nn.Linear(8, 4), call
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        for number, expert in enumerate(self.experts):
            x = x + self.call(expert, x[: 4 - number]).sum()
        return x


def test_experts_called_by_their_forward_are_unseen(tmp_path: Path) -> None:
    called = record(tmp_path / "call", training(1, nn.Sequential(Plain(lambda expert, x: expert(x)))))
    assert (called.one(ExpertLoad).tokens.tolist(), called.one(ExpertLoad).unseen) == ([4, 3, 2, 1], ())
    past = record(tmp_path / "forward", training(1, nn.Sequential(Plain(lambda expert, x: expert.forward(x)))))
    assert past.one(ExpertLoad).unseen == (0,)


def test_rows_of_padding_are_no_tokens(tmp_path: Path) -> None:
    """All experts get six rows; the first step shows that they are alike, the others leave zeros out."""

    def padded(expert: nn.Module, x: Tensor) -> Tensor:
        y: Tensor = expert(torch.cat([x, x.new_zeros(6 - len(x), 8)]))
        return y

    loads = record(tmp_path, training(3, nn.Sequential(Plain(padded))), timed=3).of(ExpertLoad)
    assert [load.unseen for load in loads] == [(0,), (), ()]
    assert [load.tokens.tolist() for load in loads[1:]] == [[4, 3, 2, 1]] * 2


@pytest.mark.parametrize(
    ("chosen", "tokens"), [([[2], [2], [2], [2]], [0, 0, 2, 0]), ([[0], [1], [2], [3]] * 3, [2, 2, 2, 2])]
)
def test_a_burst_that_drops_tokens_is_no_padding(tmp_path: Path, chosen: list[list[int]], tokens: list[int]) -> None:
    """All tokens go to one expert, or as many as it can take to each: the step that matters most is not left out."""
    model = nn.Sequential(Listed(chosen, capacity=2))

    def job() -> None:
        optimizer = sgd(model)
        for _ in range(2):
            for _ in range(2):
                model(torch.rand(len(chosen), 8)).sum().backward()
            optimizer.step()

    loads = record(tmp_path, job, timed=2).of(ExpertLoad)
    assert [load.unseen for load in loads] == [(), ()]
    assert [load.tokens.tolist() for load in loads] == [[2 * count for count in tokens]] * 2
    assert [[one.tokens.tolist() for one in load.calls] for load in loads] == [[[sum(tokens)] * 2]] * 2


def test_a_burst_after_other_steps_is_no_padding(tmp_path: Path) -> None:
    """Where nothing shows what was chosen, the steps before tell that rows are no padding."""
    steps = [[4, 3, 2, 1], [4, 0, 0, 0], [2, 2, 2, 2], [1, 2, 3, 4]]
    sizes = iter([rows for step_sizes in steps for rows in step_sizes])
    model = Plain(lambda expert, x: expert(x.new_ones(next(sizes), 8)))

    def job() -> None:
        optimizer = sgd(model)
        for _ in steps:
            step(model, optimizer)

    loads = record(tmp_path, job, timed=4).of(ExpertLoad)
    assert [load.unseen for load in loads] == [()] * 4
    assert [load.tokens.tolist() for load in loads[1:3]] == [[4, 0, 0, 0], [2, 2, 2, 2]]


def test_a_burst_of_tokens_from_other_ranks_is_no_padding(tmp_path: Path) -> None:
    """Half of the experts live elsewhere.  At first as many tokens arrive as are sent, then all for one expert."""
    sizes = iter([3, 1, 9, 0, 6, 6])

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.num_experts, self.router = 4, TopRouter([[0], [1], [2], [3]])
            self.experts = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8), None, None])  # type: ignore[list-item]

        def forward(self, x: Tensor) -> Tensor:
            self.router(x)
            for expert in list(self.experts)[:2]:
                x = x + expert(x.new_ones(next(sizes), 8)).sum()
            return x

    loads = record(tmp_path, training(3, nn.Sequential(Half())), timed=3).of(ExpertLoad)
    assert [(load.tokens.tolist(), load.unseen) for load in loads] == [([3, 1], ()), ([9, 0], ()), ([6, 6], ())]


def test_an_expert_that_gets_more_than_was_chosen_stands_for_others(tmp_path: Path) -> None:
    class Template(Listed):
        def forward(self, x: Tensor) -> Tensor:
            _, chosen = self.router(x)
            for number, expert in enumerate(self.experts):
                rows = x[(chosen == number).any(1)][:2]
                x = x + torch.func.functional_call(self.experts[0], dict(expert.named_parameters()), (rows,)).sum()
            return x

    assert record(tmp_path, training(1, nn.Sequential(Template(ROUTE)))).one(ExpertLoad).unseen == (0,)


def test_a_mask_shows_how_many_choices_were_dropped(tmp_path: Path) -> None:
    class Top2Router(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            mask = torch.zeros(4, 4, dtype=torch.bool).scatter(1, torch.tensor(ROUTE), True)
            mask[1:, 0] = False
            return torch.rand(4, 4), mask

    class Masked(Stacked):
        def forward(self, x: Tensor) -> Tensor:
            self.router(x)
            y: Tensor = self.experts(x, torch.tensor(ROUTE).float())
            return y

    class Experts(StackedExperts):
        def forward(self, x: Tensor, scores: Tensor) -> Tensor:
            return x * self.weight.sum()

    model = Masked(Top2Router(), [])
    model.experts = Experts()
    (one,) = record(tmp_path, training(1, nn.Sequential(model))).one(ExpertRouting).layers
    assert (one.routed.tolist(), one.drops_known, one.lost) == ([1, 3, 0, 1], True, 3)


def test_scores_that_are_not_those_of_the_chosen_alone_are_not_read(tmp_path: Path) -> None:
    class Top2Router(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return torch.rand(4, 4) + 1, torch.tensor(ROUTE)[:, :1].float()

    class Scored(Stacked):
        def forward(self, x: Tensor) -> Tensor:
            self.router(x)
            y: Tensor = self.experts(x, torch.tensor(ROUTE)) * 1
            return y

    routing_seen = record(tmp_path, training(1, nn.Sequential(Scored(Top2Router(), [])))).one(ExpertRouting)
    (one,) = routing_seen.layers
    assert (one.routed.tolist(), one.drops_known) == ([4, 3, 0, 1], False), "of the experts' arguments"


def choices(*ids: Tensor | None, eager: Tensor | None = None) -> list[int] | None:
    """Returns what a layer's router chose in compiled graphs with ``ids``; in a call that is seen, ``eager``."""
    read = partial(read_choice, top_k=2)
    tally = ExpertTally([MoeLayer("moe", 0, (), num_experts=4, local=4, router=1, read_router=read)])
    for one in ids:
        tally.add_compiled(0, one)
    if eager is not None:
        tally.leaving[1](eager)
    pending = tally.finish(0)
    assert pending is not None
    found = [one for one in pending.records() if isinstance(one, ExpertRouting)]
    return found[0].layers[0].routed.tolist() if found else None


def test_choices_in_compiled_graphs_are_known_if_all_are() -> None:
    ids = torch.tensor([[0, 1], [2, 1]])
    assert choices(ids) == [1, 2, 1, 0]
    assert choices(ids, ids) == [2, 4, 2, 0]
    assert choices(ids, eager=ids) == [2, 4, 2, 0], "a router may run compiled and as a module in one step"
    assert choices(eager=ids) == [1, 2, 1, 0]
    assert choices(ids, None) is None, "a graph does not show them"
    assert choices(ids, None, eager=ids) is None
    assert choices(torch.tensor([[0, 1], [2, 4]])) is None, "no id of an expert"
