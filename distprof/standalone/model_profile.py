"""``get_model_profile``: profiles one forward (or other method) of a model, with DeepSpeed's name and arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import nn

from distprof.errors import UsageError
from distprof.module_walk import every_module
from distprof.standalone.deprecated_names import accepts_deprecated_names
from distprof.standalone.inputs import explaining_shape_errors, inputs_of
from distprof.standalone.profiler import FlopsProfiler, step_range

_MODES = ("forward", "generate")


@accepts_deprecated_names(input_res="input_shape", as_strings="as_string", depth="module_depth", top_num="top_modules")
def get_model_profile(
    model: nn.Module,
    input_shape: tuple[int, ...] | None = None,
    args: Sequence[Any] = [],
    kwargs: Mapping[str, Any] = {},
    print_profile: bool = True,
    detailed: bool = True,
    module_depth: int = -1,
    top_modules: int = 1,
    warm_up: int = 1,
    as_string: bool = True,
    output_file: str | None = None,
    ignore_modules: Sequence[type] | None = None,
    mode: str = "forward",
    func_name: str = "forward",
    *,
    input_constructor: Callable[[Any], Any] | None = None,
    print_aggregated_profile: bool = True,
    start_step: int | None = None,
    end_step: int | None = None,
    num_steps: int | None = None,
) -> tuple[int | str, int | str, int | str]:
    """Returns flops, MACs and parameters of one call of ``model``, as numbers or, with ``as_string``, as short text.

    The model is called with ``args`` and ``kwargs``, or with one tensor of ``input_shape`` in place of ``args``:
    ``warm_up`` times, and once to be counted and timed, in eval mode; afterwards it has its own mode again.
    ``mode="generate"`` calls its ``generate``, ``func_name`` any other method.  On the meta device or under
    FakeTensorMode nothing runs, but work is counted.  ``ignore_modules`` are types, as in
    :meth:`FlopsProfiler.start_profile`; the other arguments are those of :meth:`FlopsProfiler.print_model_profile`.

    The older argument ``input_constructor`` makes the keywords (or arguments) of the call from ``input_shape``;
    ``start_step`` and ``end_step`` (or ``num_steps``) average over several calls.

    Raises UsageError for invalid arguments; exceptions of the model pass unchanged.
    """
    with _profiler_of(model) as profiler, _in_eval_mode(model):
        profiler.steps = _steps(warm_up, start_step, end_step, num_steps)
        inputs = inputs_of(model, input_shape, args, kwargs, input_constructor)
        of_shape = input_shape if input_constructor is None else None
        with explaining_shape_errors(model, of_shape):
            _profile(profiler, _Call(_method(model, mode, func_name), *inputs), warm_up, ignore_modules)
        if print_profile:
            top = top_modules if print_aggregated_profile else 0
            profiler.print_model_profile(warm_up, module_depth, top, detailed, output_file)
        return (
            profiler.get_total_flops(as_string),
            profiler.get_total_macs(as_string),
            profiler.get_total_params(as_string),
        )


@dataclass(frozen=True)
class _Call:
    """A call of the model's forward, or of another of its methods."""

    method: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]

    def __call__(self) -> None:
        self.method(*self.args, **self.kwargs)

    def run_in(self, profiler: FlopsProfiler) -> None:
        around = profiler.calling(self.args, self.kwargs) if self.method is not profiler.model else nullcontext()
        with around:
            self()


def _profile(profiler: FlopsProfiler, call: _Call, warm_up: int, ignored: Sequence[type] | None) -> None:
    """Makes the calls; the first ones are not profiled: ``warm_up``, or those before the profiler's first step."""
    for _ in range(warm_up if profiler.steps is None else profiler.steps.start):
        call()
    profiler.start_profile(ignore_list=ignored)
    for _ in profiler.steps or (0,):
        call.run_in(profiler)
    profiler.stop_profile()


def _steps(warm_up: int, start_step: int | None, end_step: int | None, num_steps: int | None) -> range | None:
    if num_steps is None:
        return step_range(start_step, end_step)
    first = warm_up if start_step is None else start_step
    return step_range(first, first + num_steps)


def _method(model: nn.Module, mode: str, func_name: str) -> Callable[..., Any]:
    """Returns the model itself for its forward, or one of its methods."""
    if mode not in _MODES:
        raise UsageError(f"mode is {mode!r}: give {' or '.join(map(repr, _MODES))}, or the method's name as func_name")
    name = func_name if mode == "forward" else mode
    if name == "forward":
        return model
    method: Callable[..., Any] | None = getattr(model, name, None)
    if not callable(method):
        raise UsageError(f"{type(model).__name__} has no method {name}")
    return method


@contextmanager
def _profiler_of(model: nn.Module) -> Iterator[FlopsProfiler]:
    profiler = FlopsProfiler(model)
    try:
        yield profiler
    finally:
        profiler.end_profile()


@contextmanager
def _in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Restores each module's mode at the end, without ``train()``, which a model may override."""
    before = [(module, module.training) for module in every_module(model)]
    try:
        model.eval()
        yield
    finally:
        for module, training in before:
            module.training = training
