"""The training stacks that this process has imported, in the order in which they are believed.

Others add one with an entry point in the group ``distprof.frameworks``: its name is the package that it is for, and it
names a :class:`~distprof.frameworks.protocol.Framework`.  It is loaded when the script has imported that package.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from torch import nn

from distprof import errors
from distprof.external_exceptions import pass_on
from distprof.frameworks.deepspeed import DeepSpeed
from distprof.frameworks.dtensor_shards import NONE, Sharding, is_dtensor, of_dtensor
from distprof.frameworks.generic_moe import GenericMoe
from distprof.frameworks.huggingface import Accelerate, Transformers
from distprof.frameworks.megatron import Megatron
from distprof.frameworks.protocol import Experts, Framework, ParameterLayout
from distprof.frameworks.torch_native import Pipelining, Wrappers
from distprof.frameworks.torchtitan import TorchTitan

GROUP = "distprof.frameworks"

Answer = TypeVar("Answer")
Stack = TypeVar("Stack", bound=Framework)


class FrameworkRegistry:
    """Asks each stack; one that raises is named in ``failures``, once, and its answer is missing."""

    def __init__(self) -> None:
        self.failures: dict[str, str] = {}
        self.pipelining, self.wrappers, self._modules = Pipelining(), Wrappers(), GenericMoe()
        #: What knows its axes for sure.  What torch's wrappers say comes after what meshes say.
        self._getters = [Megatron(), DeepSpeed(), Transformers(), Accelerate(), TorchTitan(), self.pipelining]
        self._others: dict[str, Framework | EntryPoint] | None = None

    def believed(self) -> Iterator[Framework]:
        """Those whose package is imported, third parties' first."""
        yield from self._third_parties()
        yield from (stack for stack in self._getters if stack.package in sys.modules)

    def ask(self, stack: Stack, question: Callable[[Stack], Answer]) -> Answer | None:
        """The answer; None where it raises."""
        try:
            return question(stack)
        except Exception as error:
            pass_on(error)
            self._failed(stack.name, error)
            return None

    def layout(
        self, owner: nn.Module, name: str, parameter: Any, *, expert: bool = False, sharding: Sharding = NONE
    ) -> ParameterLayout:
        """What the first stack says that knows it; else it lies whole on this rank, unless it is a DTensor.
        ``sharding``: FSDP's, of the owner.
        """
        for stack in self._that_answer("layout"):
            said = self.ask(stack, lambda stack: stack.layout(owner, name, parameter, expert=expert))
            if said is not None:
                return said
        if is_dtensor(parameter):
            said = self.ask(self.wrappers, lambda _: of_dtensor(parameter, sharding))
            if said is not None:
                return said
        return ParameterLayout(parameter.numel(), parameter.numel(), parameter.numel())

    def experts(self, module: nn.Module) -> Experts | None:
        for stack in self._that_answer("experts"):
            said = self.ask(stack, lambda stack: stack.experts(module))
            if said is not None:
                return said
        return None

    def child_name(self, parent: nn.Module, name: str, child: nn.Module) -> str:
        """The model's own name of a child."""
        for stack in self._that_answer("child_name"):
            said = self.ask(stack, lambda stack: stack.child_name(parent, name, child))
            if said and said != name:
                return said
        return name

    def _that_answer(self, question: str) -> list[Framework]:
        silent = getattr(Framework, question)
        stacks = (*self.believed(), self.wrappers, self._modules)
        return [stack for stack in stacks if getattr(type(stack), question) is not silent]

    def _third_parties(self) -> Iterator[Framework]:
        if self._others is None:
            self._others = dict(_entry_points())
        for package, other in list(self._others.items()):
            if isinstance(other, EntryPoint) and package in sys.modules:
                self._others[package] = self._load(package, other)
            stack = self._others[package]
            if isinstance(stack, Framework):
                yield stack

    def _load(self, package: str, entry: EntryPoint) -> Framework:
        try:
            loaded = entry.load()
            stack = loaded() if isinstance(loaded, type) else loaded
            if not isinstance(stack, Framework):
                raise TypeError(f"{entry.value} is no distprof.frameworks.protocol.Framework")
            return stack
        except Exception as error:
            pass_on(error)
            self._failed(f"{package} ({entry.value})", error)
            return Framework()  # which says nothing

    def _failed(self, name: str, error: Exception) -> None:
        self.failures.setdefault(
            name, f"what {name} says was not understood: {type(error).__name__}: {errors.said(error)}"
        )


def _entry_points() -> Iterator[tuple[str, EntryPoint]]:
    try:
        yield from ((entry.name, entry) for entry in entry_points(group=GROUP))
    except Exception as error:  # a broken installation of something else
        pass_on(error)
        return
