"""Which models a recorder describes as only evaluated: first called without gradient, and stepped by no optimizer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.recording import Seen, record
from torch import Tensor, nn

from distprof.records import Parameters


class Net(nn.Linear):
    """The model that is trained."""


class Encoder(nn.Linear):
    """A model that is not."""


def evaluate(model: nn.Module) -> Tensor:
    with torch.no_grad():
        result: Tensor = model(torch.ones(2, 4))
    return result


def job(model: nn.Module, each_step: Callable[[], object], first: Callable[[], object] = lambda: None) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first()
    for _ in range(4):
        each_step()
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def described(seen: Seen) -> dict[str, bool]:
    """By class of the root, the last word on whether it is only evaluated."""
    classes = {row.root: row.class_name for row in seen.rows if row.parent < 0}
    return {classes[record.root]: record.evaluated for record in seen.of(Parameters)}


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_model_called_without_gradient(tmp_path: Path, context: Callable[[], torch.no_grad]) -> None:
    net, encoder = Net(4, 4), Encoder(4, 4)

    def encode() -> None:
        with context():
            encoder(torch.ones(2, 4))

    assert described(record(tmp_path, lambda: job(net, encode))) == {"Encoder": True, "Net": False}


def test_a_model_that_is_evaluated_before_it_is_trained(tmp_path: Path) -> None:
    net = Net(4, 4)
    seen = record(tmp_path, lambda: job(net, lambda: None, first=lambda: evaluate(net)))
    assert described(seen) == {"Net": False}


def test_a_copy_that_is_tested_later(tmp_path: Path) -> None:
    net = Net(4, 4)
    average = Encoder(4, 4)
    average.load_state_dict(copy.deepcopy(net.state_dict()))
    assert described(record(tmp_path, lambda: job(net, lambda: evaluate(average)), timed=3)) == {
        "Net": False,
        "Encoder": True,
    }


def test_a_model_of_an_optimizer_is_trained_whoever_calls_it(tmp_path: Path) -> None:
    """Its module is called for a test; in training a method is."""
    net = Net(4, 4)

    class Head(nn.Linear):
        """Called as a module."""

    head = Head(4, 4)

    def train() -> None:
        optimizer = torch.optim.SGD([*net.parameters(), *head.parameters()], lr=0.1)
        evaluate(net)
        for _ in range(4):
            head(net.forward(torch.ones(2, 4))).sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    assert described(record(tmp_path, train, timed=2)) == {"Net": False, "Head": False}


def test_models_that_share_parameters_say_with_which(tmp_path: Path) -> None:
    net = Net(4, 4)
    inner = nn.Sequential(net)
    seen = record(tmp_path, lambda: job(inner, lambda: None, first=lambda: evaluate(net)))
    assert {record.root: record.tied_roots for record in seen.of(Parameters)} == {0: (), 1: (0,)}
