"""The training stacks that this process has imported, the most trusted first.

Other packages add a stack with an entry point in the group ``distprof.frameworks``.  The entry point is named after the
stack's package, and refers to a :class:`~distprof.frameworks.protocol.Framework`.  It is loaded once the script has
imported that package.
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
from distprof.frameworks.dtensor_shards import NONE, Sharding, dtensor_layout, is_dtensor
from distprof.frameworks.expert_finder import find_experts
from distprof.frameworks.huggingface import Accelerate, Transformers
from distprof.frameworks.megatron import Megatron
from distprof.frameworks.module_view import ModelView
from distprof.frameworks.protocol import Experts, Framework, ParameterLayout
from distprof.frameworks.torch_native import Pipelining, Wrappers
from distprof.frameworks.tutel import Tutel

GROUP = "distprof.frameworks"

Answer = TypeVar("Answer")
Stack = TypeVar("Stack", bound=Framework)


class FrameworkRegistry:
    """Asks each stack.  If one raises, its answer is missing, and ``failures`` has its first error."""

    def __init__(self) -> None:
        self.failures: dict[str, str] = {}
        self.pipelining, self.wrappers = Pipelining(), Wrappers()
        #: Stacks that know their axes exactly.  torch's wrappers are less trusted than meshes.
        self._exact = [Megatron(), DeepSpeed(), Tutel(), Transformers(), Accelerate(), self.pipelining]
        self._others: dict[str, Framework | EntryPoint] | None = None

    def imported(self) -> Iterator[Framework]:
        """Yields the stacks whose package is imported, those of third parties first."""
        yield from self._third_parties()
        yield from (stack for stack in self._exact if stack.package in sys.modules)

    def ask(self, stack: Stack, question: Callable[[Stack], Answer]) -> Answer | None:
        """Returns the answer; None if the stack raises."""
        try:
            return question(stack)
        except Exception as error:
            pass_on(error)
            self._record_failure(stack.name, error)
            return None

    def layout(
        self, owner: nn.Module, name: str, parameter: Any, *, expert: bool = False, sharding: Sharding = NONE
    ) -> ParameterLayout:
        """Returns the layout by the first stack that knows it, else that of a DTensor, else of a whole parameter.

        ``sharding``: that of the owner by FSDP.
        """
        for stack in self._stacks_with("layout"):
            answer = self.ask(stack, lambda stack: stack.layout(owner, name, parameter, expert=expert))
            if answer is not None:
                return answer
        if is_dtensor(parameter):
            answer = self.ask(self.wrappers, lambda _: dtensor_layout(parameter, sharding))
            if answer is not None:
                return answer
        return ParameterLayout(parameter.numel(), parameter.numel(), parameter.numel())

    def experts(self, module: nn.Module, view: ModelView | None = None) -> Experts | None:
        """Returns the experts of ``module`` by the first stack that knows it, else by its weights.

        ``view`` is that of the whole model, by default of ``module`` alone.
        """
        for stack in self._stacks_with("experts"):
            answer = self.ask(stack, lambda stack: stack.experts(module))
            if answer is not None:
                return answer
        return self.ask(self.wrappers, lambda _: find_experts(module, view or ModelView(module)))

    def child_name(self, parent: nn.Module, name: str, child: nn.Module) -> str:
        """Returns a child's name in the whole model."""
        for stack in self._stacks_with("child_name"):
            answer = self.ask(stack, lambda stack: stack.child_name(parent, name, child))
            if answer and answer != name:
                return answer
        return name

    def _stacks_with(self, question: str) -> list[Framework]:
        default = getattr(Framework, question)
        stacks = (*self.imported(), self.wrappers)
        return [stack for stack in stacks if getattr(type(stack), question) is not default]

    def _third_parties(self) -> Iterator[Framework]:
        if self._others is None:
            self._others = dict(_entry_points())
        for package, other in list(self._others.items()):
            # Not "is an EntryPoint": with the package importlib_metadata, which Dask imports, they have another class.
            if not isinstance(other, Framework) and package in sys.modules:
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
            self._record_failure(f"{package} ({entry.value})", error)
            return Framework()  # has no answers

    def _record_failure(self, name: str, error: Exception) -> None:
        self.failures.setdefault(
            name, f"the answer of {name} was not understood: {type(error).__name__}: {errors.said(error)}"
        )


def _entry_points() -> Iterator[tuple[str, EntryPoint]]:
    try:
        yield from ((entry.name, entry) for entry in entry_points(group=GROUP))
    except Exception as error:  # another package's broken installation
        pass_on(error)
        return
