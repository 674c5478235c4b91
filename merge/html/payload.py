"""Data for the page's scripts: JSON, compressed, in letters that HTML needs no escapes for."""

from __future__ import annotations

import base64
import gzip
import json
import math
from typing import Any

from distprof.merge.export.json import plain

#: Digits of a drawn number; the tables to download and summary.json have all of them.
_DIGITS = 5
#: Of gzip: higher ones take several times as long for a hundredth of the size.
_LEVEL = 6


def packed(data: Any) -> str:
    """Returns dataclasses, lists and dicts as base64 of compressed JSON; floats lose digits that no drawing shows."""
    text = json.dumps(plain(data, _rounded), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return packed_bytes(text.encode("utf-8", "backslashreplace"))  # a name may hold half of a surrogate pair


def packed_bytes(content: bytes) -> str:
    """Returns base64 of the compressed content; the same content gives the same letters."""
    return base64.b64encode(gzip.compress(content, _LEVEL, mtime=0)).decode()


def _rounded(value: float) -> float | int:
    """Returns the number with a few digits; large ones as integers, which are shorter."""
    if not value:
        return 0
    places = _DIGITS - 1 - math.floor(math.log10(abs(value)))
    return int(round(value, places)) if places <= 0 else round(value, places)
