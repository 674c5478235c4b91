"""Tests of ``distprof count``, which profiles a model from the shell."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from distprof import get_model_profile
from distprof.commands.count.command import command
from distprof.commands.count.load_model import build_model
from distprof.errors import DataError, DistprofError, UsageError

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

NET = """
from dataclasses import dataclass
import torch
from torch import nn

seen = []
number = 3

class Net(nn.Module):
    def __init__(self, width=20):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(10, width), nn.ReLU())
        self.out = nn.Linear(width, 5)

    def forward(self, x, mask=None, labels=None):
        print("printed by the model")
        seen.append((x, mask, self.training))
        y = self.out(self.inner(x))
        if mask is not None and mask.any().item():
            y = y * 2
        return y if labels is None else Output(y.square().mean(), self.inner(x))

@dataclass
class Output:
    loss: torch.Tensor
    hidden: torch.Tensor

def wants(width):
    return Net(width)

def breaks():
    raise ValueError("no such thing\\nsecond line")

def leaves():
    raise SystemExit(3)

def circular():
    model = nn.Sequential(nn.Linear(10, 5))
    model[0].inner = nn.ReLU()
    model[0].inner.me = model[0]
    return model

def deep():
    model = nn.Linear(10, 5)
    for _ in range(3000):
        model = nn.Sequential(model)
    return model

class Speechless(Exception):
    def __str__(self):
        raise self

def speechless():
    raise Speechless

def enormous():
    return nn.Linear(200_000, 200_000, bias=False)

def lazy():
    return nn.LazyLinear(7, bias=False)

def frozen():
    return Net().requires_grad_(False)

made = Net()

class Holder:
    make = Net
"""


def at(code: str) -> str:
    """Where ``code`` stands, to be filled with the folder."""
    return f"{{}}/net.py:{NET.partition(code)[0].count(chr(10)) + 1}"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the module ``net`` is; afterwards it is forgotten."""
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]


def count(*arguments: str) -> str:
    """Returns what the command prints.  Raises what it raises."""
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def report(*arguments: str) -> Any:
    return json.loads(count(*arguments, "--json"))


def test_a_profile_is_printed_from_the_shell(cli: Cli) -> None:
    ended = cli("count", "net:Net", "--input", "4,10")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == "printed by the model\n", "stdout is the report's alone"
    assert "\non:       meta, " in ended.stdout and "\nrun:      net:Net\n" in ended.stdout
    assert "  (out): Linear(105 = 32.31% Params, 400 MACs = 33.33% MACs, n/a latency" in ended.stdout


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_the_numbers_are_those_of_the_profiler_in_a_script(device: str) -> None:
    flops, macs, params = get_model_profile(
        build_model("net:Net", "cpu"), (4, 10), print_profile=False, as_string=False
    )
    root = report("net.py:Net", "--input", "4,10", "--device", device)["modules"][0]
    assert (root["flops"], root["macs"], root["params"]) == (flops, macs, params)
    assert macs == 4 * (10 * 20 + 20 * 5)
    assert (root["forward_ns"] is None) == (device == "meta")


def test_on_meta_no_weight_is_allocated() -> None:
    root = report("net:enormous", "--input", "3,200000")["modules"][0]
    assert (root["params"], root["macs"]) == (200_000**2, 3 * 200_000**2), "160 GB, were they there"


def test_backward_is_counted_when_asked_for() -> None:
    trained = report("net:Net", "--input", "4,10", "--backward")["modules"][0]
    assert trained["bwd_macs"] == 4 * (10 * 20 + 2 * 20 * 5), "the input needs no gradient"
    assert report("net:Net", "--input", "4,10")["modules"][0]["bwd_macs"] is None


def test_backward_starts_from_a_returned_loss() -> None:
    modules = report("net:Net", "--input", "4,10", "--input", "labels=4:int64", "--backward")["modules"]
    inner = next(module for module in modules if module["name"] == "inner")
    assert (inner["macs"], inner["bwd_macs"]) == (2 * 4 * 10 * 20, 4 * 10 * 20), "it ran twice, and once for the loss"


