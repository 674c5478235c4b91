"""DeepSpeed ZeRO with two groups of parameters, with and without weight decay: its step is a step for each of them."""
# ranks: 1
# arguments: 1
# arguments: 2
# arguments: 3
# stack: deepspeed
# event: 3

import os
import sys

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed
import torch
from torch import nn

deepspeed.init_distributed("gloo")
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 1))
groups = [
    {"params": [p for name, p in net.named_parameters() if "weight" in name], "weight_decay": 0.1},
    {"params": [p for name, p in net.named_parameters() if "bias" in name], "weight_decay": 0.0},
]
config = {
    "train_micro_batch_size_per_gpu": 8,
    "optimizer": {"type": "Adam", "params": {"torch_adam": True}},
    "zero_optimization": {"stage": int(sys.argv[1])},
}
engine, *_ = deepspeed.initialize(model=net, model_parameters=groups, config=config)
for step in range(10):
    loss = engine(torch.randn(8, 16)).mean()
    engine.backward(loss)
    engine.step()
    print(step, loss.item(), flush=True)
