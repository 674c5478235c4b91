"""Writes the final tensors of a script to a file for each rank, a line for each with digests of it and its gradient.

It runs in the ranks of the jobs that :mod:`soak.cases` compares, after the last line of the script.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

#: The last line of the copy of a script.
LAST_LINES = f"""
import sys
sys.path.append({str(Path(__file__).parents[1])!r})
import soak.state
soak.state.write(globals())
"""


def write(names: Mapping[str, object]) -> None:
    """Writes all models and tensors that have a name in the script, also those in a list or a dict."""
    if "torch" not in sys.modules:
        return
    rows = [row for name, value in list(names.items()) for row in _rows(name, value)]
    Path(f"state{os.environ.get('RANK', '0')}").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def _rows(name: str, value: Any) -> Iterator[str]:
    import torch
    from torch import nn

    if isinstance(value, torch.Tensor):
        gradient = value.grad if value.is_leaf else None
        yield f"{name} {_bits(value)} {'' if gradient is None else _bits(gradient)}"
    elif isinstance(value, nn.Module):
        for inner, tensor in (*nn.Module.named_parameters(value), *nn.Module.named_buffers(value)):
            yield from _rows(f"{name}.{inner}", tensor)
    elif type(value) in (list, tuple, dict):
        inside: Iterable[tuple[object, object]] = value.items() if isinstance(value, dict) else enumerate(value)
        for place, one in inside:
            if isinstance(one, (torch.Tensor, nn.Module)):
                yield from _rows(f"{name}[{place!r}]", one)


def _bits(tensor: Any) -> str:
    """Returns the bits of this rank's part of the tensor."""
    import torch

    tensor = tensor.detach()
    if hasattr(tensor, "to_local"):
        tensor = tensor.to_local()
    if tensor.is_meta:
        return "meta"
    if tensor.is_nested:
        return " ".join(_bits(piece) for piece in tensor.unbind())
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    plain = tensor.cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(bytes(plain.tolist())).hexdigest()[:16]
