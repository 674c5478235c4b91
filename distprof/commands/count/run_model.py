"""Counts one call of a model for ``distprof count``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from distprof.commands.count.inputs import Input
from distprof.commands.count.load_model import build_model, user_errors
from distprof.errors import UsageError, said
from distprof.merge.report import Report
from distprof.module_walk import parameters_in
from distprof.standalone.report import ALONE_IN_THE_WORLD, profile_of
from distprof.standalone.session import Session


def profile(target: str, inputs: Sequence[Input], device: str, dtype: str | None, *, backward: bool) -> Report:
    """Returns the report of one call of the model, converted to ``dtype``, with its backward if ``backward``.

    Raises UsageError and DataError.
    """
    _check_usable(device)
    model = build_model(target, device)
    with user_errors("preparing the model", device, model):
        model = _converted(model, dtype).train(backward)
    args, kwargs = tensors(inputs, model, device)
    asked = " ".join(f"--input {given}" for given in inputs)
    running = user_errors(f"the model, given {asked},", device, model, "give --input as its forward wants it")
    with running, torch.set_grad_enabled(backward):
        # The first call may do work that later calls do not.
        if device != "meta" or any(map(is_lazy, parameters_in(model))):
            model(*args, **kwargs)
        return _measured(model, args, kwargs, target, backward=backward)


def tensors(
    inputs: Iterable[Input], model: nn.Module, device: str
) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """Returns positional and keyword arguments: random numbers in floating-point types, zeros in others.

    Raises UsageError for a type that torch does not have.
    """
    generator = None if device == "meta" else torch.Generator().manual_seed(0)
    like = next((parameter.dtype for parameter in parameters_in(model) if parameter.is_floating_point()), torch.float32)
    made = [(given.name, _tensor(given, like, device, generator)) for given in inputs]
    return [tensor for name, tensor in made if not name], {name: tensor for name, tensor in made if name}


def _check_usable(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except Exception as error:
        message = said(error).partition("\n")[0]
        raise UsageError(
            f"--device {device} cannot be used here ({message}): give meta, or cpu to really run it"
        ) from None


def _converted(model: nn.Module, dtype: str | None) -> nn.Module:
    if dtype is None:
        return model
    kind = _dtype(dtype, f"--dtype {dtype}")
    if not kind.is_floating_point:
        raise UsageError(f"--dtype {dtype}: parameters want a floating-point type, such as bfloat16")
    return model.to(kind)


def _measured(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], name: str, *, backward: bool) -> Report:
    session = Session(model, (), ALONE_IN_THE_WORLD)
    session.start()
    try:
        result = model(*args, **kwargs)
        if backward:
            _loss_of(result).backward()
    finally:
        session.stop()
    report = profile_of(session, name, ALONE_IN_THE_WORLD, average=False).report
    return replace(report, run=replace(report.run, script=""))  # it would be distprof itself


def _loss_of(result: Any) -> torch.Tensor:
    """Returns the loss of a Hugging Face model that got labels, else the sum of all outputs."""
    loss = getattr(result, "loss", None)
    if isinstance(loss, torch.Tensor):
        return loss
    leaves = tree_leaves(result.__dict__ if is_dataclass(result) else result)
    outputs = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
    if not outputs:
        raise ValueError(f"its {type(result).__name__} holds no tensor that has a gradient: leave out --backward")
    return torch.stack([output.sum() for output in outputs]).sum()


def _tensor(given: Input, like: torch.dtype, device: str, generator: torch.Generator | None) -> torch.Tensor:
    dtype = _dtype(given.dtype, f"--input {given}") if given.dtype else like
    try:
        if dtype.is_floating_point and generator is not None:
            return torch.randn(given.shape, generator=generator).to(device, dtype)
        return torch.zeros(given.shape, dtype=dtype, device=device)
    except (RuntimeError, TypeError, ValueError, MemoryError) as error:  # too large, or a type that holds no zeros
        message = str(error).partition("\n")[0]
        raise UsageError(f"--input {given} cannot be made on {device}: {message}") from None


def _dtype(name: str, where: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise UsageError(f"{where}: torch has no type {name!r}; float32, bfloat16, int64 and bool are some")
    return dtype