def test_a_layer_that_learns_its_shape_learns_it_first() -> None:
    assert report("net:lazy", "--input", "2,10")["modules"][0]["macs"] == 2 * 10 * 7


def test_inputs_have_names_and_types(folder: Path) -> None:
    count("net:Net", "--input", "4,10:float32", "--input", "mask=3:bool", "--device", "cpu", "--backward")
    count("net:Net", "--input", "x=4,10", "--device", "cpu")
    (first, *_, last) = sys.modules["net"].seen
    assert (first[0].shape, first[1].dtype, first[1].shape) == ((4, 10), torch.bool, (3,))
    assert first[0].std() > 0.5, "random numbers"
    assert (first[2], last[2]) == (True, False), "train mode for a training step only"


def test_a_model_is_converted_and_its_input_with_it() -> None:
    count("net:Net", "--input", "4,10", "--dtype", "bfloat16")
    (seen,) = sys.modules["net"].seen
    assert (seen[0].dtype, seen[0].device.type) == (torch.bfloat16, "meta")


@pytest.mark.parametrize("target", ["net:made", "net:Holder.make", "sub/other.py:Net"])
def test_a_model_is_found_wherever_it_is(target: str, folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "beside.py").write_text("from torch.nn import Linear")
    (folder / "sub" / "other.py").write_text("from beside import Linear\ndef Net(): return Linear(10, 120)")
    assert report(target, "--input", "4,10")["modules"][0]["macs"] in (1200, 4800)


