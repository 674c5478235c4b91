"""Checksums of a run's files, here and at a URL, and their list at the URL, in the form of ``sha256sum``."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

#: ``sha256sum --check`` reads it.  It is written after the files that it lists.
CHECKSUMS = "checksums.sha256"
_BLOCK_BYTES = 1 << 20


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file as hexadecimal digits.  Raises OSError."""
    with path.open("rb") as file:
        return _sha256(file)


def sha256_at(files: Any, path: str) -> str:
    """Returns the same of a file of fsspec's file system ``files``, which it reads.  Raises what its driver raises."""
    with files.open(path, "rb", block_size=_BLOCK_BYTES) as file:
        return _sha256(file)


def listed(checksums: Mapping[str, str]) -> str:
    """Returns the list of the checksums of files, by their names."""
    return "".join(f"{checksum}  {name}\n" for name, checksum in sorted(checksums.items()))


def _sha256(file: IO[bytes]) -> str:
    found = sha256()
    while block := file.read(_BLOCK_BYTES):
        found.update(block)
    return found.hexdigest()
