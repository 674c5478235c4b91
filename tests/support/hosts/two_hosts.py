"""Two hosts on one machine: each with clocks of its own, and where the system allows it with a network of its own.

Every Python of a host enters its network and takes its clocks when it starts: ``skewed/sitecustomize.py``.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter_ns

from support.forking.server import forking_python
from support.hosts.clocks import SkewedClock

_SKEWED = Path(__file__).parent / "skewed"
_SECONDS = 600


@dataclass
class HostClock:
    """The clocks of one host."""

    domain: str
    shift_ns: int = 0
    drift: float = 0.0
    origin_ns: int = field(default_factory=perf_counter_ns)

    @property
    def clock(self) -> SkewedClock:
        return SkewedClock(self.shift_ns, self.drift, self.origin_ns)

    def environment(self, base: Mapping[str, str], namespace: str) -> dict[str, str]:
        host = {**vars(self), "namespace": namespace}
        return {**base, "PYTHONPATH": str(_SKEWED), "SKEWED_HOST": json.dumps(host)}


@dataclass(frozen=True)
class Network:
    """Where the hosts are, and the files of their network namespaces, empty for the machine's own."""

    address: str  # of the first
    namespaces: tuple[str, str] = ("", "")
    variables: Mapping[str, str] = field(default_factory=dict)


def run_on_two_hosts(
    network: Network,
    clocks: tuple[HostClock, HostClock],
    words: tuple[str, ...],
    *,
    cwd: Path,
    env: Mapping[str, str],
    port: int,
) -> list[subprocess.CompletedProcess[str]]:
    """``distprof run`` on both hosts, with a static rendezvous on the first; ``words`` follow torchrun's options."""
    python = forking_python(env)
    meeting = ("--nnodes", "2", "--master-addr", network.address, "--master-port", str(port))
    started: list[subprocess.Popen[str]] = []
    with ExitStack() as stack:
        for node, clock in enumerate(clocks):
            process = subprocess.Popen(
                [python, "-m", "distprof", "run", *meeting, "--node-rank", str(node), *words],
                cwd=cwd,
                env={
                    **clock.environment(env, network.namespaces[node]),
                    **network.variables,
                    "PYTHON_EXEC": str(python),  # read by torchrun
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.callback(process.kill)
            started.append(stack.enter_context(process))
        said = [process.communicate(timeout=_SECONDS) for process in started]
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *texts)
        for process, texts in zip(started, said, strict=True)
    ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def two_namespaces() -> Iterator[Network | None]:
    """Two network namespaces with a cable between them; None where the system does not allow that."""
    names = [f"distprof-{os.getpid()}-{side}" for side in "ab"]
    ends = [f"dp{side}{os.getpid() % 100_000}" for side in "ab"]
    with ExitStack() as stack:
        try:
            for name in names:
                _ip("netns", "add", name)
                stack.callback(_ip, "netns", "del", name)
            _ip("link", "add", ends[0], "netns", names[0], "type", "veth", "peer", "name", ends[1], "netns", names[1])
            for number, (name, end) in enumerate(zip(names, ends, strict=True), 1):
                _ip("-n", name, "link", "set", end, "name", "cable")
                _ip("-n", name, "addr", "add", f"10.231.77.{number}/24", "dev", "cable")
                _ip("-n", name, "link", "set", "cable", "up")
                _ip("-n", name, "link", "set", "lo", "up")
        except (OSError, subprocess.CalledProcessError):
            yield None
            return
        variables = {"GLOO_SOCKET_IFNAME": "cable", "TP_SOCKET_IFNAME": "cable"}
        yield Network("10.231.77.1", (f"/run/netns/{names[0]}", f"/run/netns/{names[1]}"), variables)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
