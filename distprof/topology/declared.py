"""Keeps the topology that the script declared, until a recorder of this process reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class DeclaredTopology:
    """Sizes of axes, and this rank's coordinates that do not follow from its rank."""

    sizes: Mapping[str, int]
    coordinates: Mapping[str, int] = field(default_factory=dict)


_declaration: DeclaredTopology | None = None


def declare(declaration: DeclaredTopology | None) -> None:
    """Replaces the declaration; None removes it."""
    global _declaration  # noqa: PLW0603  one process has one topology
    _declaration = declaration


def current() -> DeclaredTopology | None:
    return _declaration
