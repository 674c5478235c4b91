"""Tests of faults of jobs and disks: the job ends as without distprof, and finished steps are in the report."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.scripts import (
    TIMED,
    TIMED_OF_SEVERAL,
    Ended,
    NewWorkplace,
    Workplace,
    damage,
    ending,
    iterations,
    wait_for,
)

from distprof.records import Error
from distprof.shard.reader import read_shard

MERGE = "  ->  distprof merge runs/x"
PAGE = os.sysconf("SC_PAGE_SIZE")  # tmpfs allocates whole pages

#: Steps of one process; when two timed ones have ended, it does what it is told.
FAULTY = """
def kill():
    if os.environ.get("RANK") == "1":
        wait_for("waiting0")  # else the launcher ends a rank 0 that just begins
    os.kill(os.getpid(), signal.SIGKILL)

def leave():
    os._exit(7)

def fail():
    raise ValueError("the script's own")

def wait_to_be_ended():
    open(f"waiting{os.environ['RANK']}", "w").close()
    time.sleep(600)

def save_when_ended():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("saved"))
    wait_to_be_ended()

def hang_in_forward():
    Net.forward = lambda self, x: wait_to_be_ended()

def go_on_when_told():
    wait_for("go")

def wait_for(name):
    while not os.path.exists(name):
        time.sleep(0.02)

def tell_nobody():
    pass

def vanish():
    import shutil
    shutil.rmtree(os.environ["DISTPROF_RUN"])

def limit_files():
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

def do(what):
    behind = 5 if "RANK" in os.environ else 4
    infer(Net(), int(os.environ.get("STEPS", "7")), lambda step: globals()[what]() if step == behind else None)
    print("all steps done")

if __name__ == "__main__":
    tell_pid(os.environ.get("RANK", "0"))
    do(sys.argv[1 + int(os.environ.get("RANK", "0"))])
"""
BEFORE_THE_FAULT, OF_SEVERAL_BEFORE_THE_FAULT = TIMED[:2], TIMED_OF_SEVERAL[:2]

#: The same end without a model, for the exit code of torchrun.
KILLED = """
import os, signal, time
if os.environ["RANK"] == "1":
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(600)
"""

#: Rank 1 fails, and is started again.
RESTARTED = """
life, rank = os.environ["TORCHELASTIC_RESTART_COUNT"], os.environ["RANK"]
def between(step):
    if life == "0" and step == 5:
        if rank == "0":
            open("there", "w").close()
            time.sleep(600)
        while not os.path.exists("there"):
            time.sleep(0.02)
        sys.exit(3)
infer(Net(), 7, between)
"""

#: Its run folder is read-only from before its first step.
READ_ONLY = """
subprocess.run(["mount", "-o", "remount,ro", os.path.dirname(os.environ["DISTPROF_RUN"])], check=True)
infer(Net(), 6)
print("all steps done")
"""

#: The file system of its run folder takes 0.4 s for each record from iteration 4 on, and is waited for 2 s in all.
SLOW = """
from distprof.recorder.shard_output import ShardOutput
ShardOutput.__init__.__defaults__ = (2.0,)
write, slow_writes = os.write, []
def slowly(file, data):
    if "/shards/" in os.readlink(f"/proc/self/fd/{file}"):
        slow_writes.append(len(data))
        time.sleep(0.4)
    return write(file, data)
def between(step):
    if step == 4:
        os.write = slowly
