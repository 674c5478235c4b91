"""The sizes of the measured models; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Shape:
    """The size of a model and of its batch."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    batch: int
    tokens: int

    def __str__(self) -> str:
        return (
            f"{self.layers} layers, width {self.width}, {self.heads} heads, vocabulary {self.vocabulary:,}, "
            f"batch {self.batch} x {self.tokens} tokens"
        )


#: A step of about 14 ms and one of about 250 ms, on one thread.
SHAPES = {
    "small": Shape(layers=12, width=48, heads=4, vocabulary=256, batch=2, tokens=32),
    "large": Shape(layers=6, width=256, heads=8, vocabulary=1024, batch=4, tokens=128),
}
#: The measured mixtures of experts.
EXPERTS, TOP_K, MOE_TOKENS, MOE_WIDTH = 64, 8, 256, 64
#: Steps of which a job writes traces of torch.profiler: as many as distprof times by default.
TRACED_STEPS = 10
#: As many modules as in the large model, and a step so short that the added time can be measured.
NARROW = replace(SHAPES["large"], width=32, heads=4, vocabulary=64, batch=1, tokens=16)
