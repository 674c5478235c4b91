"""A small latent diffusion: a frozen encoder makes the latents without gradient in every step, and a net on them is
trained; an average of the net is tested now and then, on the first rank, also before the first step.
"""
# ranks: 2

import copy
import os

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


class Encoder(nn.Module):
    """8 x 16 + 16 and 16 x 4 + 4 parameters, 212; they need gradients for all that is said of them."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 16)
        self.outer = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        latents: Tensor = self.outer(self.inner(x).relu())
        return latents


class Denoiser(nn.Module):
    """A frozen embedding of 10 x 4 in it, and 2 x (4 x 4 + 4) parameters that are trained: 80."""

    def __init__(self) -> None:
        super().__init__()
        self.times = nn.Embedding(10, 4).requires_grad_(False)
        self.body = nn.Sequential(nn.Linear(4, 4), nn.SiLU(), nn.Linear(4, 4))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        noise: Tensor = self.body(x + self.times(time))
        return noise


dist.init_process_group("gloo")
rank = int(os.environ["RANK"])
torch.manual_seed(0)
encoder, net = Encoder(), Denoiser()
average = copy.deepcopy(net)
model = DistributedDataParallel(net)
optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
for step in range(20):
    if rank == 0 and step % 2 == 0:
        with torch.no_grad():
            tested = average(torch.ones(2, 4), torch.zeros(2, dtype=torch.long)).sum().item()
        print(f"average {step} {tested}\n", end="", flush=True)
    with torch.no_grad():
        latents = encoder(torch.randn(6, 8))
    noise, time = torch.randn(6, 4), torch.randint(10, (6,))
    loss = (model(latents + noise, time) - noise).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    with torch.no_grad():
        for mean, parameter in zip(average.parameters(), net.parameters(), strict=True):
            mean.lerp_(parameter, 0.1)
    print(f"{rank} {step} {loss.item()}\n", end="", flush=True)  # in one piece: the ranks share what they print to
dist.destroy_process_group()
