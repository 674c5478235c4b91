"""Profile T5, an encoder and a decoder, with random weights.

python t5.py --size small --source 128 --target 32
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration

from distprof import get_model_profile

SIZES = {
    "tiny": {"d_model": 128, "num_layers": 2, "num_heads": 2, "d_ff": 512},
    "small": {"d_model": 512, "num_layers": 6, "num_heads": 8, "d_ff": 2048},
    "base": {"d_model": 768, "num_layers": 12, "num_heads": 12, "d_ff": 3072},
    "large": {"d_model": 1024, "num_layers": 24, "num_heads": 16, "d_ff": 4096},
}


def t5(size: str = "small", attention: str = "sdpa") -> nn.Module:
    """Raffel et al. 2019, with its head, which shares the embeddings' weight; ``attention``: "sdpa" or "eager"."""
    model: nn.Module = T5ForConditionalGeneration(T5Config(**SIZES[size], d_kv=64, attn_implementation=attention))
    return model


def texts(batch: int, source: int, target: int) -> dict[str, Tensor]:
    """``batch`` texts of ``source`` tokens, and as many of ``target`` tokens that they are to become."""
    read, written = (torch.zeros(batch, length, dtype=torch.long) for length in (source, target))
    return {"input_ids": read, "decoder_input_ids": written}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--size", choices=SIZES, default="small", help="of the model (small)")
    add("--attention", choices=("sdpa", "eager"), default="sdpa", help="how attention is computed (sdpa)")
    add("--batch", type=int, default=1, help="texts (1)")
    add("--source", type=int, default=128, help="tokens that the encoder reads (128)")
    add("--target", type=int, default=32, help="tokens that the decoder reads (32)")
    add("--device", default="cpu", help="where it runs: cpu, cuda, or meta, where nothing runs (cpu)")
    add("--depth", type=int, default=-1, help="how deep the aggregated profile goes (-1: to the innermost modules)")
    add("--top", type=int, default=1, help="modules that it names at each depth (1)")
    return parser.parse_args()


def main() -> None:
    args = parse()
    with torch.device(args.device):
        model, inputs = t5(args.size, args.attention), texts(args.batch, args.source, args.target)
    get_model_profile(model, kwargs=inputs, module_depth=args.depth, top_modules=args.top, detailed=True)


if __name__ == "__main__":
    main()
