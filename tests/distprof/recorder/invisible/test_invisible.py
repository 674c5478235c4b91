"""Tests that recording changes nothing: a job gives bitwise the same results with and without it."""

from __future__ import annotations

import copy
import gc
import inspect
import io
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.recording import record
from support.same_results import STEPS, Block, Model, Trace, assert_same, train
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts


def test_plain_training(tmp_path: Path) -> None:
    def job() -> Trace:
        model = Model()
        return train(model, model)

    assert_same(tmp_path, job)


def test_a_copy_for_ema_computes_with_its_own_weights(tmp_path: Path) -> None:
    def job() -> Trace:
        model = Model()
        probe, copies = torch.randn(1, 8), []

        def between(step: int) -> str:
            copies.append(copy.deepcopy(model).eval())
            with torch.no_grad():
                for parameter in copies[-1].parameters():
                    parameter.mul_(0.5)
                return float(sum(one(probe).sum() for one in copies)).hex()

        return train(model, model, between)

    assert_same(tmp_path, job)


def test_saving_the_whole_module(tmp_path: Path) -> None:
    def job() -> Trace:
        model = Block()

        def between(step: int) -> list[str]:
            file = io.BytesIO()
            torch.save(model, file)
            file.seek(0)
            again = torch.load(file, weights_only=False)
            return [*again.state_dict(), again(torch.ones(1, 8)).sum().item().hex()]

        return train(model, model, between)

    assert_same(tmp_path, job)


def test_names_attributes_and_signatures(tmp_path: Path) -> None:
    def job() -> Trace:
        model = Model()

        def between(step: int) -> list[object]:
            kept = [sorted(vars(module)) for module in model.modules()]
            hooks = [
                [name for name in vars(module) if "hooks" in name and vars(module)[name]] for module in model.modules()
            ]
            call = inspect.signature(type(model).__call__)
            return [list(model.state_dict()), str(inspect.signature(model.forward)), str(call), kept, hooks]

        return train(model, model, between)

    assert_same(tmp_path, job)


def test_swapping_and_moving_modules(tmp_path: Path) -> None:
    def job() -> Trace:
        model = Model()

        def between(step: int) -> str:
            model.blocks[1] = Block()
            model.double()
            moved = model(torch.ones(1, 8, dtype=torch.float64)).sum().item().hex()
            model.float()
            return moved

        return train(model, model, between)

    assert_same(tmp_path, job)


def test_forward_from_several_threads(tmp_path: Path) -> None:
    def job() -> Trace:
        model, other = Model(), Block().eval()

        def between(step: int) -> list[str]:
            sums: dict[int, str] = {}

            def work(number: int) -> None:
                sums[number] = other(torch.full((2, 8), float(number))).sum().item().hex()

            threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return [sums[number] for number in range(4)]

        return train(model, model, between)

    assert_same(tmp_path, job)


def test_user_hooks_of_every_kind(tmp_path: Path) -> None:
    def job() -> Trace:
        model, calls = Model(), []
        block = model.blocks[0]
        block.register_forward_pre_hook(lambda module, args: (args[0] * 1.5,))
        block.register_forward_pre_hook(lambda module, args, kwargs: (args, kwargs), with_kwargs=True)
        block.register_forward_hook(lambda module, args, output: output * 0.5)
        block.register_forward_hook(lambda *_: calls.append("always"), always_call=True)
        block.register_full_backward_pre_hook(lambda module, gradients: calls.append("backward begins"))
        block.register_full_backward_hook(lambda module, inputs, outputs: calls.append("backward"))
        everywhere = nn.modules.module.register_module_forward_hook(lambda *_: calls.append("any"))
        for parameter in block.parameters():
            parameter.register_hook(lambda gradient: gradient * 2)
            parameter.register_post_accumulate_grad_hook(lambda p: calls.append("accumulated"))
        try:
            return [*train(model, model), calls]
        finally:
            everywhere.remove()

    assert_same(tmp_path, job)


