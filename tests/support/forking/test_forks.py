"""Tests of the forks that stand for launchers and ranks in these tests."""

from __future__ import annotations

from support.scripts import NewWorkplace

WORKING_THREAD = """
import hashlib, threading
from pathlib import Path

def work():
    "Without Python's lock: as gloo's thread, which is done a little later than the script."
    Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text("pt_gloo_runloop")
    works.set()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 500_000)
    print("let go", flush=True)

works = threading.Event()
threading.Thread(target=work, daemon=True).start()
works.wait()
"""


def test_a_fork_ends_after_the_threads_of_gloo_have_done_their_work(new_workplace: NewWorkplace) -> None:
    workplace = new_workplace().forking()
    ended = workplace.start("python", workplace.write("job.py", WORKING_THREAD, prelude="")).wait()
    assert (ended.code, ended.out) == (0, "let go\n"), ended.err


def test_a_fork_destroys_no_group_before(new_workplace: NewWorkplace) -> None:
    workplace = new_workplace().forking()
    destroyed = f"""{WORKING_THREAD}
import os
import torch.distributed as dist
dist.init_process_group("gloo", init_method=f"file://{{os.getcwd()}}/met", rank=0, world_size=1)
dist.destroy_process_group()
print("destroyed", flush=True)
"""
    ended = workplace.start("python", workplace.write("job.py", destroyed, prelude="")).wait()
    assert (ended.code, ended.out) == (0, "let go\ndestroyed\n"), ended.err
