"""Tests of the whole recorder in this process: many kinds of jobs, and the records in their shards."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from support.loops import X, sgd, step, training
from support.recording import Ticking, clock, record, recorder, seen, tick, total
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from distprof.merge.load.run import load_run
from distprof.records import FORWARD, TRAINING, Counts, End, Parameters, Plan, Step


def test_records_come_in_order(tmp_path: Path) -> None:
    found = record(tmp_path, training(6), warmup=2, count=True, timed=2)
    assert found.kinds == [
        "header",
        "plan",
        "tree",
        "parameters",
        "topology",
        *["warmup_step"] * 2,
        "counts",
        *("step", "timeline"),
        "memory",
        *("step", "timeline"),
        "collective_window",
        "end",
    ]
    assert found.one(Plan) == Plan(2, 1, 2)
    assert found.one(Counts).iteration == 2
    assert [timed.iteration for timed in found.of(Step)] == [3, 4]
    assert found.one(End) == End("window complete", 5)
    assert not found.shard.report.damaged


@pytest.mark.parametrize("warmup", [0, 1, 5])
@pytest.mark.parametrize("count", [False, True])
def test_the_window_follows_the_warm_up(tmp_path: Path, warmup: int, count: bool) -> None:
    found = record(tmp_path, training(warmup + 5), warmup=warmup, count=count, timed=2)
    assert [counts.iteration for counts in found.of(Counts)] == [warmup] * count
    assert [timed.iteration for timed in found.of(Step)] == [warmup + count, warmup + count + 1]
    assert all(timed.mode == TRAINING for timed in found.of(Step))
    assert found.forward_ms() == {"0": 10, "1": 1}


def test_a_step_says_when_it_was_and_how_long_it_took(tmp_path: Path) -> None:
    before = clock.wall_ns()
    first, second = record(tmp_path, training(3), warmup=1, timed=2).of(Step)
    assert first.duration_ns == second.duration_ns == (10 + 1 + 20 + 2 + 3) * 1_000_000
    assert first.start_wall_ns == before + first.duration_ns
    assert second.start_wall_ns == first.start_wall_ns + first.duration_ns
    assert (first.micro_batches, first.batch_size, first.samples) == (1, 4, 4)
    assert first.memory_source == "rss" and first.peak_memory_bytes > 10_000_000


class Slow(Dataset[Tensor]):
    """A dataset whose items take 1 ms each."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Tensor:
        clock.advance_ms(1)
        return torch.ones(8)


def test_gradient_accumulation_with_a_loader(tmp_path: Path) -> None:
    model = nn.Sequential(Ticking(10, 20))

    def job() -> None:
        optimizer = sgd(model)
        for _ in range(3):
            for batch in DataLoader(Slow(), batch_size=4):
                tick(model(batch), 1, 2).sum().backward()
            optimizer.step()

    found = record(tmp_path, job, warmup=1, timed=2)
    for number in range(2):
        assert found.phases_ms(number) == {"data": 8, "forward": 20, "outside": 2, "backward": 44, "optimizer": 3}
        assert found.forward_ms(number) == {"0": 20}
    timed = found.of(Step)[0]
    assert (timed.micro_batches, timed.batch_size, timed.samples) == (2, 4, 8)


