"""A subclass of Tensor logs the functions that are called, plainly and under vmap (pytorch#149788, 176679)."""

# ranks: 1
# arguments:
from typing import Any

import torch
from torch import nn

calls: list[str] = []
QUERIES = ("dim", "size", "__get__")  # distprof asks these of an input, as its README says


class Logged(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", str(func))
        if name not in QUERIES:
            calls.append(name)
        return super().__torch_function__(func, types, args, kwargs or {})


torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(12):
    plain = torch.randn(4, 8)
    out = model(plain.as_subclass(Logged))
    loss = out.square().mean()
    loss.backward()
    dots = torch.vmap(torch.dot)(plain.as_subclass(Logged), plain.as_subclass(Logged))
    print(step, type(out).__name__, loss.as_subclass(torch.Tensor).item(), type(dots).__name__, calls)
    calls.clear()
    optimizer.step()
    optimizer.zero_grad()
