"""``--input`` of ``distprof count``: the description of one tensor."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from distprof.errors import UsageError

_INPUT = re.compile(r"(?:(?P<name>[^=]*)=)?(?P<sizes>[0-9]+(?:,[0-9]+)*)(?::(?P<dtype>\w+))?")
_MOST_DIGITS = 18  # fit into 64 bits


@dataclass(frozen=True)
class Input:
    """One tensor that the model gets: by ``name``, or by its place where that is empty.

    ``dtype`` is torch's name of the type; if it is empty, the tensor has the type of the model's parameters.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = ""

    def __str__(self) -> str:
        sizes = ",".join(map(str, self.shape))
        return f"{self.name + '=' if self.name else ''}{sizes}{':' + self.dtype if self.dtype else ''}"


def parse(text: str) -> Input:
    """Parses ``[NAME=]SIZE,SIZE,...[:DTYPE]``.  Raises UsageError."""
    found = _INPUT.fullmatch(text)
    if found is None or not (found["name"] is None or found["name"].isidentifier()):
        raise UsageError(
            f"--input {text} is no tensor: give its sizes, as in 1,3,224,224 or 1,128:int64 or input_ids=1,128:int64"
        )
    sizes = found["sizes"].split(",")
    longest = max(sizes, key=len)
    if len(longest) > _MOST_DIGITS:
        raise UsageError(f"--input has a size of {len(longest)} digits: no tensor is as large")
    return Input(found["name"] or "", tuple(map(int, sizes)), found["dtype"] or "")


def parse_all(texts: Iterable[str]) -> tuple[Input, ...]:
    """Parses all inputs.  Raises UsageError for one that is no tensor, and for two with one name."""
    inputs = tuple(map(parse, texts))
    names = [given.name for given in inputs if given.name]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--input {name}=... is given {names.count(name)} times: a model takes it once")
    return inputs
