"""Tests of self times, forward and backward, in many models, on a clock that only their modules advance."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.recording import Ticking, clock, record, tick, timed, total, train
from support.records import patient
from torch import Tensor, nn

X = torch.ones(4, 8)
pytestmark = pytest.mark.usefixtures("both_ways")


class Residual(nn.Module):
    """A module that takes time before and after its child."""

    def __init__(self, child: nn.Module) -> None:
        super().__init__()
        self.child = child

    def forward(self, x: Tensor) -> Tensor:
        return tick(x, 2, 3) + self.child(tick(x, 4, 5))


def test_a_chain(tmp_path: Path) -> None:
    seen = timed(tmp_path, nn.Sequential(Ticking(20, 1), Ticking(1, 30), Ticking(5, 6)))
    assert seen.forward_ms() == {"0": 20, "1": 1, "2": 5}
    assert seen.backward_ms() == {"0": 1, "1": 30, "2": 6}
    assert seen.phases_ms() == {"forward": 26, "backward": 37, "optimizer": 3}
    assert seen.calls() == {"": 1, "0": 1, "1": 1, "2": 1}


def test_a_parent_has_what_its_children_do_not(tmp_path: Path) -> None:
    seen = timed(tmp_path, nn.Sequential(Ticking(1, 1), Residual(Ticking(20, 30)), Ticking(1, 1)))
    assert seen.forward_ms() == {"0": 1, "1": 6, "1.child": 20, "2": 1}
    assert seen.backward_ms() == {"0": 1, "1": 8, "1.child": 30, "2": 1}


def test_residuals_in_a_row(tmp_path: Path) -> None:
    blocks = nn.Sequential(*(Residual(Ticking(10 * n, 20 * n)) for n in (1, 2, 3)))
    seen = timed(tmp_path, nn.Sequential(Ticking(1, 1), blocks))
    assert seen.forward_ms() == {"0": 1} | {f"1.{n}": 6 for n in range(3)} | {
        f"1.{n}.child": 10 * (n + 1) for n in range(3)
    }
    assert seen.backward_ms() == {"0": 1} | {f"1.{n}": 8 for n in range(3)} | {
        f"1.{n}.child": 20 * (n + 1) for n in range(3)
    }


@dataclass(frozen=True)
class Inside:  # the shape of a Residual around another shape
    inner: Any


class Branches(nn.Module):
    """A parent with work between its two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = Ticking(10, 11), Ticking(20, 21)

    def forward(self, x: Tensor) -> Tensor:
        return tick(self.a(x), 2, 3) * tick(self.b(x), 4, 5)


def test_work_of_the_parent_between_its_branches(tmp_path: Path) -> None:
    seen = timed(tmp_path, nn.Sequential(Ticking(1, 1), Branches()))
    assert seen.forward_ms() == {"0": 1, "1": 6, "1.a": 10, "1.b": 20}
    backward = seen.backward_ms()
    assert (backward["0"], backward["1.a"]) == (1, 11)
    # Between the branches is no node that a module call shows: what the parent does there goes to the next branch.
    assert (backward["1"], backward["1.b"]) == (8 - 3, 21 + 3)


class Twice(nn.Module):
    """One module under two names, each beside another module, and called twice under one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Ticking(10, 20)
        self.between = Ticking(1, 2)
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.between(self.first(x)))


def test_a_module_used_twice_has_both_times(tmp_path: Path) -> None:
    seen = timed(tmp_path, nn.Sequential(Ticking(1, 1), Twice()))
    both = [name for name in ("1.first", "1.second") if name in seen.calls()]
    assert sum(seen.calls()[name] for name in both) == 2
    assert sum(seen.forward_ms()[name] for name in both) == 20
    assert sum(seen.backward_ms()[name] for name in both) == 40
    assert (seen.forward_ms()["1.between"], seen.backward_ms()["1.between"]) == (1, 2)


def test_a_shared_module_is_identified_by_its_caller(tmp_path: Path) -> None:
    shared = Ticking(10, 20)
    seen = timed(tmp_path, nn.Sequential(nn.Sequential(Ticking(1, 1), shared), nn.Sequential(Ticking(2, 2), shared)))
    assert seen.forward_ms() == {"0.0": 1, "0.1": 10, "1.0": 2, "1.1": 10}
    assert seen.backward_ms() == {"0.0": 1, "0.1": 20, "1.0": 2, "1.1": 20}


class Embedder(nn.Module):
    """Two embeddings of one input without gradient, each slow in backward."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.place = SlowEmbedding(10, 20), SlowEmbedding(1, 2)
        self.body = Ticking(5, 6)

    def forward(self, ids: Tensor) -> Tensor:
        return self.body(self.token(ids) + self.place(ids))


