"""What the nodes of a job need of a key-value store.  No method waits for a key."""

from __future__ import annotations

from typing import Protocol


class StoreLost(OSError):
    """The store cannot be reached: not yet, or not any more."""


class KeyValues(Protocol):
    """Keys and values that all nodes of a job see at once.  All methods raise OSError where that fails."""

    def set(self, key: str, value: bytes) -> None:
        """Writes a value."""

    def peek(self, key: str) -> bytes | None:
        """Returns the value; None where nobody has written it."""

    def add(self, key: str, amount: int) -> int:
        """Adds to a counter, which begins at 0.  Returns its new number."""

    def delete(self, key: str) -> None:
        """Removes a key."""
