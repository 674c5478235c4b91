"""Whether the metrics that a user asks for can be served, as far as the launcher can tell."""

from __future__ import annotations

import socket
from importlib.util import find_spec

from distprof.config.settings import Settings
from distprof.errors import UsageError


def check_metrics(settings: Settings, *, daemon: bool) -> None:
    """Raises UsageError where metrics are asked for that nothing would serve."""
    if settings.metrics is None and not settings.metrics_textfile:
        return
    if not daemon:
        raise UsageError("metrics are served by the daemon, which is off: give one of --no-daemon and --metrics")
    if find_spec("prometheus_client") is None:
        raise UsageError("metrics are served with prometheus_client: pip install 'distprof[metrics]'")


def why_not_here(settings: Settings) -> str:
    """Returns why this machine does not serve the metrics now, empty if it does."""
    if settings.metrics is None:
        return ""
    host = settings.metrics_host
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, settings.metrics, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return f"{host} port {settings.metrics}: {error.strerror or error}"
    return ""
