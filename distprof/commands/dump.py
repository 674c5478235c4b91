"""``distprof dump``: prints the records of shards as JSON lines."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from distprof.commands.streams import put
from distprof.console import say
from distprof.errors import DataError
from distprof.printable import printable_json
from distprof.records import RECORDS
from distprof.shard.codec import to_json
from distprof.shard.reader import ReadReport, Shard, read_shard


@click.command(
    epilog="""\b
Example: how long each timed step of rank 3 took, in ns
  distprof dump --kind step runs/NAME/shards/rank00003.g0.msgpack | jq .duration_ns
"""
)
@click.argument("shards", metavar="SHARD...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--kind", "kinds", multiple=True, metavar="KIND", help="Only records of this kind; may be given repeatedly."
)
@click.option(
    "--summary", is_flag=True, help="One line for each shard: the number of records of each kind, and the damage."
)
def command(shards: tuple[Path, ...], kinds: tuple[str, ...], summary: bool) -> None:
    """Print the records of SHARDs as JSON lines, arrays as lists.

    Each line has "kind", "sequence" and the fields of the record (docs/FORMAT.md explains them), and "shard" in front
    if several shards are given. Whole records are printed, and damage is reported on stderr.
    """
    for kind in kinds:
        if kind not in RECORDS:
            raise click.BadParameter(f"{kind!r} is none of {', '.join(RECORDS)}", param_hint="--kind")
    unread = [path for path in shards if not _dump(path, kinds, summary=summary, named=len(shards) > 1)]
    if unread:
        sys.exit(DataError.exit_code)


def _dump(path: Path, kinds: tuple[str, ...], *, summary: bool, named: bool) -> bool:
    """Prints one shard.  Returns False if it cannot be read, which is reported."""
    try:
        shard = _read(path)
    except DataError as error:
        say(str(error))
        return False
    name = {"shard": str(path)} if named else {}
    for line in [_summary(shard)] if summary else _lines(shard, kinds):
        if not put(printable_json(json.dumps({**name, **line})) + "\n"):
            sys.exit()
    for sentence in _damage(shard.report):
        say(f"{path}: {sentence}")
    return True


def _read(path: Path) -> Shard:
    try:
        return read_shard(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def _lines(shard: Shard, kinds: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for sequence, record in zip(shard.sequences, shard.records, strict=True):
        if not kinds or record.KIND in kinds:
            yield {"kind": record.KIND, "sequence": sequence, **to_json(record)}


def _summary(shard: Shard) -> dict[str, Any]:
    counts = Counter(record.KIND for record in shard.records)
    header, report = shard.header, asdict(shard.report)
    del report["records"]
    place = {"run_id": header.run_id, "rank": header.rank, "world_size": header.world_size}
    return {**place, "records": dict(counts), "damaged": shard.report.damaged, **report}


def _damage(report: ReadReport) -> Iterator[str]:
    if report.unread_bytes:
        yield f"{report.unread_why}: {report.unread_bytes} bytes were left unread"
    if report.sequence_gaps:
        yield f"records that were written and are not there: {report.sequence_gaps}"
    if report.repeated:
        yield f"records that are there twice, passed over: {report.repeated}"
    for why in report.malformed:
        yield f"a record is malformed, passed over: {why}"
    for kind, count in report.unknown_kinds.items():
        yield f"records of kind {kind!r}, of a newer distprof, passed over: {count}"
