"""DeepSpeed averages and clips gradients after backward, in grad mode: this work belongs to the update."""
# ranks: 1
# arguments: 1 0
# arguments: 4 1.0
# stack: deepspeed
# event: 2

import sys

import deepspeed
import torch
from torch import nn

torch.manual_seed(0)
gas = int(sys.argv[1])
clip = float(sys.argv[2])
net = nn.Linear(1000, 1000, bias=False)  # 1,000,000 parameters
engine, *_ = deepspeed.initialize(
    model=net,
    model_parameters=net.parameters(),
    config={
        "train_micro_batch_size_per_gpu": 4,
        "gradient_accumulation_steps": gas,
        "gradient_clipping": clip,
        "optimizer": {"type": "Adam", "params": {"lr": 1e-3, "torch_adam": True}},
    },
)
for _step in range(6 * gas):
    loss = engine(torch.randn(4, 1000)).square().mean()
    engine.backward(loss)
    engine.step()
