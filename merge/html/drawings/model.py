"""What the page's scripts draw, as plain data: tables, charts, heat maps, and the module tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

from distprof.plain import dataclass


@dataclass(frozen=True)
class Interval:
    """A relative change with its bounds; ``side`` is "cost", "gain" or "noise", and has its colour."""

    value: float
    low: float | None
    high: float | None
    side: str


Value = int | float | str | Interval | None

#: How the page writes the values of a column.  Times are ns, sizes bytes, shares of 1.
TEXT, RANK, COUNT, NUMBER, TIME, SHARE, BYTES, RATE, RATIO, INTERVAL = (
    *("text", "rank", "count", "number", "time", "share", "bytes", "rate", "ratio", "interval"),
)


@dataclass(frozen=True)
class Column:
    """One column of a table.  ``term`` is a word of the glossary; ``bar``: each value has a bar beside it,
    ``signed``: one to the left below 0, and to the right above.
    """

    title: str
    kind: str = TEXT
    term: str = ""
    bar: bool = False
    signed: bool = False
    wide: bool = False  # holds sentences, which fold
    missing: str = "n/a"  # what stands where there is no value
    why: str = ""  # what that means in this column


@dataclass(frozen=True)
class Table:
    """One sortable table; rows with the same text in column ``group_by`` fold together."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Value]]
    marked: Sequence[int] = ()  # places of rows that the verdict names
    group_by: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Series:
    """``style`` is "stack", "line" or "points"."""

    label: str
    values: Sequence[float | None]
    style: str
    colour: int  # a number in the page's palette


@dataclass(frozen=True)
class Chart:
    """Series over ranks or iterations; ``kind`` is that of the values, as in a :class:`Column`."""

    title: str
    x_title: str
    x: Sequence[int]
    kind: str
    series: Sequence[Series]
    marked: Sequence[int] = ()  # values of x that the verdict names
    note: str = ""
    y_title: str = "time"  # without its unit
    fits: bool = False  # the axis shows the range of the values: 0 is far from all of them
    names: Sequence[str] = ()  # what each value of x belongs to, where that is not x itself


@dataclass(frozen=True)
class HeatMap:
    """Values of [row][column]; the colours are those of ``scale``: "diverging" around ``middle``, or "sequential"."""

    title: str
    row_title: str
    rows: Sequence[str]
    column_title: str
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]
    kind: str
    value_title: str
    scale: str
    middle: float
    limit: float  # the value at the end of the colours
    marked: Sequence[tuple[int, int]] = ()  # (row, column) of cells that the verdict names
    note: str = ""
    grey: str = ""  # what a grey cell means
    zero: str = ""  # what a cell of 0 means, where such cells have a colour of their own
    separators: Sequence[int] = ()  # a line is drawn before each of these columns
    separator_title: str = ""  # what these lines separate
    links: Sequence[int] = field(default_factory=tuple)  # the rank of each row, where rows are ranks


@dataclass(frozen=True)
class Drawings:
    """All that the page draws, by the name of its place on the page."""

    tables: dict[str, Table]
    charts: dict[str, Chart]
    heat_maps: dict[str, HeatMap]
