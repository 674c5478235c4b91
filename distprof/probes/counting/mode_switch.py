"""Switches the dispatch mode of a counted iteration on and off.

The mode is on inside root forwards, autograd's engine and optimizers; if a whole iteration is counted, also between
them, where the script computes a loss, for example.  Between them it is off while data is loaded, while models are
evaluated, and after an exception until the next of them begins: the script may have left its loop.
"""

from __future__ import annotations

import sys
from threading import get_ident

import torch

from distprof.flops.counter import FlopMode
from distprof.probes.counting.dispatch_stack import abandon_mode, in_compiled_call, push_below_user_modes, remove_mode


class ModeSwitch:
    """Switches the mode of the running iteration, on the thread that trains and on others that run a backward."""

    _mode: FlopMode

    def __init__(self, thread: int, *, whole: bool) -> None:
        """``whole``: counts whole iterations, with the code between models, backward and optimizers."""
        self.is_abandoned = False  # nothing is counted any more
        self.is_given_up = False  # this iteration does not end, and is not counted any more
        self._thread = thread
        self._whole = whole
        self._is_on = False
        self._parts = 0  # running root forwards, backward passes and optimizers
        self._counts_whole = False  # this iteration is counted whole
        self._stays_on = False  # the mode is on between these parts, too
        self._pauses = 0
        self._backward_threads: dict[int, int] = {}  # running backward passes by thread, other than the training thread

    def begin(self, mode: FlopMode) -> None:
        """Begins an iteration with a new mode; call :meth:`drop` first."""
        self._mode = mode
        self._parts = 0
        self._counts_whole = self._stays_on = self._whole and not in_compiled_call()
        self._push_if_wanted()

    def drop(self) -> None:
        """Ends an iteration: no thread counts any more.

        Within a backward the mode is turned off too: autograd's engine restores the stack of modes when it ends.
        """
        was_on = self._is_on
        if get_ident() == self._thread:
            self._pop_between_parts()
        if self._is_on or (was_on and torch._C._current_graph_task_id() != -1):
            self._mode.is_off = True
            self._is_on = False
            abandon_mode(self._mode)
        if self._backward_threads:
            self._backward_threads.clear()
            self._mode.is_off = True
            abandon_mode(self._mode)

    def give_up(self) -> bool:
        """Stops counting between two parts, for all iterations.  Returns False inside a part, where it does nothing."""
        self.is_given_up = self._parts <= 0
        if self.is_given_up:
            self._pop_between_parts()
        return self.is_given_up

    # ---- parts of the iteration ------------------------------------------------------------------------------------

    @property
    def is_in_part(self) -> bool:
        """Whether what runs now on this thread is counted, as part of a root forward, a backward or an optimizer."""
        return (
            self._is_on and self._parts > 0 and (get_ident() == self._thread or torch._C._current_graph_task_id() != -1)
        )

    def enter_part(self) -> None:
        self._parts += 1
        self._stays_on = self._counts_whole
        self._push_if_wanted()

    def leave_part(self) -> None:
        self._parts -= 1
        if self._parts <= 0:
            self._stays_on = self._stays_on and not _raising()
            if not self._stays_on:
                self._pop_between_parts()
        if self._mode.error is not None:
            raise self._mode.error

    def enter_backward(self) -> None:
        """Begins a backward: a part on the thread that trains, else one on its own thread."""
        thread = get_ident()
        if thread == self._thread:
            self.enter_part()
            return
        self._backward_threads[thread] = self._backward_threads.get(thread, 0) + 1
        if self._backward_threads[thread] == 1 and not self._pauses and not self.is_given_up:
            push_below_user_modes(self._mode)

    @property
    def has_seen_backward(self) -> bool:
        """Whether a backward that ends now on this thread began in this iteration."""
        return self._parts != 0 or get_ident() in self._backward_threads

    def leave_backward(self) -> None:
        thread = get_ident()
        if thread not in self._backward_threads:
            self.leave_part()
            return
        self._backward_threads[thread] -= 1
        if not self._backward_threads[thread]:
            del self._backward_threads[thread]
            remove_mode(self._mode)

    def pause(self) -> None:
        """Stops counting: what follows is not part of the step."""
        self._pauses += 1
        self._pop()

    def resume(self) -> None:
        self._pauses -= 1
        self._stays_on = self._stays_on and not _raising()
        self._push_if_wanted()

    # ---- the stack of modes ----------------------------------------------------------------------------------------

    def _push_if_wanted(self) -> None:
        """Pushes the mode if it should be on."""
        wanted = (self._stays_on or self._parts > 0) and not (self._pauses or self.is_given_up or self.is_abandoned)
        if wanted and not self._is_on and get_ident() == self._thread:
            self._is_on = True  # set before the push: an exception may come from outside in between
            push_below_user_modes(self._mode)

    def _pop_between_parts(self) -> None:
        if not (self._counts_whole and in_compiled_call()):
            self._pop()

    def _pop(self) -> None:
        if self._is_on:
            remove_mode(self._mode)
            self._is_on = False


def _raising() -> bool:
    """Returns whether an exception is propagating, other than StopIteration, with which data ends."""
    error = sys.exc_info()[1]
    return error is not None and not isinstance(error, StopIteration)
