"""What an iteration would gain at each place of the job."""

from __future__ import annotations

from distprof.plain import dataclass


@dataclass(frozen=True)
class GainGrid:
    """Ranks by two coordinates, and what an iteration would be shorter if those at one place were like their cohort.

    With ``by_replay`` the iteration was replayed with the ranks of the place at the median of their cohort.  Otherwise
    a replay would take too long, and ``gain_ns`` is by how much their own time of an iteration exceeds that of the
    others of their cohort: others may be late as well, so the gain is at most that.
    """

    row_axis: str = ""  # "pp", "tp" or "host"
    column_axis: str = ""  # "dp", or "local rank" for hosts; empty: there is no grid
    rows: tuple[str, ...] = ()  # names of the rows: "0", "1", ... or hosts
    columns: tuple[str, ...] = ()  # names of the columns
    ranks: tuple[tuple[tuple[int, ...], ...], ...] = ()  # [row][column]
    gain_ns: tuple[tuple[float | None, ...], ...] = ()  # [row][column]; None: no rank there, or nothing to compare
    by_replay: bool = False  # whether the iteration was replayed for gain_ns
