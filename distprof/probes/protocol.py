"""What a probe is, and what it needs of its recorder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from torch import nn

from distprof.model.module_tree import ModuleTree
from distprof.records import Record


class ModuleCallListener(Protocol):
    """What a probe inside models needs of its recorder."""

    @property
    def tree(self) -> ModuleTree: ...

    @property
    def mode(self) -> str: ...

    @property
    def updates_follow(self) -> bool:
        """Whether iterations end with a backward, and the parameters are updated at the beginning of the next."""

    def adopt(self, module: nn.Module, caller: int) -> int:
        """The row of a module never met before; -1 when it has none and is part of its caller."""

    def model_of(self, parameters: Sequence[nn.Parameter]) -> int:
        """The row of the model that holds them, -1 for none: compiled code runs with them outside of any module."""

    def model_ended(self, with_gradient: bool) -> None:
        """A model's forward has ended."""


class Probe(Protocol):
    """What is attached during iterations of one kind."""

    @property
    def thread(self) -> int:
        """The thread that trains; what other threads do is none of a probe's business."""

    def attach(self) -> None:
        """From now on, and an iteration begins."""

    def detach(self) -> None:
        """Leave nothing behind."""

    def abandon(self) -> None:
        """As :meth:`detach`; the running iteration is not recorded, whatever is still told of it."""

    def begin(self) -> None:
        """Another iteration begins."""

    def end(self, iteration: int, mode: str) -> None:
        """The iteration with this number has ended."""

    def read(self, *, wait: bool = False) -> list[Record]:
        """Records of the iterations that ended and can be read by now; of all that ended, with ``wait``.  Each is given
        once.
        """

    def backward_began(self, create_graph: bool) -> None: ...
    def backward_ended(self) -> None: ...
    def optimizer_ended(self) -> None: ...

    def outer_step_began(self) -> None:
        """An optimizer begins to step that steps others in it."""

    def outer_step_ended(self) -> None: ...


@runtime_checkable
class Pausing(Protocol):
    """A probe that sees more than calls, and is told when what follows is none of the job's work."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Region(NamedTuple):
    """One run of a compiled graph."""

    parameters: tuple[nn.Parameter, ...]  # that it is given: not all of a model's, in backward
    inference: bool  # autograd has no part in it
    updates: bool  # it writes into parameters: an optimizer's step
