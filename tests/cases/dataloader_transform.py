"""A transform in a DataLoader of this process is an nn.Module, as in torchvision: it is no model, its time is data."""
# ranks: 1

import time

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Augment(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.002)  # a slow transform: the time is the loader's
        return x * 2


class Data(Dataset[torch.Tensor]):
    def __init__(self) -> None:
        self.augment = Augment()

    def __len__(self) -> int:
        return 16 * 20

    def __getitem__(self, i: int) -> torch.Tensor:
        augmented: torch.Tensor = self.augment(torch.randn(32))
        return augmented


torch.manual_seed(0)
net = nn.Linear(32, 32)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for x in DataLoader(Data(), batch_size=16):
    net(x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
