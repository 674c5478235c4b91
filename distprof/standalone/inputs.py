"""The arguments of a profiled call: from a shape, given arguments, or a function that makes them."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from distprof.errors import UsageError, said
from distprof.module_walk import every_module, parameters_in

_Inputs = tuple[Sequence[Any], Mapping[str, Any]]
_EXAMPLE = "give the sizes of one tensor, such as (1, 3, 224, 224)"


def inputs_of(
    model: nn.Module, input_shape: Any, args: Any, kwargs: Any, constructor: Callable[[Any], Any] | None
) -> _Inputs:
    """Returns positional and keyword arguments of the call.  Raises UsageError for invalid input."""
    positional, keywords = _positional(args), _keywords(kwargs)
    if constructor is not None:
        return _constructed(model, constructor(input_shape), positional, keywords)
    if input_shape is not None:
        if positional:
            raise UsageError("input_shape and args are both given: give the shape of the one input, or the arguments")
        return (_tensor(model, input_shape),), keywords
    if not positional and not keywords:
        raise UsageError("the model gets no input: give input_shape, args or kwargs")
    return positional, keywords


@contextmanager
def explaining_shape_errors(model: nn.Module, input_shape: Any) -> Iterator[None]:
    """Explains the exception of a model of ids that gets floats, made from a shape; other exceptions pass."""
    try:
        yield
    except (RuntimeError, TypeError, IndexError) as error:
        embeds = any(isinstance(module, (nn.Embedding, nn.EmbeddingBag)) for module in every_module(model))
        words = said(error)
        if input_shape is None or not embeds or not ("indices" in words or "Long" in words or "Int" in words):
            raise
        raise UsageError(
            f"the model takes ids, and input_shape makes a tensor of floating point (it said: {words[:120]}): give "
            f"args=[torch.zeros({tuple(input_shape)}, dtype=torch.long)], or ids that are like yours"
        ) from error


def _positional(args: Any) -> Sequence[Any]:
    if isinstance(args, torch.Tensor):
        return (args,)
    if isinstance(args, (list, tuple)):
        return args
    if args is None:
        return ()
    hint = "give it as kwargs" if isinstance(args, Mapping) else "give a list of the call's positional arguments"
    raise UsageError(f"args is a {type(args).__name__}: {hint}")


def _keywords(kwargs: Any) -> Mapping[str, Any]:
    if isinstance(kwargs, Mapping):
        return kwargs
    if kwargs is None:
        return {}
    hint = "give it as args" if isinstance(kwargs, (torch.Tensor, list, tuple)) else "give a dict of keyword arguments"
    raise UsageError(f"kwargs is a {type(kwargs).__name__}: {hint}")


def _constructed(model: nn.Module, made: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> _Inputs:
    if isinstance(made, Mapping):
        return args, {**kwargs, **made}
    positional = made if isinstance(made, (tuple, list)) else (made,)
    if any(isinstance(one, Mapping) for one in positional) and not _binds(model, positional, kwargs):
        raise UsageError(
            f"input_constructor returned {' and '.join(f'a {type(one).__name__}' for one in positional)}, which "
            f"{type(model).__name__}.forward does not take: return one dict of keywords, or a tuple of its arguments"
        )
    return positional, kwargs


def _binds(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    try:
        inspect.signature(model.forward).bind(*args, **kwargs)
    except TypeError:
        return False
    except ValueError:  # it has no signature
        return True
    return True


def _tensor(model: nn.Module, shape: Any) -> torch.Tensor:
    """Returns zeros on the model's device, in the type of its first floating point parameter."""
    sizes = _sizes(shape)
    floating = (parameter for parameter in parameters_in(model) if parameter.is_floating_point())
    like = next(floating, None)
    if like is None:
        return torch.zeros(sizes)
    return torch.zeros(sizes, dtype=like.dtype, device=like.device)


def _sizes(shape: Any) -> tuple[int, ...]:
    """Returns the sizes as ints; accepts integers of any kind, numpy's too."""
    if isinstance(shape, torch.Tensor):
        raise UsageError(
            f"input_shape is a tensor: give its sizes, {tuple(shape.shape)}, or the tensor itself as args=[tensor]"
        )
    listed = shape.tolist() if type(shape).__module__ == "numpy" and hasattr(shape, "tolist") else shape
    try:
        sizes = tuple(map(operator.index, listed)) if isinstance(listed, (tuple, list)) else ()
    except TypeError:
        sizes = ()
    if not sizes or min(sizes) < 0 or any(isinstance(size, bool) for size in listed):
        raise UsageError(f"input_shape is {shape!r}: {_EXAMPLE}")
    return sizes
