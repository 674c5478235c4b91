"""Profile BERT with random weights, as transformers builds it from a config.

python bert.py --size base --batch 1 --sequence 128
python bert.py --size large --batch 80 --device meta     (counts without running)
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from distprof import get_model_profile

SIZES = {
    "tiny": {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
}


def bert(size: str = "base", attention: str = "sdpa") -> nn.Module:
    """Devlin et al. 2018, with its pooler; ``attention``: "sdpa" or "eager"."""
    model: nn.Module = BertModel(BertConfig(**SIZES[size], attn_implementation=attention))
    return model


def sentences(batch: int, sequence: int) -> dict[str, Tensor]:
    """``batch`` sentences of ``sequence`` tokens each, none of them padding."""
    tokens = torch.zeros(batch, sequence, dtype=torch.long)
    return {"input_ids": tokens, "token_type_ids": tokens}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--size", choices=SIZES, default="base", help="of the model (base)")
    add("--attention", choices=("sdpa", "eager"), default="sdpa", help="how attention is computed (sdpa)")
    add("--batch", type=int, default=1, help="sentences (1)")
    add("--sequence", type=int, default=128, help="tokens of a sentence (128)")
    add("--device", default="cpu", help="where it runs: cpu, cuda, or meta, where nothing runs (cpu)")
    add("--depth", type=int, default=-1, help="how deep the aggregated profile goes (-1: to the innermost modules)")
    add("--top", type=int, default=1, help="modules that it names at each depth (1)")
    return parser.parse_args()


def main() -> None:
    args = parse()
    with torch.device(args.device):
        model, inputs = bert(args.size, args.attention), sentences(args.batch, args.sequence)
    get_model_profile(model, kwargs=inputs, module_depth=args.depth, top_modules=args.top, detailed=True)


if __name__ == "__main__":
    main()
