"""What a rank recorded of its plan, and what to change where a script ends before the planned iterations."""

from __future__ import annotations

from collections.abc import Iterable

from distprof.records import Plan, Step


def used_steps(steps: Iterable[Step], plans: Iterable[Plan]) -> list[Step]:
    """Returns the steps without those in which ranks may have waited for others that still counted."""
    settled = {plan.window: plan.first_used for plan in plans if plan.settling}
    return [step for step in steps if step.iteration >= settled.get(step.window, 0)]


def short_run_advice(plan: Plan, iterations: int) -> str:
    """Returns ``3 iterations seen, 16 needed: add --warmup 1 --timed 1``; empty where the script was long enough, or
    for a window that another process planned.  ``iterations`` is how many the rank ran.
    """
    needed = plan.first_used + plan.timed
    if plan.window > 0 or iterations >= needed:
        return ""
    seen = f"{iterations} iteration{'s' if iterations != 1 else ''} seen, {needed} needed"
    return f"{seen}: {_fitting(plan, iterations)}" if iterations else seen


def _fitting(plan: Plan, iterations: int) -> str:
    """Returns options with which so many iterations are enough; a warm-up iteration is kept where there are three."""
    before = plan.counted + plan.settling
    if plan.timed and iterations > before:
        warmup = int(iterations > before + 1 and plan.start > 0)
        return f"add --warmup {warmup} --timed {min(plan.timed, iterations - before - warmup)}"
    return f"add --warmup 0 --timed {min(plan.timed, iterations) or 1}{' --no-count' if plan.counted else ''}"
