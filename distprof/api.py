"""What a script may say to distprof by hand: ``distprof.record()`` and ``distprof.set_topology()``.  Never raises into
it.
"""

from __future__ import annotations

import os
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
    ``name``. Yields the run folder, for ``distprof merge``.  Under ``distprof run`` the injected recorder is at work
    already, and this does nothing more.
    """
    from distprof import bootstrap
    from distprof.rundir import create, job_name, safe_name
    from distprof.settings import resolve

    if bootstrap.recorder is not None:
        yield bootstrap.recorder.run_dir
        return
    agreed = safe_name(name) if name else job_name(os.environ.get("TORCHELASTIC_RUN_ID"), os.environ)
    run = create(Path(out), agreed or f"record-{uuid.uuid4().hex[:8]}", shared=agreed is not None)
    recorder = bootstrap.arm(
        replace(resolve(os.environ, **settings), run_dir=str(run.path.absolute()), run_id=run.path.name)
    )
    try:
        yield run.path
    finally:
        if recorder is not None:
            recorder.finish()
            bootstrap.disarm()
