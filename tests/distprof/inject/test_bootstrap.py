"""Tests of a new Python process with distprof's sitecustomize: it behaves as without, and is recorded if possible.

A stand-in for torch, a package of one line, keeps most of these processes short; a recorder cannot start on it and says
so, which is how they show that one was armed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from support.forking.server import forking_python
from support.processes import python
from support.recording import Seen, seen

import distprof
from distprof.config.settings import Settings, write_settings
from distprof.records import End, Plan
from distprof.run_folder import RunFolder
from distprof.shard.reader import read_shard

ARMED = "distprof: this process is not recorded, the job goes on:"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def inject(tmp_path: Path) -> Path:
    """Returns an injected folder as the launcher makes it."""
    run = RunFolder(tmp_path / "run")
    run.shards.mkdir(parents=True)
    folder = run.inject
    folder.mkdir()
    shutil.copy(Path(distprof.__file__).parent / "inject" / "sitecustomize.py", folder)
    write_settings(Settings(warmup=1, timed=2, run_dir=str(run.path), run_id="r"), folder)
    return folder


@pytest.fixture
def lib(tmp_path: Path) -> Path:
    """Returns a folder on PYTHONPATH, after distprof's."""
    folder = tmp_path / "lib"
    folder.mkdir()
    return folder


@pytest.fixture
def run(tmp_path: Path, inject: Path, lib: Path, clean_env: dict[str, str]) -> Run:
    """``run("code", injected=False)`` runs a script with this code in its own process."""

    def start(code: str, *, injected: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        script = tmp_path / "scripts" / "script.py"
        script.parent.mkdir(exist_ok=True)
        script.write_text(code)
        path = f"{inject}:{lib}" if injected else str(lib)
        return python(script, "--an", "argument", cwd=tmp_path, env={**clean_env, **env, "PYTHONPATH": path})

    return start


def outcome(process: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    return process.returncode, process.stdout, process.stderr


def fake_torch(lib: Path, code: str = "print('torch runs')") -> None:
    (lib / "torch").mkdir()
    (lib / "torch" / "__init__.py").write_text(code)


LOOK = """
import __main__, sys
print(sys.argv, sys.path[0], __name__, __main__.__file__, sys.flags.no_site, __spec__)
print([type(finder).__name__ for finder in sys.meta_path if not type(finder).__module__.startswith("distprof")])
"""


def test_a_script_sees_nothing_of_it(run: Run) -> None:
    assert outcome(run(LOOK)) == outcome(run(LOOK, injected=False))


def test_a_process_without_torch_loads_next_to_nothing(run: Run) -> None:
    heavy = run("import sys; print({'numpy', 'msgpack', 'torch', 'click', 'distprof.records'} & set(sys.modules))")
    assert outcome(heavy) == (0, "set()\n", "")


def test_a_recorder_is_armed_when_torch_is_through(run: Run, lib: Path) -> None:
    fake_torch(lib)
    process = run("import torch; print('script runs')")
    assert (process.returncode, process.stdout) == (0, "torch runs\nscript runs\n")
    (line,) = process.stderr.splitlines()
    assert line.startswith(ARMED)


def test_torchs_spec_and_loader_are_its_own(run: Run, lib: Path) -> None:
    fake_torch(lib, "import sys\nassert 'torch' in sys.modules\nprint(__spec__, __loader__, __path__, __file__)")
    code = """
import sys, torch, importlib.util
print(torch.__spec__, torch.__loader__, importlib.util.find_spec("torch"), sep="\\n")
print([finder for finder in sys.meta_path if type(finder).__module__.startswith("distprof")])
"""
    plain, injected = run(code, injected=False), run(code)
    assert (injected.returncode, without_addresses(injected.stdout)) == (0, without_addresses(plain.stdout))
    assert injected.stderr.startswith(ARMED)


def without_addresses(text: str) -> str:
    return re.sub(r"0x[0-9a-f]+", "0x", text)


def test_find_spec_does_not_use_up_the_hook(run: Run, lib: Path) -> None:
    """transformers, accelerate and others call it before they import torch."""
    fake_torch(lib)
    code = """
import importlib.util, sys
spec = importlib.util.find_spec("torch")
print(spec.name, spec.origin, spec.submodule_search_locations, "torch" in sys.modules)
print(spec.loader.get_filename("torch"), spec.loader.is_package("torch"))
assert importlib.util.find_spec("torch") is not None
import torch
"""
    plain, injected = run(code, injected=False), run(code)
    assert (injected.returncode, injected.stdout) == (plain.returncode, plain.stdout) and plain.returncode == 0
    assert injected.stderr.startswith(ARMED)


@pytest.mark.parametrize("there", [True, False])
def test_a_torch_that_cannot_be_imported_fails_as_ever(run: Run, lib: Path, there: bool) -> None:
    if there:
        fake_torch(lib, "raise ImportError('libcudart.so.13: cannot open shared object file')")
    code = """
import importlib.util, sys
HIDE
try:
    import torch
except ImportError as error:
    print(type(error).__name__, error, error.name)
print(importlib.util.find_spec("torch") is None, "torch" in sys.modules)
import torch
""".replace("HIDE", "" if there else "sys.path[:] = [p for p in sys.path if 'site-packages' not in p]")
    plain, injected = run(code, injected=False), run(code)
    assert (injected.returncode, injected.stdout) == (plain.returncode, plain.stdout) and plain.returncode == 1
    assert injected.stderr.splitlines()[-1] == plain.stderr.splitlines()[-1]
    assert "distprof: " not in injected.stderr


def test_a_second_try_to_import_torch_is_recorded(run: Run, lib: Path) -> None:
    fake_torch(lib, "import os\nif not os.environ.pop('SECOND', ''):\n    raise ImportError('no')")
    code = "import os\ntry:\n    import torch\nexcept ImportError:\n    os.environ['SECOND'] = '1'\n    import torch"
    process = run(code)
    assert process.returncode == 0
    assert process.stderr.startswith(ARMED)


def test_a_sitecustomize_that_was_there_before_runs_as_ever(run: Run, lib: Path) -> None:
    (lib / "sitecustomize.py").write_text("import builtins\nbuiltins.theirs = __name__, __file__")
    code = "import sys; print(theirs, sys.modules['sitecustomize'].__file__)"
    assert outcome(run(code)) == outcome(run(code, injected=False))


@pytest.mark.parametrize("error", ["ValueError('theirs')", "ImportError('theirs')"])
def test_a_sitecustomize_that_fails_fails_as_ever(run: Run, lib: Path, error: str) -> None:
    (lib / "sitecustomize.py").write_text(f"raise {error}")
    plain, injected = run("print('goes on')", injected=False), run("print('goes on')")
    assert (injected.returncode, injected.stdout) == (plain.returncode, plain.stdout)
    assert injected.stderr.splitlines()[-1] == plain.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("why", "rank", "code", "said"),
    [
        ("ImportError('not here')", {"RANK": "3"}, "import torch", ["distprof: rank 3 is not recorded: "]),
        ("ImportError('not here')", {}, "import torch", []),
        ("ImportError('not here')", {"RANK": "3"}, "import importlib.util as u; u.find_spec('torch')", []),
        (
            "RuntimeError('broken')",
            {},
            "import torch",
            ["distprof: this process is not recorded: RuntimeError: broken"],
        ),
        ("RuntimeError('broken')", {"RANK": "3"}, "pass", []),
    ],
)
def test_message_if_distprof_cannot_be_imported(
    run: Run, lib: Path, why: str, rank: Mapping[str, str], code: str, said: list[str]
) -> None:
    """A Python of another environment, started with the same PYTHONPATH; a script may read its output."""
    fake_torch(lib, "import torch.part")
    (lib / "torch" / "part.py").touch()
    (lib / "distprof").mkdir()
    (lib / "distprof" / "__init__.py").write_text(f"raise {why}")
    process = run(f"{code}\nprint('runs')", **rank)
    assert (process.returncode, process.stdout) == (0, "runs\n")
    lines = process.stderr.splitlines()
    assert len(lines) == len(said) and all(line.startswith(start) for line, start in zip(lines, said, strict=True))


def test_replaceable_run_folder(run: Run, lib: Path, inject: Path, tmp_path: Path, clean_env: dict[str, str]) -> None:
    """The path ends with the injected folder, which has the settings; it need not exist as a folder on the path."""
    fake_torch(lib, "")
    installed = Path(distprof.__file__).parent / "inject"
    (inject / "sitecustomize.py").write_text("raise SystemExit('code of another user')")
    plain = run(LOOK, injected=False)
    path = f"{installed}:{installed}/of{inject}:{lib}"
    script = tmp_path / "scripts" / "script.py"
    told = python(script, "--an", "argument", cwd=tmp_path, env={**clean_env, "PYTHONPATH": path})
    assert outcome(told) == outcome(plain)
    script.write_text("import sys, torch\nfrom distprof import bootstrap\nprint(bootstrap.recorder is None)")
    assert python(script, cwd=tmp_path, env={**clean_env, "PYTHONPATH": path}).stderr.startswith(ARMED)


@pytest.mark.parametrize("settings", [None, "", "{", "[]", '{"warmup": -1}'])
def test_settings_that_cannot_be_read_cost_one_line(run: Run, lib: Path, inject: Path, settings: str | None) -> None:
    fake_torch(lib, "")
    file = inject / "distprof-settings.json"
    if settings is None:
        file.unlink()
    else:
        file.write_text(settings)
    process = run("import torch; print('runs')")
    assert (process.returncode, process.stdout) == (0, "runs\n")
    (line,) = process.stderr.splitlines()
    assert line.startswith(ARMED)


def test_rank_without_model_and_its_children(run: Run, inject: Path) -> None:
    code = "import os, subprocess, sys\nsubprocess.run([sys.executable, '-c', 'pass'])\nif os.fork():\n    os.wait()"
    assert outcome(run(code, RANK="3", WORLD_SIZE="4")) == (0, "", "")
    found = seen(inject.parent)
    assert found.kinds == ["header", "plan", "end"]
    assert (found.shard.header.rank, found.one(Plan)) == (3, Plan(1, 1, 2, settling=1))
    assert found.one(End).reason == "no module was called"


def test_a_process_that_is_no_rank_leaves_nothing(run: Run, inject: Path) -> None:
    assert outcome(run("print('runs')")) == (0, "runs\n", "")
    assert RunFolder(inject.parent).shard_files() == []


JOB = """
import torch
from torch import nn
if __name__ == "__main__":
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = torch.utils.data.TensorDataset(torch.randn(64, 4))
    for context in "fork", "spawn":
        for (batch,) in torch.utils.data.DataLoader(data, 8, num_workers=1, multiprocessing_context=context):
            loss = model(batch).square().sum()
            loss.backward()
            optimizer.step()
            print(loss.item().hex())
    import copy, inspect
    print(inspect.signature(model.forward), torch.__spec__.loader.__class__.__name__)
"""


def test_a_whole_job_with_the_real_torch_and_its_workers(
    run: Run, inject: Path, tmp_path: Path, clean_env: dict[str, str]
) -> None:
    """The losses are the same bit by bit, and there is one shard, however its workers were started."""
    recorded = run(JOB, RANK="0", WORLD_SIZE="1")
    script = tmp_path / "scripts" / "script.py"
    plain = python(script, cwd=tmp_path, env=clean_env, executable=forking_python(clean_env))
    assert outcome(recorded) == outcome(plain)
    (shard,) = RunFolder(inject.parent).shard_files()
    found = Seen(read_shard(shard))
    assert found.one(End).reason == "window complete"
    assert found.kinds.count("step") == 2
