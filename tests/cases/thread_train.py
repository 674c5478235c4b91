"""A model runs two of its modules on other threads, as DataParallel does with its replicas."""
# ranks: 1

import threading

import torch
from torch import nn


class OnThreads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 64)
        self.both = nn.ModuleList(nn.Linear(64, 64) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        outputs: dict[int, torch.Tensor] = {}

        def work(number: int) -> None:
            outputs[number] = self.both[number](x)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return outputs[0] + outputs[1]


torch.manual_seed(0)
model = OnThreads()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for _step in range(12):
    model(torch.randn(8, 64)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
print("trained")
