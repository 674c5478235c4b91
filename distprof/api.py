"""The functions that a script may call: ``record()``, ``set_topology()``, ``register_formula()``, ``record_experts()``.

They raise nothing into the script but a UsageError for invalid arguments.
"""

from __future__ import annotations

import functools
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from distprof.config.options import DEFAULTS
from distprof.results.recorded_run import RecordedRun
from distprof.topology.declared import DeclaredTopology, declare


def set_topology(*, coordinates: Mapping[str, int] | None = None, **sizes: int) -> None:
    """Declares the parallel sizes of the job: ``set_topology(tp=2, ep=4)``.

    Axes are dp, tp, pp, cp and ep.  An axis that is left out has size 1; dp has the world size divided by the others.
    ``coordinates`` gives this rank's coordinate on axes where it does not follow from the rank (tp varies fastest, then
    cp, dp, pp).  Call it on every rank, before the last recorded step.  Without a recorder it does nothing.  Invalid
    sizes are ignored, and the report says so.
    """
    declare(DeclaredTopology(dict(sizes), dict(coordinates or {})))


def register_formula(op: Any, flops: Callable[..., int], macs: Callable[..., int] | None = None) -> None:
    """Registers the cost of one call of a custom op.

    ``flops`` and ``macs`` are called like the formulas of ``torch.utils.flop_counter.register_flop_formula``: with the
    op's arguments, a shape in place of each tensor, and the shape of the result as ``out_shape``::

        distprof.register_formula(torch.ops.mylib.scaled_mm,
                                  macs=lambda a, b, scale, out_shape=None: a[0] * a[1] * b[1],
                                  flops=lambda a, b, scale, out_shape=None: (2 * a[1] + 1) * a[0] * b[1])

    ``flops`` returns all flops of the call, with 2 for each MAC; without ``macs`` the op has no MACs.  (Formulas that
    are registered with torch are used too; all their flops count as MACs.)  ``op`` is ``torch.ops.mylib.name``, one of
    its overloads, a result of ``torch.library.custom_op``, a higher-order op or a Triton kernel.  The last formula that
    was registered for an op replaces torch's and distprof's, from the next counted step on.  If a formula raises, the
    report lists its op, with the number of calls, as one without a formula.

    Raises UsageError if ``op`` is no op, or a formula no function; nothing else.  Does not import torch.
    """
    from distprof.flops import user_formulas

    user_formulas.register_formula(op, flops, macs)


def record_experts(layer: Any, counts: Any) -> None:
    """Records how many of this rank's tokens each expert of a MoE layer got, where distprof cannot read it.

    ``layer`` is the module of the layer, which the report names; ``counts`` has one number for each expert of the
    layer, by global id: a tensor of integers on any device, or a list, of one forward.  Call it in the layer's forward,
    in every step: it costs next to nothing outside of timed steps, and adds up over micro-batches in them.  Evaluation
    and recomputation count nothing.  Where nothing records, it does nothing.  It raises nothing.
    """
    from distprof.inject import bootstrap

    if bootstrap.recorder is not None:
        bootstrap.recorder.record_experts(layer, counts)


@contextmanager
def record(
    out: str | os.PathLike[str] = DEFAULTS["out"], name: str | None = None, **settings: object
) -> Iterator[RecordedRun]:
    """Records this process where no recorder can be injected (Ray, notebooks, ``mp.spawn``).

    ``settings`` are ``warmup``, ``timed``, ``every``, ``count``, ``count_eager``, ``collectives`` and
    ``collective_timing``, as for ``distprof run``.  All ranks of a job give the same ``name``.  Yields the run folder
    as a path, for ``distprof merge``; its method ``report()`` returns the report, which a notebook shows, and a line on
    stderr names it at the end.  The folder is in the temporary folder if ``out`` cannot be written, and a line on
    stderr says so.
    Under ``distprof run`` this function does nothing.

    Raises UsageError for invalid settings; nothing else.
    """
    from distprof.config.settings import resolve
    from distprof.inject import bootstrap
    from distprof.rank.launches import launch_of_this_process

    if bootstrap.recorder is not None:
        bootstrap.recorder.rank.asked = True
        yield RecordedRun(bootstrap.recorder.rank.run_dir)
        return
    chosen = resolve(os.environ, **settings)
    _name_unknown_variables()
    run = _run_folder(Path(out).absolute(), name)
    launch, launched_ns = launch_of_this_process()
    chosen = replace(chosen, run_dir=str(run), run_id=run.name, launch=launch, launched_ns=launched_ns)
    recorder = bootstrap.arm(chosen, asked=True)
    try:
        yield RecordedRun(run)
    finally:
        if recorder is not None:
            identity = recorder.rank.identity if recorder.rank.output is not None else None
            recorder.finish()
            bootstrap.disarm()
            if identity is not None and identity.rank == 0:
                _name_run(run)


def _name_run(run: Path) -> None:
    """Says where the run is."""
    from distprof.console import say

    say(f"recorded in {run}: 'distprof merge {run}' or distprof.load({str(run)!r}) makes the report")


@functools.cache  # once in a process
def _name_unknown_variables() -> None:
    """Names misspelt variables on stderr, in rank 0 if the environment says which rank this is."""
    from distprof.config.option_sources import unknown_variables
    from distprof.console import say

    if os.environ.get("RANK", "0") == "0":
        for sentence in unknown_variables(os.environ).values():
            say(sentence)


def _run_folder(out: Path, name: str | None) -> Path:
    """Returns a new run folder, or the one that all ranks share, in the temporary folder if ``out`` cannot be written.

    Where that fails too, the folder that is returned does not exist.
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
