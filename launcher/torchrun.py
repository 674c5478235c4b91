"""Runs torchrun in this process: its own parser with distprof's options added, and its own run function."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from distprof.config.files import HELP
from distprof.config.options import RUN
from distprof.console import say
from distprof.errors import UsageError
from distprof.launcher.run_setup import Job, RunOptions, choose_options
from distprof.launcher.script_check import check_script
from distprof.launcher.store.rendezvous import Rendezvous
from distprof.run_folder import job_name
from distprof.suggestions import did_you_mean

_USAGE = "distprof run [distprof's options] [torchrun's options] script [the script's arguments]"
_EXAMPLE = """
Starts the script as torchrun does, with a recorder in every rank. The script is not changed, and arguments after it
belong to it. On one node, without a rendezvous option, it acts as torchrun --standalone.

  distprof run --nproc 8 train.py --lr 3e-4                    the last line says where the recording is
  distprof merge runs/NAME                                     the report

  distprof run --nproc 8 --warmup 50 --merge train.py          both, from iteration 50 on
  distprof run --nproc 8 --config ds_config.json train.py      as the flops_profiler section of a DeepSpeed config says

Of the first iterations, every rank records the phases only. It counts the flops of the next one, times some more, and
then trains on as if it had never been recorded. Each of distprof's options is also a variable (DISTPROF_WARMUP=50), and
a key of a configuration file (warmup = 50).
"""
#: Options that choose a rendezvous.
_RENDEZVOUS = (
    *("standalone", "rdzv_backend", "rdzv_endpoint", "rdzv_id", "rdzv_conf"),
    *("master_addr", "master_port", "node_rank"),
)
_STATIC_PORT = 29500  # torchrun's default
_TORCHRUN = "torch.distributed.run"
_MOST_DIGITS = 7
_UNKNOWN_OPTION = "unrecognized arguments: "  # argparse's words
_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class _Incomplete(Exception):
    """The arguments are an incomplete command line."""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parses the arguments of ``distprof run``.  Raises UsageError for wrong ones, and without torch."""
    parser = _parser()
    parser.error = partial(_refuse, parser)  # type: ignore[method-assign]
    head = _head(arguments)
    args = parser.parse_args(arguments[:head])
    args.training_script_args = list(arguments[head:])
    given = parser.parse_args(arguments[:head], argparse.Namespace(**dict.fromkeys(_RENDEZVOUS)))
    chosen = any(getattr(given, name) is not None or f"PET_{name.upper()}" in os.environ for name in _RENDEZVOUS)
    if not chosen and _nodes(args) == (1, 1):
        args.standalone = True
    return args


def check(args: argparse.Namespace) -> None:
    """Raises UsageError for a job that torchrun cannot start, before a run folder is made for it."""
    if _nodes(args) == (0, 0):
        raise UsageError(f"--nnodes {args.nnodes} is not a number of nodes: give a number, or two as in 1:4")
    _check_ranks(args.nproc_per_node)
    check_script(args)


def _check_ranks(number: str) -> None:
    """Raises UsageError for an ``--nproc`` of which torchrun makes no number of ranks."""
    try:
        ranks = _torchrun().determine_local_world_size(number)
    except (ValueError, RuntimeError) as error:
        why = f" ({error})".replace(".)", ")") if "available" in str(error) else ""
        raise UsageError(f"--nproc {number} is not a number of ranks{why}: give a number, gpu, cpu or auto") from None
    if ranks < 1:
        raise UsageError(f"--nproc {number} starts no rank: give 1 or more")


def options(args: argparse.Namespace) -> RunOptions:
    """Returns distprof's options from the parsed arguments, the environment and a file.  Raises UsageError."""
    return choose_options(vars(args))


def job(args: argparse.Namespace, name: str | None, command: Sequence[str]) -> Job:
    """Returns the job ``name`` from the parsed arguments; ``command`` is the whole command line."""
    fewest, most = _nodes(args)
    ranks = _number(args.nproc_per_node)
    script = args.training_script
    return Job(
        command=tuple(command),
        title=script if args.module else Path(script).stem,
        shared_name=(name or _shared_name(args)) if most > 1 else None,
        world_size=ranks * most if fewest == most else 0,
        host=socket.gethostname() if most > 1 else "",
        host_ranks=ranks,
        on_this_node=True,
    )


def start(args: argparse.Namespace, variables: Mapping[str, str], rendezvous: Rendezvous | None = None) -> int:
    """Runs the job with ``variables`` in its environment.  Returns torchrun's exit code.

    ``rendezvous`` gets to know the rendezvous of the job.
    """
    from torch.distributed.elastic.multiprocessing.errors import record

    noted = nullcontext() if rendezvous is None else rendezvous.watched()
    with _environment(variables), _signal_handlers_restored(), noted:
        try:
            record(_torchrun().run)(args)
        except Exception:
            # As the interpreter does with an uncaught exception of torchrun; the run's last line follows.
            sys.excepthook(*sys.exc_info())
            return 1
    return 0