@pytest.mark.parametrize(("world", "settling"), [("1", 0), ("2", 1)])
def test_among_several_ranks_one_more_iteration_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: str, settling: int
) -> None:
    """In the first iteration after the counted one, a rank may wait for others that still count."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", world)
    found = record(tmp_path, training(9), warmup=2, count=True, timed=3)
    assert found.one(Plan) == Plan(2, 1, 3, settling)
    assert [timed.iteration for timed in found.of(Step)] == list(range(3, 6 + settling))
    (data,) = load_run(tmp_path).ranks
    assert data.windows[TRAINING, 0].iterations == tuple(range(3 + settling, 6 + settling))
    assert not data.why_incomplete(TRAINING, 0)


def test_nothing_settles_where_nothing_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert record(tmp_path, training(6), warmup=1, timed=2).one(Plan) == Plan(1, 0, 2)


def test_without_a_loader_data_is_not_known(tmp_path: Path) -> None:
    assert "data" not in record(tmp_path, training(1)).one(Step).phases_ns


def test_evaluation_inside_training(tmp_path: Path) -> None:
    """Evaluation is a phase; its modules, batches and flops are not counted for training."""
    model = nn.Sequential(Ticking(10, 20))

    def job() -> None:
        optimizer = sgd(model)
        for _ in range(4):
            step(model, optimizer)
            with torch.no_grad():
                for batch in DataLoader(Slow(), batch_size=4):
                    model.eval()(batch)
            model.train()

    found = record(tmp_path, job, warmup=1, count=True, timed=2)
    for number in range(2):
        assert found.forward_ms(number) == {"0": 10} and found.calls(number) == {"": 1, "0": 1}
        phases = found.phases_ms(number)
        assert (phases["forward"], phases["backward"], phases["optimizer"]) == (10, 20, 3)
        assert phases["evaluation"] == 28 and "data" not in phases
        assert found.of(Step)[number].samples == 4
    assert max(found.one(Counts).calls) == 1


def test_evaluation_before_training_fills_no_window_of_training(tmp_path: Path) -> None:
    """A pass over the whole validation set before the first step; Lightning runs a part of one."""
    model = nn.Sequential(Ticking(10, 20))

    def job() -> None:
        with torch.no_grad():
            for _ in range(12):
                model(X)
        training(4, model)()

    found = record(tmp_path, job, warmup=1, count=True, timed=2)
    in_training = [timed for timed in found.of(Step) if timed.mode == TRAINING]
    assert [timed.iteration for timed in in_training] == [2, 3]
    assert [counts.iteration for counts in found.of(Counts) if counts.mode == TRAINING] == [1]
    assert found.of(End)[-1] == End("window complete", 4)


def test_a_gan_is_one_iteration_a_cycle(tmp_path: Path) -> None:
    generator, discriminator = nn.Sequential(Ticking(10, 20)), nn.Sequential(Ticking(1, 2))

    def job() -> None:
        of_generator, of_discriminator = sgd(generator), sgd(discriminator)
        for _ in range(5):
            with torch.no_grad():
                fake = generator(X)
            (discriminator(X) + discriminator(fake)).sum().backward()
            of_discriminator.step()
            discriminator(generator(X)).sum().backward()
            of_generator.step()

    found = record(tmp_path, job, warmup=1, count=True, timed=2)
    first, second = found.of(Step)
    assert (first.iteration, second.iteration) == (2, 3)
    assert [row.root for row in found.rows if row.depth == 0] == [0, 1]
    for timed in (first, second):
        assert found.by_name(timed.forward_ns, root=1) == {"0": 3_000_000}
        assert {phase: ns // 1_000_000 for phase, ns in timed.phases_ns.items() if ns} == {
            "forward": 13,
            "backward": 20 + 3 * 2,
            "optimizer": 6,
            "evaluation": 10,
        }
        assert (timed.micro_batches, timed.samples) == (1, 4)
    models = [(parameters.root, parameters.evaluated) for parameters in found.of(Parameters)]
    assert models == [(0, True), (1, False), (0, False)], "the generator is first called without gradient"


def test_inference(tmp_path: Path) -> None:
    model = nn.Sequential(Ticking(10, 20))

    def job() -> None:
        with torch.inference_mode():
            for batch in DataLoader(Slow(), batch_size=2):
                model(batch)

    found = record(tmp_path, job, warmup=1, count=True, timed=1)
    assert (found.one(Counts).mode, found.one(Counts).iteration) == (FORWARD, 1)
    timed = found.one(Step)
    assert (timed.mode, timed.iteration) == (FORWARD, 2)
    assert found.phases_ms() == {"data": 2, "forward": 10}
    assert found.one(End) == End("window complete", 3)


def test_manual_updates_without_an_optimizer(tmp_path: Path) -> None:
    model = nn.Sequential(Ticking(10, 20))

    def job() -> None:
        for _ in range(70):
            total(model(X)).backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    assert parameter.grad is not None
                    parameter.sub_(parameter.grad, alpha=0.01)
                    parameter.grad = None

    found = record(tmp_path, job, timed=2)
    assert [(timed.mode, timed.iteration) for timed in found.of(Step)] == [(TRAINING, 0), (TRAINING, 1)]
    assert found.phases_ms(1) == {"forward": 10, "backward": 20}


def test_a_script_that_ends_early_says_what_it_has(tmp_path: Path) -> None:
    found = record(tmp_path, training(4), warmup=1, count=True, timed=10)
    assert found.one(Counts).iteration == 1
    assert [timed.iteration for timed in found.of(Step)] == [2, 3]
    assert found.one(End) == End("exit", 4)


def test_a_script_that_ends_in_mid_step_records_no_half_step(tmp_path: Path) -> None:
    model = nn.Sequential(Ticking(10, 20))

    def job() -> None:
        training(2, model)()
        total(model(X)).backward()

    found = record(tmp_path, job, timed=10)
    assert [timed.iteration for timed in found.of(Step)] == [0, 1]


@pytest.mark.parametrize("error", [ValueError("theirs"), KeyboardInterrupt()])
@pytest.mark.parametrize("count", [False, True])
def test_a_script_that_ends_by_an_exception(tmp_path: Path, error: BaseException, count: bool) -> None:
    """In the middle of a forward, in a counted or a timed step: the exception passes, and the shard is valid."""

    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.calls = Ticking(10, 20), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            y: Tensor = self.inner(x)
            if self.calls == 3:
                raise error
            return y

    with pytest.raises(type(error)) as caught:
        record(tmp_path, training(5, Fails()), warmup=2 if count else 0, count=count, timed=10)
    assert caught.value is error
    found = seen(tmp_path)
    assert len(found.of(Step)) == (0 if count else 2)
    assert found.one(End) == End("exit", 2)


def test_a_process_that_calls_no_model_writes_nothing(tmp_path: Path) -> None:
    def job() -> None:
        nn.ReLU()(X)  # no parameters: no model
        X @ X.t()

    recording = recorder(tmp_path)
    recording.arm()
    job()
    recording.finish()
    assert recording.rank.identity is None
    assert list((tmp_path / "shards").iterdir()) == []


def test_two_models_one_optimizer(tmp_path: Path) -> None:
    encoder, decoder = nn.Sequential(Ticking(10, 20)), nn.Sequential(Ticking(1, 2))

    def job() -> None:
        optimizer = sgd(encoder, decoder)
        for _ in range(3):
            decoder(tick(encoder(X), 5, 6)).sum().backward()
            optimizer.step()

    found = record(tmp_path, job, warmup=1, timed=2)
    timed = found.of(Step)[1]
    assert found.by_name(timed.forward_ns, root=0) == {"0": 10_000_000}
    assert found.by_name(timed.forward_ns, root=1) == {"0": 1_000_000}
    assert found.by_name(timed.backward_ns, root=0) == {"0": 20_000_000}
    assert found.phases_ms(1) == {"forward": 11, "outside": 5, "backward": 28, "optimizer": 3}
    assert timed.micro_batches == 1


def test_a_model_that_is_met_in_the_window_joins_the_tree(tmp_path: Path) -> None:
    first, second = nn.Sequential(Ticking(10, 20)), nn.Sequential(Ticking(1, 2))

    def job() -> None:
        optimizer = sgd(first, second)
        for number in range(4):
            y = first(X)
            (second(y) if number == 3 else y).sum().backward()
            optimizer.step()

    found = record(tmp_path, job, warmup=2, timed=2)
    assert [row.root for row in found.rows] == [0, 0, 1, 1]
    early, late = found.of(Step)
    assert len(early.forward_ns) == 2
    assert found.by_name(late.forward_ns, root=1) == {"0": 1_000_000}


def test_a_closure_of_lbfgs(tmp_path: Path) -> None:
    model = nn.Sequential(Ticking(10, 20))

    def job() -> None:
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = total(model(X))
            loss.backward()
            return loss

        for _ in range(3):
            optimizer.step(closure)

    found = record(tmp_path, job, warmup=1, timed=2)
    first = found.of(Step)[0]
    calls = int(first.calls[0])
    assert calls >= 2
    assert found.phases_ms() == {"forward": 10 * calls, "backward": 20 * calls}


def test_steps_that_a_grad_scaler_skips_are_part_of_the_next(tmp_path: Path) -> None:
    model = nn.Sequential(Ticking(10, 20))

    def job() -> None:
        optimizer, scaler = sgd(model), torch.amp.GradScaler("cpu")
        for number in range(4):
            loss = total(model(X)) * (float("inf") if number == 2 else 1.0)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()

    found = record(tmp_path, job, warmup=1, timed=2)
    assert [timed.iteration for timed in found.of(Step)] == [1, 2]
    assert found.calls(1) == {"": 2, "0": 2}
    assert found.phases_ms(1) == {"forward": 20, "backward": 40, "optimizer": 3}


def test_an_optimizer_for_each_parameter_stepped_in_backward(tmp_path: Path) -> None:
    model = nn.Sequential(*(Ticking(1, 2) for _ in range(5)))

    def job() -> None:
        for parameter in model.parameters():
            optimizer = sgd(model)
            optimizer.param_groups[0]["params"] = [parameter]
            parameter.register_post_accumulate_grad_hook(lambda _, optimizer=optimizer: optimizer.step())
        for _ in range(6):
            total(model(X)).backward()

    found = record(tmp_path, job, warmup=2, timed=2)
    held = {timed.iteration: timed for timed in found.of(Step)}
    assert sorted(held) == [2, 3]
    for timed in held.values():
        assert sum(timed.phases_ns.values()) == timed.duration_ns == (5 * 1 + 5 * 2 + 5 * 3) * 1_000_000
        assert timed.phases_ns["forward"] == 5_000_000


def test_a_step_without_a_forward(tmp_path: Path) -> None:
    """Gradients made without a backward, or kept from the step before."""
    model = nn.Sequential(Ticking(10, 20))

    def job() -> None:
        optimizer = sgd(model)
        total(model(X)).backward()
        for _ in range(4):
            optimizer.step()

    found = record(tmp_path, job, warmup=1, count=True, timed=2)
    assert found.one(Counts).forward_flops.tolist() == []
    for timed in found.of(Step):
        assert {phase: ns for phase, ns in timed.phases_ns.items() if ns} == {"optimizer": 3_000_000}
        assert (timed.calls.tolist(), timed.micro_batches, timed.samples) == ([], 0, 0)


def test_lazy_models_are_met_when_they_have_their_shapes(tmp_path: Path) -> None:
    model = nn.Sequential(nn.LazyLinear(3), Ticking(10, 20))

    def job() -> None:
        with torch.no_grad():
            model(X)
        training(4, model)()

    found = record(tmp_path, job, warmup=1, count=True, timed=1)
    assert {p.name: p.rank_numel for p in found.one(Parameters).parameters} == {
        "0.weight": 24,
        "0.bias": 3,
        "1.scale": 1,
    }
    assert found.rows[0].total_params == 28
    assert found.of(Step)[-1].mode == TRAINING


def test_tied_weights_count_once(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    model[1].weight = model[0].weight
    found = record(tmp_path, training(2, model))
    assert [(p.name, p.tied_to) for p in found.one(Parameters).parameters] == [
        ("0.weight", ""),
        ("1.weight", "0.weight"),
    ]
    assert found.rows[0].total_params == 64


def test_recorders_one_after_the_other(tmp_path: Path) -> None:
    model = nn.Sequential(Ticking(10, 20))
    for name in ("one", "other"):
        found = record(tmp_path / name, training(3, model), warmup=1, timed=1)
        assert found.one(End) == End("window complete", 2)
        assert found.forward_ms() == {"0": 10}


def test_finishing_closes_the_file_and_twice_is_once(tmp_path: Path) -> None:
    def open_shards() -> list[str]:
        links = (str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
        return [link for link in links if str(tmp_path) in link]

    recording = recorder(tmp_path, timed=10)
    recording.arm()
    training(3)()
    assert len(open_shards()) == 1
    recording.finish()
    assert open_shards() == []
    recording.finish()
    assert seen(tmp_path).kinds.count("end") == 1


def steps_of(model: nn.Module, count: int = 6) -> list[Any]:
    """Returns the exact losses and the last parameters."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for _ in range(count):
        loss = model(X * torch.randn(4, 8)).square().sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return [*losses, *(parameter.tolist() for parameter in model.parameters())]


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.Dropout(), nn.Sequential(nn.ReLU(), nn.LayerNorm(16)), nn.Linear(16, 2))


def test_a_job_computes_the_same_to_the_bit(tmp_path: Path) -> None:
    def job() -> list[Any]:
        torch.manual_seed(0)
        return steps_of(network())

    plain, recorded = job(), []
    record(tmp_path, lambda: recorded.extend(job()), warmup=1, count=True, timed=3)
    assert recorded == plain


def test_models_that_run_on_other_threads_are_no_iterations(tmp_path: Path) -> None:
    """As with a scorer of samples on another thread, whatever it runs and however often."""
    model, other = nn.Linear(8, 8), nn.Linear(8, 8)

    def job() -> None:
        optimizer = sgd(model)
        for _ in range(3):
            loss = total(model(X))
            for _ in range(6):
                thread = threading.Thread(target=other, args=(X,))
                thread.start()
                thread.join()
            loss.backward()
            optimizer.step()

    seen = record(tmp_path, job, warmup=1, count=True, timed=1)
    assert [(counts.mode, counts.iteration) for counts in seen.of(Counts)] == [(TRAINING, 1)]
    assert [(step.mode, step.iteration, step.micro_batches) for step in seen.of(Step)] == [(TRAINING, 2, 1)]
