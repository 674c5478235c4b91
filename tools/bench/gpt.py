"""The measured models and their training step: GPT-2's layout, with 13 modules in each block and 8 outside blocks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.shapes import Shape

_CPU = torch.device("cpu")


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.c_attn = nn.Linear(shape.width, 3 * shape.width)
        self.c_proj = nn.Linear(shape.width, shape.width)
        self.attn_dropout = nn.Dropout(0.1)
        self.resid_dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        split = self.c_attn(x).view(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-2, -1) * (width // self.heads) ** -0.5
        future = torch.ones(tokens, tokens, dtype=torch.bool, device=x.device).triu(1)
        weights = self.attn_dropout(scores.masked_fill(future, float("-inf")).softmax(-1))
        mixed: Tensor = (weights @ value).transpose(1, 2).reshape(batch, tokens, width)
        projected: Tensor = self.resid_dropout(self.c_proj(mixed))
        return projected


class MLP(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.c_fc = nn.Linear(shape.width, 4 * shape.width)
        self.c_proj = nn.Linear(4 * shape.width, shape.width)
        self.act = nn.GELU(approximate="tanh")
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dropout(self.c_proj(self.act(self.c_fc(x))))
        return y


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(shape.width)
        self.attn = Attention(shape)
        self.ln_2 = nn.LayerNorm(shape.width)
        self.mlp = MLP(shape)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        y: Tensor = x + self.mlp(self.ln_2(x))
        return y


class Transformer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.wte = nn.Embedding(shape.vocabulary, shape.width)
        self.wpe = nn.Embedding(shape.tokens, shape.width)
        self.drop = nn.Dropout(0.1)
        self.h = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.ln_f = nn.LayerNorm(shape.width)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.drop(self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1], device=tokens.device)))
        for block in self.h:
            x = block(x)
        normed: Tensor = self.ln_f(x)
        return normed


class GPT(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.transformer = Transformer(shape)
        self.lm_head = nn.Linear(shape.width, shape.vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.lm_head(self.transformer(tokens))
        return logits


class Training:
    """The training of a model on one batch, on one thread; a step ends when the device has done its work."""

    def __init__(self, shape: Shape, device: torch.device = _CPU) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.model: nn.Module = GPT(shape).to(device)
        self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self._batch = torch.randint(0, shape.vocabulary, (shape.batch, shape.tokens), device=device)

    @property
    def modules(self) -> int:
        return sum(1 for _ in self.model.modules())

    def step(self) -> None:
        self._optimizer.zero_grad()
        logits = self.model(self._batch)
        F.cross_entropy(logits.flatten(0, 1), self._batch.flatten()).backward()
        self._optimizer.step()
        if self._batch.is_cuda:
            torch.cuda.synchronize()