def _torchrun() -> ModuleType:
    if _TORCHRUN not in sys.modules:
        try:
            with _without_garbage_collection():
                import_module(_TORCHRUN)
        except ImportError as error:
            raise UsageError(f"'distprof run' needs torch, which this Python cannot import: {error}") from None
    return sys.modules[_TORCHRUN]


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Keeps imported objects out of garbage collection, because they stay until the launcher ends.

    Otherwise they are searched repeatedly during the import, and at exit, which with torch takes longer than everything
    that distprof adds to a job's start.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _torchrun().get_args_parser()
    # torchrun itself calls --nproc ambiguous.
    parser.add_argument(
        "--nproc", dest="nproc_per_node", default=argparse.SUPPRESS, help="Short for --nproc-per-node.", metavar="N"
    )
    parser.prog, parser.usage = "distprof run", _USAGE
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = f"{_EXAMPLE.strip()}\n\n{_own_help()}\ntorchrun's options, all with their meaning:"
    _add_own(parser, shown=False)
    return parser


def _own_help() -> str:
    parser = argparse.ArgumentParser(usage=argparse.SUPPRESS, add_help=False)
    _add_own(parser, shown=True)
    return parser.format_help()


def _add_own(parser: argparse.ArgumentParser, *, shown: bool) -> None:
    """Adds distprof's options.  They are hidden in torchrun's parser, because help shows them before torchrun's."""
    group = parser.add_argument_group("distprof's options")

    def add(flag: str, text: str, **how: Any) -> None:
        group.add_argument(flag, help=text if shown else argparse.SUPPRESS, **how)

    add("--config", HELP, type=Path, metavar="FILE")
    for option in RUN:
        if option.kind is bool:
            add(option.flag, option.help, action=argparse.BooleanOptionalAction)
        else:
            add(option.flag, option.help, type=option.kind, metavar=option.metavar)


def _head(arguments: Sequence[str]) -> int:
    """Returns the index of the script's first argument: the length of the shortest complete command line.

    argparse classifies all arguments before it knows which belong to the script, and refuses a script's ``--n`` as an
    ambiguous option of torchrun, so it must not get the script's arguments.
    """
    probe = _parser()
    probe.error = _incomplete  # type: ignore[method-assign]
    for length in range(1, len(arguments) + 1):
        try:
            probe.parse_args(arguments[:length])
        except _Incomplete:
            continue
        return length
    return len(arguments)


def _incomplete(message: str) -> NoReturn:
    raise _Incomplete(message)


def _refuse(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    """Raises UsageError with argparse's ``message``, in plainer words for its two most frequent ones."""
    unknown = message.removeprefix(_UNKNOWN_OPTION)
    if unknown != message:
        hint = did_you_mean(unknown.split()[0], _options(parser)) or "'distprof run --help' lists them"
        words = f"'distprof run' has no option {unknown}: {hint}"
    elif "training_script" in message:
        words = "no script is given, as in: distprof run --nproc 8 train.py"
    else:
        words = f"{message} ('distprof run --help' explains the options)"
    raise UsageError(words)


def _options(parser: argparse.ArgumentParser) -> list[str]:
    return [flag for action in parser._actions for flag in action.option_strings]


def _nodes(args: argparse.Namespace) -> tuple[int, int]:
    """Returns (fewest, most) nodes of the job; (0, 0) for a value that torchrun will refuse."""
    fewest, *more = map(_number, args.nnodes.split(":"))
    most = more[-1] if more else fewest
    return (fewest, most) if fewest and most else (0, 0)


def _number(text: str) -> int:
    """Returns the number in a text; 0 if it is none, or too large for any machine."""
    return int(text) if text.isdecimal() and len(text) < _MOST_DIGITS else 0


def _shared_name(args: argparse.Namespace) -> str:
    """Returns a name for the run on which all nodes agree without communication."""
    name = job_name(None if args.rdzv_id == "none" else args.rdzv_id, os.environ)
    if name:
        return name
    meeting = args.rdzv_endpoint or f"{args.master_addr}-{args.master_port or _STATIC_PORT}"
    name = f"{Path(args.training_script).stem}-{meeting}"
    say(f"the nodes share neither --rdzv-id nor a SLURM job: the run is called {name}; give --name to tell runs apart")
    return name


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _signal_handlers_restored() -> Iterator[None]:
    """Restores the signal handlers after torchrun, which leaves handlers that raise."""
    before = {number: signal.getsignal(number) for number in _HANDLED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
