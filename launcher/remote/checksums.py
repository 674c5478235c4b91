"""Checksums of a run's files, here and at a URL, and the files that keep them at the URL, as ``sha256sum`` writes them.

Each file has one of its own: several nodes may copy their files to one URL at the same time.
"""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

#: The folder with them.  Each is written after the file that it is for.
CHECKSUMS = "checksums"
_BLOCK_BYTES = 1 << 20
_LINE = re.compile(rb"([0-9a-f]{64})  [^\n]+\n")


def checksum_name(name: str) -> str:
    """Returns the name of the file with the checksum of the file ``name``, both below the run."""
    return f"{CHECKSUMS}/{name}.sha256"


def checksum_line(name: str, checksum: str) -> bytes:
    """Returns what that file contains."""
    return f"{checksum}  {name}\n".encode()


def checksum_in(line: bytes) -> str:
    """Returns the checksum of such a line, which may come from elsewhere; empty if it is none."""
    found = _LINE.fullmatch(line)
    return found[1].decode() if found is not None else ""


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file as hexadecimal digits.  Raises OSError."""
    with path.open("rb") as file:
        return _sha256(file)


def sha256_at(files: Any, path: str) -> str:
    """Returns the same of a file of fsspec's file system ``files``, which it reads.  Raises what its driver raises."""
    with files.open(path, "rb", block_size=_BLOCK_BYTES) as file:
        return _sha256(file)


def _sha256(file: IO[bytes]) -> str:
    found = sha256()
    while block := file.read(_BLOCK_BYTES):
        found.update(block)
    return found.hexdigest()
