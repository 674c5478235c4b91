"""Profile BERT with random weights, as transformers builds it from a config.

python bert.py --size base --batch 1 --sequence 128
python bert.py --size large --batch 80 --device meta     (counts without running)
"""

from __future__ import annotations

import torch
from profile_script import print_profile, text_options
from torch import Tensor, nn
from transformers import BertConfig, BertModel

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
    """Returns ``batch`` sentences of ``sequence`` tokens, without padding."""
    tokens = torch.zeros(batch, sequence, dtype=torch.long)
    return {"input_ids": tokens, "token_type_ids": tokens}


def main() -> None:
    parser = text_options(__doc__, SIZES, "base", "sentences")
    parser.add_argument("--sequence", type=int, default=128, help="tokens of a sentence (128)")
    args = parser.parse_args()
    with torch.device(args.device):
        model, inputs = bert(args.size, args.attention), sentences(args.batch, args.sequence)
    print_profile(model, args, kwargs=inputs)


if __name__ == "__main__":
    main()
