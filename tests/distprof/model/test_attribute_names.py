"""Models that are parts of a module of which the script calls methods only keep the names that it has for them."""

from __future__ import annotations

import gc
import weakref

from torch import nn

from distprof.model.attribute_names import HeldNames
from distprof.model.registry import ModelRegistry
from distprof.rank.identity import Identity
from distprof.records import Parameters, Record
from distprof.topology.meshes import MeshRecorder


class Agent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network, self.heads = nn.Sequential(nn.Linear(2, 2)), nn.ModuleDict({"actor": nn.Linear(2, 2)})


class DistributedDataParallel(nn.Module):
    """A wrapper, as torch's by its name."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def test_the_names_that_a_module_has_for_what_it_holds() -> None:
    agent, names = Agent(), HeldNames()
    assert names.of(agent.network) == "Agent.network"
    assert names.of(agent.heads["actor"]) == "Agent.heads.actor"
    assert names.of(agent) == names.of(nn.Linear(1, 1)) == ""


def test_wrappers_have_no_part_in_them() -> None:
    whole = DistributedDataParallel(Agent())
    agent = whole.module
    assert isinstance(agent, Agent) and HeldNames().of(agent) == ""
    assert HeldNames().of(agent.network) == "Agent.network"
    agent.network = DistributedDataParallel(nn.Linear(2, 2))  # type: ignore[assignment]
    assert HeldNames().of(agent.network) == "Agent.network"


def test_no_module_is_kept_alive_and_few_looks_are_taken() -> None:
    names, agent = HeldNames(), Agent()
    names.of(agent.network)
    gone = weakref.ref(agent)
    del agent
    gc.collect()
    assert gone() is None
    for _ in range(9):
        names.of(nn.Linear(1, 1))
    late = Agent()
    assert names.of(late.network) == "", "a script that makes models anew does not have all objects looked through"


def told(records: list[Record]) -> dict[int, str]:
    return {record.root: record.held_as for record in records if isinstance(record, Parameters)}


def test_models_are_named_as_soon_as_there_are_several() -> None:
    models, agent = ModelRegistry(Identity(0, 1, 0, 1, 0), MeshRecorder()), Agent()
    loss = nn.MSELoss()
    assert told(models.adopt(agent.network)[1]) == {0: ""}
    assert told(models.adopt(loss)[1]) == {1: ""}, "one without parameters needs no other names beside it"
    actor = agent.heads["actor"]
    assert told(models.adopt(actor)[1]) == {0: "Agent.network", 2: "Agent.heads.actor"}
