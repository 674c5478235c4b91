"""``report.html``: one file without a request to anywhere, made from a report by a template that escapes every name."""

from __future__ import annotations

from collections.abc import Mapping

from distprof.merge.export.files import Content
from distprof.merge.export.table_files import csv_files
from distprof.merge.export.tables import all_tables
from distprof.merge.html.cards import cards, figures, hints
from distprof.merge.html.drawings.charts import PHASE_COLOURS, charts
from distprof.merge.html.drawings.heat_maps import heat_maps
from distprof.merge.html.drawings.model import Drawings
from distprof.merge.html.drawings.tables import tables
from distprof.merge.html.frame import framed
from distprof.merge.html.notes import facts, notes
from distprof.merge.html.payload import packed_bytes
from distprof.merge.html.timeline import step_timeline
from distprof.merge.html.tree import module_tree
from distprof.merge.report import Report
from distprof.merge.text.format.lines import one_line
from distprof.merge.wording import phase_title

NAME = "report.html"
_SCRIPTS = ("base", "tables", "tree", "charts", "heat", "timeline", "main")
#: Letters of the packed tables to download, at most; the others are only in files beside the page.
_MOST_PACKED = 600_000
#: No table is packed to less than one letter for so many of its own.
_MOST_TIMES_SMALLER = 20


def render_page(report: Report, to_save: Mapping[str, Content] | None = None) -> bytes:
    """Returns the page; the same report gives the same bytes.

    ``to_save`` are the CSV files of the report's tables by name; they are made here if they are not given.
    """
    embedded, left_out = _embedded(csv_files(all_tables(report)) if to_save is None else to_save)
    drawings = Drawings(tables(report), charts(report), heat_maps(report))
    return framed(
        "page.html",
        _SCRIPTS,
        {**vars(drawings), "tree": module_tree(report), "timeline": step_timeline(report)},
        command="merge",
        title=one_line(report.run.name),
        facts=facts(report),
        cards=cards(report),
        hints=hints(report),
        figures=figures(report),
        phases=_phases(report),
        notes=notes(report),
        drawings=drawings,
        modules=len(report.modules),
        timeline=bool(report.timeline.ranks),
        embedded=embedded,
        left_out=left_out,
    )


def _phases(report: Report) -> list[dict[str, object]]:
    """Returns the phases of a median iteration, each with its place in a bar of width 100."""
    found: list[dict[str, object]] = []
    left = 0.0
    for one in report.time.phases:
        place = {"left": round(100 * left, 3), "width": round(100 * one.share, 3), "colour": PHASE_COLOURS[one.phase]}
        found.append({"title": phase_title(one.phase), "share": one.share, **place})
        left += one.share
    return found


def _embedded(files: Mapping[str, Content]) -> tuple[dict[str, str], list[str]]:
    """Returns the packed CSV files by name, small ones first, and the names of those that are too large."""
    embedded: dict[str, str] = {}
    whole = {path: content for path, content in files.items() if isinstance(content, bytes)}
    left_out = [path for path in files if path not in whole]
    room = _MOST_PACKED
    for path, content in sorted(whole.items(), key=lambda item: len(item[1])):
        packed_file = packed_bytes(content) if len(content) <= _MOST_TIMES_SMALLER * room else ""
        if packed_file and len(packed_file) <= room:
            embedded[path.rpartition("/")[2]] = packed_file
            room -= len(packed_file)
        else:
            left_out.append(path)
    return embedded, [path.rpartition("/")[2] for path in left_out]
