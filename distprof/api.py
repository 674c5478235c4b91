"""What a script may say to distprof by hand: ``record()``, ``set_topology()`` and ``register_formula()``.

Never raises into it, but for a UsageError at a call that makes no sense.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from distprof.topology.declared import DeclaredTopology, declare


def set_topology(*, coordinates: Mapping[str, int] | None = None, **sizes: int) -> None:
    """Say outright how the job is parallel: ``set_topology(tp=2, ep=4)``.

    Axes are dp, tp, pp, cp and ep; those left out are 1, and dp takes what the others leave of the world.
    ``coordinates`` gives this rank's place on axes where it does not follow from its rank (tp varies fastest, then cp,
    dp, pp).  Say it on every rank, before the last recorded step.  Without a recorder it does nothing; what makes no
    sense is passed over, and the report says so.
    """
    declare(DeclaredTopology(dict(sizes), dict(coordinates or {})))


def register_formula(op: Any, flops: Callable[..., int], macs: Callable[..., int] | None = None) -> None:
    """Say what one call of an op of your own costs.

    ``flops`` and ``macs`` are called as formulas of ``torch.utils.flop_counter.register_flop_formula`` are: with the
    op's arguments, a shape in place of each tensor, and the result's shape as ``out_shape``::

        distprof.register_formula(torch.ops.mylib.scaled_mm,
                                  macs=lambda a, b, scale, out_shape=None: a[0] * a[1] * b[1],
                                  flops=lambda a, b, scale, out_shape=None: (2 * a[1] + 1) * a[0] * b[1])

    ``flops`` gives all flops of the call, 2 for each MAC among them; without ``macs`` it has none.  (Formulas that are
    registered with torch hold too, and of those all flops are taken as MACs.)  ``op`` is ``torch.ops.mylib.name``, one
    of its overloads, what ``torch.library.custom_op`` made, a higher-order op or a Triton kernel.  The last formula
    given for an op holds, ahead of torch's and ours, from the next counted step on.  A formula that raises makes its op
    one without a formula: the report lists it with its calls.

    Raises UsageError for what is no op, or no function; nothing else.  Imports no torch: whoever has an op has it.
    """
    from distprof.flops import user_formulas

    user_formulas.register_formula(op, flops, macs)


@contextmanager
def record(out: str | os.PathLike[str] = "runs", name: str | None = None, **settings: object) -> Iterator[Path]:
    """Record this process by hand, where nothing can be injected (Ray, notebooks, ``mp.spawn``).

    ``settings`` are ``warmup``, ``timed`` and ``count``, as for ``distprof run``.  All ranks of a job give the same
    ``name``.  Yields the run folder, for ``distprof merge``: one in the temporary folder, said on stderr, when ``out``
    cannot be written.  Under ``distprof run`` the injected recorder is at work already, and this does nothing more.

    Raises UsageError for settings that make no sense; nothing else.
    """
    from distprof.config.settings import resolve
    from distprof.inject import bootstrap
    from distprof.rank.launches import launch_of_this_process

    if bootstrap.recorder is not None:
        bootstrap.recorder.asked = True
        yield bootstrap.recorder.run_dir
        return
    chosen = resolve(os.environ, **settings)
    run = _run_folder(Path(out).absolute(), name)
    launch, launched_ns = launch_of_this_process()
    chosen = replace(chosen, run_dir=str(run), run_id=run.name, launch=launch, launched_ns=launched_ns)
    recorder = bootstrap.arm(chosen, asked=True)
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
    from distprof.console import say
    from distprof.errors import UsageError
    from distprof.run_folder import create, job_name, safe_name

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
