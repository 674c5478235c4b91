"""The work of one counted iteration: whose it is while it runs, and its record when it has ended."""

from __future__ import annotations

from collections.abc import Callable

from distprof.flops.attribution import BACKWARD, FORWARD, NOBODY, OPTIMIZER, OUTSIDE, RECOMPUTE, Attribution, Owner
from distprof.flops.counter import FlopMode
from distprof.flops.likely_work import MAX_WORK
from distprof.probes.batch import Work
from distprof.probes.compiled.counted_code import CompiledCode
from distprof.probes.module_stack import dense
from distprof.records import TRAINING, Counts

#: The name, among uncounted ops, of forwards on threads that the model's own forward has started.
OTHER_THREADS = "forwards on other threads"


class IterationCount:
    """Counts one iteration with a dispatch mode of its own.

    Work without gradient in no module is the optimizer's after the last backward, else a model's forward.  Which
    backward is the last one is known when the next event comes: :meth:`settle` then assigns the work in between.
    """

    def __init__(self, new_mode: Callable[[Attribution], FlopMode], *, whole: bool, updates_first: bool) -> None:
        """``updates_first``: the iteration begins with the update of parameters, because it ends with a backward."""
        self.attribution = Attribution()
        self.calls: dict[int, int] = {}  # of modules, by row
        self._whole = whole
        self._kind_before_model = FORWARD  # the kind of work after a backward and before the next model
        if whole:
            self.attribution.without_gradient = NOBODY
        if whole and updates_first:
            self._kind_before_model = OPTIMIZER
            self._expect_update()
        self.mode = new_mode(self.attribution)

    def called_on_other_thread(self) -> None:
        uncounted = self.mode.uncounted
        uncounted[OTHER_THREADS] = uncounted.get(OTHER_THREADS, 0) + 1
        self.mode.uncounted_work[OTHER_THREADS] = MAX_WORK

    def model_began(self) -> None:
        if self._whole:
            self.attribution.without_gradient = NOBODY
        self.settle(self._kind_before_model)
        self._kind_before_model = FORWARD

    def backward_began(self, create_graph: bool) -> None:
        self.settle(FORWARD)
        self.attribution.backward_began(create_graph)

    def backward_ended(self, *, in_model: bool) -> None:
        self.attribution.backward_ended()
        if self._whole and not in_model:  # the script's work on gradients is part of the update
            self._expect_update()

    def optimizer_began(self) -> None:
        if self.attribution.after_backward:
            self.mode.settle(OPTIMIZER)
        self.attribution.optimizer_began()

    def settle(self, kind: str) -> None:
        """Assigns this kind to the work without gradient since the last backward."""
        if self.attribution.after_backward:
            self.mode.settle(kind)
            self.attribution.after_backward = False

    def _expect_update(self) -> None:
        self.attribution.without_gradient = Owner(OPTIMIZER, OUTSIDE)
        self.attribution.after_backward = True

    def record(self, iteration: int, mode: str, window: int, batches: Work, compiled: CompiledCode) -> Counts:
        """Ends the iteration and returns its record."""
        self.settle(OPTIMIZER if mode == TRAINING else FORWARD)
        counted = self.mode
        size = 1 + max([*self.calls, *(owner.row for owner in counted.flops)], default=-1)
        amounts = (("macs", counted.macs), ("flops", counted.flops))
        work = {
            f"{kind}_{unit}": dense(_of_kind(kind, amount), size, "<i8")
            for kind in (FORWARD, BACKWARD, RECOMPUTE)
            for unit, amount in amounts
        }
        outside = {
            f"{owner.kind}_{unit}": number
            for unit, amount in amounts
            for owner, number in amount.items()
            if owner.row == OUTSIDE
        }
        return Counts(
            iteration=iteration,
            mode=mode,
            window=window,
            micro_batches=batches.micro_batches,
            batch_size=batches.batch_size,
            samples=batches.samples,
            batch_found=batches.found,
            calls=dense(self.calls, size, "<u4"),
            uncounted=dict(sorted(counted.uncounted.items())),
            uncounted_work=dict(sorted(counted.uncounted_work.items())),
            outside=dict(sorted(outside.items())),
            device_work=counted.by_device.records(),
            compiled=compiled.form,
            eager_refused=compiled.eager_refused,
            generated=compiled.generated,
            **work,
        )


def _of_kind(kind: str, amounts: dict[Owner, int]) -> dict[int, int]:
    """Returns the amounts of one kind of work, by row."""
    return {owner.row: amount for owner, amount in amounts.items() if owner.kind == kind}
