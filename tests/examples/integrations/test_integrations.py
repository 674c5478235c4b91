"""Every file of examples/integrations: scripts and the notebook run, and what needs a cluster is parsed."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.examples import EXAMPLES
from support.forking.server import forking_python
from support.processes import output_of

from distprof import load
from distprof.launcher import torchrun
from distprof.launcher.torchrun import options as options_of

FOLDER = EXAMPLES / "integrations"


@pytest.mark.slow
@pytest.mark.parametrize(
    "stack",
    [
        pytest.param("trainer", marks=pytest.mark.stack("transformers", "accelerate")),
        pytest.param("lightning", marks=pytest.mark.stack("lightning")),
    ],
)
def test_a_callback_records_the_training(stack: str, tmp_path: Path, clean_env: dict[str, str]) -> None:
    words, python = (FOLDER / f"{stack}_callback.py", "--steps", "10"), forking_python(clean_env)
    printed = output_of(*words, cwd=tmp_path, env=clean_env, executable=python)
    report = load(tmp_path / "runs" / stack).report
    assert report.summary.iterations is not None and report.summary.iterations.steps == 5
    assert report.ranks[0].step_iterations == (3, 4, 5, 6, 7), "two for warm-up, and a counted one"
    assert any(module.class_name == "Linear" and module.macs for module in report.modules)
    assert f"distprof: {stack}" in printed and "1 of 1 ranks recorded" in printed


def test_the_cells_of_the_notebook_run(tmp_path: Path, clean_env: dict[str, str]) -> None:
    notebook = json.loads((FOLDER / "notebook.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] for cell in notebook["cells"] if cell["cell_type"] == "code")
    script = tmp_path / "cells.py"
    script.write_text("\n".join([*cells, "print(report._repr_html_())"]), encoding="utf-8")
    printed = output_of(script, cwd=tmp_path, env=clean_env, executable=forking_python(clean_env))
    assert "'class_name': 'Linear'" in printed or "Linear" in printed
    assert re.search(r"^forward +[\d.]+ ms +\d+%  inside modules$", printed, re.MULTILINE)
    assert "<pre>distprof: notebook" in printed


def command_in(file: str) -> list[str]:
    """Returns the words after ``distprof run`` in a file."""
    text = (FOLDER / file).read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.search(r"distprof run (.*?train\.py[^\n]*)", text, re.DOTALL)
    assert found
    return shlex.split(found[1])


@pytest.mark.parametrize("file", ["slurm_nodes.sbatch", "kubernetes_pytorchjob.yaml"])
def test_the_launcher_takes_the_commands_of_clusters(file: str, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.touch()
    words = [re.sub(r"\$\{?\w+\}?", "4", word) for word in command_in(file)]
    args = torchrun.parse([str(script) if word.endswith("train.py") else word for word in words])
    torchrun.check(args)
    assert Path(args.training_script).name == "train.py" and args.training_script_args == ["--steps", "1000"]
    assert args.rdzv_backend == "c10d" and args.nproc_per_node == "8"
    assert str(options_of(args).out) in ("4", "/shared/runs"), "the folder that all nodes share"


def test_bash_parses_the_batch_script() -> None:
    script = FOLDER / "slurm_nodes.sbatch"
    assert subprocess.run(["bash", "-n", script], check=False, capture_output=True).returncode == 0
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)$", script.read_text(encoding="utf-8"), re.MULTILINE))
    assert asked["ntasks-per-node"] == "1", "one launcher on each node"


def test_the_manifest_has_one_pod_for_each_node() -> None:
    yaml = pytest.importorskip("yaml")
    manifest = yaml.safe_load((FOLDER / "kubernetes_pytorchjob.yaml").read_text(encoding="utf-8"))
    assert (manifest["apiVersion"], manifest["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    replicas = manifest["spec"]["pytorchReplicaSpecs"]
    (container,) = replicas["Worker"]["template"]["spec"]["containers"]
    words = shlex.split(container["command"][2])
    assert int(words[words.index("--nnodes") + 1]) == sum(replica["replicas"] for replica in replicas.values())
    assert int(words[words.index("--nproc") + 1]) == container["resources"]["limits"]["nvidia.com/gpu"]
    mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert words[words.index("--out") + 1].startswith(tuple(mounted)), "on the volume that all pods share"


def test_the_worker_of_ray_records_its_loop() -> None:
    """The calls of distprof in the script are checked; the next test runs it, where Ray is installed."""
    tree = ast.parse((FOLDER / "ray_train.py").read_text(encoding="utf-8"))
    (train,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "train"]
    (block,) = [node for node in train.body if isinstance(node, ast.With)]
    call = block.items[0].context_expr
    assert isinstance(call, ast.Call) and ast.unparse(call.func) == "distprof.record"
    assert [keyword.arg for keyword in call.keywords] == ["name"], "all workers give the same name"
    assert any(isinstance(node, ast.For) for node in block.body)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: ray_train.py is parsed, not run")
def test_the_workers_of_ray_are_recorded(tmp_path: Path, clean_env: dict[str, str]) -> None:
    env = {**clean_env, "HOME": str(tmp_path), "RAY_USAGE_STATS_ENABLED": "0"}
    output_of(FOLDER / "ray_train.py", "--workers", "2", "--runs", tmp_path / "runs", cwd=tmp_path, env=env)
    report = load(tmp_path / "runs" / "ray-job").report
    assert [row.rank for row in report.ranks] == [0, 1]
    assert report.summary.iterations is not None and report.summary.iterations.steps == 10
