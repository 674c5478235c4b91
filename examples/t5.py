"""Profile T5, an encoder and a decoder, with random weights.

python t5.py --size small --source 128 --target 32
"""

from __future__ import annotations

import torch
from profile_script import print_profile, text_options
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration

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
    """Returns ``batch`` inputs of ``source`` tokens and as many targets of ``target`` tokens."""
    read, written = (torch.zeros(batch, length, dtype=torch.long) for length in (source, target))
    return {"input_ids": read, "decoder_input_ids": written}


def main() -> None:
    parser = text_options(__doc__, SIZES, "small", "texts")
    parser.add_argument("--source", type=int, default=128, help="tokens that the encoder reads (128)")
    parser.add_argument("--target", type=int, default=32, help="tokens that the decoder reads (32)")
    args = parser.parse_args()
    with torch.device(args.device):
        model, inputs = t5(args.size, args.attention), texts(args.batch, args.source, args.target)
    print_profile(model, args, kwargs=inputs)


if __name__ == "__main__":
    main()
