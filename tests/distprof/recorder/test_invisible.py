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
import torch.distributed as dist
from support.recording import record
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore
from torch.distributed.tensor import DTensor
from torch.nn.utils import parametrize
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from distprof.records import Counts, End, Error, Step

STEPS = 6
Trace = list[Any]


class Block(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


class Model(nn.Module):
    def __init__(
        self, wrap: Callable[[nn.Module, Tensor], Tensor] = lambda block, x: block(x), blocks: int = 2
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(blocks))
        self.drop = nn.Dropout(0.1)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = self.wrap(block, x)
        return self.drop(x)


def train(
    net: Callable[..., Tensor],
    model: nn.Module,
    between: Callable[[int], object] = lambda step: None,
    longer: int = -1,
    **options: Any,
) -> Trace:
    """Losses of a few steps, what ``between`` returned in each of them, between forward and backward, and gradients of
    every parameter.  ``longer``: the step in which there is one row more.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    trace: Trace = []
    for step in range(STEPS):
        loss = net(torch.randn(3 + (step == longer), 8), **options).square().mean()
        trace += [float(loss).hex(), between(step)]
        loss.backward()
        trace.append([None if p.grad is None else _bytes(p.grad) for p in model.parameters()])
        optimizer.step()
        optimizer.zero_grad()
    return trace


def _bytes(gradient: Tensor) -> bytes:
    local = gradient.to_local() if isinstance(gradient, DTensor) else gradient
    return local.detach().contiguous().numpy().tobytes()


def assert_same(tmp_path: Path, job: Callable[[], Trace]) -> None:
    """``job`` gives the same watched (one counted step, two timed ones, from the second on) as unwatched."""
    torch.manual_seed(0)
    alone = job()
    traces: list[Trace] = []
    torch.manual_seed(0)
    seen = record(tmp_path, lambda: traces.append(job()), warmup=1, count=True, timed=2)
    assert traces == [alone]
    assert not seen.of(Error)
    assert seen.one(End).reason == "window complete"
    assert len(seen.of(Step)) == 2
    assert seen.one(Counts).forward_macs.sum() > 0


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


class Changing:
    """Calls a model, and from call number ``at`` on the result of ``wrap`` on the model."""

    def __init__(self, model: nn.Module, at: int, wrap: Callable[[nn.Module], Callable[..., Tensor]]) -> None:
        self.net: Callable[..., Tensor] = model
        self.model, self.at, self.wrap, self.calls = model, at, wrap, 0

    def __call__(self, x: Tensor) -> Tensor:
        if self.calls == self.at:
            self.net = self.wrap(self.model)
        self.calls += 1
        return self.net(x)


def test_wrapping_in_ddp_in_mid_window(tmp_path: Path) -> None:
    def job() -> Trace:
        dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
        try:
            model = Model()
            return train(Changing(model, 3, nn.parallel.DistributedDataParallel), model)
        finally:
            gc.collect()
            dist.destroy_process_group()

    assert_same(tmp_path, job)


def test_wrapping_in_fsdp(tmp_path: Path) -> None:
    def job() -> Trace:
        from torch.distributed.fsdp import fully_shard

        dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
        try:
            model = Model()
            for block in model.blocks:
                fully_shard(block)
            fully_shard(model)
            return train(model, model)
        finally:
            gc.collect()
            dist.destroy_process_group()

    assert_same(tmp_path, job)


def _whole(model: nn.Module) -> Callable[..., Tensor]:
    compiled: Callable[..., Tensor] = torch.compile(model, backend="aot_eager")
    return compiled


def _in_place(model: nn.Module) -> Callable[..., Tensor]:
    model.compile(backend="aot_eager")
    return model


def _regional(model: nn.Module) -> Callable[..., Tensor]:
    for block in model.blocks:  # type: ignore[union-attr]
        block.compile(backend="aot_eager")
    return model


class _Calling(nn.Module):
    """A model whose forward is one compiled function."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.function = torch.compile(model.forward, backend="aot_eager", fullgraph=True)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.function(x)
        return output


@pytest.mark.parametrize("form", [_whole, _in_place, _regional, _Calling])
@pytest.mark.parametrize("compiled_at", [0, 1, 3], ids=["before", "in the counted step", "in a timed step"])
def test_compiled_code(tmp_path: Path, form: Callable[[nn.Module], Callable[..., Tensor]], compiled_at: int) -> None:
    """The same graphs, graph breaks and losses, whenever the model is compiled."""

    def job() -> Trace:
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        model = Model(blocks=2 if form is _regional else 1)  # compiling takes the time of these tests
        model.drop.p = 0.0
        trace = train(Changing(model, compiled_at, form), model)
        counters = torch._dynamo.utils.counters
        return [*trace, dict(counters["stats"]), dict(counters["graph_break"])]

    assert_same(tmp_path, job)


@pytest.mark.parametrize("form", [_whole, _in_place, _regional, _Calling])
@pytest.mark.parametrize("longer", [1, 2], ids=["in the counted step", "in a timed step"])
def test_a_new_shape_in_compiled_code(
    tmp_path: Path, form: Callable[[nn.Module], Callable[..., Tensor]], longer: int
) -> None:
    def job() -> Trace:
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        model = Model(blocks=2 if form is _regional else 1)  # compiling takes the time of these tests
        model.drop.p = 0.0
        trace = train(form(model), model, longer=longer)
        counters = torch._dynamo.utils.counters
        return [*trace, dict(counters["stats"]), dict(counters["graph_break"])]

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
