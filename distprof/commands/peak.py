"""``distprof peak``: measures the peak of this machine, for the MFU of CPUs and of devices without a listed peak."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from distprof.commands.streams import put
from distprof.errors import UsageError, said
from distprof.peaks.cache import cache_file, write_peak_cache
from distprof.peaks.table import Engine, known_device
from distprof.printable import on_one_line

if TYPE_CHECKING:
    from torch import device as TorchDevice

_ARITHMETIC = 6
_MOST_SECONDS = 3600
_MOST_THREADS = max(1024, os.cpu_count() or 1)


@click.command(epilog="Example: distprof peak --threads 1, as torchrun's ranks have one thread unless told otherwise")
@click.option(
    "--threads", type=click.IntRange(1, _MOST_THREADS), help="Threads of the CPU.  [default: all that torch takes]"
)
@click.option(
    "--device", "device_text", metavar="DEVICE", help="As torch names it: cpu, cuda:0.  [default: a GPU if any]"
)
@click.option("--seconds", type=float, default=5.0, show_default=True, help="How long, about.")
def command(threads: int | None, device_text: str | None, seconds: float) -> None:
    """Measure the highest rate of matrix products on this machine, and keep it for later merges.

    MFU divides by a device's peak.  The peaks of known GPUs are in a table, from the makers' data sheets.  For other
    devices 'distprof merge' uses the figure that this command measured on such a device (for a CPU with the same number
    of threads), and says so.  Run nothing else at the same time.
    """
    if not 0 < seconds <= _MOST_SECONDS:
        raise UsageError(f"--seconds is {seconds:g}: give a number above 0, {_MOST_SECONDS:,} at most")
    torch = _torch()
    if threads:
        torch.set_num_threads(threads)
    device = _device(torch, device_text or ("cpu" if threads else None))
    name, threads = import_module("distprof.devices").device_name(device), torch.get_num_threads()
    engine = Engine(name, threads if device.type == "cpu" else 0, "")
    on = f"{threads} thread{'s' if threads > 1 else ''}, " if engine.threads else ""
    _print(f"{name or device}: {on}about {seconds:g} s")
    figures = _measured(device, engine, seconds)
    if not figures:
        raise UsageError(f"{device} multiplied no matrices: name another --device")
    path = cache_file()
    write_peak_cache(path, figures)
    _print(f"kept in {path} for later merges")
    if known := known_device(name):
        _print(f"merges take the figures of {known.source} instead, where it has them")


def _measured(device: TorchDevice, engine: Engine, seconds: float) -> dict[Engine, float]:
    """Measures and prints TFLOPS by engine."""
    peak: Any = import_module("distprof.flops.peak_benchmark")
    wanted = peak.arithmetics(device)
    figures: dict[Engine, float] = {}
    for arithmetic in wanted:
        put(f"  {arithmetic:<{_ARITHMETIC}}")
        found = peak.measure(device, arithmetic, seconds / len(wanted))
        if found:
            figures[engine._replace(arithmetic=arithmetic)] = found.tflops
            _print(f"{found.tflops:10.4g} TFLOPS  (matrices of {found.size} x {found.size})")
        else:
            _print("       n/a  (this device, or this torch, cannot)")
    return figures


def _print(line: str) -> None:
    put(on_one_line(line) + "\n")


def _torch() -> Any:
    try:
        return import_module("torch")
    except ImportError:
        raise UsageError("distprof peak multiplies matrices with torch, which is not installed here") from None


def _device(torch: Any, text: str | None) -> TorchDevice:
    """Raises UsageError for a device that torch does not have here."""
    if text is None:
        text = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device: TorchDevice = torch.empty(1, device=text).device
    except Exception as error:
        raise UsageError(f"--device {text}: {said(error).partition(chr(10))[0]}") from None
    return device
