"""Profile an image model with random weights: LeNet-5, AlexNet, ResNet-50 or ViT-B/16.

python vision.py --model resnet50 --batch 8
python vision.py --model vit_b_16 --device meta          (counts without running)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from profile_script import options, print_profile
from torch import Tensor, nn


class LeNet5(nn.Module):
    """LeCun et al. 1998, on 32 x 32 pixels of one channel; gives logits and, with ``softmax``, probabilities."""

    def __init__(self, classes: int = 10, softmax: bool = False) -> None:
        super().__init__()
        self.softmax = softmax
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2),
            nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
            nn.Conv2d(16, 120, 5), nn.Tanh(),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, classes))

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        logits: Tensor = self.classifier(self.features(images).flatten(1))
        return (logits, F.softmax(logits, dim=1)) if self.softmax else logits


class AlexNet(nn.Module):
    """Krizhevsky 2014 ("one weird trick"), as in torchvision."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        )  # fmt: skip
        self.pool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(256 * 6 * 6, 4096), nn.ReLU(),
            nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(),
            nn.Linear(4096, classes),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.pool(self.features(images)).flatten(1))
        return logits


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut.  It is the 3x3 that strides: ResNet "v1.5"."""

    EXPANSION = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * self.EXPANSION
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
        self.relu = nn.ReLU()
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        output: Tensor = self.relu(self.bn3(self.conv3(y)) + self.shortcut(x))
        return output


class ResNet50(nn.Module):
    """He et al. 2015, as in torchvision."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        stem = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1))
        channels = 64
        stages: list[nn.Module] = []
        for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            layers = [Bottleneck(channels, width, stride)]
            channels = width * Bottleneck.EXPANSION
            stages.append(nn.Sequential(*layers, *(Bottleneck(channels, width, 1) for _ in range(blocks - 1))))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pool(self.stages(self.stem(images))).flatten(1))
        return logits


def vit_b_16(attention: str = "sdpa") -> nn.Module:
    """Dosovitskiy et al. 2020, from transformers; ``attention``: "sdpa" or "eager"."""
    from transformers import ViTConfig, ViTForImageClassification

    model: nn.Module = ViTForImageClassification(ViTConfig(num_labels=1000, attn_implementation=attention))
    return model


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "lenet5": (LeNet5, (1, 32, 32)),
    "alexnet": (AlexNet, (3, 224, 224)),
    "resnet50": (ResNet50, (3, 224, 224)),
    "vit_b_16": (vit_b_16, (3, 224, 224)),
}


def main() -> None:
    parser = options(__doc__, "images")
    parser.add_argument("--model", choices=MODELS, default="resnet50", help="which model (resnet50)")
    args = parser.parse_args()
    make, image = MODELS[args.model]
    with torch.device(args.device):
        model = make()
    print_profile(model, args, input_shape=(args.batch, *image))


if __name__ == "__main__":
    main()
