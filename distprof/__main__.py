"""The command line: one lazy group, so that ``distprof --help`` imports no command and no torch."""

from __future__ import annotations

import gc
import os
import sys
from importlib import import_module

import click

from distprof import __version__
from distprof.commands import streams
from distprof.console import say
from distprof.errors import DistprofError, UsageError
from distprof.suggestions import did_you_mean

#: name -> (module that holds its ``command``, its line in ``distprof --help``)
COMMANDS = {
    "run": ("distprof.commands.run", "Start a job as torchrun does, with a recorder in every rank."),
    "exec": ("distprof.commands.exec_", "Start a job with a launcher of your own (torchrun, srun, mpirun, ...)."),
    "merge": ("distprof.commands.merge", "Make one report from the shards of all ranks."),
    "diff": ("distprof.commands.diff", "Compare two runs: what changed beyond the noise, and where."),
    "export": ("distprof.commands.export", "Write a trace of all ranks, for ui.perfetto.dev."),
    "log": ("distprof.commands.log", "Hand a report to TensorBoard, Weights & Biases or MLflow."),
    "upload": ("distprof.commands.upload", "Copy a run to a URL, or go on with a copy that was interrupted."),
    "top": ("distprof.commands.live.top", "Show the ranks of a running job."),
    "status": ("distprof.commands.live.status", "Say in one paragraph how a running job is."),
    "trigger": ("distprof.commands.live.trigger", "Record a further window in a running job."),
    "count": ("distprof.commands.count.command", "Print the profile of one model, without running a job."),
    "peak": ("distprof.commands.peak", "Measure this machine's peak, for the MFU of CPUs and unknown devices."),
    "dump": ("distprof.commands.dump", "Print the records of a shard as JSON lines."),
}
#: The commands that compute with numpy and start no script: its BLAS starts a thread for each processor, unless told.
_ANALYSING = {"merge", "diff", "export"}


class LazyGroup(click.Group):
    """A group that imports a command when it is called, and lists the others from the table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        if cmd_name not in COMMANDS:
            raise UsageError(_unknown(cmd_name))
        if cmd_name in _ANALYSING:
            os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        gc.disable()  # an import leaves no garbage, and looking for it took a fifteenth of a small merge
        try:
            command: click.Command = import_module(COMMANDS[cmd_name][0]).command
        finally:
            gc.enable()
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def _unknown(word: str) -> str:
    """Returns a sentence for a word that is no command."""
    if word.endswith(".py"):
        return f"{word} is a script, not a command: distprof run --nproc 8 {word}"
    hint = did_you_mean(word, COMMANDS) or f"the commands are {', '.join(COMMANDS)}"
    return f"{word!r} is not a command: {hint}"


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="'distprof COMMAND --help' says more about one command.",
)
@click.version_option(__version__, prog_name="distprof")
def cli() -> None:
    """Who is slow, in which module, and which expert is overloaded: profiles PyTorch training on every rank.

    \b
      distprof run --nproc 8 train.py      torchrun, with a recorder in every rank
      distprof merge runs/NAME             one report from all ranks
    """


def main() -> None:
    """Run the command line of this process; errors made for users are one line, without a traceback."""
    streams.hold()
    code = streams.settle(_run())
    gc.freeze()  # nothing is looked for at the end of the process
    sys.exit(code)


def _run() -> int:
    """The exit code."""
    try:
        code = cli.main(prog_name="distprof", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except SystemExit as ended:
        if not isinstance(ended.code, int | None):
            raise  # for Python to print
        return ended.code or 0
    except DistprofError as error:
        say(str(error))
        return error.exit_code
    except click.ClickException as error:
        say(_sentence(error))
        return error.exit_code
    except click.Abort:
        say("interrupted")
        return 1
    except OSError as error:
        if error.filename is not None:
            raise
        return streams.refused(error)  # what click printed


def _sentence(error: click.ClickException) -> str:
    """Returns click's message in one sentence, as distprof's own errors are."""
    message = " ".join(error.format_message().split()).rstrip(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = context.command_path if context else "distprof"
    return f"{message[:1].lower()}{message[1:]} ('{command} --help' explains it)"


if __name__ == "__main__":
    main()
