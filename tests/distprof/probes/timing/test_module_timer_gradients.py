"""Tests of self times where gradients go unusual ways: frozen, recomputed, in place, detached, asked for twice."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.recording import Ticking, record, tick, timed, train
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

X = torch.ones(4, 8)
pytestmark = pytest.mark.usefixtures("both_ways")


def test_frozen_layers_have_no_backward(tmp_path: Path) -> None:
    model = nn.Sequential(Ticking(10, 99), Ticking(20, 99), Ticking(1, 2), Ticking(3, 4))
    model[:2].requires_grad_(False)
    seen = timed(tmp_path, model)
    assert seen.forward_ms() == {"0": 10, "1": 20, "2": 1, "3": 3}
    assert seen.backward_ms() == {"2": 2, "3": 4}


def test_a_frozen_layer_in_the_middle_lets_gradients_through(tmp_path: Path) -> None:
    model = nn.Sequential(Ticking(1, 2), Ticking(20, 30), Ticking(3, 4))
    model[1].requires_grad_(False)
    assert timed(tmp_path, model).backward_ms() == {"0": 2, "1": 30, "2": 4}


class Checkpointed(nn.Module):
    def __init__(self, inner: nn.Module, reentrant: bool) -> None:
        super().__init__()
        self.inner, self.reentrant = inner, reentrant

    def forward(self, x: Tensor) -> Tensor:
        recomputed: Tensor = checkpoint(self.inner, x, use_reentrant=self.reentrant)
        return recomputed


@pytest.mark.parametrize("reentrant", [True, False])
def test_recompute_is_backward_time(tmp_path: Path, reentrant: bool) -> None:
    """Non-reentrant checkpointing stops once it has what backward needs: before the last module's work."""
    inner = nn.Sequential(Ticking(10, 20), Ticking(1, 2))
    seen = timed(tmp_path, nn.Sequential(Ticking(3, 4), Checkpointed(inner, reentrant), Ticking(5, 6)))
    assert seen.forward_ms() == {"0": 3, "1.inner.0": 10, "1.inner.1": 1, "2": 5}
    assert seen.backward_ms() == {"0": 4, "1.inner.0": 30, "1.inner.1": 3 if reentrant else 2, "2": 6}
    assert all(calls == 1 for calls in seen.calls().values())


def test_in_place_modules(tmp_path: Path) -> None:
    blocks = (nn.Sequential(Ticking(n, 10 * n), nn.ReLU(inplace=True)) for n in (1, 2, 3))
    seen = timed(tmp_path, nn.Sequential(*blocks))
    assert seen.forward_ms() == {"0.0": 1, "1.0": 2, "2.0": 3}
    assert seen.backward_ms() == {"0.0": 10, "1.0": 20, "2.0": 30}


def test_modules_that_return_their_input(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Identity(), Ticking(1, 10), nn.Identity(), nn.Dropout(0.0).eval(), Ticking(2, 20))
    seen = timed(tmp_path, model)
    assert seen.forward_ms() == {"1": 1, "4": 2}
    assert seen.backward_ms() == {"1": 10, "4": 20}


class Detached(nn.Module):
    """Stops gradients between its children."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = Ticking(10, 99), Ticking(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).detach())


def test_a_detach_in_the_middle(tmp_path: Path) -> None:
    seen = timed(tmp_path, nn.Sequential(Ticking(3, 99), Detached(), Ticking(4, 5)))
    assert seen.forward_ms() == {"0": 3, "1.a": 10, "1.b": 1, "2": 4}
    assert seen.backward_ms() == {"1.b": 2, "2": 5}


class Frozen(nn.Module):
    """A parent that runs its child without gradient, as with a frozen encoder inside a model."""

    def __init__(self, child: nn.Module) -> None:
        super().__init__()
        self.child = child

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.child(x)
        return output


def test_a_part_without_gradient_is_still_forward(tmp_path: Path) -> None:
    seen = timed(tmp_path, nn.Sequential(Frozen(Ticking(10, 99)), Ticking(1, 2)))
    assert seen.forward_ms() == {"0.child": 10, "1": 1}
    assert seen.backward_ms() == {"1": 2}


class Forces(nn.Module):
    """A model that differentiates inside its forward: the forces of an energy."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = Ticking(10, 20)

    def forward(self, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            (force,) = torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)
        return tick(force, 1, 2)


def test_autograd_grad_inside_a_forward(tmp_path: Path) -> None:
    """The time belongs to the forward phase, and to the backward of the differentiated module."""
    seen = record(tmp_path, lambda: train(Forces(), X))
    assert seen.forward_ms() == {"": 1, "energy": 10}
    assert seen.phases_ms()["forward"] == 31
    assert seen.backward_ms()["energy"] == 20


def test_a_gradient_penalty_in_the_script(tmp_path: Path) -> None:
    """autograd.grad between forward and backward is a separate backward, also with double backward."""
    model = nn.Sequential(Ticking(10, 20), Ticking(1, 2))

    def job() -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        x = X.clone().requires_grad_()
        output = model(x)
        (gradient,) = torch.autograd.grad(output.sum(), x, create_graph=True)
        (output.sum() + gradient.square().sum()).backward()
        optimizer.step()

    seen = record(tmp_path, job)
    assert seen.forward_ms() == {"0": 10, "1": 1}
    assert seen.phases_ms()["backward"] == 44
    assert seen.backward_ms() == {"0": 40, "1": 4}
