"""The attention mask in force inside each running module: which of its tokens are padding.

A module passes its mask on to those inside, often in another form: the last mask with one entry for each token counts.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from distprof.probes.experts import read_hidden

#: 1 where there is a token.
_TOKENS = "attention_mask"
#: As torch's own modules take it: true where there is padding.
_PADDING = ("src_key_padding_mask", "key_padding_mask")
#: An argument of decoders only: what an encoder was given is not theirs.
_OF_DECODERS = "encoder_hidden_states"


@dataclass(frozen=True)
class Mask:
    """A mask as a module was given it.  ``turned``: [length, batch] is the order of the module's tokens."""

    given: torch.Tensor  # [batch, length]
    marks_tokens: bool
    turned: bool

    def in_order_of(self, shape: tuple[int, ...]) -> Mask:
        """Returns the mask in the order of a tensor of this shape, [batch, length, ...] or [length, batch, ...]."""
        own = tuple(self.given.shape)
        if len(shape) < 3 or own == own[::-1] or shape[:2] not in (own, own[::-1]):
            return self
        return replace(self, turned=shape[:2] != own)

    def padding(self) -> torch.Tensor:
        """Returns a bool for each token, True where it is padding."""
        padding = (self.given == 0) if self.marks_tokens else (self.given != 0)
        return (padding.t() if self.turned else padding).reshape(-1)


class PaddingMasks:
    """Follows the calls of modules; a mask is kept until the next call at its depth, or until :meth:`forget`."""

    def __init__(self) -> None:
        self._in_force: list[Mask | None] = []  # by depth

    def forget(self) -> None:
        self._in_force.clear()

    def entered(self, depth: int, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Notes the call of a module inside ``depth`` others."""
        del self._in_force[depth:]
        self._in_force.append(self._in_force[-1] if self._in_force else None)
        read_hidden(self._note, module, args, kwargs)

    def inside(self, depth: int) -> Mask | None:
        """Returns the mask in force inside the module that runs inside ``depth`` others; None where none was seen."""
        return self._in_force[depth] if depth < len(self._in_force) else None

    def _note(self, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        found, outer = _mask_among(module, args, kwargs), self._in_force[-1]
        if found is None and outer is not None and _OF_DECODERS in kwargs and kwargs.get(_TOKENS) is None:
            self._in_force[-1] = None
        elif found is not None:
            self._in_force[-1] = found
        elif outer is not None:
            self._in_force[-1] = outer.in_order_of(_first_shape(args, kwargs))


def _mask_among(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mask | None:
    for name, given in _masks(module, args, kwargs):
        if type(given) is torch.Tensor and given.dim() == 2:
            shape, tokens = tuple(given.shape), _first_shape(args, kwargs, without=given)[:2]
            if shape != tokens and shape[::-1] == tokens:
                return Mask(given, name == _TOKENS, turned=True)
            if name == _TOKENS or shape[0] != shape[1]:  # of a square one the order is not known
                return Mask(given, name == _TOKENS, turned=False)
    return None


def _masks(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields what may be a mask among the arguments of a call: by name, by place, and in a batch that is a map."""
    names = (_TOKENS, *_PADDING)
    for given in (kwargs, *(one for one in args if isinstance(one, Mapping))):
        yield from ((name, given[name]) for name in names if name in given)
    places = _places(type(module).forward) if len(args) > 1 else {}
    yield from ((name, args[places[name]]) for name in names if places.get(name, len(args)) < len(args))


@lru_cache(maxsize=1024)
def _places(forward: Callable[..., Any]) -> dict[str, int]:
    """Returns the places of the arguments of a class's ``forward``, by name."""
    try:
        return {name: place - 1 for place, name in enumerate(inspect.signature(forward).parameters)}
    except (TypeError, ValueError):
        return {}


def _first_shape(
    args: Sequence[Any], kwargs: Mapping[str, Any], without: torch.Tensor | None = None
) -> tuple[int, ...]:
    values = (*args, *kwargs.values())
    return next((tuple(one.shape) for one in values if isinstance(one, torch.Tensor) and one is not without), ())
