"""What the script itself says of its topology; kept here until a recorder of this process asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class DeclaredTopology:
    """Sizes of axes, and this rank's coordinates where they do not follow from its rank."""

    sizes: Mapping[str, int]
    coordinates: Mapping[str, int] = field(default_factory=dict)


_declaration: DeclaredTopology | None = None


def declare(declaration: DeclaredTopology | None) -> None:
    """The last word holds; None takes it back."""
    global _declaration  # noqa: PLW0603  one process has one topology
    _declaration = declaration


def current() -> DeclaredTopology | None:
    return _declaration
