"""What a script may say to distprof by hand: ``distprof.record()`` and ``distprof.set_topology()``.  Never raises into
it.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from distprof.frameworks.declaration import Declaration, declare


def set_topology(*, coordinates: Mapping[str, int] | None = None, **sizes: int) -> None:
    """Say outright how the job is parallel: ``set_topology(tp=2, ep=4)``.

    Axes are dp, tp, pp, cp and ep; those left out are 1, and dp takes what the others leave of the world.
    ``coordinates`` gives this rank's place on axes where it does not follow from its rank (tp varies fastest, then cp,
    dp, pp).  Say it on every rank, before the last recorded step.  Without a recorder it does nothing; what makes no
    sense is passed over, and the report says so.
    """
    declare(Declaration(dict(sizes), dict(coordinates or {})))


@contextmanager
def record(out: str | os.PathLike[str] = "runs", name: str | None = None, **settings: object) -> Iterator[Path]:
    """Record this process by hand, where nothing can be injected (Ray, notebooks, ``mp.spawn``).

    ``settings`` are ``warmup``, ``timed`` and ``count``, as for ``distprof run``.  All ranks of a job give the same
    ``name``.  Yields the run folder, for ``distprof merge``: one in the temporary folder, said on stderr, when ``out``
    cannot be written.  Under ``distprof run`` the injected recorder is at work already, and this does nothing more.

    Raises UsageError for settings that make no sense; nothing else.
    """
    from distprof import bootstrap
    from distprof.settings import resolve

    if bootstrap.recorder is not None:
        yield bootstrap.recorder.run_dir
        return
    chosen = resolve(os.environ, **settings)
    run = _run_folder(Path(out).absolute(), name)
    recorder = bootstrap.arm(replace(chosen, run_dir=str(run), run_id=run.name), asked=True)
    try:
        yield run
    finally:
        if recorder is not None:
            recorder.finish()
            bootstrap.disarm()


def _run_folder(out: Path, name: str | None) -> Path:
    """A new folder, or the one that all ranks share; elsewhere if need be.  One that does not exist when none can be
    made.
    """
    from distprof.errors import UsageError
    from distprof.rundir import create, job_name, safe_name
    from distprof.say import say

    agreed = safe_name(name) if name else job_name(os.environ.get("TORCHELASTIC_RUN_ID"), os.environ)
    chosen = agreed or f"record-{uuid.uuid4().hex[:8]}"
    try:
        return create(out, chosen, shared=agreed is not None).path
    except UsageError as error:
        why = error
    try:
        run = create(Path(tempfile.mkdtemp(prefix="distprof-")), chosen, shared=True).path
    except (OSError, UsageError):
        return out / chosen
    say(f"{why}: this run goes to {run}")
    return run
