"""Names of models that are attributes of a module of which the script calls only methods."""

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
    """A wrapper with the name of torch's."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def test_names_of_attributes() -> None:
    agent, names = Agent(), HeldNames()
    assert names.find(agent.network) == "Agent.network"
    assert names.find(agent.heads["actor"]) == "Agent.heads.actor"
    assert names.find(agent) == names.find(nn.Linear(1, 1)) == ""


def test_wrappers_do_not_show() -> None:
    whole = DistributedDataParallel(Agent())
    agent = whole.module
    assert isinstance(agent, Agent) and HeldNames().find(agent) == ""
    assert HeldNames().find(agent.network) == "Agent.network"
    agent.network = DistributedDataParallel(nn.Linear(2, 2))  # type: ignore[assignment]
    assert HeldNames().find(agent.network) == "Agent.network"


def test_no_module_is_kept_alive_and_searches_are_few() -> None:
    names, agent = HeldNames(), Agent()
    names.find(agent.network)
    gone = weakref.ref(agent)
    del agent
    gc.collect()
    assert gone() is None
    for _ in range(9):
        names.find(nn.Linear(1, 1))
    late = Agent()
    assert names.find(late.network) == "", "a script that makes new models does not cause a search each time"


def recorded_names(records: list[Record]) -> dict[int, str]:
    return {record.root: record.held_as for record in records if isinstance(record, Parameters)}


def test_names_are_recorded_for_several_models() -> None:
    models, agent = ModelRegistry(Identity(0, 1, 0, 1, 0), MeshRecorder()), Agent()
    loss = nn.MSELoss()
    assert recorded_names(models.adopt(agent.network)[1]) == {0: ""}
    assert recorded_names(models.adopt(loss)[1]) == {1: ""}, "a model without parameters needs no name"
    actor = agent.heads["actor"]
    assert recorded_names(models.adopt(actor)[1]) == {0: "Agent.network", 2: "Agent.heads.actor"}
