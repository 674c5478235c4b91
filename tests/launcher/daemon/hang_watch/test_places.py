"""Tests of phase and place by stacks."""

from __future__ import annotations

import pytest

from distprof.heartbeat.rank_look import Frame
from distprof.launcher.daemon.hang_watch.places import phase, place

PACKAGES = "/usr/lib/python3/site-packages"


def frames(*calls: str) -> list[Frame]:
    """``"function file"``, the innermost first."""
    parts = [call.split() for call in calls]
    return [Frame(function, file, 10 + number) for number, (function, file) in enumerate(parts)]


MAIN = ("main /home/me/train.py", "<module> /home/me/train.py")


@pytest.mark.parametrize(
    ("calls", "expected", "where"),
    [
        (("load_batch /home/me/train.py", *MAIN), "data loading", "load_batch (train.py:10)"),
        ((f"__next__ {PACKAGES}/torch/utils/data/dataloader.py", *MAIN), "data loading", "main (train.py:11)"),
        ((f"_engine_run_backward {PACKAGES}/torch/autograd/graph.py", *MAIN), "backward", "main (train.py:11)"),
        ((f"_save {PACKAGES}/torch/serialization.py", *MAIN), "checkpoint", "main (train.py:11)"),
        (("save_checkpoint /home/me/train.py", *MAIN), "checkpoint", "save_checkpoint (train.py:10)"),
        (("score /home/me/metrics.py", "evaluate /home/me/train.py", *MAIN), "evaluation", "score (metrics.py:10)"),
        ((f"step {PACKAGES}/torch/optim/sgd.py", *MAIN), "optimizer", "main (train.py:11)"),
        ((f"compile_fx {PACKAGES}/torch/_inductor/compile_fx.py", *MAIN), "compilation", "main (train.py:11)"),
        ((f"checkpoint {PACKAGES}/torch/utils/checkpoint.py", *MAIN), "", "main (train.py:11)"),
        ((f"all_reduce {PACKAGES}/torch/distributed/c10d.py", "<module> /home/me/train.py"), "", "train.py:11"),
        ((), "", ""),
    ],
)  # fmt: skip
def test_phase_and_place(calls: tuple[str, ...], expected: str, where: str) -> None:
    assert (phase(frames(*calls)), place(frames(*calls))) == (expected, where)


def test_a_model_in_evaluation_mode() -> None:
    assert phase(frames(*MAIN), evaluates=True) == "evaluation"
