"""The Collectives block: every figure of the data, and what is not known of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from support.reports import collectives_of, report_of

from distprof.merge.report import RankWait, Report, Unentered
from distprof.merge.text.blocks.collectives import collectives_block

JOB = {"dp": 4, "layers": 2, "slow_rank": 1}


def report(ranks: int = 4, **changes: Any) -> Report:
    job = report_of(**JOB)
    return replace(job, collectives=replace(collectives_of(ranks), **changes))


def lines(made: Report) -> list[str]:
    return list(collectives_block(made))


def text(made: Report) -> str:
    return " ".join(" ".join(lines(made)).split())


def test_no_block_where_nothing_was_recorded() -> None:
    assert lines(report_of(**JOB)) == []
    assert lines(replace(report_of(dp=1), collectives=collectives_of(1))) == [], "one rank waits for nobody"


def test_a_row_for_each_group_and_op() -> None:
    rows = {" ".join(line.split()) for line in lines(report())}
    assert "dp all_reduce 1 4 12 4 MiB 40.00 25.00 5.00 800 MiB/s 30%" in rows
    assert "world barrier 1 4 1 0 B 2.00 3.00 n/a n/a 3%" in rows


def test_waits_and_lags_of_ranks() -> None:
    rows = [line.split() for line in lines(report())][-5:]
    assert rows[0] == ["rank", "wait", "lag", "last"]
    assert rows[1] == ["0", "25.00", "-2.00", "0"]
    assert rows[2] == ["*", "1", "0.50", "20.00", "9"], "the rank that the verdict names"


def test_only_the_latest_of_many_ranks_are_shown() -> None:
    waits = tuple(RankWait(rank, 1e6, rank * 1e6, 0) for rank in range(40))
    shown = lines(report(waits=waits))
    assert [line.split()[0] for line in shown[-17:-1]] == ["*", *map(str, range(39, 24, -1))]
    assert shown[-1] == "The 16 ranks that arrive latest; the other 24 are in summary.json."


def test_a_collective_that_a_rank_never_entered() -> None:
    missing = Unentered("7", "tp", "all_gather", 118, 9, (0, 1, 2), (3,))
    said = "rank 3 never entered all_gather 118 of tp group '7' in iteration 9, which ranks 0-2 entered."
    assert said in text(report(unentered=(missing,)))
    assert "2 more such collectives are in summary.json." in text(report(unentered=(missing,) * 10))


def test_what_is_not_known_is_said() -> None:
    assert "waits are not known: the clocks of the hosts differ" in text(
        report(why_not="the clocks of the hosts differ", rows=(), waits=())
    )
    assert "incomplete: 3 of 4 ranks recorded their collectives" in text(report(ranks=3))
    assert "incomplete: 1,200 entries were overwritten before they were read" in text(report(lost=1200))
    assert "not joined: 12 collectives are in groups whose members are not known" in text(report(unjoined=12))
    assert "sends and receives were not seen: no hooks" in text(report(message_unseen="no hooks"))
    assert "incomplete" not in text(report()) and "not seen" not in text(report())


def test_names_from_a_shard_are_printable() -> None:
    row = replace(collectives_of(4).rows[0], op="all\x1breduce", kind="a\nb")
    assert not set("".join(lines(report(rows=(row,))))) & {"\x1b", "\n"}


def test_lines_fit_in_120_columns() -> None:
    row = replace(collectives_of(4).rows[0], kind="a description of a process group that is long", op="reduce_scatter")
    assert max(map(len, lines(report(rows=(row,) * 20)))) <= 120
