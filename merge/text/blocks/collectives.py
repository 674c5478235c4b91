"""The Collectives block: how many, how large, how long ranks wait in them, and who comes late."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distprof.merge.quantities import NOT_AVAILABLE, TimeUnit, byte_size, common_unit, percentage, plain
from distprof.merge.report import CollectiveRow, Collectives, RankWait, Report, Unentered
from distprof.merge.text.blocks.ranks import ALL_UP_TO, SHOWN_OF_MORE
from distprof.merge.text.format.colour import YELLOW, Line, Part
from distprof.merge.text.format.lines import heading, one_line, table, wrapped
from distprof.merge.text.format.shortening import shortened_apart
from distprof.merge.wording import pluralise
from distprof.rank_names import rank_names

_ROWS_SHOWN = 16
_UNENTERED_SHOWN = 8
_KIND_WIDTH = 24
_MEANING = (
    "Calls, bytes and times are those of one rank in one iteration, means over the ranks that take part.  wait: for the"
    " last member of the group.  transfer: from its arrival to completion.  own: what a rank does itself in the module"
    " or phase in which it waits, before the next module; with the transfer, where that is n/a.  share: of wait and"
    " transfer in the iteration."
)
_RANKS = (
    "wait: in all collectives of an iteration, median over steps.  lag: how much later than the median member the rank"
    " arrives, median over collectives.  last: in how many collectives it was the last to arrive."
)


def collectives_block(report: Report) -> Iterator[str]:
    """Yields the lines of the block; none where no rank recorded collectives, or there were none."""
    found = report.collectives
    if len(report.ranks) < 2 or not (found.rows or found.unentered or (found.ranks and found.why_not)):
        return
    yield heading("Collectives")
    yield from _limits(found, len(report.ranks))
    unit = common_unit(
        [value for row in found.rows for value in (row.own_ns, row.wait_ns, row.transfer_ns)]
        + [value for row in found.waits for value in (row.wait_ns, row.lag_ns)]
    )
    if found.rows:
        yield from wrapped(f"Times in {unit.name}, over {pluralise(found.steps, 'timed step')}.  {_MEANING}")
        yield from _rows(found.rows, unit)
    yield from _unentered(found.unentered)
    if found.waits:
        yield ""
        yield from wrapped(_RANKS)
        yield from _waits(found.waits, {one.rank for one in report.verdict.ranks.named}, unit)


def _limits(found: Collectives, ranks: int) -> Iterator[str]:
    """Yields what was not seen, and for what reason."""
    if found.why_not:
        yield from _warning("waits are not known", found.why_not)
    if found.ranks < ranks:
        yield from _warning("incomplete", f"{found.ranks} of {pluralise(ranks, 'rank')} recorded their collectives")
    if found.lost:
        what = "entries were overwritten before they were read, so counts and times are lower bounds"
        yield from _warning("incomplete", f"{found.lost:,} {what}")
    if found.unjoined:
        yield from _warning("not joined", unjoined_words(found.unjoined))
    if found.message_unseen:
        yield from _warning("sends and receives were not seen", found.message_unseen)


def unjoined_words(entries: int) -> str:
    """Returns what it means that so many entries are not joined with those of other ranks."""
    return (
        f"{entries:,} collectives are in groups whose members are not known, such as groups that live shorter than the "
        "window: waits in them are taken for work"
    )


def _warning(head: str, text: str) -> Iterator[str]:
    first, *rest = wrapped(one_line(text), f"{head}: ", "  ")
    yield Line(first, (Part(0, len(head) + 1, YELLOW),))
    yield from rest


def _rows(rows: Sequence[CollectiveRow], unit: TimeUnit) -> Iterator[str]:
    shown = rows[:_ROWS_SHOWN]
    kinds = shortened_apart([one_line(row.kind) for row in shown], _KIND_WIDTH)
    titles = ("group", "op", "groups", "ranks", "calls", "bytes", "own", "wait", "transfer", "bandwidth", "share")
    yield from table(titles, [_cells(row, kinds[one_line(row.kind)], unit) for row in shown], left=("group", "op"))
    if len(shown) < len(rows):
        yield f"The {len(shown)} with the longest wait; {len(rows) - len(shown)} more are in summary.json."


def _cells(row: CollectiveRow, kind: str, unit: TimeUnit) -> list[str]:
    rate = row.bytes_per_second
    return [
        kind,
        one_line(row.op),
        str(row.groups),
        str(row.members),
        plain(row.calls),
        byte_size(row.bytes),
        *(unit.format(value) for value in (row.own_ns, row.wait_ns, row.transfer_ns)),
        NOT_AVAILABLE if rate is None else f"{byte_size(rate)}/s",
        percentage(row.share, 1.0 if row.share is not None else None),
    ]


def _unentered(found: Sequence[Unentered]) -> Iterator[str]:
    """Yields a sentence for each collective that some members never entered: this is often a bug of the script."""
    for one in found[:_UNENTERED_SHOWN]:
        head = f"{rank_names(one.missing)} never entered {one_line(one.op)} {one.number}"
        rest = f" of {one_line(one.kind)} group '{one_line(one.group)}' in iteration {one.iteration}"
        yield from wrapped(
            f"{head}{rest}, which {rank_names(one.entered)} entered.", rest="  ", parts=[Part(0, len(head), YELLOW)]
        )
    if len(found) > _UNENTERED_SHOWN:
        yield f"{len(found) - _UNENTERED_SHOWN} more such collectives are in summary.json."


def _waits(waits: Sequence[RankWait], slow: set[int], unit: TimeUnit) -> Iterator[str]:
    """Yields the rows of all ranks, or of many the slow ones and those that arrive latest."""
    shown = waits
    if len(waits) > ALL_UP_TO:
        shown = sorted(waits, key=lambda one: (one.rank not in slow, -one.lag_ns, one.rank))[:SHOWN_OF_MORE]
    cells = [
        [
            f"{'* ' if one.rank in slow else ''}{one.rank}",
            unit.format(one.wait_ns),
            unit.format(one.lag_ns),
            str(one.last),
        ]
        for one in shown
    ]
    yield from table(("rank", "wait", "lag", "last"), cells)
    if len(shown) < len(waits):
        yield f"The {len(shown)} ranks that arrive latest; the other {len(waits) - len(shown)} are in summary.json."
