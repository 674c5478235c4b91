"""Puts the report's files in place: all of them or, when one cannot be written, none."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

from distprof.errors import DataError


def write_files(folder: Path, files: Mapping[str, bytes], obsolete: Iterable[str] = ()) -> None:
    """Write ``files`` (path below ``folder`` -> content), each replaced at once, and remove the ``obsolete`` ones.

    Raises DataError when the folder cannot be written; what an earlier merge left there is then untouched.
    """
    scratches: dict[Path, Path] = {}
    try:
        for name, content in files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
            scratches[scratch] = target
            scratch.write_bytes(content)
        for scratch, target in scratches.items():
            scratch.replace(target)
        for name in obsolete:
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"the report cannot be written to {folder} ({error.strerror}): choose another folder with --out"
        ) from None
    finally:
        for scratch in scratches:
            scratch.unlink(missing_ok=True)