class SlowEmbedding(nn.Module):
    def __init__(self, forward_ms: float, backward_ms: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(16, 8))
        self.forward_ms, self.backward_ms = forward_ms, backward_ms

    def forward(self, ids: Tensor) -> Tensor:
        return tick(self.weight, self.forward_ms, self.backward_ms)[ids]


def test_modules_whose_input_has_no_gradient(tmp_path: Path) -> None:
    seen = timed(tmp_path, Embedder(), torch.arange(8))
    assert seen.forward_ms() == {"token": 10, "place": 1, "body": 5}
    assert seen.backward_ms() == {"token": 20, "place": 2, "body": 6}


class ToMany(nn.Module):
    """Returns a tuple, or a dict."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.kind = kind
        self.inner = Ticking(10, 20)

    def forward(self, x: Tensor) -> Any:
        y = self.inner(x)
        return {"out": tick(y, 1, 2), "note": None} if self.kind is dict else (None, [tick(y, 1, 2)])


class FromMany(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Ticking(5, 6)

    def forward(self, values: Any) -> Tensor:
        return tick(self.inner(values["out"] if isinstance(values, dict) else values[1][0]), 3, 4)


@pytest.mark.parametrize("kind", [tuple, dict])
def test_tensors_wrapped_in_tuples_and_dicts(tmp_path: Path, kind: type) -> None:
    seen = timed(tmp_path, nn.Sequential(Ticking(1, 1), ToMany(kind), FromMany()))
    assert seen.forward_ms() == {"0": 1, "1": 1, "1.inner": 10, "2": 3, "2.inner": 5}
    assert seen.backward_ms() == {"0": 1, "1": 2, "1.inner": 20, "2": 4, "2.inner": 6}


class ByKeyword(nn.Module):
    """A parent that calls its children by keyword, with its own work before each."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = Ticking(10, 11), Ticking(20, 21)

    def forward(self, *, x: Tensor) -> Tensor:
        return self.b(x=tick(self.a(x=tick(x, 2, 3)), 4, 5))


def test_inputs_given_by_keyword(tmp_path: Path) -> None:
    seen = timed(tmp_path, ByKeyword(), x=X.clone().requires_grad_())
    assert seen.forward_ms() == {"": 6, "a": 10, "b": 20}
    assert seen.backward_ms() == {"": 8, "a": 11, "b": 21}


class Masked(nn.Module):
    """A module with a mask, which needs no gradient, before the input that does."""

    def forward(self, mask: Tensor, x: Tensor) -> Tensor:
        return tick(x * mask, 10, 20)


class Masking(nn.Module):
    """A parent with its own work, then the masked module, called by position or by keyword."""

    def __init__(self, named: bool) -> None:
        super().__init__()
        self.masked, self.named = Masked(), named

    def forward(self, x: Tensor) -> Tensor:
        x, mask = tick(x, 1, 2), torch.ones_like(x)
        return self.masked(mask, x=x) if self.named else self.masked(mask, x)


@pytest.mark.parametrize("named", [False, True])
def test_an_input_without_gradient_before_one_that_has_it(tmp_path: Path, named: bool) -> None:
    seen = timed(tmp_path, nn.Sequential(Ticking(3, 4), Masking(named)))
    assert seen.backward_ms() == {"0": 4, "1": 2, "1.masked": 20}


class Uses(nn.Module):
    """A parent that uses only one of its child's two outputs; the other never gets a gradient."""

    def __init__(self, which: int) -> None:
        super().__init__()
        self.two, self.rest, self.which = TwoOutputs(), Ticking(1, 2), which

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.two(x)[self.which])


class TwoOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return tick(x * self.scale, 10, 20), tick(x * self.scale, 10, 20)


@pytest.mark.parametrize("which", [0, 1])
def test_backward_begins_at_whichever_output_was_used(tmp_path: Path, which: int) -> None:
    """As with the last hidden state of a recurrent layer: the first output is not used."""
    seen = timed(tmp_path, nn.Sequential(Ticking(1, 1), Uses(which)))
    assert seen.backward_ms() == {"0": 1, "1.two": 20, "1.rest": 2}


class Optimised(nn.Module):
    """A module that calls modules it does not own."""

    def __init__(self) -> None:
        super().__init__()
        self.own = Ticking(1, 2)
        self.others = [Ticking(10, 20)]

    def forward(self, x: Tensor) -> Tensor:
        return self.own(self.others[0](x))


