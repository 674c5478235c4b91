"""The model flops of a GPT are PaLM's 6 N + 12 L H Q T a token, where N is the number of weights in matrices.

With N as all parameters, the formula also counts those that are in no matrix product, at 6 flops a token each.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from support.recording import record
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from distprof.records import Counts

L, H, Q, T, VOCABULARY, BATCH = 3, 4, 8, 16, 50, 2
WIDTH, TOKENS = H * Q, BATCH * T
MATRICES = L * 12 * WIDTH**2 + WIDTH * VOCABULARY  # qkv 3, projection 1, feed-forward 8; the head
PALM = 6 * MATRICES * TOKENS + 12 * L * H * Q * T * TOKENS


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(self.ln1(x)).view(BATCH, T, 3, H, Q).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.proj(attended.transpose(1, 2).reshape(BATCH, T, WIDTH))
        output: Tensor = x + self.down(F.gelu(self.up(self.ln2(x))))
        return output


class GPT(nn.Module):
    def __init__(self, *, checkpointed: bool) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(T, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(L))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.checkpointed = checkpointed

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.places(torch.arange(T))
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=True) if self.checkpointed else block(x)
        logits: Tensor = self.head(self.norm(x))
        return F.cross_entropy(logits.flatten(0, 1), ids.flatten())


@pytest.mark.parametrize("checkpointed", [False, True])
def test_model_flops_of_a_gpt(tmp_path: Path, checkpointed: bool) -> None:
    model = GPT(checkpointed=checkpointed)

    def job() -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        model(torch.zeros(BATCH, T, dtype=torch.long)).backward()
        optimizer.step()

    (work,) = record(tmp_path, job, count=True, timed=0).one(Counts).device_work
    assert 2 * work.model_macs == PALM

    everything = sum(parameter.numel() for parameter in model.parameters())
    embeddings, norms, biases = (VOCABULARY + T) * WIDTH, (2 * L + 1) * 2 * WIDTH, L * (3 + 1 + 4 + 1) * WIDTH
    assert everything == MATRICES + embeddings + norms + biases
    by_all = 6 * everything * TOKENS + 12 * L * H * Q * T * TOKENS
    assert 2 * work.model_macs == by_all - 6 * (embeddings + norms + biases) * TOKENS

    scores_again = L * TOKENS * T * WIDTH  # in the fused backward
    blocks_again = (L * 12 * WIDTH**2 * TOKENS + 2 * L * TOKENS * T * WIDTH) if checkpointed else 0
    assert work.executed_macs == work.model_macs + scores_again + blocks_again
