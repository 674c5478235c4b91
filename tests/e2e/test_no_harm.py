"""Tests that a recorder does not write into a job's files, catch its exceptions, or print in its output."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.scripts import TIMED, Ended, NewWorkplace, Workplace, iterations, wait_for

CASES = Path(__file__).parents[1] / "cases"


def twice(workplace: Workplace, case: str, *arguments: object, timed: int = 3) -> tuple[Ended, Ended]:
    """Runs the words without and with distprof."""
    words = ("python", CASES / case, *arguments)
    return workplace.start(*words).wait(), workplace.exec(*words, timed=timed)


def what_distprof_said(ended: Ended) -> list[str]:
    """Returns distprof's lines but the last, which is the launcher's."""
    return [line for line in ended.err.splitlines() if line.startswith("distprof: ")][:-1]


@pytest.mark.parametrize("streams", [[], ["streams"]])
def test_reused_descriptor_belongs_to_the_script(new_workplace: NewWorkplace, streams: list[str]) -> None:
    """With closed standard streams distprof's messages are not written anywhere, also not into such a file."""
    workplace = new_workplace().forking()
    plain, recorded = twice(workplace, "fd_reused_user_file_corrupted.py", 3, *streams)
    *files, _ = plain.out.splitlines()
    assert files == [repr(b"my checkpoint\nend of my checkpoint\n")] * 3
    assert (plain.code, recorded.code, recorded.out) == (0, 0, plain.out)
    said = "distprof: rank 0 stops recording, what it recorded so far is kept: the script has closed the descriptor of"
    assert [line.startswith(said) for line in what_distprof_said(recorded)] == [True] * (not streams)


def test_a_helper_in_another_python_says_what_it_says_without_us(new_workplace: NewWorkplace) -> None:
    """It inherits RANK and PYTHONPATH, and has neither distprof nor torch."""
    workplace = new_workplace().forking()
    venv.create(workplace.folder / "other", symlinks=True)
    words = "--nproc", 1, CASES / "helper_python_output_polluted.py", workplace.folder / "other" / "bin" / "python"
    ended = workplace.run(*words)
    assert (ended.code, ended.out.splitlines()[0]) == (0, "the helper said 42"), ended.err
    assert [iterations(shard) for shard in workplace.shards()] == [TIMED]


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder in which all users may write."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o1777)
        yield Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_planted_code_of_another_user_never_runs(new_workplace: NewWorkplace, scratch: Path) -> None:
    """Two nodes agree on the name of their run; where all may write, another user makes it first."""
    workplace = new_workplace().forking()
    with (CASES / "precreated_run_folder.sh").open() as script:  # other users may not be able to read this checkout
        theirs = subprocess.Popen(["sh", "-s", scratch], cwd="/", stdin=script, user=65534, group=65534)
    try:
        wait_for((scratch / "job-4711" / "shards").exists)
        workplace.write("train.py", "train(Net(), 6)\nprint('trained')")
        common = ("--nnodes", 2, "--nproc-per-node", 1, "--rdzv-id", 4711, "--rdzv-backend", "c10d")
        with socket.create_server(("localhost", 0)) as server:
            endpoint = f"localhost:{server.getsockname()[1]}"
        words = ("run", "--out", scratch, *common, "--rdzv-endpoint", endpoint, "train.py")
        nodes = [workplace.start_distprof(*words) for _ in range(2)]
        ended = [node.wait() for node in nodes]
    finally:
        theirs.kill()
        theirs.wait()
    assert [(one.code, one.out) for one in ended] == [(0, "trained\n")] * 2, ended[0].err
    assert not (scratch / "PWNED").exists()
    assert not list((scratch / "job-4711" / "shards").iterdir())
    for one in ended:
        (line,) = [line for line in one.err.splitlines() if "recording in" in line]
        assert line.startswith(
            f"distprof: {scratch}/job-4711 is not this user's own folder, it belongs to another user"
        )


@pytest.mark.parametrize("first", [0, 3])
def test_torchs_profiler_traces_stacks_in_the_window(new_workplace: NewWorkplace, first: int) -> None:
    """The profiler runs from the first step on, while the model is found, and from before the counted step to after a
    timed one.
    """
    workplace = new_workplace().forking()
    plain, recorded = twice(workplace, "torch_profiler_with_stack_crashes.py", first)
    assert (plain.code, recorded.code, recorded.out) == (0, 0, plain.out), recorded.err
    assert [iterations(shard) for shard in workplace.shards()] == [TIMED]


NO_IMPORT = """
class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(4, 2), nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
    def forward(self, x):
        chosen = self.gate(x).argmax(-1)
        return sum(expert(x) * (chosen == number)[:, None] for number, expert in enumerate(self.experts))

from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset
model = nn.Sequential(Net(), Experts(), nn.LSTM(4, 4))
optimizer = torch.optim.AdamW(model.parameters())
before = set(sys.modules)
for (batch,) in DataLoader(TensorDataset(torch.ones(24, 4)), batch_size=2):
    checkpoint(model, batch, use_reentrant=False)[0].sum().backward()
    optimizer.step()
    with torch.no_grad():
        model(batch)
print(sorted(set(sys.modules) - before))
"""


def test_nothing_is_imported_in_the_middle_of_a_job(new_workplace: NewWorkplace) -> None:
    workplace = new_workplace()
    workplace.write("train.py", NO_IMPORT)
    plain, recorded = workplace.forking().start("python", "train.py").wait(), workplace.exec("python", "train.py")
    assert (recorded.code, recorded.out) == (0, plain.out), recorded.err
    assert [iterations(shard) for shard in workplace.shards()] == [TIMED]


def test_what_a_signals_handler_raises_arrives(new_workplace: NewWorkplace) -> None:
    """The signals arrive in all kinds of steps, at random lines; tests/distprof/test_external_exceptions.py tests every
    line.
    """
    plain, recorded = twice(new_workplace().forking(), "signal_exception_swallowed.py", 60, timed=60)
    assert (plain.code, plain.out, recorded.code, recorded.out) == (0, "lost: 0\n", 0, "lost: 0\n"), recorded.err


def test_a_chain_of_modules_near_the_recursion_limit_runs(new_workplace: NewWorkplace) -> None:
    workplace = new_workplace().forking()
    plain, recorded = twice(workplace, "recursion_limit.py", 240)
    assert (plain.code, recorded.code, recorded.out) == (0, 0, plain.out), recorded.err
    assert what_distprof_said(recorded) == []
    assert [iterations(shard) for shard in workplace.shards()] == [TIMED]
