"""Tests of a small part of the soak, and that it fails if something is lost."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.forking.server import forking_python
from support.forking.soak import TOOLS, run_soak

from distprof.records import FORWARD, Counts, End, Header, Plan, Record, Step
from distprof.run_folder import RunFolder
from distprof.shard.reader import Shard, parse_shard
from distprof.shard.writer import FileSink, ShardWriter


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], ModuleType]:
    """``soak("kills")`` returns a module of the soak."""
    monkeypatch.syspath_prepend(str(TOOLS))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return lambda name: import_module(f"soak.{name}")


def test_a_small_share(tmp_path: Path, clean_env: dict[str, str]) -> None:
    shares = {"mutations": 500, "full-disks": 40, "kills": 3, "messages": 50}
    options = [word for kind, count in shares.items() for word in (f"--{kind}", str(count))]
    shown = run_soak(clean_env, "--only", *shares, *options, "--seed", "7", folder=tmp_path)
    assert shown.endswith("\nnothing was lost\n")
    for kind, count in shares.items():
        assert re.search(rf"^{count} {kind.replace('-', ' ')}, .*in \d+ s: ", shown, re.MULTILINE)
    assert re.search(r"^3 kills, [1-9]\d* finished steps in the shards", shown, re.MULTILINE)
    assert list(tmp_path.iterdir()) == [], "something was left behind"


def forgetful(shard: Shard) -> None:
    shard.records.pop()
    shard.sequences.pop()


def silent(shard: Shard) -> None:
    shard.report.unread_bytes = shard.report.sequence_gaps = 0


def mistaken(shard: Shard) -> None:
    shard.records[-1] = shard.records[0]


def broken(shard: Shard) -> None:
    raise IndexError(shard.source)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (forgetful, "is whole and was not read"),
        (silent, "a loss was not reported"),
        (mistaken, "is not what was written"),
        (broken, "IndexError"),
    ],
)
def test_a_faulty_reader_fails(
    fault: Callable[[Shard], None],
    said: str,
    soak: Callable[[str], ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def reader(*arguments: Any) -> Shard:
        shard = parse_shard(*arguments)
        fault(shard)
        return shard

    monkeypatch.setattr(soak("reader_checks"), "parse_shard", reader)
    monkeypatch.setattr(soak("mutations"), "_ABUSES", (soak("damage").delete,))
    assert not soak("trials").run(soak("mutations").MUTATIONS, 0, 50, 1, soak("console_output").Progress(io.StringIO()))
    output = capsys.readouterr().err
    assert said in output
    assert re.search(r"again with --only mutations --mutations 1 --seed 1 --first \d+\n$", output)
    assert [file.name for file in tmp_path.rglob("*.msgpack")] == ["failed.msgpack"]


@pytest.mark.parametrize(
    ("what", "fault", "said"),
    [
        ("distprof.shard.writer.os.ftruncate", lambda *_: None, "a piece of a record was left behind"),
        ("distprof.recorder.shard_output.say", lambda *_: None, "no clear line"),
        ("distprof.recorder.shard_output.ShardOutput._give_up", lambda self, why: self.close(), "no clear line"),
    ],
)
def test_a_faulty_writer_fails(
    what: str, fault: Any, said: str, soak: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disks, one = soak("disks"), soak("originals").original("run", 1, 40)
    monkeypatch.setattr(what, fault)
    with pytest.raises(AssertionError, match=said):
        disks.file_size_limit(_Given(one.edges[5] + 3), one, tmp_path)


class _Given:
    """A source of given random numbers."""

    def __init__(self, number: int) -> None:
        self._number = number

    def randrange(self, *_: int) -> int:
        return self._number


#: Finished by a rank when it was killed, and recorded of it.
FINISHED = range(6)


def records(steps: range) -> list[Record]:
    timed = [Step(n, FORWARD, 1, 2, {"other": 2}, 1, 1, 1, 1, "rss") for n in steps if n >= 2]
    return [Plan(1, 1, 100, settling=1), Counts(1, FORWARD, 1, 1), *timed]


def left_behind(place: Path, recorded: list[Record] | None, finished: range) -> None:
    """Writes what a killed job of two ranks leaves; rank 0 is complete."""
    shards = RunFolder(place / "runs" / "x")
    shards.shards.mkdir(parents=True)
    for rank, (own, log) in enumerate([(records(FINISHED), FINISHED), (recorded, finished)]):
        (place / f"finished{rank}").write_text("".join(f"{number:>8}\n" for number in [4711, *log]))
        if own is not None:
            writer = ShardWriter(FileSink(shards.shard_path(rank, 0)))
            for record in (Header("x", rank, 2), *own):
                writer.write(record)
            writer.close()


@pytest.mark.parametrize(
    ("recorded", "finished"), [(records(FINISHED), FINISHED), (records(range(7)), FINISHED), (None, range(0))]
)
def test_what_a_kill_may_leave(
    recorded: list[Record] | None, finished: range, soak: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    left_behind(tmp_path, recorded, finished)
    counted = soak("kills").judge(tmp_path)
    assert counted == {"finished steps in the shards": 4 + 4 * bool(finished), "torn last records": 0}


@pytest.mark.parametrize(
    ("recorded", "finished", "said"),
    [
        (records(FINISHED), range(7), r"finished \[4, 5, 6\], recorded \[3, 4, 5\]"),
        (records(range(8)), FINISHED, "a step was recorded that was not run"),
        ([Plan(1, 1, 100, settling=1), *records(FINISHED)[2:]], FINISHED, "the counted step is lost"),
        (None, FINISHED, "there is no shard"),
        ([Plan(1, 1, 3, settling=1), *records(FINISHED)[1:], End("exit", 6)], FINISHED, "killed, and called complete"),
    ],
)
def test_what_a_kill_may_not_leave(
    recorded: list[Record] | None,
    finished: range,
    said: str,
    soak: Callable[[str], ModuleType],
    tmp_path: Path,
) -> None:
    left_behind(tmp_path, recorded, finished)
    with pytest.raises(AssertionError, match=said):
        soak("kills").judge(tmp_path)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_and_colour_of_the_last_line(
    soak: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, log, terminal = soak("console_output"), io.StringIO(), Terminal()
    for stream in (log, terminal):
        progress = shown.Progress(stream, log_every_s=-1)
        progress._every_s = -1
        for done in range(2):
            progress.say(f"{done} of 2 kills")
        progress.clear()
    assert log.getvalue() == "soak: 0 of 2 kills\nsoak: 1 of 2 kills\n"
    assert terminal.getvalue() == "\r\x1b[Ksoak: 0 of 2 kills\r\x1b[Ksoak: 1 of 2 kills\r\x1b[K"
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert shown.last_word(True, terminal) == "\x1b[1;31msomething was LOST: see above\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert shown.last_word(True, terminal) == shown.last_word(True, log) == "something was LOST: see above"


QUIET = """
# ranks: 1
# arguments: 3
# event: 2
import sys, time
import torch
torch.manual_seed(int(sys.argv[1]))
net = torch.nn.Linear(4, 4)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for step in range(8):
    net(torch.randn(2, 4)).sum().backward()
    optimizer.step()
