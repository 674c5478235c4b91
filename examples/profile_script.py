"""Code that the scripts which profile a model share: their common options, and the profile that they print."""

from __future__ import annotations

import argparse
from typing import Any

from torch import nn

from distprof import get_model_profile


def options(description: str | None, batch_of: str) -> argparse.ArgumentParser:
    """Returns a parser with the options of every script; each script adds its own."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1, help=f"{batch_of} (1)")
    parser.add_argument("--device", default="cpu", help="where it runs: cpu, cuda, or meta, where nothing runs (cpu)")
    depth = "how deep the aggregated profile goes (-1: to the innermost modules)"
    parser.add_argument("--depth", type=int, default=-1, help=depth)
    parser.add_argument("--top", type=int, default=1, help="modules that it names at each depth (1)")
    return parser


def text_options(description: str | None, sizes: dict[str, Any], size: str, batch_of: str) -> argparse.ArgumentParser:
    """Returns a parser with the options for a model of transformers that reads text, of one of ``sizes``."""
    parser = options(description, batch_of)
    parser.add_argument("--size", choices=sizes, default=size, help=f"of the model ({size})")
    how = "how attention is computed (sdpa)"
    parser.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa", help=how)
    return parser


def print_profile(model: nn.Module, args: argparse.Namespace, **call: Any) -> None:
    """Prints the profile of one call of ``model``; ``call`` has arguments of :func:`get_model_profile`."""
    get_model_profile(model, module_depth=args.depth, top_modules=args.top, detailed=True, **call)
