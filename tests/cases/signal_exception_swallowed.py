"""Guards its steps with SIGALRM: the handler raises, and the loop catches it.  What is raised must arrive, whatever
code runs just then.
"""

# ranks: 1
# arguments: 60

from __future__ import annotations

import random
import signal
import sys

import torch
from torch import nn


class Late(Exception):
    pass


raised = caught = 0


def handler(number: int, frame: object) -> None:
    global raised  # noqa: PLW0603
    raised += 1
    raise Late


torch.manual_seed(0)
random.seed(0)
model = nn.Sequential(*[nn.Linear(8, 8) for _ in range(60)])
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
batch = torch.randn(4, 8)


def step() -> None:
    model(batch).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


for _ in range(3):
    step()
signal.signal(signal.SIGALRM, handler)
for _ in range(int(sys.argv[1])):
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(2e-4, 2e-2))
        step()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Late:
        caught += 1
        torch.set_grad_enabled(True)  # torch itself leaves it off where this arrives at the end of an optimizer's step
signal.setitimer(signal.ITIMER_REAL, 0)
print("lost:", raised - caught)
