"""Counts MACs and flops at dispatch level, and credits them to their owners."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

from distprof.external_exceptions import pass_on
from distprof.flops.attribution import BACKWARD, FORWARD, OUTSIDE, UNSETTLED, Attribution, Owner
from distprof.flops.decompositions import (
    REFUSED,
    decomposition,
    has_body,
    is_traced,
    is_traced_for_real,
    is_whole,
    let_through,
    may_be_traced_for_real,
    with_mode,
)
from distprof.flops.formulas.nested import is_for_nested
from distprof.flops.formulas.rule import Formula, zero_work
from distprof.flops.likely_work import MAX_WORK, likely_work
from distprof.flops.lookup import formula
from distprof.flops.precision import MacTally
from distprof.flops.triton import is_launch, launched_kernel
from distprof.hooks.dynamo import hidden_from_dynamo

_without_torch_function: Any = torch._C.DisableTorchFunctionSubclass
_NO_KEYWORDS: dict[str, Any] = {}
_OF_MODEL = (FORWARD, BACKWARD, UNSETTLED.kind)


class _Usual(NamedTuple):
    """An op of aten that runs as it is: torch does not decompose it."""

    func: Any  # keeps its id from being another op's
    formula: Formula | None


class FlopMode(TorchDispatchMode):
    """Adds the work of each op to its owner's, and the calls of ops without formula to ``uncounted``."""

    #: Without this, a higher-order op (flex attention) would raise in the user's job.
    supports_higher_order_operators = True

    def __init__(self, attribution: Attribution) -> None:
        super().__init__()
        let_through(type(self))
        self.error: Exception | None = None  # distprof's own, for the mode's owner: raised here, it would fail the op
        self.is_off = False  # counts nothing, where the mode cannot be removed yet
        self.macs: dict[Owner, int] = {}
        self.flops: dict[Owner, int] = {}
        self.uncounted: dict[str, int] = {}
        self.uncounted_work: dict[str, int] = {}  # by the same names, the order of magnitude of their work
        self.by_device = MacTally()
        self._unsettled = MacTally()
        self._attribution = attribution
        self._formulas: dict[Any, Formula | None] = {}
        self._composites: dict[Any, Callable[..., Any]] = {}  # ops without a formula -> their decomposition
        self._launches: set[Any] = set()  # ops that launch a Triton kernel, which differs from call to call
        self._usual: dict[int, _Usual] = {}  # by the op's id: an op computes its hash in Python

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Lets compiled code run while this mode is on; the mode sees its extern kernels."""
        return True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Returns False: the dispatch is hidden from dynamo at a lower cost, and does not import it."""
        return False

    @hidden_from_dynamo
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs nearly every op of a step, so the usual ones (of aten, on plain tensors) come first and are quick."""
        usual = self._usual.get(id(func))
        if usual is None or types or self.is_off:
            return self._dispatch(func, types, args, kwargs or {})
        with _without_torch_function():
            if kwargs:
                result = func._op(*args, **kwargs)
            else:
                result, kwargs = func._op(*args), _NO_KEYWORDS
            try:
                self._count(func, usual.formula, args, kwargs, result)
            except Exception as error:
                self._failed(error)
        return result

    def _dispatch(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if self.is_off:
            return func(*args, **kwargs)
        if getattr(func, "namespace", "") != "aten":  # may run Python code, in which subclasses are at work
            return self._run_and_count(func, types, args, kwargs)
        # torch called __torch_function__ of subclasses before it came here; a second call would change the result.
        with torch._C.DisableTorchFunctionSubclass():
            return self._run_and_count(func, types, args, kwargs)

    def _run_and_count(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        # A wrapper (DTensor) unpacks itself, and dispatches the ops that this rank really computes.
        if any(hasattr(kind, "__tensor_flatten__") for kind in types):
            return NotImplemented
        if func not in self._formulas:
            self._try(self._look_up, func)
        if func in self._composites and not is_whole(func, args, kwargs):
            try:  # autograd did not decompose it (inference mode): counts the ops that it decomposes into
                with self:
                    return self._composites[func](*args, **kwargs)
            except REFUSED as error:
                pass_on(error)  # else the op runs whole below: torch can run it, or raises the same error
        elif has_body(func) and not is_traced():
            return self._run_body(func, args, kwargs)
        result = self._run(func, args, kwargs)
        # DTensor infers shapes with fake tensors: nothing runs.
        if not is_traced_for_real() and (FakeTensor not in types or self._is_of_job(args, kwargs)):
            self._try(self._count, func, self._formulas.get(func), args, kwargs, result)
        return result

    def settle(self, kind: str) -> None:
        """Credits the unsettled work as work of this kind."""
        owner = Owner(kind, OUTSIDE)
        for amounts in (self.macs, self.flops):
            if UNSETTLED in amounts:
                amounts[owner] = amounts.get(owner, 0) + amounts.pop(UNSETTLED)
        self.by_device.add_tally(self._unsettled, of_model=kind == FORWARD)
        self._unsettled = MacTally()

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Runs the op; a subclass may measure it."""
        return func(*args, **kwargs)

    def _run_body(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Runs a control-flow op, whose work is that of its function arguments."""
        given = [with_mode(value, self) for value in args]
        result = func(*given, **{name: with_mode(value, self) for name, value in kwargs.items()})
        self._try(self._attribution.ran, func, args, kwargs, result)
        return result

    def _is_of_job(self, args: Any, kwargs: Any) -> bool:
        """Whether an op on fake tensors is the job's own, and so is counted although nothing runs."""
        return False

    def _try(self, act: Callable[..., object], *arguments: Any) -> None:
        try:
            act(*arguments)
        except Exception as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        pass_on(error)
        self.error = self.error or error

    def _look_up(self, func: Any) -> None:
        found = formula(func)
        is_op = isinstance(func, torch._ops.OpOverload)  # else a higher-order op
        if is_op and (found is None or is_for_nested(func)) and (decomposed := decomposition(func)) is not None:
            self._composites[func] = decomposed
        if is_launch(func):
            self._launches.add(func)
        if found is None and getattr(func, "is_view", False):
            found = zero_work
        self._formulas[func] = found
        is_usual = type(func) is torch._ops.OpOverload and func.namespace == "aten" and func not in self._composites
        if is_usual and not may_be_traced_for_real():
            self._usual[id(func)] = _Usual(func, found)

    def _count(self, func: Any, counted: Formula | None, args: Any, kwargs: Any, result: Any) -> None:
        is_free = counted is zero_work
        owner = self._attribution.ran(func, args, kwargs, result, is_free=is_free)
        if is_free:
            return
        if self._launches and func in self._launches:
            func, result = launched_kernel(kwargs), None  # torch's own counter calls kernels' formulas so, too
            if func not in self._formulas:
                self._formulas[func] = formula(func)
            counted = self._formulas[func]
        if counted is not None:
            try:
                macs, flops = counted(result, *args, **kwargs)
            except Exception as error:  # no formula for these arguments: the op itself has run, and must not fail
                pass_on(error)
            else:
                if owner is None and macs:  # no sum, after all
                    owner = self._attribution.owner()
                if flops and owner is not None and owner.kind:
                    self._credit(owner, macs, flops)
                    if macs:
                        self._tally(owner.kind).add(func, args, kwargs, result, macs, of_model=owner.kind in _OF_MODEL)
                return
        if owner is not None and owner.kind:
            name = _name(func)
            self.uncounted[name] = self.uncounted.get(name, 0) + 1
            likely = self.uncounted_work.get(name, 0) + likely_work(args, kwargs, result)
            self.uncounted_work[name] = min(likely, MAX_WORK)

    def _credit(self, owner: Owner, macs: int, flops: int) -> None:
        self.flops[owner] = self.flops.get(owner, 0) + flops
        if macs:
            self.macs[owner] = self.macs.get(owner, 0) + macs

    def _tally(self, kind: str) -> MacTally:
        return self._unsettled if kind == UNSETTLED.kind else self.by_device


def _name(func: Any) -> str:
    """Returns ``aten.mm`` for any overload of an op, ``triton.KERNEL`` for a Triton kernel."""
    if isinstance(func, torch._ops.OperatorBase):
        return str(func).rpartition(".")[0] or str(func)
    return f"triton.{getattr(func, '__name__', func)}"
