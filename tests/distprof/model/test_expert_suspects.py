"""Modules that may be MoE layers, but in which no experts are understood."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from distprof.model.registry import ModelRegistry
from distprof.rank.identity import Identity
from distprof.records import ExpertLayers, Suspect
from distprof.topology.meshes import MeshRecorder


class Part(nn.Module):
    """A module with these children."""

    def __init__(self, **children: nn.Module) -> None:
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)


def suspects(model: nn.Module) -> tuple[Suspect, ...]:
    _, records = ModelRegistry(Identity(0, 1, 0, 1, 0), MeshRecorder()).adopt(model)
    found = [record for record in records if isinstance(record, ExpertLayers)]
    return found[-1].suspects if found else ()


def dense() -> Any:
    return nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4))


def understood() -> Any:
    return Part(gate=nn.Linear(4, 2), experts=nn.ModuleList([dense(), dense()]))


def test_names_of_modules() -> None:
    class DogeMoE(Part):
        pass

    doge = DogeMoE(router_gate=nn.Linear(4, 6), down_embed=nn.Embedding(9, 4))
    (suspect,) = suspects(nn.Sequential(dense(), Part(mlp=doge)))
    assert (suspect.name, suspect.why, suspect.by_config) == ("1.mlp", "its class is DogeMoE", False)
    assert [one.name for one in suspects(Part(first=Part(experts=dense()), second=understood()))] == ["first.experts"]


def test_what_is_understood_is_no_suspect() -> None:
    class GrandMoE(Part):
        """A model that holds a layer."""

    class QwenMoeMLP(Part):
        """A dense module of a model whose name has Moe in it."""

    assert suspects(GrandMoE(layer=understood(), mlp=QwenMoeMLP(up=nn.Linear(4, 8)))) == ()
    assert suspects(Part(shared_experts=dense(), layer=understood())) == ()
    assert suspects(nn.Sequential(dense())) == ()


def test_a_config_that_states_experts() -> None:
    model: Any = nn.Sequential(dense())
    model.config = SimpleNamespace(num_local_experts=8)
    assert suspects(model) == (Suspect("Sequential", 0, "config.num_local_experts = 8", by_config=True),)
    model.append(understood())
    assert suspects(model) == ()
    single: Any = nn.Sequential(dense())
    single.config = SimpleNamespace(num_experts=1)
    assert suspects(single) == ()


def test_experts_of_experts() -> None:
    """A part of a part of the parameters works on a token."""
    layer = Part(gate=nn.Linear(4, 2), experts=nn.ModuleList([understood(), understood()]))
    (suspect,) = suspects(nn.Sequential(layer))
    assert (suspect.name, suspect.why) == ("0.experts.0", "it is an expert that has experts")


def test_a_router_beside_alike_weights() -> None:
    """A router without weights, as one that hashes, tells no number of experts."""

    class Stacked(Part):
        def __init__(self, **children: nn.Module) -> None:
            super().__init__(**children)
            self.weight = nn.Parameter(torch.ones(3, 4, 4))

    (suspect,) = suspects(nn.Sequential(Stacked(router=nn.Identity())))
    assert (suspect.name, suspect.why) == ("0", "its class is Stacked")
    assert suspects(nn.Sequential(Stacked(head=nn.Identity()), Part(router=nn.Identity(), up=nn.Linear(4, 4)))) == ()


def test_a_module_at_several_places_of_a_list() -> None:
    """Its rows do not say as which of them it was called."""
    shared = dense()
    (suspect,) = suspects(Part(gate=nn.Linear(4, 4), experts=nn.ModuleList([shared, dense(), shared, dense()])))
    assert suspect.name == "experts"