print(f"took {time.perf_counter():.3f} s")
"""
#: Where it is recorded it prints more, leaves a file and other parameters, and ends with another exit code.
SEES_DISTPROF = f"""{QUIET}
if "distprof.recorder.recorder" in sys.modules:
    print("recorded")
    torch.save(net.state_dict(), "net.pt")
    torch.nn.init.zeros_(net.weight)
    import atexit, os
    atexit.register(os._exit, 3)
"""
RANDOM = QUIET.replace("torch.manual_seed(int(sys.argv[1]))", "torch.seed()")


def test_what_comment_lines_say_of_a_case(soak: Callable[[str], ModuleType], tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(f'"""Words."""\n{QUIET}')
    (tmp_path / "other.py").write_text("# ranks: 2\n# arguments: 1 'a b'\n# arguments: 2\n# stack: deepspeed\n")
    one, other, third = soak("scripts").scripts("*", tmp_path)
    assert (one.title, one.ranks, one.stacks, one.event) == ("one 3", 1, (), 2)
    assert (other.arguments, third.arguments) == (("1", "a b"), ("2",))
    assert (third.ranks, third.stacks, third.event) == (2, ("deepspeed",), 5)
    (tmp_path / "none.py").write_text("# arguments: 1\n")
    with pytest.raises(ValueError, match=r"none\.py needs one line '# ranks: N'"):
        soak("scripts").scripts("n*", tmp_path)


def test_the_moment_of_a_case_is_counted_and_timed_and_before(soak: Callable[[str], ModuleType]) -> None:
    windows = soak("cases").windows(5)
    (counted, _), (first, timed), (before, _) = (windows[name] for name in ("counted", "timed", "before"))
    assert counted == 5
    settling = 1
    assert 5 in range(first + 1 + settling, first + 1 + timed), "of several ranks and of one"
    assert before > 5


def test_cases_are_the_same_with_and_without(
    soak: Callable[[str], ModuleType],
    tmp_path: Path,
    clean_env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(soak("runs").sys, "executable", str(forking_python(clean_env)))
    cases, progress = soak("cases"), soak("console_output").Progress(io.StringIO())
    folder = tmp_path / "cases"
    folder.mkdir()
    for name, text in {"quiet": QUIET, "chance": RANDOM, "sees": SEES_DISTPROF}.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "stack.py").write_text("# ranks: 1\n# stack: a-stack-that-nobody-has\n")
    monkeypatch.setattr(cases, "scripts", lambda pattern: soak("scripts").scripts(pattern, folder))
    monkeypatch.setattr(cases, "windows", lambda event: {"counted": (event, 3)})
    assert cases.run("*", 1, progress) is False
    shown = capsys.readouterr()
    rows = {row[0]: row[-4:] for line in shown.out.splitlines() if (row := line.split())[-4:]}
    assert rows["quiet"] == ["1", "0", "0", "0"], shown
    assert rows["chance"] == ["0", "0", "1", "0"], shown
    assert rows["sees"] == ["0", "1", "0", "0"], shown
    assert rows["stack"] == ["0", "0", "0", "1"], shown
    assert "4 cases, 3 runs with timed steps" in shown.out
    for line in ("sees 3 --warmup 2 --timed 3", "-exit code 0", "+exit code 3", "+recorded", "+net.pt: "):
        assert line in shown.err
    assert re.search(r"-state0: net\.weight .*\n.*\+state0: net\.weight ", shown.err)
    (left,) = tmp_path.glob("distprof-soak-*")
    assert {file.name for file in left.glob("*/*.py")} == {"sees.py"}, "the files of what differs, and no others"
