"""A script that fails in the first forward of its model: its shapes do not match."""

# ranks: 2
# event: 0

from __future__ import annotations

import torch
from torch import nn

nn.Linear(4, 4)(torch.randn(2, 3))
