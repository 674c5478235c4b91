"""Record the workers of Ray Train: each of them is a rank, and all write into one folder.

python ray_train.py --workers 4 --runs /shared/runs
"""

from __future__ import annotations

import argparse
from typing import Any

import ray.train
import torch
from ray.train.torch import TorchTrainer, prepare_model
from torch import nn

import distprof


def train(config: dict[str, Any]) -> None:
    """The loop of one worker; Ray has set RANK and WORLD_SIZE, and joined the process group."""
    model = prepare_model(nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64)))
    optimizer = torch.optim.AdamW(model.parameters())
    device = next(model.parameters()).device
    with distprof.record(config["runs"], name=config["name"]):
        for _ in range(config["steps"]):
            optimizer.zero_grad()
            model(torch.randn(32, 64, device=device)).square().mean().backward()
            optimizer.step()
    ray.train.report({"done": True})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", default="/tmp/runs", help="a folder that all workers share")
    parser.add_argument("--name", default="ray-job")
    options = parser.parse_args()
    config = {"runs": options.runs, "name": options.name, "steps": 30}
    scaling = ray.train.ScalingConfig(num_workers=options.workers, use_gpu=torch.cuda.is_available())
    TorchTrainer(train, train_loop_config=config, scaling_config=scaling).fit()
    print(distprof.load(f"{options.runs}/{options.name}"))


if __name__ == "__main__":
    main()
