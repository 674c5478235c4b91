"""Checks after every test of the rank side that nothing of distprof is left in torch and Python."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Checks that every attribute of torch and Python that a recorder replaces has its old value after the test."""
    before = _places()
    yield
    after = _places()
    changed = sorted(place for place, value in before.items() if after[place] is not value)
    assert not changed, f"not restored:  {changed}"
    assert not _leftovers()


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """Resets dynamo before and after the test."""
    import torch._dynamo

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


@pytest.fixture(params=["the timer", "the fast path"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the test twice: without the compiled part (modules are handled by ModuleTimer), and with it."""
    from distprof.native import extension

    if request.param == "the timer":
        monkeypatch.setattr(extension, "compiled", None)
    elif extension.compiled is None:
        pytest.skip("the fast path could not be compiled")


def _places() -> dict[str, Any]:
    """Returns the value of each attribute that distprof replaces, once torch is imported."""
    if "torch" not in sys.modules:
        return {}
    import torch
    from torch._C._distributed_c10d import ProcessGroup, Work
    from torch.autograd.profiler import record_function
    from torch.distributed.device_mesh import DeviceMesh
    from torch.utils.data.dataloader import _BaseDataLoaderIter

    inductor = sys.modules.get("torch._inductor.output_code")
    compiled = {} if inductor is None else {"compiled code": inductor.CompiledFxGraph.__call__}
    return {
        **compiled,
        "nn.Module.__call__": torch.nn.Module.__call__,
        "torch.autograd": vars(torch.autograd)["_engine_run_backward"],
        "torch.autograd.graph": torch.autograd.graph._engine_run_backward,
        "DataLoader": _BaseDataLoaderIter.__next__,
        "DeviceMesh": DeviceMesh.__init__,
        **{f"ProcessGroup.{name}": vars(ProcessGroup)[name] for name in ("send", "recv", "recv_anysource")},
        "Work.wait": vars(Work)["wait"],
        "record_function's beginning": record_function.__enter__,
        "record_function's end": record_function.__exit__,
    }


def _leftovers() -> list[str]:
    """Returns objects that must not exist after a recorder has ended."""
    ours = [type(finder).__name__ for finder in sys.meta_path if type(finder).__module__.startswith("distprof.")]
    ours += [
        f"{call}" for call in gc.callbacks if type(getattr(call, "__self__", None)).__module__.startswith("distprof")
    ]
    if "torch" in sys.modules:
        import torch
        from torch.optim import optimizer

        ours += [f"optimizer hook {hook}" for hook in optimizer._global_optimizer_pre_hooks.values()]
        ours += [f"optimizer hook {hook}" for hook in optimizer._global_optimizer_post_hooks.values()]
        ours += ["a dispatch mode"] * torch._C._len_torch_dispatch_stack()
        dynamos = [sys.modules.get(name) for name in ("torch._dynamo.utils", "torch._dynamo.variables.nn_module")]
        known = [dynamo.unpatched_nn_module_call for dynamo in dynamos if dynamo is not None]
        ours += [f"dynamo's {call}" for call in known if call is not torch.nn.Module.__call__]
    if "torch._dynamo.eval_frame" in sys.modules:
        stance = sys.modules["torch._dynamo.eval_frame"]._stance.stance
        ours += [] if stance == "default" else [f"stance {stance}"]
    if "distprof.inject.bootstrap" in sys.modules and sys.modules["distprof.inject.bootstrap"].recorder is not None:
        ours.append("an armed recorder")
    if "distprof.topology.declared" in sys.modules:
        declared = sys.modules["distprof.topology.declared"].current()
        ours += [] if declared is None else [f"{declared}"]
    return ours
