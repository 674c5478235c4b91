"""Alike modules in a list beside a Linear of as many rows, under names that say nothing: their calls in the counted
step tell a MoE layer from the layers of a model and its head.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from support.moe.odd_names import BATCH, BRANCHES, LENGTH, TOKENS, WIDTH, Model, branch_numel, branches_of, ffn, record
from support.reports import expert_layer
from support.scripts import NewWorkplace
from torch import Tensor, nn

from distprof.merge.report import Report


class Chosen(nn.Module):
    """Runs each branch on the rows that its selector has chosen."""

    def __init__(self, selector: nn.Module | None = None, top_k: int = 2) -> None:
        super().__init__()
        self.selector = selector or nn.Linear(WIDTH, BRANCHES)
        self.branches = nn.ModuleList(ffn() for _ in range(BRANCHES))
        self.width_of_choice = top_k
        self.tokens: list[int] = []

    def choose(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weights, ids = self.selector(x).softmax(-1).topk(self.width_of_choice)
        return weights, ids

    def forward(self, hidden: Tensor) -> Tensor:
        x = hidden.reshape(-1, WIDTH)
        weights, ids = self.choose(x)
        y, self.tokens = torch.zeros_like(x), []
        for number, branch in enumerate(self.branches):
            rows, places = torch.where(ids == number)
            rows, places = self.kept(rows), self.kept(places)
            self.tokens.append(len(rows))
            y = y.index_add(0, rows, (branch(x[rows]) * weights[rows, places, None]).to(y.dtype))
        return y.view_as(hidden)

    def kept(self, rows: Tensor) -> Tensor:
        return rows


class Noisy(Chosen):
    """The noise is no part of what its selector returns."""

    def choose(self, x: Tensor) -> tuple[Tensor, Tensor]:
        noise = torch.linspace(-1, 1, TOKENS * BRANCHES).view(TOKENS, BRANCHES)
        weights, ids = (self.selector(x) + noise).softmax(-1).topk(2)
        return weights, ids


class Dropping(Chosen):
    def kept(self, rows: Tensor) -> Tensor:
        return rows[:26]


class Returning(nn.Module):
    """A selector that returns its choice."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(WIDTH, BRANCHES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weights, ids = self.scores(x).softmax(-1).topk(2)
        return weights, ids