def test_options_choose_what_is_shown(folder: Path) -> None:
    (folder / "distprof.toml").write_text('top = 1\nplots = false\noutput-file = "of-a-report.txt"\n')
    text = count("net:Net", "--input", "4,10", "--depth", "1", "--no-detailed")
    assert "\nTop 1 modules" in text and "\ndepth 1:\n" in text and "\ndepth 2:\n" not in text
    assert "Detailed Profile" not in text
    assert not (folder / "of-a-report.txt").exists()
    tree = count("net:Net", "--input", "4,10", "--depth", "1").partition("Detailed Profile")[2]
    assert "  (inner): Sequential(" in tree and "2 modules inside" in tree and "(0): Linear" not in tree


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ("net", UsageError, "net names no model: give MODULE:FACTORY, as in "),
        ("nosuch:x", UsageError, "there is no module nosuch in the current folder or in "),
        ("nosuch.py:x", UsageError, "there is no file nosuch.py: give MODULE:FACTORY, a module's name or file"),
        ("net:want", UsageError, "net has no 'want': did you mean 'wants'?"),
        ("net:zzz", UsageError, "net has no 'zzz', nor anything called nearly so"),
        ("net:number", UsageError, "net:number is of type int: give a function or class that makes a model"),
        (
            "net:dataclass",
            UsageError,
            "net:dataclass made something of type function: give what makes a torch.nn.Module",
        ),
        ("net:wants", UsageError, "net:wants wants arguments (missing a required argument: 'width'): give a function"),
        (
            "net:breaks",
            DataError,
            f"making the model with net:breaks raised ValueError: no such thing ({at('raise ValueError')}): see",
        ),
        (
            "net:leaves",
            DataError,
            f"making the model with net:leaves raised SystemExit: 3 ({at('raise SystemExit')}): see to that",
        ),
        (
            "bad.py:x",
            DataError,
            "importing bad.py raised ModuleNotFoundError: No module named 'nosuch' ({}/bad.py:1): ",
        ),
        ("worse:x", DataError, "importing worse raised SyntaxError: "),
        (
            "net:Net --input 4,11",
            DataError,
            "the model, given --input 4,11, raised RuntimeError: a and b must have same reduction dim, but got "
            f"[4, 11] X [10, 20]. (in inner.0, a Linear, {at('y = self.out')}): give --input as its forward wants it",
        ),
        (
            "net:Net --input z=4,10",
            DataError,
            "the model, given --input z=4,10, raised TypeError: Net.forward() got an unexpected keyword argument 'z' "
            "(in Net): give --input as its forward wants it",
        ),
        (
            "net:Net --input 4,10 --input mask=3:bool",
            DataError,
            "the model, given --input 4,10 --input mask=3:bool, raised RuntimeError: Tensor.item() cannot be called on "
            f"meta tensors (in Net, {at('if mask')}): nothing has a value on the meta device; give --device cpu",
        ),
        (
            "net:frozen --input 4,10 --backward",
            DataError,
            "the model, given --input 4,10, raised ValueError: its Tensor",
        ),
        ("net:Net --input 4,10:int63", UsageError, "--input 4,10:int63: torch has no type 'int63'; float32, "),
        ("net:Net --input 4,x", UsageError, "--input 4,x is no tensor: give its sizes, as in 1,3,224,224 or "),
        (
            "net:Net --dtype empty",
            UsageError,
            "--dtype empty: torch has no type 'empty'; float32, bfloat16, int64 and bool are",
        ),
        ("net:Net --dtype int64", UsageError, "--dtype int64: parameters want a floating-point type, such as bfloat16"),
        ("net:Net --device nosuch", UsageError, "--device nosuch cannot be used here ("),
        ("net:Net --top 0", UsageError, "top is 0: give a whole number, 1 or more"),
        (
            "net:Net --input 99999999999999999999,4",
            UsageError,
            "--input has a size of 20 digits: no tensor is as large",
        ),
        ("net:Net --input 999999999999999999,999999999999999999", UsageError, "--input 999999999999999999,99999"),
        ("net:Net --input 999999999999999,10 --device cpu", UsageError, "--input 999999999999999,10 cannot be made on"),
        ("net:circular", UsageError, "the model holds itself: 0.inner.me is a Linear around it; take that out"),
        ("net:deep", DataError, "preparing the model raised RecursionError: "),
        ("net:speechless", DataError, "making the model with net:speechless raised Speechless ("),
        ("lazy:Net", DataError, "looking for Net in lazy raised RuntimeError: needs another package ({}/lazy.py:1): "),
    ],
)
def test_what_goes_wrong_is_told_in_one_sentence(
    arguments: str, error: type[DistprofError], sentence: str, folder: Path
) -> None:
    (folder / "bad.py").write_text("import nosuch")
    (folder / "worse.py").write_text("def :")
    (folder / "lazy.py").write_text("def __getattr__(name): raise RuntimeError('needs another package')")
    given = arguments.split()
    with pytest.raises(error) as told:
        count(*given, *([] if "--input" in given else ["--input", "4,10"]))
    assert str(told.value).startswith(sentence.format(folder))
    assert "\n" not in str(told.value)


def test_it_takes_no_option_that_would_do_nothing() -> None:
    taken = {parameter.name for parameter in command.params}
    assert taken == {"model", "inputs", "device", "dtype", "backward", "as_json", "config"} | {
        "depth",
        "top",
        "detailed",
    }


def test_without_torch_one_sentence_is_said(cli: Cli, folder: Path) -> None:
    (folder / "none" / "torch").mkdir(parents=True)
    (folder / "none" / "torch" / "__init__.py").write_text("raise ImportError('no torch here')")
    ended = cli("count", "net:Net", "--input", "4,10", env={"PYTHONPATH": str(folder / "none")})
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "distprof: 'distprof count' needs torch, which this Python cannot import: no torch here\n"


def test_help_has_examples_and_needs_no_torch(cli: Cli, folder: Path) -> None:
    (folder / "none" / "torch").mkdir(parents=True)
    (folder / "none" / "torch" / "__init__.py").write_text("raise ImportError('no torch here')")
    ended = cli("count", "--help", env={"PYTHONPATH": str(folder / "none")})
    assert ended.returncode == 0
    assert "distprof count torchvision.models:resnet50 --input 1,3,224,224\n" in ended.stdout