def test_a_module_is_placed_below_its_caller(tmp_path: Path) -> None:
    seen = timed(tmp_path, Optimised())
    assert seen.forward_ms() == {"own": 1, "<Ticking>": 10}
    assert seen.backward_ms() == {"own": 2, "<Ticking>": 20}


@pytest.mark.parametrize(
    "layer",
    [
        nn.LSTM(8, 8, num_layers=2, batch_first=True),
        nn.MultiheadAttention(8, 2, batch_first=True),
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_of_torch_keep_their_neighbours_apart(tmp_path: Path, layer: nn.Module) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.layer, self.after = Ticking(10, 20), layer, Ticking(1, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.before(x)
            x = self.layer(x, x, x) if isinstance(self.layer, nn.MultiheadAttention) else self.layer(x)
            return self.after(x if isinstance(x, Tensor) else x[0])

    seen = timed(tmp_path, Model(), torch.ones(2, 4, 8))
    assert seen.forward_ms() == {"before": 10, "after": 1}
    assert seen.backward_ms() == {"before": 20, "after": 2}
    assert seen.calls()["layer"] == 1


def test_micro_batches_add_up(tmp_path: Path) -> None:
    model = nn.Sequential(Ticking(10, 20), Ticking(1, 2))

    def job() -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(4):
            total(model(X)).backward()
        optimizer.step()

    seen = record(tmp_path, job)
    assert seen.forward_ms() == {"0": 40, "1": 4}
    assert seen.backward_ms() == {"0": 80, "1": 8}
    assert seen.calls() == {"": 4, "0": 4, "1": 4}


def test_steps_are_separate(tmp_path: Path) -> None:
    model = nn.Sequential(Ticking(10, 20), Ticking(1, 2))
    seen = record(tmp_path, lambda: train(model, X, steps=3), timed=3)
    for step in range(3):
        assert seen.forward_ms(step) == {"0": 10, "1": 1}
        assert seen.backward_ms(step) == {"0": 20, "1": 2}


def test_a_graph_kept_from_one_step_is_run_in_the_next(tmp_path: Path) -> None:
    """Truncated backpropagation through time that keeps the graph by mistake."""
    model = nn.Sequential(Ticking(10, 20), Ticking(1, 2))

    def job() -> None:
        optimizer = torch.optim.SGD([nn.Parameter(torch.ones(()))])
        loss = torch.zeros(())
        for _ in range(3):
            loss = loss + total(model(X))
            loss.backward(retain_graph=True)
            optimizer.step()

    seen = record(tmp_path, job, timed=3)
    assert [seen.backward_ms(step) for step in range(3)] == [{"0": 20 * n, "1": 2 * n} for n in (1, 2, 3)]


def test_the_loss_belongs_to_no_module(tmp_path: Path) -> None:
    model = Ticking(10, 20)

    def job() -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        tick(model(X), 5, 6).sum().backward()
        optimizer.step()

    seen = record(tmp_path, job)
    assert seen.phases_ms() == {"forward": 10, "outside": 5, "backward": 26}
    assert (seen.forward_ms(), seen.backward_ms()) == ({"": 10}, {"": 20})


def test_no_hook_stays_on_parameters(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    record(tmp_path, lambda: train(model, X))
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())
    clock.advance_ms(1)


ticks = st.tuples(st.integers(0, 50), st.integers(0, 50))
shapes = st.recursive(
    ticks, lambda inner: st.one_of(st.lists(inner, min_size=1, max_size=3), st.builds(Inside, inner)), max_leaves=8
)


def built(shape: Any, name: str, forward: dict[str, float], backward: dict[str, float]) -> nn.Module:
    """Builds the module of this shape, and fills the dicts with the self time of each module below ``name``."""
    if isinstance(shape, Inside):
        forward[name], backward[name] = 6, 8
        return Residual(built(shape.inner, f"{name}.child", forward, backward))
    if isinstance(shape, list):
        return nn.Sequential(*(built(part, f"{name}.{number}", forward, backward) for number, part in enumerate(shape)))
    forward[name], backward[name] = shape
    return Ticking(*shape)


@patient
@given(shapes)
def test_every_module_of_any_tree_has_its_self_time(shape: Any) -> None:
    forward, backward = {"0": 1.0}, {"0": 1.0}
    model = nn.Sequential(Ticking(1, 1), built(shape, "1", forward, backward))
    with tempfile.TemporaryDirectory() as folder:
        seen = timed(Path(folder), model)
    assert seen.forward_ms() == {name: value for name, value in forward.items() if value}
    assert seen.backward_ms() == {name: value for name, value in backward.items() if value}
