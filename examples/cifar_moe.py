"""DeepSpeed's CIFAR-10 MoE training, on noise: two residual MoE layers, of 4 and 8 experts over groups of two ranks,
that share the dense module beside their experts.

    torchrun --standalone --nproc-per-node 4 cifar_moe.py
"""

from __future__ import annotations

import argparse
import importlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

deepspeed: Any = importlib.import_module("deepspeed")
moe: Any = importlib.import_module("deepspeed.moe.layer")
moe_utils: Any = importlib.import_module("deepspeed.moe.utils")

BATCH = 16


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        fc3 = nn.Linear(84, 84)
        self.moe_layer_list = nn.ModuleList(
            moe.MoE(hidden_size=84, expert=fc3, num_experts=experts, ep_size=2, use_residual=True, k=1, min_capacity=0)
            for experts in (4, 8)
        )
        self.fc4 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = F.relu(self.fc2(F.relu(self.fc1(x.flatten(1)))))
        for layer in self.moe_layer_list:
            x, _, _ = layer(x)
        logits: Tensor = self.fc4(x)
        return logits


def config(profile: str) -> dict[str, Any]:
    """``profile``: the file of DeepSpeed's own profiler; None if it does not run."""
    return {
        "train_micro_batch_size_per_gpu": BATCH,
        "optimizer": {"type": "Adam", "params": {"lr": 0.001, "torch_adam": True}},
        "flops_profiler": {"enabled": bool(profile), "profile_step": 2, "output_file": profile or None},
    }


def train(steps: int, profile: str) -> None:
    torch.manual_seed(0)
    net = Net()
    groups = moe_utils.split_params_into_different_moe_groups_for_optimizer(
        {"params": list(net.parameters()), "name": "parameters"}
    )
    engine, *_ = deepspeed.initialize(model=net, model_parameters=groups, config=config(profile))
    torch.manual_seed(torch.distributed.get_rank())
    for _ in range(steps):
        images, labels = torch.randn(BATCH, 3, 32, 32), torch.randint(0, 10, (BATCH,))
        images, labels = images.to(engine.device), labels.to(engine.device)
        engine.backward(F.cross_entropy(engine(images), labels))
        engine.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="training steps (20)")
    parser.add_argument(
        "--deepspeed-profile", default="", metavar="FILE", help="have DeepSpeed's profiler write FILE, too"
    )
    args = parser.parse_args()
    deepspeed.init_distributed()
    train(args.steps, args.deepspeed_profile)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