def _selective(block: nn.Module, x: Tensor) -> Tensor:
    def policy(context: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        saved = op is torch.ops.aten.addmm.default
        return CheckpointPolicy.MUST_SAVE if saved else CheckpointPolicy.PREFER_RECOMPUTE

    return checkpoint(block, x, use_reentrant=False, context_fn=lambda: create_selective_checkpoint_contexts(policy))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda block, x: checkpoint(block, x, use_reentrant=False),
        lambda block, x: checkpoint(block, x.requires_grad_(), use_reentrant=True),
        lambda block, x: checkpoint(lambda y: checkpoint(block, y, use_reentrant=False), x, use_reentrant=False),
        _selective,
    ],
    ids=["not reentrant", "reentrant", "nested", "selective"],
)
def test_checkpointing(tmp_path: Path, wrap: Callable[[nn.Module, Tensor], Tensor]) -> None:
    def job() -> Trace:
        model = Model(wrap)
        return train(model, model)

    assert_same(tmp_path, job)


def test_exceptions_that_the_script_catches(tmp_path: Path) -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Block()

        def forward(self, x: Tensor) -> Tensor:
            self.inner(x)
            raise KeyError("mine")

    class FailingBackward(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            raise ValueError("mine too")

    def job() -> Trace:
        model, failing = Model(), Failing()

        def between(step: int) -> list[str]:
            caught = []
            for attempt in (
                lambda: failing(torch.ones(1, 8)),
                lambda: FailingBackward.apply(model(torch.ones(1, 8))).sum().backward(),
            ):
                try:
                    attempt()
                except (KeyError, ValueError) as error:
                    caught.append(repr(error))
            return caught

        return train(model, model, between)

    assert_same(tmp_path, job)


def test_modules_made_and_run_on_meta(tmp_path: Path) -> None:
    def job() -> Trace:
        model = Model()

        def between(step: int) -> list[object]:
            with torch.device("meta"):
                ghost = Block()
            return [str(ghost(torch.ones(2, 8, device="meta")).device), str(torch.ones(1).device)]

        return train(model, model, between)

    assert_same(tmp_path, job)


def test_vmap_functional_call_and_function_transforms(tmp_path: Path) -> None:
    def job() -> Trace:
        model = Model()

        def between(step: int) -> list[str]:
            block = model.blocks[0]
            weights = {name: value.detach() for name, value in block.named_parameters()}

            def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
                return torch.func.functional_call(block, weights, (x,)).square().sum()

            per_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, torch.ones(4, 8))
            jacobian = torch.func.jacrev(block)(torch.ones(8))
            return [per_sample["up.weight"].sum().item().hex(), jacobian.sum().item().hex()]

        return train(model, model, between)

    assert_same(tmp_path, job)


def test_a_generator_as_forward(tmp_path: Path) -> None:
    class Streaming(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Block()

        def forward(self, x: Tensor) -> Iterator[Tensor]:
            for _ in range(3):
                x = self.block(x)
                yield x

    def job() -> Trace:
        model = Streaming()
        return train(lambda x: torch.stack(list(model(x))), model)

    assert_same(tmp_path, job)


def test_tracing_and_scripting(tmp_path: Path) -> None:
    def job() -> Trace:
        model = Model()

        def between(step: int) -> list[object]:
            block, x = model.blocks[0], torch.ones(2, 8)
            graph = torch.fx.symbolic_trace(block)
            exported = torch.export.export(block, (x,)).module()
            return [str(graph.graph), exported(x).sum().item().hex()]

        return train(model, model, between)

    assert_same(tmp_path, job)


def test_parametrizations_autocast_and_inference_mode(tmp_path: Path) -> None:
    class Halved(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight / 2

    def job() -> Trace:
        model = Model()
        parametrize.register_parametrization(model.get_submodule("blocks.0.up"), "weight", Halved())

        def between(step: int) -> list[str]:
            with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
                return [model(torch.ones(2, 8)).float().sum().item().hex()]

        return train(model, model, between)

    assert_same(tmp_path, job)


def test_nothing_of_the_users_is_kept_alive(tmp_path: Path) -> None:
    """After a step in the window, tensors, graphs and modules that the script drops are freed."""
    alive: list[int] = []

    def job() -> None:
        model = Model()
        references: list[weakref.ref[Any]] = []

        def between(step: int) -> None:
            gc.collect()
            alive.append(sum(reference() is not None for reference in references))
            references.clear()
            extra, x = Block(), torch.randn(2, 8)
            output = extra(x)
            references.extend(map(weakref.ref, (extra, x, output, *extra.parameters())))

        train(model, model, between)

    record(tmp_path, job, warmup=1, count=True, timed=3)
    assert alive == [0] * STEPS
