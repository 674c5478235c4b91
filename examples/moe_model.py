"""The model of train_moe.py: a small GPT in which every second block is a mixture of experts.

``GPT(shape)`` is the whole model, on one rank and without torch.distributed.  What an MoE layer shares with other ranks
is set from outside: ``dispatch.group`` and ``combine.group`` (expert parallel), ``slice.mesh`` and ``gather.mesh``
(tensor parallel).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard

VOCABULARY = 512
TOP_K = 2


@dataclass(frozen=True)
class Shape:
    """The sizes of the model; with the seed they determine its parameters."""

    dim: int = 128
    layers: int = 4
    heads: int = 4
    sequence: int = 64
    experts: int = 16


class Attention(nn.Module):
    """Causal self-attention, written out.  Rows of ``qkv`` are ordered by head: a slice is a set of heads."""

    mask: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.head_dim = shape.dim // shape.heads
        self.qkv = nn.Linear(shape.dim, 3 * shape.dim, bias=False)
        self.proj = nn.Linear(shape.dim, shape.dim, bias=False)
        future = torch.ones(shape.sequence, shape.sequence, dtype=torch.bool).triu(1)
        self.register_buffer("mask", future, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        qkv = self.qkv(x).view(batch, length, -1, 3 * self.head_dim).transpose(1, 2)
        q, k, v = qkv.chunk(3, dim=-1)
        scores = torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(self.head_dim)
        scores = scores.masked_fill(self.mask[:length, :length], float("-inf"))
        mixed = torch.matmul(torch.softmax(scores, dim=-1), v)
        output: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, length, -1))
        return output


class FeedForward(nn.Module):
    """The dense MLP of a block, and also one expert."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.up = nn.Linear(dim, 4 * dim, bias=False)
        self.down = nn.Linear(4 * dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.down(F.gelu(self.up(x)))
        return output


class Router(nn.Module):
    """Chooses ``top_k`` experts for each token, and the weights with which their outputs are combined.

    ``bias`` is added to the logits; it is zero, or makes some experts hot.
    """

    bias: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.top_k = TOP_K
        self.gate = nn.Linear(shape.dim, shape.experts, bias=False)
        self.register_buffer("bias", torch.zeros(shape.experts), persistent=False)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        probabilities = torch.softmax(self.gate(tokens) + self.bias, dim=-1)
        weights, chosen = probabilities.topk(self.top_k, dim=-1)
        return weights / weights.sum(dim=-1, keepdim=True), chosen


class AllToAll(torch.autograd.Function):
    """Exchanges rows as :func:`all_to_all` does; the gradients are exchanged in the other direction."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sends: list[int], receives: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.sends, ctx.receives, ctx.group = sends, receives, group
        arrived = rows.new_empty(sum(receives), *rows.shape[1:])
        dist.all_to_all_single(arrived, rows.contiguous(), receives, sends, group=group)
        return arrived

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return all_to_all(gradient, ctx.receives, ctx.sends, ctx.group), None, None, None


def all_to_all(rows: Tensor, sends: list[int], receives: list[int], group: dist.ProcessGroup | None) -> Tensor:
    """Sends ``sends[i]`` rows to rank i of the group, receives ``receives[i]``; without a group, returns ``rows``."""
    if group is None:
        return rows
    arrived: Tensor = AllToAll.apply(rows, sends, receives, group)
    return arrived


@dataclass(frozen=True)
class Route:
    """The exchange of one layer's (token, expert) pairs; ``combine`` needs it to return the experts' outputs."""

    order: Tensor  # pairs, sorted by expert
    sends: list[int]  # rows to each ep rank
    received: list[list[int]]  # rows from each ep rank, for each local expert

    @property
    def receives(self) -> list[int]:
        return [sum(counts) for counts in self.received]


class Dispatch(nn.Module):
    """Sends every (token, expert) pair to the ep rank that hosts the expert: a batch [n, dim] for each local expert."""

    def __init__(self, num_experts: int) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.group: dist.ProcessGroup | None = None  # None: this rank hosts every expert

    def forward(self, tokens: Tensor, chosen: Tensor) -> tuple[list[Tensor], Route]:
        pairs = chosen.flatten()
        order = pairs.argsort(stable=True)
        route = self._plan(order, torch.bincount(pairs, minlength=self.num_experts))
        rows = tokens.unsqueeze(1).expand(-1, TOP_K, -1).flatten(0, 1)[order]
        rows = all_to_all(rows, route.sends, route.receives, self.group)
        pieces = rows.split([count for counts in route.received for count in counts])  # by source, then by local expert
        local = len(route.received[0])
        return [torch.cat(pieces[expert::local]) for expert in range(local)], route

    def _plan(self, order: Tensor, by_expert: Tensor) -> Route:
        """Exchanges the number of rows for each expert between the ranks."""
        if self.group is None:
            return Route(order, [len(order)], [by_expert.tolist()])
        sent = by_expert.view(self.group.size(), -1)
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent, group=self.group)
        return Route(order, sent.sum(1).tolist(), received.tolist())


class Combine(nn.Module):
    """Returns the experts' outputs to their tokens and sums them with the router's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.group: dist.ProcessGroup | None = None

    def forward(self, outputs: list[Tensor], weights: Tensor, route: Route) -> Tensor:
        counts = zip(*route.received, strict=True)  # for each local expert, by source
        by_expert = [output.split(list(by_source)) for output, by_source in zip(outputs, counts, strict=True)]
        rows = torch.cat([piece for pieces in zip(*by_expert, strict=True) for piece in pieces])
        returned = all_to_all(rows, route.receives, route.sends, self.group)
        answers = returned[route.order.argsort()].view(*weights.shape, -1)
        return (answers * weights.unsqueeze(-1)).sum(dim=1)


class TakeSlice(nn.Module):
    """Takes this rank's slice of the tokens, which all tp ranks hold.  The backward gathers the slices' gradients."""

    mesh: DeviceMesh | None = None

    def forward(self, tokens: Tensor) -> Tensor:
        if self.mesh is None:
            return tokens
        return DTensor.from_local(tokens, self.mesh, [Replicate()]).redistribute(placements=[Shard(0)]).to_local()


class GatherSlices(nn.Module):
    """Gathers the slices of all tp ranks on each of them.  In backward each keeps the gradient of its slice."""

    mesh: DeviceMesh | None = None

    def forward(self, tokens: Tensor) -> Tensor:
        if self.mesh is None:
            return tokens
        return DTensor.from_local(tokens, self.mesh, [Shard(0)]).redistribute(placements=[Replicate()]).to_local()


class MoE(nn.Module):
    """A layer of ``num_experts`` feed-forward experts (``experts`` holds those of this rank).

    Only ``slice``, ``dispatch``, ``combine`` and ``gather`` communicate with other ranks.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.num_experts = shape.experts
        self.slice = TakeSlice()
        self.router = Router(shape)
        self.dispatch = Dispatch(shape.experts)
        self.experts = nn.ModuleList(FeedForward(shape.dim) for _ in range(shape.experts))
        self.combine = Combine()
        self.gather = GatherSlices()

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.slice(x.flatten(0, 1))
        weights, chosen = self.router(tokens)
        batches, route = self.dispatch(tokens, chosen)
        # An expert without tokens runs too: its gradients are zeros, not missing, and all ranks run the same hooks.
        outputs = [expert(batch) for expert, batch in zip(self.experts, batches, strict=True)]
        mixed: Tensor = self.gather(self.combine(outputs, weights, route))
        return mixed.view_as(x)


class Block(nn.Module):
    """Attention, then a dense MLP (even blocks) or a mixture of experts (odd ones)."""

    def __init__(self, shape: Shape, number: int) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(shape.dim)
        self.attn = Attention(shape)
        self.ln2 = nn.LayerNorm(shape.dim)
        if number % 2:
            self.moe = MoE(shape)
        else:
            self.mlp = FeedForward(shape.dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln1(x))
        feed_forward = self.moe if hasattr(self, "moe") else self.mlp
        output: Tensor = x + feed_forward(self.ln2(x))
        return output


class GPT(nn.Module):
    """Maps tokens and targets, [batch, sequence] each, to the mean loss."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, shape.dim)
        self.position = nn.Embedding(shape.sequence, shape.dim)
        self.blocks = nn.ModuleList(Block(shape, number) for number in range(shape.layers))
        self.norm = nn.LayerNorm(shape.dim)
        self.head = nn.Linear(shape.dim, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.embed(tokens) + self.position(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1), targets.flatten())


def moe_layers(model: nn.Module) -> dict[str, MoE]:
    return {name: module for name, module in model.named_modules() if isinstance(module, MoE)}
