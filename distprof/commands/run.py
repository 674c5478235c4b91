"""``distprof run``: torchrun, with a recorder in every rank."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

import click
from click.shell_completion import CompletionItem

from distprof.config.flight_recorder import ring_variables
from distprof.config.options import RUN
from distprof.launcher import torchrun
from distprof.launcher.job import record_job
from distprof.launcher.store.rendezvous import Rendezvous


class Verbatim(click.Command):
    """A command whose arguments click does not parse, not even ``--help`` and ``--``: torchrun's parser reads them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.params["arguments"] = list(args)
        return []

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Completes distprof's own options and ``--nproc``, and else files; torchrun's options would need torch."""
        options = {"--nproc": "ranks on this node", **{option.flag: option.text for option in RUN}}
        if not incomplete.startswith("-"):
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(flag, help=text) for flag, text in options.items() if flag.startswith(incomplete)]


@click.command(cls=Verbatim, add_help_option=False)
def command(arguments: list[str]) -> None:
    """Start a job as torchrun does, with a recorder in every rank."""
    args = torchrun.parse(arguments)
    torchrun.check(args)
    options = torchrun.options(args)
    job = torchrun.job(args, options.name, ["distprof", "run", *arguments])
    rendezvous = Rendezvous() if job.host else None

    def start(variables: Mapping[str, str]) -> int:
        """Starts the ranks; without variables of a recorder they are started as torchrun does."""
        ring = ring_variables(options.settings, os.environ) if variables else {}
        return torchrun.start(args, {**ring, **variables}, rendezvous)

    sys.exit(record_job(options, job, start, rendezvous))
