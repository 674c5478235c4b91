"""Says once that a node knows of no other node of its job: there is no store, and the run folder is not shared."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence

from distprof.launcher.daemon.status import NodeStatus

#: The ranks of other nodes may come so much later, and a shared folder shows their status after some seconds.
PATIENCE_S = 60.0
#: In the environment of ranks: the number of nodes, of torchrun and of Slurm's steps.
_NODES = ("GROUP_WORLD_SIZE", "SLURM_STEP_NUM_NODES")
#: The ranks of the job and those of this node, of Open MPI and of MPICH.
_RANKS = (("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"), ("PMI_SIZE", "MPI_LOCALNRANKS"))


class IsolationNotice:
    """For a daemon without the job's store: one that a rank has started, or whose launcher has none."""

    def __init__(self, environment: Mapping[str, str], say: Callable[[str], None]) -> None:
        """``environment`` is that of who started the daemon; ``say`` writes a line in the job's log."""
        self._say = say
        self._waits = has_other_nodes(environment)
        self._since: float | None = None  # when the first rank was seen

    def look(self, own: NodeStatus, others: Callable[[], Sequence[NodeStatus]]) -> None:
        """Called in each exchange; ``others`` is asked once, when their time is up."""
        if not self._waits or not any(rank.world_size > len(own.ranks) for rank in own.ranks):
            return
        self._since = time.monotonic() if self._since is None else self._since
        if time.monotonic() - self._since < PATIENCE_S:
            return
        self._waits = False
        if not others():
            host = socket.gethostname()
            self._say(
                f"the daemon of {host} knows of no other node: they do not share the run folder, and only"
                f" 'distprof run' connects them; 'distprof top', 'trigger' and the hang watch go on with {host} alone"
            )


def has_other_nodes(environment: Mapping[str, str]) -> bool:
    """Whether the job runs on several nodes, as far as its launcher tells its ranks."""
    for name in _NODES:
        if name in environment:
            return _number(environment[name]) > 1
    return any(_number(environment.get(every, "")) > _number(environment.get(here, "")) > 0 for every, here in _RANKS)


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 10 else 0
