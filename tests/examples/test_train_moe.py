from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
import torch
import train_moe
from moe_model import GPT, TOP_K, VOCABULARY, MoE, Shape, moe_layers
from support.examples import EXAMPLES, Job, Twice, run_twice
from support.forking.server import forking_python
from support.processes import output_of
from support.scripts import NewWorkplace
from torch.utils.flop_counter import FlopCounterMode

SMALL = Shape(dim=32, layers=4, heads=4, sequence=16, experts=8)
OPTIONS = ("--steps", "12", "--dim", "64", "--seq", "32", "--lr", "0.01", "--print-losses", "--skew", "--print-params")
#: On four ranks: experts are spread over two, and each has a replica; the last rank waits for its data.
LAYOUT = ("--tp", "2", "--ep", "2", "--stopwatch", "--slow-rank", "3", "--slow-ms", "30", "--slow-phase", "data")


def tokens(batch: int, shape: Shape = SMALL) -> torch.Tensor:
    return torch.randint(VOCABULARY, (batch, shape.sequence))


def test_layouts_have_the_same_parameters_and_gradients(clean_env: dict[str, str]) -> None:
    script = Path(__file__).with_name("compare_gradients.py")
    shown = output_of(script, env={**clean_env, "PYTHONPATH": str(EXAMPLES)}, executable=forking_python(clean_env))
    assert len(Job(shown).after("agreed")) == 6


@pytest.fixture(scope="module")
def jobs(new_workplace: NewWorkplace) -> Twice:
    """Runs the jobs on four ranks."""
    return run_twice(new_workplace, "train_moe.py", *OPTIONS, *LAYOUT, ranks=4)


def test_it_cannot_tell_that_it_is_recorded(jobs: Twice) -> None:
    """Replicated experts give the same results in each run, too."""
    jobs.assert_that_the_script_cannot_tell()


def test_one_rank_and_four_train_the_same_model(
    jobs: Twice, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train_moe.py", *OPTIONS])
    train_moe.main()
    alone, shared = Job(capfd.readouterr().out), jobs.plain
    assert len(alone.losses) == 12
    assert alone.losses[-1] < alone.losses[0]
    assert shared.losses == pytest.approx(alone.losses, rel=1e-4)
    assert alone.after("hot experts:") == shared.after("hot experts:") == ["blocks.1.moe: 3 11", "blocks.3.moe: 0 8"]
    count = sum(parameter.numel() for parameter in GPT(Shape(dim=64, sequence=32)).parameters())
    assert alone.after("params of model:") == shared.after("params of model:") == [str(count)]
    assert [laps["rank"] for laps in shared.stopwatches] == [0, 1, 2, 3]
    assert min(shared.stopwatches[3]["data"]) >= 30


def test_the_flop_counter_sees_every_matmul() -> None:
    """The example's attention uses plain matmuls: torch's registry has no formula for the CPU's fused kernel."""
    batch, s = 2, SMALL
    with FlopCounterMode(display=False) as counter:
        GPT(s)(tokens(batch), tokens(batch))
    attention = 4 * s.dim**2 + 2 * s.sequence * s.dim
    dense, routed = 8 * s.dim**2, s.dim * s.experts + TOP_K * 8 * s.dim**2
    macs_of_token = s.layers * attention + s.layers // 2 * (dense + routed) + s.dim * VOCABULARY
    assert counter.get_total_flops() == 2 * macs_of_token * batch * s.sequence


def test_hot_experts_get_most_tokens() -> None:
    torch.manual_seed(0)
    model = GPT(SMALL)
    hot = train_moe.make_experts_hot(model)
    loads: dict[str, torch.Tensor] = {}
    for name, moe in moe_layers(model).items():
        moe.router.register_forward_hook(
            lambda _module, _inputs, output, name=name: loads.update({name: output[1].flatten().bincount()})
        )
    model(tokens(8), tokens(8))
    assert hot == {"blocks.1.moe": [3], "blocks.3.moe": [0]}
    assert {name: [int(load.argmax())] for name, load in loads.items()} == hot


@pytest.mark.parametrize("num_experts", [1, 2, 8, 16, 64])
def test_hot_experts_exist_and_differ(num_experts: int) -> None:
    for layer in range(4):
        hot = train_moe.hot_experts(layer, num_experts)
        assert len(set(hot)) == len(hot) == max(1, num_experts // 8)
        assert set(hot) <= set(range(num_experts))


@pytest.mark.parametrize(
    ("phase", "order"), [("forward", ["sleep", "router", "combine"]), ("backward", ["router", "sleep", "combine"])]
)
def test_a_slow_layer_sleeps_before_its_children_run(
    phase: str, order: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sleep is then the layer's own time, and no other rank waits yet."""
    happened: list[str] = []
    monkeypatch.setattr(time, "sleep", lambda seconds: happened.append("sleep"))
    moe = MoE(SMALL)
    train_moe.make_slow(moe, phase, 0.05)
    moe.router.register_forward_hook(lambda *_: happened.append("router"))
    moe.combine.register_full_backward_pre_hook(lambda *_: happened.append("combine"))
    moe(torch.randn(2, 16, SMALL.dim, requires_grad=True)).sum().backward()
    assert happened == order


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--tp 3", "4 (ranks) cannot be split evenly by 3 (--tp)"),
        ("--ep 4 --experts 6", "6 (--experts) cannot be split evenly by 4 (--ep)"),
        ("--tp 1 --batch 6", "6 (--batch) cannot be split evenly by 4 (data parallel ranks)"),
        ("--slow-rank 4", "--slow-rank 4: the ranks are 0 to 3"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(
    options: str, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setattr(sys, "argv", ["train_moe.py", *options.split()])
    with pytest.raises(SystemExit, match="2"):
        train_moe.parse()
    assert sentence in capsys.readouterr().err
