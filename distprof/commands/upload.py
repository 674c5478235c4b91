"""``distprof upload``: copies a run folder to a URL, or goes on with a copy that was interrupted."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from distprof.commands.chosen_run import chosen_run
from distprof.console import say
from distprof.launcher.remote.upload import Upload
from distprof.run_folder import RunFolder


@click.command(
    epilog="""\b
Example: the job was run with --out s3://BUCKET/RUNS, and its node lost the network at the end
  distprof upload runs/NAME s3://BUCKET/RUNS
"""
)
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("url")
def command(run: Path, url: str) -> None:
    """Copy RUN to URL/NAME, as 'distprof run --out URL' does.

    Each file is read back and compared. What is there already is not copied again. URL/NAME/checksums has the checksum
    of each file, for 'sha256sum --check'. Several nodes may copy the folders of one run to one URL. Needs fsspec and
    the driver of the URL: pip install 'distprof[remote]' or 'distprof[s3]'.
    """
    upload = Upload(RunFolder(chosen_run(run, {})), url)
    copied = upload.sync()
    say(f"all {copied} files are in {upload.url}  ->  distprof merge {shlex.quote(upload.url)}")