infer(Net(), 100, between)
print("all steps done, waited for no more than eight writes:", len(slow_writes) <= 8)
"""


@pytest.fixture
def workplace(new_workplace: NewWorkplace) -> Workplace:
    place = new_workplace().forking_launchers()
    place.write("faulty.py", FAULTY)
    return place


@pytest.fixture
def forking(workplace: Workplace) -> Workplace:
    """Where nothing depends on how processes start and by whom they are ended."""
    return workplace.forking()


def test_a_rank_that_is_killed_leaves_its_finished_steps(workplace: Workplace) -> None:
    workplace.write("killed.py", KILLED, prelude="")
    plain = workplace.forking().start_torchrun("--nproc-per-node", 2, "killed.py").wait()
    ended = workplace.run("--nproc", 2, "faulty.py", "wait_to_be_ended", "kill")
    assert (ended.code, ended.out) == (plain.code, "") == (1, "")
    assert ended.last_line == (
        f"distprof: 2 of 2 ranks recorded in runs/x; ranks 0-1 ended after 2 of 3 timed steps{MERGE}"
    )
    shards = workplace.shards()
    assert [(iterations(shard), ending(shard), damage(shard)) for shard in shards] == [
        (OF_SEVERAL_BEFORE_THE_FAULT, "", "")
    ] * 2
    merged = workplace.distprof("merge", "--full", "--no-plots", "runs/x")
    assert merged.code == 0, merged.err
    assert "incomplete: ranks 0-1 (2 of 3 timed steps, still running, killed or unable to write)" in merged.out


def test_hanging_rank_is_reported(forking: Workplace) -> None:
    workplace = forking
    job = workplace.start_run("--nproc", 2, "faulty.py", "wait_to_be_ended", "hang_in_forward")
    wait_for(lambda: all((workplace.folder / f"waiting{rank}").exists() for rank in range(2)))
    running = workplace.report()
    job.process.send_signal(signal.SIGTERM)
    ended = job.wait()
    assert ended.code == 1, "torchrun's own exit code after a SIGTERM"
    for rank in range(2):
        with pytest.raises(ProcessLookupError):
            os.kill(int((workplace.folder / f"pid{rank}").read_text()), 0)
    assert ended.last_line.endswith(f"; ranks 0-1 ended after 2 of 3 timed steps{MERGE}")
    for report in (running, workplace.report()):
        assert [(row.steps, row.step_iterations) for row in report.ranks] == [
            (2, tuple(OF_SEVERAL_BEFORE_THE_FAULT))
        ] * 2
        assert set(report.run.incomplete) == {0, 1}


def test_a_scheduler_ends_the_ranks_themselves(forking: Workplace) -> None:
    """First a rank that saves at the signal, then one that does not."""
    job = forking.start_run("--nproc", 2, "faulty.py", "wait_to_be_ended", "save_when_ended")
    wait_for(lambda: all((forking.folder / f"waiting{rank}").exists() for rank in range(2)))
    for rank in (1, 0):
        os.kill(int((forking.folder / f"pid{rank}").read_text()), signal.SIGTERM)
    ended = job.wait()
    assert ended.code == 1
    assert "saved" in ended.err.splitlines()
    assert ended.last_line.endswith(f"2 of 2 ranks recorded in runs/x; ranks 0-1 ended after 2 of 3 timed steps{MERGE}")
    shards = forking.shards()
    assert [(iterations(shard), damage(shard)) for shard in shards] == [(OF_SEVERAL_BEFORE_THE_FAULT, "")] * 2
    assert [ending(shard) for shard in shards] == ["", "exit"]


def test_the_newest_life_of_restarted_ranks_is_reported(forking: Workplace) -> None:
    forking.write("train.py", RESTARTED)
    ended = forking.run("--nproc", 2, "--max-restarts", 1, "train.py")
    assert (ended.code, ended.last_line) == (0, f"distprof: 2 of 2 ranks recorded in runs/x{MERGE}")
    lives = [(s.header.rank, s.header.generation, iterations(s)) for s in forking.shards()]
    first, second = OF_SEVERAL_BEFORE_THE_FAULT, TIMED_OF_SEVERAL
    assert lives == [(0, 0, first), (0, 1, second), (1, 0, first), (1, 1, second)]
    report = forking.report()
    assert [row.steps for row in report.ranks] == [3, 3]
    assert "ranks 0-1 started more than once: generation 1, the newest with data, is reported" in report.run.notes
    ended_by_itself = [note for note in report.run.notes if note.startswith("generation 0 of rank 1 ended with")]
    assert ended_by_itself == ["generation 0 of rank 1 ended with its script"]


@pytest.mark.parametrize(
    ("what", "code", "why"), [("kill", -signal.SIGKILL, ""), ("leave", 7, ""), ("fail", 1, "exit")]
)
def test_a_process_that_ends_early_ends_as_without_us(what: str, code: int, why: str, forking: Workplace) -> None:
    ended = forking.exec("python", "faulty.py", what)
    assert (ended.code, ended.out) == (code, "")
    assert ended.last_line.startswith(
        "distprof: 1 of 1 ranks recorded in runs/x; rank 0 ended after 2 of 3 timed steps"
    )
    (shard,) = forking.shards()
    assert (iterations(shard), ending(shard), damage(shard)) == (BEFORE_THE_FAULT, why, "")
    if what == "fail":
        plain = forking.start("python", "faulty.py", what).wait()
        assert (plain.code, plain.err.splitlines()) == (1, ended.err.splitlines()[:-1])


def test_a_rank_outlives_its_launcher(workplace: Workplace) -> None:
    job = workplace.start_exec("python", "faulty.py", "go_on_when_told")
    wait_for(lambda: len(workplace.run_dir().shard_files()) == 1 and iterations(workplace.shards()[0]) == TIMED[:2])
    job.process.kill()
    (workplace.folder / "go").touch()
    assert job.wait().out == "all steps done\n"
    (shard,) = workplace.shards()
    assert (iterations(shard), ending(shard)) == (TIMED, "window complete")


def test_a_run_folder_that_vanishes_costs_one_sentence(forking: Workplace) -> None:
    ended = forking.exec("python", "faulty.py", "vanish")
    assert (ended.code, ended.out) == (0, "all steps done\n")
    assert ended.err == "distprof: runs/x has gone, and what was recorded with it\n"


def test_a_file_size_limit_ends_the_recording_and_not_the_job(forking: Workplace) -> None:
    ended = forking.exec("python", "faulty.py", "limit_files", timed=300, STEPS="400")
    assert (ended.code, ended.out) == (0, "all steps done\n")
    assert_kept_until_full(forking, ended, "File too large", room=8192)


@pytest.fixture
def disk(workplace: Workplace) -> Iterator[Callable[[str], Path]]:
    """``disk("size=32k")`` mounts a new file system at ``runs/``."""
    runs = workplace.folder / "runs"
    runs.mkdir()

    def mount(options: str) -> Path:
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", runs], capture_output=True, check=False
        ).returncode:
            pytest.skip("only root can mount")
        return runs

    yield mount
    subprocess.run(["umount", runs], capture_output=True, check=False)


#: More than a record takes that says why the others are not there.
LAST_WORD_BYTES = 150


def assert_kept_until_full(workplace: Workplace, ended: Ended, why: str, room: int) -> None:
    """Checks that all steps before the first that did not fit into ``room`` are whole, and that it was reported once,
    in the shard and at the end.

    """
    said, last = ended.err.splitlines()
    assert said == f"distprof: rank 0 stops recording, what it recorded so far is kept: {why}"
    (shard,) = workplace.shards()
    steps = iterations(shard)
    assert 2 < len(steps) < 300 and steps == list(range(2, 2 + len(steps)))
    assert shard.report.unread_bytes == 0
    errors = [record for record in shard.records if isinstance(record, Error)]
    if errors:
        assert errors == [Error("writing its shard", why)] == shard.records[-1:]
        ended_how = f"stopped recording in writing its shard: {why}"
        run = workplace.report().run
        assert run.incomplete == {0: f"{len(steps)} of 300 timed steps, the recorder failed in writing its shard"}
        failed = f"the recorder failed on rank 0 in writing its shard: {why}; what was recorded before holds"
        assert failed in run.notes
    else:  # the last step that fitted left no space for the error
        assert room - workplace.run_dir().shard_path(0, 0).stat().st_size < LAST_WORD_BYTES
        ended_how = f"ended after {len(steps)} of 300 timed steps"
    assert last == f"distprof: 1 of 1 ranks recorded in runs/x; rank 0 {ended_how}{MERGE}"


def test_a_disk_that_fills_up_ends_the_recording_and_not_the_job(
    forking: Workplace, disk: Callable[[str], Path]
) -> None:
    disk("size=32k")
    ended = forking.exec("python", "faulty.py", "tell_nobody", timed=300, STEPS="400")
    assert (ended.code, ended.out) == (0, "all steps done\n")
    size = forking.run_dir().shard_path(0, 0).stat().st_size
    assert_kept_until_full(forking, ended, "No space left on device", room=-(-size // PAGE) * PAGE)
    merged = forking.distprof("merge", "--no-plots", "runs/x")
    assert (merged.code, merged.err.count("\n")) == (1, 1)
    assert merged.err == (
        "distprof: the report cannot be written to runs/x/report (No space left on device): "
        "choose another folder with --out\n"
    ), "whether the folder does not fit or a file in it"


def test_a_folder_that_takes_no_shard_sends_it_elsewhere(forking: Workplace, disk: Callable[[str], Path]) -> None:
    disk("size=1m")
    forking.write("read_only.py", READ_ONLY)
    ended = forking.exec("python", "read_only.py", TMPDIR=str(forking.folder))
    assert (ended.code, ended.out) == (0, "all steps done\n")
    said, last = ended.err.splitlines()
    (shard,) = forking.folder.glob("distprof-*/shards/*.msgpack")
    cannot = f"rank 0 cannot write to {forking.run_dir().shards} (Read-only file system)"
    assert said == f"distprof: {cannot}: its shard goes to {shard.parents[1]}"
    assert "not able to write here (it said so)" in last
    assert iterations(read_shard(shard)) == TIMED


def test_a_slow_file_system_ends_the_recording_and_not_the_job(forking: Workplace) -> None:
    forking.write("slow.py", SLOW)
    ended = forking.exec("python", "slow.py", timed=90)
    assert (ended.code, ended.out) == (0, "all steps done, waited for no more than eight writes: True\n")
    why = "writing it keeps the job waiting, the file system is too slow"
    said, last = ended.err.splitlines()
    assert said == f"distprof: rank 0 stops recording, what it recorded so far is kept: {why}"
    assert last.startswith(
        f"distprof: 1 of 1 ranks recorded in runs/x; rank 0 stopped recording in writing its shard: {why}"
    )
    (shard,) = forking.shards()
    assert 2 <= len(iterations(shard)) <= 10 and damage(shard) == ""
    assert shard.records[-1] == Error("writing its shard", why)


@pytest.mark.parametrize("out", ["read-only", "/proc/nowhere", "a-file", "a-file/runs", "long" * 100])
def test_an_out_that_cannot_be_made_is_said_and_another_taken(
    out: str, workplace: Workplace, disk: Callable[[str], Path]
) -> None:
    if out == "read-only":
        out = str(disk("ro"))
    (workplace.folder / "a-file").touch()
    ended = workplace.distprof("exec", "--out", out, "echo", "ran", TMPDIR=str(workplace.folder))
    assert (ended.code, ended.out) == (0, "ran\n")
    said, last = ended.err.splitlines()
    assert said.startswith(f"distprof: cannot make a run folder in {out}: ")
    (run,) = workplace.folder.glob("distprof-*/*")
    assert said.endswith(f"; recording in {run} instead") and str(run) in last


def test_two_jobs_of_one_name_at_one_time_have_a_folder_each(forking: Workplace) -> None:
    jobs = [forking.start_exec("python", "faulty.py", "tell_nobody") for _ in range(2)]
    ended = [job.wait() for job in jobs]
    assert [job.code for job in ended] == [0, 0]
    assert sorted(job.last_line for job in ended) == [
        f"distprof: 1 of 1 ranks recorded in runs/{name}  ->  distprof merge runs/{name}" for name in ("x", "x-2")
    ]
    reports = [forking.report(name) for name in ("x", "x-2")]
    assert [report.ranks[0].steps for report in reports] == [3, 3]
    assert reports[0].run.run_id != reports[1].run.run_id