class Told(Chosen):
    def __init__(self) -> None:
        super().__init__(Returning())

    def choose(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weights, ids = self.selector(x)
        return weights, ids


class ToldAndDropping(Told):
    def kept(self, rows: Tensor) -> Tensor:
        return rows[:20]


class Sentences(nn.Module):
    """Chooses a branch for each sentence."""

    def __init__(self) -> None:
        super().__init__()
        self.picker = nn.Linear(WIDTH, BRANCHES, bias=False)
        self.paths = nn.ModuleDict({name: nn.Linear(WIDTH, WIDTH) for name in "abcd"})
        self.tokens: list[int] = []

    def forward(self, hidden: Tensor) -> Tensor:
        x = torch.cat([hidden, hidden * torch.arange(1.0, 5.0)[:, None, None], -hidden])
        chosen, y = self.picker(x.mean(1)).argmax(-1), torch.zeros_like(x)
        self.tokens = [LENGTH * count for count in torch.bincount(chosen, minlength=BRANCHES).tolist()]
        for number, path in enumerate(self.paths.values()):
            y[chosen == number] = path(x[chosen == number])
        return y[:BATCH]


class Deeper(nn.Module):
    """Its branches are a level below its selector, and it runs twice in a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.picker, self.body = nn.Linear(WIDTH, BRANCHES), nn.Module()
        self.body.paths = nn.ModuleList(ffn() for _ in range(BRANCHES))
        self.tokens = [0] * BRANCHES

    def forward(self, hidden: Tensor) -> Tensor:
        x, self.tokens = hidden.reshape(-1, WIDTH), [0] * BRANCHES
        for _ in range(2):
            chosen, y = self.picker(x).argmax(-1), torch.zeros_like(x)
            for number, path in enumerate(self.body.paths):  # type: ignore[arg-type]
                self.tokens[number] += int((chosen == number).sum())
                y[chosen == number] = path(x[chosen == number])
            x = x + y
        return x.view_as(hidden)


class Loose(nn.Module):
    """Keeps its parts in a dict, which nothing calls."""

    def __init__(self) -> None:
        super().__init__()
        self.bits = nn.ModuleDict(
            {"left": nn.Linear(WIDTH, BRANCHES), "right": nn.ModuleList(ffn() for _ in range(BRANCHES))}
        )
        self.tokens: list[int] = []

    def forward(self, hidden: Tensor) -> Tensor:
        x, y = hidden.reshape(-1, WIDTH), []
        chosen = self.bits["left"](x).argmax(-1)
        self.tokens = torch.bincount(chosen, minlength=BRANCHES).tolist()
        for number, branch in enumerate(self.bits["right"].children()):
            y.append(branch(x[chosen == number]))
        return torch.cat(y)


class Rounded(Chosen):
    """In bfloat16 many scores are equal."""

    def forward(self, hidden: Tensor) -> Tensor:
        return super().forward(hidden.bfloat16()).float()


def selecting_mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(WIDTH, 5), nn.Tanh(), nn.Linear(5, BRANCHES))


FOUND: dict[str, Callable[[], nn.Module]] = {
    "plain": Chosen,
    "single": lambda: Chosen(top_k=1),
    "mlp": lambda: Chosen(selecting_mlp(), 3),
    "noisy": Noisy,
    "dropping": Dropping,
    "told": Told,
    "told_dropping": ToldAndDropping,
    "sentences": Sentences,
    "deeper": Deeper,
    "loose": Loose,
    "rounded": lambda: Rounded().bfloat16(),
}


class Above(Chosen):
    """A branch gets what exceeds a threshold: none, one or more for each token."""

    def choose(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.selector(x).softmax(-1)
        return scores, torch.where(scores > 0.27, torch.arange(BRANCHES), -1)


class BranchesChoose(Chosen):
    """Each branch chooses as many tokens."""

    def forward(self, hidden: Tensor) -> Tensor:
        x = hidden.reshape(-1, WIDTH)
        weights, rows = self.selector(x).softmax(-1).t().topk(17)
        y = torch.stack([branch(x[at]) for branch, at in zip(self.branches, rows, strict=True)]) * weights[..., None]
        return torch.zeros_like(x).index_add(0, rows.flatten(), y.flatten(0, 1)).view_as(hidden)


class OnCapacity(Chosen):
    """Each branch gets rows of zeros up to its capacity."""

    def forward(self, hidden: Tensor) -> Tensor:
        x = hidden.reshape(-1, WIDTH)
        _, ids = self.choose(x)
        y = torch.zeros_like(x)
        for number, branch in enumerate(self.branches):
            rows = torch.where(ids == number)[0][:20]
            y = y.index_add(0, rows, branch(F.pad(x[rows], (0, 0, 0, 20 - len(rows))))[: len(rows)])
        return y.view_as(hidden)


class Elsewhere(Chosen):
    """Two of its branches live on another rank."""

    def __init__(self) -> None:
        super().__init__()
        for number in "01":
            self.branches._modules[number] = None  # type: ignore[assignment]

    def forward(self, hidden: Tensor) -> Tensor:
        x = hidden.reshape(-1, WIDTH)
        ids = self.selector(x).topk(2).indices
        return torch.cat([self.branches[e](x[(ids == e).any(-1)]) for e in (2, 3)])


class ByForward(Chosen):
    """Calls its branches by their forward."""

    def forward(self, hidden: Tensor) -> Tensor:
        x = hidden.reshape(-1, WIDTH)
        _, ids = self.choose(x)
        return torch.cat([branch.forward(x[(ids == e).any(-1)]) for e, branch in enumerate(self.branches)])


class OwnSelector(Chosen):
    """The weight of its selector is a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        del self.selector
        self.centres = nn.Parameter(torch.randn(WIDTH, BRANCHES))

    def choose(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weights, ids = (x @ self.centres).topk(2)
        return weights, ids


class Masking(nn.Module):
    """A branch that selects its rows itself."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.inner, self._number = ffn(), number

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        at = (ids == self._number).any(-1)
        return torch.zeros_like(x).masked_scatter(at[:, None].expand_as(x), self.inner(x[at]))


class MaskedInside(Chosen):
    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(Masking(number) for number in range(BRANCHES))

    def forward(self, hidden: Tensor) -> Tensor:
        x = hidden.reshape(-1, WIDTH)
        _, ids = self.choose(x)
        return torch.stack([branch(x, ids) for branch in self.branches]).sum(0)


class Projections(nn.Module):
    """Chooses two of four values for each token, beside other Linears, as a layer of attention does."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.picks = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, BRANCHES)
        self.values = nn.Parameter(torch.randn(BRANCHES, WIDTH, WIDTH))

    def forward(self, hidden: Tensor) -> Tensor:
        x = self.into(hidden).reshape(-1, WIDTH)
        ids = self.picks(x).topk(2).indices
        return torch.cat([x[(ids == e).any(-1)] @ value for e, value in enumerate(self.values)])


SUSPECTED: dict[str, Callable[[], nn.Module]] = {
    "above": Above,
    "branches_choose": BranchesChoose,
    "on_capacity": OnCapacity,
    "elsewhere": Elsewhere,
    "by_forward": ByForward,
    "own_selector": OwnSelector,
    "masked_inside": MaskedInside,
    "projections": Projections,
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Report]:
    torch.manual_seed(0)
    model = Model(FOUND)
    return model, record(tmp_path_factory.mktemp("found"), model)


@pytest.mark.parametrize("name", FOUND)
def test_what_behaves_as_experts_is_a_layer(recorded: tuple[Model, Report], name: str) -> None:
    model, report = recorded
    layer = expert_layer(report, f"parts.{name}{'.bits' if name == 'loose' else ''}")
    told = model.parts[name].tokens
    assert (layer.num_experts, layer.guessed, layer.steps) == (BRANCHES, True, 3)
    assert list(layer.tokens) == [layer.steps * count for count in told]  # type: ignore[union-attr]


def test_what_the_choice_of_a_selector_shows(recorded: tuple[Model, Report]) -> None:
    model, report = recorded
    top_k = {layer.name.split(".")[1]: layer.top_k for layer in report.experts}
    assert {name: top_k[name] for name in ("plain", "single", "mlp", "noisy", "told_dropping", "sentences")} == {
        **{"plain": 2, "single": 1, "mlp": 3, "noisy": 2, "told_dropping": 2, "sentences": 1}
    }
    dropped = expert_layer(report, "parts.told_dropping")
    assert dropped.dropped == 3 * 2 * TOKENS - sum(dropped.tokens)  # type: ignore[arg-type]
    assert report.model is not None
    experts = sum(p.numel() for part in model.parts.values() for p in branches_of(part).parameters())
    idle = sum(branch_numel(part) * (BRANCHES - (top_k[name] or 0)) for name, part in model.parts.items())
    every = sum(p.numel() for p in model.parameters())
    assert report.model.params_by_kind["expert"] == experts
    assert report.model.active_params == every - idle


@pytest.mark.parametrize("name", SUSPECTED)
def test_what_is_not_understood_is_suspected(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    report = record(tmp_path, Model({name: SUSPECTED[name]}))
    assert report.experts == ()
    (note,) = (note for note in report.run.notes if "suspected" in note)
    assert f"parts.{name} (its" in note
    assert report.model is not None
    assert report.model.active_params is None


class Named(Chosen):
    """A telling name of its router alone."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = self.selector
        del self.selector

    def choose(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weights, ids = self.gate(x).softmax(-1).topk(2)
        return weights, ids


class ForAll(Named):
    """The capacity of each branch is as large as the number of tokens."""

    def forward(self, hidden: Tensor) -> Tensor:
        x = hidden.reshape(-1, WIDTH)
        here = F.one_hot(self.choose(x)[1], BRANCHES).sum(1).t().to(x.dtype)
        self.tokens = here.sum(1).int().tolist()
        return torch.stack([branch(x * at[:, None]) for branch, at in zip(self.branches, here, strict=True)]).sum(0)


class Balanced(Named):
    """As many tokens for each branch, whatever the scores are."""

    def choose(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.gate(x).softmax(-1)
        return scores[:, :1], torch.arange(TOKENS)[:, None] % BRANCHES


class Unseen(Named):
    """Calls its branches by their forward."""

    def forward(self, hidden: Tensor) -> Tensor:
        x = hidden.reshape(-1, WIDTH)
        _, ids = self.choose(x)
        return torch.cat([branch.forward(x[(ids == e).any(-1)]) for e, branch in enumerate(self.branches)])


class Stacked(nn.Module):
    """Its branches are weights of three dimensions, which meet as many rows as their capacity is."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(WIDTH, BRANCHES, bias=False)
        self.inward = nn.Parameter(torch.randn(BRANCHES, WIDTH, 2 * WIDTH))
        self.outward = nn.Parameter(torch.randn(BRANCHES, 2 * WIDTH, WIDTH))

    def forward(self, hidden: Tensor) -> Tensor:
        x = hidden.reshape(-1, WIDTH)
        weights, rows = self.scores(x).softmax(-1).t().topk(20)
        y = torch.bmm(torch.bmm(x[rows], self.inward).relu(), self.outward) * weights[..., None]
        return torch.zeros_like(x).index_add(0, rows.flatten(), y.flatten(0, 1)).view_as(hidden)


class StackedOneByOne(Stacked):
    def forward(self, hidden: Tensor) -> Tensor:
        x = hidden.reshape(-1, WIDTH)
        chosen = self.scores(x).argmax(-1)
        parts = zip(self.inward, self.outward, strict=True)
        return torch.cat([(x[chosen == n] @ inward).relu() @ outward for n, (inward, outward) in enumerate(parts)])


class StackedForAll(Stacked):
    """The capacity of each branch is as large as the number of tokens."""

    def forward(self, hidden: Tensor) -> Tensor:
        x = hidden.reshape(-1, WIDTH)
        here = F.one_hot(self.scores(x).argmax(-1), BRANCHES).t().to(x.dtype)
        return (torch.bmm(torch.bmm(x * here[..., None], self.inward).relu(), self.outward) * here[..., None]).sum(0)


@pytest.mark.parametrize("make", [Stacked, StackedOneByOne, StackedForAll])
@pytest.mark.parametrize("options", [{}, {"count": False}])
def test_stacked_weights_beside_scores_are_experts(
    tmp_path: Path, make: Callable[[], nn.Module], options: dict[str, bool]
) -> None:
    model = Model({"stacked": make})
    report = record(tmp_path, model, **options)
    (layer,) = report.experts
    assert (layer.name, layer.num_experts, layer.guessed, {*layer.tokens}) == ("parts.stacked", BRANCHES, True, {None})
    assert report.model is not None
    assert report.model.params_by_kind["expert"] == BRANCHES * 4 * WIDTH * WIDTH
    assert report.model.params_by_kind["router"] == BRANCHES * WIDTH
    assert (report.model.active_params, report.model.why_no_active) == (None, "the top-k is not known")


@pytest.mark.parametrize("options", [{}, {"count": False}])
def test_a_routers_name_decides_unless_calls_are_dense(tmp_path: Path, options: dict[str, bool]) -> None:
    torch.manual_seed(0)
    model = Model({"named": Named, "for_all": ForAll, "balanced": Balanced, "unseen": Unseen})
    report = record(tmp_path, model, **options)
    named, for_all, balanced, unseen = (expert_layer(report, f"parts.{name}") for name in model.parts)
    for layer, name in ((named, "named"), (for_all, "for_all")):
        assert list(layer.tokens) == [layer.steps * count for count in model.parts[name].tokens]  # type: ignore[union-attr]
    assert {*balanced.tokens} <= {None, balanced.steps * TOKENS // BRANCHES}
    assert {*unseen.tokens} == {None}
    assert report.model is not None
    assert report.model.params_by_kind["expert"] == 4 * BRANCHES * branch_numel(model.parts["named"])


SCRIPT = """
import json, os, pathlib
import torch
import torch.distributed as dist
from torch import nn

class Paths(nn.Module):
    def __init__(self, dense):
        super().__init__()
        self.picker, self.paths = nn.Linear(8, 4), nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
        self.dense, self.tokens = dense, []

    def forward(self, x):
        chosen, y, self.tokens = self.picker(x).argmax(-1), torch.zeros_like(x), []
        for number, path in enumerate(self.paths):
            rows = torch.arange(len(x)) if self.dense else torch.where(chosen == number)[0]
            self.tokens.append(len(rows))
            y = y.index_add(0, rows, path(x[rows]))
        return y + 0 * self.picker(x[:1]).sum()

dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
parts = nn.Sequential(Paths(dense=False), Paths(dense=rank == 1))
model = nn.parallel.DistributedDataParallel(parts, find_unused_parameters=True)
optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
torch.manual_seed(rank)
x = torch.randn(64, 8)
for _ in range(6):
    model(x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
pathlib.Path(f"told{rank}.json").write_text(json.dumps(parts[0].tokens))
"""


def test_ranks_have_to_agree(new_workplace: NewWorkplace) -> None:
    """Each rank looks at its own calls: tokens of some ranks are not those of the job."""
    place = new_workplace().forking()
    place.write("job.py", SCRIPT, prelude="")
    ended = place.run("--nproc", 2, "job.py", timed=2)
    assert ended.code == 0, ended.err
    report, told = place.report(), [json.loads((place.folder / f"told{rank}.json").read_text()) for rank in range(2)]
    (layer,) = report.experts
    assert (layer.name, layer.guessed, layer.steps) == ("0", True, 2)
    assert list(layer.tokens) == [2 * (first + second) for first, second in zip(*told, strict=True)]
    (note,) = (note for note in report.run.notes if "suspected" in note)
    assert "1 (by its calls it is a MoE layer on some of its ranks only)" in note
    assert report.model is not None
    assert report.model.active_params is None
