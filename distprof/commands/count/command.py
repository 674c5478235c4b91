"""``distprof count``: the profile of one model from the shell, without data, weights or a training script."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from distprof.commands.click_options import decided_options, with_options
from distprof.commands.count.inputs import Input, parse_all
from distprof.commands.report_output import text_options, write_report
from distprof.config.option_sources import with_defaults
from distprof.config.options import REPORT
from distprof.errors import UsageError

if TYPE_CHECKING:
    from distprof.merge.report import Report

#: What merge takes, too, and what means something for one model.  A file meant for reports is not to be overwritten.
_TAKEN = tuple(option for option in REPORT if option.name in ("depth", "top", "detailed"))


@click.command(
    epilog="""\b
Examples:
  distprof count torchvision.models:resnet50 --input 1,3,224,224
  distprof count net.py:make_bert --input input_ids=1,128:int64 --depth 3
  distprof count net.py:make_llama --input 1,4096:int64 --dtype bfloat16 --backward
  distprof count net.py:Net --input 32,784 --device cpu --json
"""
)
@click.argument("model", metavar="MODULE:FACTORY")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    required=True,
    metavar="[NAME=]SIZES[:DTYPE]",
    help="One tensor that the model gets: its sizes, with the argument's name if it has one, and its type if that is"
    " not the parameters' own.  Give it once for each.",
)
@click.option(
    "--device",
    default="meta",
    show_default=True,
    metavar="DEVICE",
    help="Where the model is made and called.  On meta there are no times, and no control flow that depends on values.",
)
@click.option("--dtype", metavar="DTYPE", help="Convert the model to this type first: bfloat16, float16, ...")
@click.option(
    "--backward",
    is_flag=True,
    help="Count a training step: in train mode, and backward, too,"
    " from the loss that the model returns, else from the sum of all that it returns.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON, the schema of merge's summary.json.")
@with_options(_TAKEN)
def command(
    model: str,
    inputs: tuple[str, ...],
    device: str,
    dtype: str | None,
    backward: bool,
    as_json: bool,
    config: Path | None,
    **given: object,
) -> None:
    """Print flops, MACs and parameters of each module of the model that FACTORY, a function or class, makes.

    MODULE is a module that can be imported from the current folder, or a .py file; FACTORY is called without
    arguments.  The model is called once, with zeros for integers and random numbers for the rest; its inputs are of
    the type of its parameters unless --input names another.

    On the meta device a model of any size is made and called in seconds, on any machine.  With --device cpu or cuda it
    really runs: its times are shown, too.
    """
    wanted = parse_all(inputs)
    chosen = with_defaults(_TAKEN, decided_options(_TAKEN, given, config))
    report = _profile(model, wanted, device, dtype, backward=backward)
    write_report(_json(report) if as_json else _text(report, chosen), chosen)


def _profile(target: str, inputs: tuple[Input, ...], device: str, dtype: str | None, *, backward: bool) -> Report:
    try:
        import_module("torch")
    except ImportError as error:
        raise UsageError(f"'distprof count' needs torch, which this Python cannot import: {error}") from None
    from distprof.commands.count.run_model import profile

    return profile(target, inputs, device, dtype, backward=backward)


def _json(report: Report) -> str:
    from distprof.merge.export.json import to_json

    return to_json(report)


def _text(report: Report, chosen: Mapping[str, Any]) -> str:
    from distprof.merge.text.standalone import render_model

    options = text_options(chosen)
    return render_model(report, depth=options.depth, top=options.top, detail=options.detail, tree=options.depth)
