"""What one more rank costs a merge, from runs of two sizes: the difference by the number of ranks between them."""

from __future__ import annotations

from dataclasses import dataclass

from bench.table import Table


@dataclass(frozen=True)
class Merged:
    """One merge, by a single process: processor seconds of its parts, and its peak memory."""

    ranks: int
    shard_bytes: int
    bytes_s: float  # the bytes of the shards read once, without anything done with them
    reduce_s: float  # shards read and reduced, which any number of processes share
    take_over_s: float  # unpacked by the process that analyses what others have read
    analyse_s: float
    write_s: float  # text, JSON and page
    analysed_bytes: int  # peak, after the analysis
    written_bytes: int  # peak, after text, JSON and page


_ROWS = {
    "bytes of the shard": ("shard_bytes", 1e-3, "kB"),
    "its bytes read once": ("bytes_s", 1e3, "ms"),
    "read and reduced, by any of the processes": ("reduce_s", 1e3, "ms"),
    "taken over by the process that analyses": ("take_over_s", 1e3, "ms"),
    "analysed": ("analyse_s", 1e3, "ms"),
    "text, JSON and page": ("write_s", 1e3, "ms"),
    "memory of the analysis": ("analysed_bytes", 1e-3, "kB"),
    "memory with text, JSON and page": ("written_bytes", 1e-3, "kB"),
}


def scale_table(few: Merged, many: Merged) -> Table:
    """Returns the table of two merges of the same model."""
    ranks = many.ranks - few.ranks
    return Table(
        "One rank more in a merge",
        ("of 999 modules and 10 timed steps", "a rank", "unit"),
        [
            (said, f"{(getattr(many, name) - getattr(few, name)) / ranks * factor:,.2f}", unit)
            for said, (name, factor, unit) in _ROWS.items()
        ],
        (
            f"Processor time and peak memory of a merge of {many.ranks:,} ranks less those of {few.ranks:,}, by the "
            "number of ranks between them; the shards are in the disk cache.  docs/SCALE.md multiplies these.",
        ),
    )
