"""The interface of probes, and what a probe needs of its recorder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from torch import nn

from distprof.model.module_tree import ModuleTree
from distprof.probes.optimizer_steps import OptimizerSteps
from distprof.records import Record


class ModuleCallListener(Protocol):
    """What a probe that looks inside models needs of its recorder."""

    @property
    def tree(self) -> ModuleTree: ...

    @property
    def mode(self) -> str: ...

    @property
    def updates_follow(self) -> bool:
        """Whether iterations end with a backward, so that parameters are updated at the start of the next."""

    def adopt(self, module: nn.Module, caller: int) -> int:
        """Adds a new module and returns its row; -1 if it gets none and is part of its caller."""

    def model_of(self, parameters: Sequence[nn.Parameter]) -> int:
        """Returns the row of the model with these parameters of compiled code that runs outside of
        modules; -1 if none.
        """

    def model_ended(self, with_gradient: bool) -> None:
        """Runs when the forward of a model has ended."""


class Probe(Protocol):
    """Measures iterations of one kind while it is attached."""

    @property
    def thread(self) -> int:
        """The thread that trains; a probe ignores other threads."""

    @property
    def optimizer_steps(self) -> OptimizerSteps:
        """The optimizer steps that the probe sees; its recorder reports those of other kinds."""

    def attach(self) -> None:
        """Starts to measure; an iteration begins."""

    def detach(self) -> None:
        """Stops to measure and removes all hooks and patches."""

    def abandon(self) -> None:
        """Detaches; the running iteration is not recorded, whichever events still arrive."""

    def begin(self) -> None:
        """Begins another iteration."""

    def end(self, iteration: int, mode: str) -> None:
        """Ends the iteration, whose number is given."""

    def read(self, *, wait: bool = False) -> list[Record]:
        """Returns the records of ended iterations that can be read now, or with ``wait`` of all
        ended ones, each once.
        """

    def backward_began(self, create_graph: bool) -> None: ...
    def backward_ended(self) -> None: ...


@runtime_checkable
class Pausing(Protocol):
    """A probe that sees more than calls, and has to pause while code runs that is not the job's work."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Region(NamedTuple):
    """One run of a compiled graph."""

    parameters: tuple[nn.Parameter, ...]  # its parameter inputs; in backward not all of the model's
    inference: bool  # runs without autograd
    updates: bool  # writes into parameters: an optimizer's step
