"""Kernels that the compiler generated: dispatch modes do not see them, so they are named, not counted.

Each graph that inductor compiled is called through one method of one class, and has its source, which contains the
calls of its kernels.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from torch import nn

from distprof.hooks.patches import CallPatch, OnError
from distprof.probes.protocol import Region

_MODULE = "torch._inductor.output_code"
_MAKERS = "cpp|triton|multi_kernel|cutedsl|cutlass|cuda|rocm|pallas|mps"
#: A call on its own line, as inductor writes them; definitions are not indented, or follow "def".
_GENERATED = re.compile(rf"^[ \t]+(?:\w+ = )?((?:{_MAKERS})_\w+)(?:\.run)?\(", re.MULTILINE)
_EXTERN = re.compile(r"\b(extern_kernels\.\w+)\(")


class Kernels(NamedTuple):
    """The kernel calls in one run of a compiled graph, by name."""

    generated: Counter[str]
    extern: Counter[str]  # library kernels; they pass torch's dispatcher, unless a CUDA graph replays them


class GraphHandler(Protocol):
    """Receives each run of a compiled graph, on any thread."""

    def graph_begins(self, region: Region) -> None: ...
    def graph_ended(self, kernels: Kernels) -> None: ...


class GraphReader(Protocol):
    """Reads values of graphs."""

    def graph_begins(self, region: Region, source: str, inputs: Sequence[Any]) -> Any:
        """Runs before the graph.  Returns a token, or None if its outputs are not to be read."""

    def graph_returned(self, token: Any, outputs: Any) -> None: ...


class CompiledGraphs:
    """Passes the runs of all graphs that inductor has compiled to a handler, and to a reader."""

    def __init__(self, handler: GraphHandler, on_error: OnError, reader: GraphReader | None = None) -> None:
        self._handler = handler
        self._reader = reader
        self._on_error = on_error
        self._kernels: dict[str, Kernels] = {}  # by the graph's key
        self._patch: CallPatch | None = None

    def open(self) -> None:
        graph = getattr(sys.modules.get(_MODULE), "CompiledFxGraph", None)
        if graph is not None:
            self._patch = CallPatch(((graph, "__call__"),), "compiled code", self._on_error)
            self._patch.open(self)

    def close(self) -> None:
        if self._patch is not None:
            self._patch.close()
            self._patch = None

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        graph, inputs = args[:2]
        region = _region(graph, inputs)
        self._handler.graph_begins(region)
        reader = self._reader
        return graph, None if reader is None else reader.graph_begins(region, graph.source_code or "", inputs)

    def end(self, token: tuple[Any, Any], result: Any, raised: bool) -> None:
        graph, reading = token
        if reading is not None and self._reader is not None and not raised:
            self._reader.graph_returned(reading, result)
        self._handler.graph_ended(self._kernels_of(graph))

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
    """Returns the kernel calls in the source that inductor wrote for one graph."""
    return Kernels(Counter(_GENERATED.findall(source)), Counter(_EXTERN.findall(source)))
