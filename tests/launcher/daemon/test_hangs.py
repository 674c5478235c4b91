"""Real jobs that hang, or seem to: the hang watch names the rank and the cause, or says nothing.

``make soak`` runs all situations (tools/soak/hangs).
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

import pytest
from support.scripts import NewWorkplace

from distprof.merge.text.blocks.hangs import hangs_block
from distprof.merge.text.format.lines import one_line

_TOOLS = Path(__file__).parents[3] / "tools"
_BIN = Path(sys.executable).parent
_STALL_S = 3.0


@pytest.mark.parametrize("fault", ["stopped", "asleep on a grid", "other op", "slow checkpoint"])
def test_a_job(fault: str, new_workplace: NewWorkplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(_TOOLS))
    hangs, situations = import_module("soak.hangs.run"), import_module("soak.hangs.situations")
    (situation,) = (one for one in situations.SITUATIONS if one.fault == fault)
    place = new_workplace().forking()
    environment = {
        **place.env,
        "PATH": f"{_BIN}{os.pathsep}{place.env['PATH']}",
        "PYTHON_EXEC": str(place.python),
    }
    command = (str(place.python), str(_BIN / "distprof"))
    wrong, _ = hangs.judge(situation, place.folder, command, environment, _STALL_S)
    assert not wrong, wrong
    report, expected = place.report(), [(situation.kind, situation.ranks)] if situation.hangs else []
    assert [(row.kind, row.ranks) for row in report.hangs] == expected
    for row in report.hangs:
        assert row.still_s is None and any(row.cause in note for note in report.run.notes)
        assert one_line(row.cause)[:60] in "\n".join(hangs_block(report))
