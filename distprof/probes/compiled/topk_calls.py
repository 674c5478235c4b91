"""The calls of topk in the source that inductor wrote for one graph: what they may depend on, and where their ids go.

Inductor calls a library for topk, and fuses what is around it.  Its source is a list of assignments and calls; of a
source with anything else, nothing is said.  A call that returns nothing may write to all of its buffers, so that a
topk seems to depend on more inputs rather than on fewer.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

_TOPK = "torch.ops.aten.topk.default"


class TopK(NamedTuple):
    """A call that chooses the ``k`` largest of the ``of`` numbers in the last dimension; both are 0 in other calls."""

    k: int
    of: int
    inputs: frozenset[int]  # places of the graph's inputs that it may depend on
    output: int  # place of its ids among the graph's outputs; -1 if they are not returned


@lru_cache(maxsize=4096)
def topk_calls(source: str) -> tuple[TopK, ...]:
    """Returns the calls in a graph's source, in their order; none where the source has another form."""
    if _TOPK not in source:
        return ()
    try:
        reading = _Reading()
        for statement in _body_of_call(source):
            reading.read(statement)
    except (SyntaxError, ValueError):  # C++, or a form of another version
        return ()
    return tuple(reading.found())


def _body_of_call(source: str) -> list[ast.stmt]:
    found = [one for one in ast.walk(ast.parse(source)) if isinstance(one, ast.FunctionDef) and one.name == "call"]
    if len(found) != 1:
        raise ValueError("no single function that runs the graph")
    return found[0].body


class _Reading:
    """What the statements so far say.  Names that share memory are known by the first of them."""

    def __init__(self) -> None:
        self._inputs: set[str] = set()
        self._first: dict[str, str] = {}
        self._depends: dict[str, frozenset[int]] = {}  # by first name
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._calls: list[tuple[int, int, frozenset[int]]] = []
        self._pairs: dict[str, int] = {}  # names of results of topk: the number of the call
        self._ids: dict[str, int] = {}
        self._outputs: list[str] = []

    def found(self) -> Iterator[TopK]:
        for number, call in enumerate(self._calls):
            places = (place for place, name in enumerate(self._outputs) if self._ids.get(name) == number)
            yield TopK(*call, next(places, -1))

    def read(self, statement: ast.stmt) -> None:
        match statement:
            case ast.With():
                for inner in statement.body:
                    self.read(inner)
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Name(id="args")):
                self._take_inputs(names)
            case ast.Assign(targets=[ast.Name(id=name)]):
                self._assign(name, statement.value)
            case ast.Expr() | ast.Assign():
                self._write(statement.value)
                self._forget_changed(statement.value)
            case ast.Return(value=ast.Tuple(elts=values)):
                self._outputs = [one.id if isinstance(one, ast.Name) else "" for one in values]
            case ast.Delete():
                pass
            case _:
                raise ValueError("another form")

    def _take_inputs(self, names: list[ast.expr]) -> None:
        for place, one in enumerate(names):
            if isinstance(one, ast.Name):
                self._inputs.add(one.id)
                self._first[one.id] = one.id
                self._depends[one.id] = frozenset((place,))

    def _assign(self, name: str, value: ast.expr) -> None:
        shared, shape = _same_memory(value), self._shape(value)
        self._ids.pop(name, None)
        if shared in self._first:
            self._first[name] = self._first[shared]
            if shared in self._pairs and _is_second(value):
                self._ids[name] = self._pairs[shared]
        else:
            self._depends[name] = self._write(value)
            self._first[name] = name
            if isinstance(value, ast.Call) and ast.unparse(value.func) == _TOPK:
                self._pairs[name] = len(self._calls)
                self._calls.append((*self._numbers(value), self._depends[name]))
        self._shapes.pop(name, None)
        if shape:
            self._shapes[name] = shape

    def _write(self, value: ast.expr) -> frozenset[int]:
        """Returns what a value depends on; the buffers in it, but no inputs of the graph, may depend on it as well."""
        names = {self._first[one.id] for one in ast.walk(value) if isinstance(one, ast.Name) and one.id in self._first}
        together = frozenset[int]().union(*(self._depends[name] for name in names))
        for name in names - self._inputs:
            self._depends[name] = together
        return together

    def _forget_changed(self, value: ast.expr) -> None:
        """Forgets ids that an op may have changed; a kernel of inductor writes to new names only."""
        if isinstance(value, ast.Call) and ast.unparse(value.func).startswith("torch.ops."):
            for name in {one.id for one in ast.walk(value) if isinstance(one, ast.Name)}:
                self._ids.pop(name, None)

    def _numbers(self, topk: ast.Call) -> tuple[int, int]:
        """Returns k, and of how many."""
        given = [_plain(one) for one in topk.args[1:]]
        shape = self._shape(topk.args[0])
        k, dim, largest = (*given, *(None, -1, True)[len(given) :])[:3]
        if not isinstance(k, int) or not shape or dim not in (-1, len(shape) - 1) or largest is not True:
            return 0, 0
        return (k, shape[-1]) if not topk.keywords else (0, 0)

    def _shape(self, value: ast.expr) -> tuple[int, ...]:
        """Returns the shape of a buffer, -1 for sizes that are no plain number; empty where it is not known."""
        match value:
            case ast.Name(id=name):
                return self._shapes.get(name, ())
            case ast.Call(func=ast.Name(id="reinterpret_tensor"), args=[_, ast.Tuple(elts=sizes), *_]):
                pass
            case ast.Call(func=ast.Name(id=name), args=[ast.Tuple(elts=sizes), *_]) if name.startswith("empty_strided"):
                pass
            case _:
                return ()
        plain = [_plain(one) for one in sizes]
        return tuple(one if type(one) is int else -1 for one in plain)


def _same_memory(value: ast.expr) -> str:
    """Returns the name of the buffer of which a value is a view, an item, or another name; empty for other values."""
    match value:
        case ast.Name(id=name) | ast.Subscript(value=ast.Name(id=name)):
            return name
        case ast.Call(func=ast.Name(id="reinterpret_tensor"), args=[ast.Name(id=name), *_]):
            return name
    return ""


def _is_second(value: ast.expr) -> bool:
    return isinstance(value, ast.Subscript) and _plain(value.slice) == 1


def _plain(value: ast.expr) -> object:
    """Returns a number or another constant, else None."""
    try:
        constant: object = ast.literal_eval(value)
    except (ValueError, TypeError):
        return None
    return constant
