"""Starts the daemon of a node from the first of its ranks, before the rank's script runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from distprof.config.settings import read_settings
from distprof.console import say
from distprof.errors import said
from distprof.heartbeat.daemon_start import start_from_rank
from distprof.heartbeat.node_files import ensure_page
from distprof.run_folder import RunFolder


def start_if_first(folder: str, path: Sequence[str]) -> None:
    """Makes the page of this node and starts its daemon, unless the node has a page.  ``path`` is where distprof is."""
    settings = read_settings(Path(folder))
    run = RunFolder(Path(settings.run_dir))
    try:
        _, is_new = ensure_page(run, settings.page_id)
        if is_new:
            start_from_rank(run, settings.launch, Path(folder), path)
    except OSError as error:
        if os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")) == "0":
            say(f"the ranks of this node have no heartbeat, the job goes on: {said(error)}")
