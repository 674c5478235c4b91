"""Replaces a function of torch on its class or module, and puts it back; other code may patch it meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class ReplacedAttribute:
    """Replaces one attribute from :meth:`apply` to :meth:`restore`, while ``wanted`` is true; the replacement stays in
    place longer when other code has patched the attribute since.
    """

    def __init__(self, holder: Any, attribute: str, replacement: Callable[[Callable[..., Any]], Any]) -> None:
        self._holder = holder
        self._attribute = attribute
        self._replacement = replacement
        self.original: Any = None
        self.ours: Any = None  # the replacement, while it is in place
        self.wanted = False

    def apply(self) -> None:
        """Puts the replacement in place, unless it is there.  An exception from outside may have interrupted an earlier
        call, or one of :meth:`restore`: then ``ours`` is set, and the original is in place.
        """
        self.wanted = True
        # As the holder has it: a method of a C++ class is another object than the class's attribute, and only that
        # object works as a method again.
        own = vars(self._holder).get(self._attribute)
        now = getattr(self._holder, self._attribute) if own is None else own
        if self.ours is None or now is self.original:
            self.original = now
            ours = self._replacement(now)
            ours.patch = self
            self.ours = ours  # before it is in place: what is there can be removed at any time
            setattr(self._holder, self._attribute, ours)

    def restore(self) -> None:
        """Puts the original back, unless other code has patched the attribute since.

        Also removes replacements directly below this one whose own patches were closed meanwhile.
        """
        self.wanted = False
        if self.ours is None or getattr(self._holder, self._attribute) is not self.ours:
            return
        while (below := _replacement_of(self.original)) is not None and not below.wanted:
            self.original, below.ours = below.original, None
        setattr(self._holder, self._attribute, self.original)
        self.ours = None


def _replacement_of(function: Any) -> ReplacedAttribute | None:
    """Returns the replacement that made this function, if any.  A user's wrapper may have copied the ``patch`` mark."""
    patch = getattr(function, "patch", None)
    return patch if isinstance(patch, ReplacedAttribute) and patch.ours is function else None
