"""Kernels that the compiler made itself: no dispatch shows them, so that they are named instead of counted.

Each graph that inductor compiled is called through one method of one class, and carries its source, in which the calls
of its kernels stand.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from threading import get_ident
from typing import Any, NamedTuple, Protocol

from torch import nn

from distprof.hooks.patches import FunctionPatch, OnError
from distprof.probes.protocol import Region

_MODULE = "torch._inductor.output_code"
_MAKERS = "cpp|triton|multi_kernel|cutedsl|cutlass|cuda|rocm|pallas|mps"
#: A call on a line of its own, as inductor writes them; definitions stand at the margin, or after "def".
_GENERATED = re.compile(rf"^[ \t]+(?:\w+ = )?((?:{_MAKERS})_\w+)(?:\.run)?\(", re.MULTILINE)
_EXTERN = re.compile(r"\b(extern_kernels\.\w+)\(")


class Kernels(NamedTuple):
    """Calls in one run of a compiled graph, by name."""

    generated: Counter[str]
    extern: Counter[str]  # of libraries, by way of torch's dispatcher; not where a CUDA graph replays them


class GraphHandler(Protocol):
    """Told of each run of a compiled graph, on whatever thread."""

    def graph_begins(self, region: Region) -> None: ...
    def graph_ended(self, kernels: Kernels) -> None: ...


class CompiledGraphs:
    """The runs of all graphs that inductor has compiled so far."""

    def __init__(self, visitor: GraphHandler, on_error: OnError) -> None:
        self._visitor = visitor
        self._on_error = on_error
        self._kernels: dict[str, Kernels] = {}  # by the graph's key
        self._running: dict[int, Any] = {}  # by thread
        self._door: FunctionPatch | None = None

    def open(self) -> None:
        graph = getattr(sys.modules.get(_MODULE), "CompiledFxGraph", None)
        if graph is not None:
            self._door = FunctionPatch(((graph, "__call__"),), "compiled code", self._on_error)
            self._door.open(self)

    def close(self) -> None:
        if self._door is not None:
            self._door.close()
            self._door = None

    def begin(self, args: tuple[Any, ...]) -> None:
        graph, inputs = args[:2]
        self._running[get_ident()] = graph
        self._visitor.graph_begins(_region(graph, inputs))

    def end(self) -> None:
        graph = self._running.pop(get_ident(), None)
        if graph is not None:
            self._visitor.graph_ended(self._kernels_of(graph))

    def _kernels_of(self, graph: Any) -> Kernels:
        key = str(graph.cache_key)
        if key not in self._kernels:
            self._kernels[key] = kernels_in(graph.source_code or "")
        return self._kernels[key]


def _region(graph: Any, inputs: Sequence[Any]) -> Region:
    inference = bool(graph.fx_kwargs.get("is_inference"))
    written = [inputs[index] for index in graph.mutated_input_idxs] if inference else []
    parameters = tuple(value for value in inputs if isinstance(value, nn.Parameter))
    return Region(parameters, inference, any(isinstance(value, nn.Parameter) for value in written))


def kernels_in(source: str) -> Kernels:
    """The calls of kernels in what inductor wrote for one graph."""
    return Kernels(Counter(_GENERATED.findall(source)), Counter(_EXTERN.findall(source)))
