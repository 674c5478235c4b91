"""``FlopsProfiler``: DeepSpeed's flops profiler by name, arguments and output, with distprof's counting."""

from __future__ import annotations

import math
import sys
import weakref
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from distprof.errors import DistprofError, UsageError
from distprof.merge.quantities import NOT_AVAILABLE, duration, macs, parameters, quantity
from distprof.merge.report import Report
from distprof.merge.text.format.lines import labelled_line
from distprof.merge.text.standalone import render_aggregated, render_model
from distprof.merge.wording import pluralise
from distprof.module_walk import parameters_in
from distprof.rank.identity import Identity
from distprof.results.loaded_report import RunReport
from distprof.standalone.deepspeed_engine import identity_of, topology_of, with_engine
from distprof.standalone.deprecated_names import accepts_deprecated_names
from distprof.standalone.hints import warn_of_gaps
from distprof.standalone.report import ALONE_IN_THE_WORLD, Profile, at_steps, profile_of
from distprof.standalone.session import Session


class FlopsProfiler:
    """Counts and times each module of ``model`` from :meth:`start_profile` to :meth:`stop_profile`.

    All forwards in between are summed; backward passes in between are reported separately.  Nothing stays on the model
    or in torch after the end, or when the profiler is deleted.  The older ``start_step`` and ``end_step`` number the
    steps in between, and make all figures averages over them.

    ``ds_engine`` is a DeepSpeed engine, for sizes of the job and, with its ``wall_clock_breakdown``, latencies;
    backward that was not counted is then estimated, with ``recompute_fwd_factor`` forwards of recomputation.

    Methods raise UsageError when called out of order, and DistprofError if the profile failed.
    """

    @accepts_deprecated_names()
    def __init__(
        self,
        model: nn.Module,
        ds_engine: Any = None,
        recompute_fwd_factor: float = 0.0,
        *,
        start_step: int | None = None,
        end_step: int | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise UsageError(f"the model is a {type(model).__name__}: give a torch.nn.Module")
        self.model = model
        self.ds_engine = ds_engine
        self.recompute_fwd_factor = recompute_fwd_factor
        self.steps = step_range(start_step, end_step)  #: the steps over which figures are averaged
        self._ignored: tuple[type, ...] = ()
        self._session: Session | None = None
        self._merged: dict[bool, Profile] = {}  # key: whether figures are averages
        self._warned: Profile | None = None  # the profile whose gaps were reported
        self._stop: weakref.finalize[..., Any] | None = None  # runs when the profiler is deleted, too

    @property
    def started(self) -> bool:
        """Whether there is a profile: from :meth:`start_profile` to :meth:`end_profile`."""
        return self._session is not None

    def start_profile(self, ignore_list: Sequence[type] | None = None) -> None:
        """Starts a new profile.  Modules of the types in ``ignore_list``, and modules inside them, count no work."""
        if any(map(is_lazy, parameters_in(self.model))):
            raise UsageError("the model has parameters without a shape: call it once before start_profile()")
        self.end_profile()
        self._ignored = tuple(ignore_list or ())
        self._begin()

    def stop_profile(self) -> None:
        """Stops measuring; results are available until :meth:`end_profile`."""
        if self._stop is not None and self._stop.alive:
            self._stop()
            self._merged.clear()

    def reset_profile(self) -> None:
        """Forgets what was measured; a running profile starts again from zero."""
        if self._session is not None:
            runs = self._runs
            self.stop_profile()
            self._begin(runs=runs)

    def end_profile(self) -> None:
        """Stops measuring, and forgets what was measured."""
        self.stop_profile()
        self._session = None

    @accepts_deprecated_names(in_str="as_string")
    def get_total_flops(self, as_string: bool = False) -> int | str:
        """Returns flops of the model's forward: 2 for each MAC, and the element-wise rest."""
        flops = self._totals().model.flops or 0
        return quantity(flops) if as_string else round(flops)

    @accepts_deprecated_names(in_str="as_string")
    def get_total_macs(self, as_string: bool = False) -> int | str:
        """Returns multiply-accumulates of the model's forward."""
        number = self._totals().model.macs or 0
        return macs(number) if as_string else round(number)

    @accepts_deprecated_names(in_str="as_string")
    def get_total_duration(self, as_string: bool = False) -> float | str:
        """Returns seconds of the counted forward of the model; NaN or n/a if nothing ran (meta, fake tensors)."""
        time_ns = self._profile().model.forward_ns
        if as_string:
            return NOT_AVAILABLE if time_ns is None else duration(time_ns)
        return math.nan if time_ns is None else time_ns / 1e9

    @accepts_deprecated_names(in_str="as_string")
    def get_total_params(self, as_string: bool = False) -> int | str:
        """Returns the number of parameters of the model on this rank, each counted once."""
        number = self._profile().model.params
        return parameters(number) if as_string else round(number)

    def get_uncounted(self) -> dict[str, int]:
        """Returns calls of ops without a formula, which are in no total; first those of likely the most work."""
        return dict(self._profile().report.summary.uncounted_ops)

    def get_total_steps(self) -> int:
        """Returns the number of profiled forwards of the whole model."""
        return self._profile().steps

    def report(self) -> RunReport:
        """Returns the report of the profile so far, as :func:`distprof.load` returns that of a run."""
        return RunReport(self._report(self._profile()), f"the profile of {type(self.model).__name__}")

    def __repr__(self) -> str:
        """Returns the totals of the profile in one line."""
        name = f"{type(self).__name__} of {type(self.model).__name__}"
        if self._session is None:
            return f"<{name}: no profile, start_profile() starts one>"
        if self._runs:
            return f"<{name}: it runs>"
        try:
            model, steps = self._profile().model, self._profile().steps
        except DistprofError as error:
            return f"<{name}: {error}>"
        figures = f"{parameters(model.params)} parameters, {macs(model.macs)} in forward"
        return f"<{name}: {pluralise(steps, 'forward')}, {figures}, {duration(model.forward_ns)}>"

    def _repr_html_(self) -> str | None:
        """Returns the first page of the report for a notebook, None without a profile."""
        try:
            return self.report()._repr_html_()
        except DistprofError:
            return None

    @accepts_deprecated_names()
    def print_model_profile(
        self,
        profile_step: int = 1,
        module_depth: int = -1,
        top_modules: int = 1,
        detailed: bool = True,
        output_file: str | None = None,
        *,
        start_step: int | None = None,
        end_step: int | None = None,
    ) -> None:
        """Prints all that was measured, to ``output_file`` if given; prints nothing without a profile.

        ``profile_step`` is the printed number of the step.  The aggregated profile shows modules down to
        ``module_depth`` (-1: all) and ``top_modules`` classes of each depth; 0 leaves it out.  ``detailed`` adds the
        module tree.
        """
        if not self.started:
            return
        steps = step_range(start_step, end_step) or self.steps
        profile = self._profile(average=steps is not None)
        report = at_steps(self._report(profile), tuple(steps or (profile_step,)))
        text = render_model(report, depth=_depth(module_depth), top=top_modules, detail=detailed)
        self._warned = profile  # the report shows the gaps
        if steps is not None:
            text += labelled_line("Number of steps profiled", profile.steps) + "\n"
        _write(text, output_file)

    def print_model_aggregated_profile(self, module_depth: int = -1, top_modules: int = 1) -> None:
        """Prints the ``top_modules`` classes of most params, MACs and time at each depth down to ``module_depth``."""
        if not self.started:
            return
        report = self._report(self._profile())
        sys.stdout.write(render_aggregated(report, depth=_depth(module_depth), top=top_modules))

    def calling(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> AbstractContextManager[None]:
        """Profiles a call of another method than forward inside this context: its work is the model's."""
        assert self._session is not None
        return self._session.call(tuple(args), dict(kwargs))

    def _begin(self, *, runs: bool = True) -> None:
        self._merged.clear()
        self._session = Session(self.model, self._ignored, self._identity())
        self._session.start()
        self._stop = weakref.finalize(self, self._session.stop)
        if not runs:
            self._stop()

    def _profile(self, *, average: bool = False) -> Profile:
        """Returns the merged profile so far; a stopped one is merged only once."""
        if self._session is None:
            raise UsageError("there is no profile: call start_profile() first, and ask before end_profile()")
        average = average or self.steps is not None
        if average not in self._merged or self._runs:
            also = tuple(topology_of(self.ds_engine)) if self.ds_engine is not None else ()
            name = f"profile of {type(self.model).__name__}"
            self._merged[average] = profile_of(self._session, name, self._identity(), average=average, also=also)
        return self._merged[average]

    def _totals(self) -> Profile:
        """Returns the profile for its totals, and warns once of what they lack."""
        profile = self._profile()
        if profile is not self._warned:
            self._warned = profile
            warn_of_gaps(profile)
        return profile

    @property
    def _runs(self) -> bool:
        return self._stop is not None and self._stop.alive

    def _identity(self) -> Identity:
        return identity_of(self.ds_engine) if self.ds_engine is not None else ALONE_IN_THE_WORLD

    def _report(self, profile: Profile) -> Report:
        if self.ds_engine is None:
            return profile.report
        return with_engine(profile.report, self.ds_engine, self.recompute_fwd_factor)


def step_range(start_step: int | None, end_step: int | None) -> range | None:
    """Returns the steps from ``start_step`` to before ``end_step``; None without either."""
    if start_step is None and end_step is None:
        return None
    first = start_step or 0
    last = first + 1 if end_step is None else end_step
    if last <= first:
        raise UsageError(f"start_step {first} and end_step {last} hold no step: give an end_step above start_step")
    return range(first, last)


def _depth(module_depth: int) -> int | None:
    return None if module_depth < 0 else module_depth


def _write(text: str, output_file: str | None) -> None:
    if not output_file:
        sys.stdout.write(text)
        return
    path = Path(output_file)
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the profile cannot be written to {path}: {error.strerror or error}") from None
