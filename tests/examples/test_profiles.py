"""Tests of the examples that profile a model, run as a user runs them; docs/MODELS.md has the counts of full-sized
models.
"""

from __future__ import annotations

import json

import pytest
from support.examples import EXAMPLES
from support.forking.server import forking_python
from support.processes import output_of

pytestmark = pytest.mark.stack("transformers")

COMMANDS = {
    "bert.py": ("--size", "tiny", "--batch", "2", "--sequence", "8", "--depth", "1"),
    "t5.py": ("--size", "tiny", "--source", "8", "--target", "4"),
    "gpt2.py": ("--size", "tiny", "--sequence", "6", "--generate", "3"),
    "vision.py": ("--model", "lenet5", "--batch", "1024", "--device", "meta"),
}
#: Runs scripts as python would, in one process: to import transformers is most of what they do.
RUN = """
import json, pathlib, runpy, sys
for script, options in json.loads(sys.argv[1]).items():
    sys.argv, sys.path[0] = [script, *options], str(pathlib.Path(script).parent)
    runpy.run_path(script, run_name="__main__")
    print("end of script")
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory, clean_env: dict[str, str]) -> dict[str, str]:
    """Returns the output of each script."""
    scripts = {str(EXAMPLES / name): options for name, options in COMMANDS.items()}
    folder, python = tmp_path_factory.mktemp("examples"), forking_python(clean_env)
    shown = output_of("-c", RUN, json.dumps(scripts), cwd=folder, env=clean_env, executable=python)
    return dict(zip(COMMANDS, shown.split("end of script\n"), strict=False))


def line(text: str, name: str) -> str:
    """Returns the value of one line of the summary."""
    (found,) = (line for line in text.splitlines() if line.startswith(f"{name}:"))
    return found.partition(":")[2].strip()


def test_bert(printed: dict[str, str]) -> None:
    """Each of 2 x 8 tokens passes two layers; each sentence passes the pooler."""
    macs = 2 * (2 * 8 * (4 * 128**2 + 2 * 128 * 512 + 2 * 8 * 128) + 128**2)
    assert line(printed["bert.py"], "fwd MACs per rank") == f"{macs / 1e6:.2f} MMACs"
    assert "BertLayer" in printed["bert.py"]  # in the tree
    assert "depth 2:" not in printed["bert.py"]


def test_t5(printed: dict[str, str]) -> None:
    """Heads are 64 wide, whatever the model's width; the head is as wide as the vocabulary."""
    linears, mlp = 128 * 128, 2 * 128 * 512
    encoder = 2 * 8 * (4 * linears + mlp + 2 * 8 * 128)
    decoder = 2 * 4 * (4 * linears + mlp + 2 * 4 * 128)
    crossing = 2 * ((2 * 4 + 2 * 8) * linears + 2 * 4 * 8 * 128)
    macs = encoder + decoder + crossing + 4 * 128 * 32128
    assert line(printed["t5.py"], "fwd MACs per rank") == f"{macs / 1e6:.2f} MMACs"


def test_gpt2_generates(printed: dict[str, str]) -> None:
    """The prompt's 6 tokens run at once, then 2 of the 3 new ones, one by one: the last is not read.  Only the last
    position of a call passes the head.

    """
    layers = sum(tokens * 2 * (12 * 128**2 + 2 * length * 128) for tokens, length in ((6, 6), (1, 7), (1, 8)))
    macs = layers + 3 * 128 * 50257
    assert line(printed["gpt2.py"], "fwd MACs per rank") == f"{macs / 1e6:.2f} MMACs"


def test_vision_on_meta_counts_without_running(printed: dict[str, str]) -> None:
    assert line(printed["vision.py"], "params of model, exact") == "61,706"
    assert line(printed["vision.py"], "fwd MACs per rank") == "426.52 MMACs"
    assert line(printed["vision.py"], "fwd latency") == "n/a"
