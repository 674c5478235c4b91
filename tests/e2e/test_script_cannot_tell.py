"""Tests that a script cannot detect the recording: it sees and computes the same as under plain torchrun.

So do the examples: their own tests run them twice.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from support.scripts import TIMED, NewWorkplace, Workplace, iterations

#: Modules of the script's own, named like parts of distprof and like what a recorder imports.
OWN_MODULES = ("merge", "launcher", "records", "clock", "tree", "say", "frameworks", "recorder", "msgpack", "resource")

#: Prints all that it can see of its process: before torch is imported, afterwards, and in every step of training.
TELL = f"""
import sys
path = list(sys.path)
import {", ".join(OWN_MODULES[:-2])}

def own_modules():
    import {", ".join(OWN_MODULES)}
    return [{", ".join(OWN_MODULES)}]
"""
TELL += """
import builtins, gc, json, locale, os, random, signal, threading, warnings
import __main__

def look():
    # The one by which they are listed is closed again, and need not be the last: distprof's have high numbers.
    descriptors = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    of_distprof = [n for n in descriptors if "/shards/rank" in n or n.endswith(("/page", "/schedstat"))]
    return {
        "argv": [sys.argv, sys.orig_argv],
        "main": {name: str(value) for name, value in vars(__main__).items() if name.startswith("__")},
        "main's names": list(vars(__main__)),
        "path": [path, sys.path],
        "finders": [getattr(finder, "__qualname__", type(finder).__qualname__) for finder in sys.meta_path],
        "path hooks": len(sys.path_hooks),
        "environment": dict(os.environ),
        "modules": [(module.__name__, module.__file__, module.NAME) for module in own_modules()],
        "builtins": list(vars(builtins)),
        "hooks": [str(sys.excepthook), str(sys.displayhook), str(sys.unraisablehook), str(threading.excepthook)],
        "signals": [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
        "threads": [thread.name for thread in threading.enumerate()],
        "process": [os.getcwd(), os.umask(os.umask(0o22)), str(sys.flags)],
        "recursion limit": sys.getrecursionlimit(),
        "gc": [gc.isenabled(), gc.get_threshold()],
        "locale": locale.setlocale(locale.LC_ALL),
        "descriptors": len(descriptors) - len(of_distprof),
        "warnings": [str(warning.message) for warning in caught],
        "filters": len(warnings.filters),
        "random": [random.random(), float(numpy.random.rand()), torch.rand(()).item()],
        "torch": [torch.get_num_threads(), torch.is_grad_enabled(), str(torch.get_default_dtype())],
    }

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import numpy, torch
    from torch import nn
    for generator in random, numpy.random:
        generator.seed(3)
    torch.manual_seed(3)
    seen = [look()]
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters())
    for step in range(8):
        loss = model(torch.randn(16, 4)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seen += [loss.item().hex(), look()]
with open(f"{os.environ['SEEN_BY']}.json", "w") as file:
    json.dump(seen, file)
print("printed")
print("said", file=sys.stderr)
"""
#: torchrun gives each job its own values of these; the last two are ours.
EVERY_JOB_ITS_OWN = ("TORCHELASTIC_RUN_ID", "MASTER_PORT", "TORCHELASTIC_ERROR_FILE", "SEEN_BY")
OURS = ("PYTHONPATH", "DISTPROF_RUN")


def told(workplace: Workplace, by: str) -> list[Any]:
    """Returns everything that the script saw, without what differs between jobs."""
    text = (workplace.folder / f"{by}.json").read_text(encoding="utf-8")
    seen: list[Any] = json.loads(re.sub(r"\bat 0x[0-9a-f]+", "at 0x", text))
    for look in seen[::2]:
        for name in EVERY_JOB_ITS_OWN + OURS:
            look["environment"].pop(name, None)
    for look in seen[2:-1:2]:  # in the window it is higher (README, limits)
        look.pop("recursion limit")
    return seen


@pytest.mark.parametrize("launcher", ["torchrun", "python -m"])
def test_it_sees_what_it_would_see_without(launcher: str, new_workplace: NewWorkplace) -> None:
    workplace = new_workplace().forking_launchers()
    for name in OWN_MODULES:
        workplace.write(f"{name}.py", f"NAME = {name!r}", prelude="")
    workplace.write("package/tell.py", TELL, prelude="")
    workplace.write("tell.py", TELL, prelude="")
    if launcher == "torchrun":
        plain = workplace.start_torchrun("tell.py", "--name", "x", SEEN_BY="plain")
        ours = workplace.run("tell.py", "--name", "x", SEEN_BY="ours")
    else:
        command = ("python", "-m", "package.tell", "--", "--name", "x")
        plain = workplace.start(*command, SEEN_BY="plain")
        ours = workplace.exec(*command, SEEN_BY="ours")
    ended = plain.wait()
    assert (ended.code, ended.out, ended.err) == (0, "printed\n", "said\n")
    assert (ours.code, ours.out, ours.err.splitlines()[:-1]) == (0, "printed\n", ["said"])
    assert ours.last_line == "distprof: 1 of 1 ranks recorded in runs/x  ->  distprof merge runs/x"
    for ours_saw, plain_saw in zip(told(workplace, "ours"), told(workplace, "plain"), strict=True):
        assert ours_saw == plain_saw
    assert [iterations(shard) for shard in workplace.shards()] == [TIMED]
