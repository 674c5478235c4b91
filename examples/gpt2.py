"""Profile GPT-2 with random weights: one forward, or the generation of some tokens.

python gpt2.py --size small --sequence 128
python gpt2.py --generate 8
"""

from __future__ import annotations

from typing import Any

import torch
from profile_script import print_profile, text_options
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

SIZES = {
    "tiny": {"n_embd": 128, "n_layer": 2, "n_head": 2},
    "small": {"n_embd": 768, "n_layer": 12, "n_head": 12},
    "medium": {"n_embd": 1024, "n_layer": 24, "n_head": 16},
    "large": {"n_embd": 1280, "n_layer": 36, "n_head": 20},
    "xl": {"n_embd": 1600, "n_layer": 48, "n_head": 25},
}


def gpt2(size: str = "small", attention: str = "sdpa") -> nn.Module:
    """Radford et al. 2019, with its head, which shares the embedding's weight; ``attention``: "sdpa" or "eager"."""
    model: nn.Module = GPT2LMHeadModel(GPT2Config(**SIZES[size], attn_implementation=attention))
    return model


def main() -> None:
    parser = text_options(__doc__, SIZES, "small", "texts")
    parser.add_argument("--sequence", type=int, default=128, help="tokens of a text, or of a prompt (128)")
    parser.add_argument("--generate", type=int, default=0, metavar="N", help="generate N tokens (0: one forward)")
    args = parser.parse_args()
    with torch.device(args.device):
        model, tokens = gpt2(args.size, args.attention), torch.zeros(args.batch, args.sequence, dtype=torch.long)
    inputs: dict[str, Any] = {"input_ids": tokens}
    if args.generate:
        inputs |= {"min_new_tokens": args.generate, "max_new_tokens": args.generate, "pad_token_id": 0}
    print_profile(model, args, kwargs=inputs, mode="generate" if args.generate else "forward")


if __name__ == "__main__":
    main()
