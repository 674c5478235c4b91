"""TorchScript models: one that is scripted, one that is traced before it is ever called (as TensorBoard's
``add_graph`` does), and a new one traced in every iteration.  While torch traces, sizes are tensors.
"""
# ranks: 1
# arguments: scripted
# arguments: traced
# arguments: before
# arguments: fresh

import hashlib
import sys
from typing import Any

import torch
from torch import Tensor, nn

KIND = sys.argv[1]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 16)
        self.outer = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.outer(torch.relu(self.inner(x)))
        return y


def traced(net: nn.Module) -> Any:
    return torch.jit.trace(net, torch.ones(4, 8), check_trace=False)


def operations(net: nn.Module) -> list[str]:
    return [node.kind() for node in traced(net).inlined_graph.nodes()]


torch.manual_seed(0)
net: Any = Net()
graphs = []
if KIND == "before":
    graphs.append(operations(net))
elif KIND in ("scripted", "traced"):
    net = torch.jit.script(net) if KIND == "scripted" else traced(net)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
losses, gradients = [], hashlib.sha256()
for _ in range(12):
    if KIND == "fresh":
        graphs.append(operations(Net()))
    loss = net(torch.randn(4, 8)).square().mean()
    loss.backward()
    for parameter in net.parameters():
        gradients.update(parameter.grad.numpy().tobytes())
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
print(losses, gradients.hexdigest(), graphs)
