"""Attention in fused kernels that torch's own counter lacks, and the fused encoder layer."""

from __future__ import annotations

from typing import Any

from distprof.flops.norms import LAYER_NORM, SOFTMAX
from distprof.flops.rule import Chapter, Rule, Work, only_macs


def _scores(query: Any, key: Any) -> int:
    """Elements of Q K^T; fewer heads of keys than of queries are shared (grouped queries)."""
    return int(query.numel() // query.shape[-1] * key.shape[-2])


def _attention(_: Any, query: Any, key: Any, value: Any, *__: Any, **___: Any) -> Work:
    """Q K^T and P V."""
    return only_macs(_scores(query, key) * (query.shape[-1] + value.shape[-1]))


def _attention_backward(_: Any, grad: Any, query: Any, key: Any, value: Any, *__: Any, **___: Any) -> Work:
    """Q K^T again, dP = dO V^T, dV = P^T dO, dQ = dS K, dK = dS^T Q."""
    return only_macs(_scores(query, key) * (3 * query.shape[-1] + 2 * value.shape[-1]))


def _flex_backward(
    _: Any, query: Any, key: Any, value: Any, out: Any, logsumexp: Any, grad: Any, *__: Any, **___: Any
) -> Work:
    return _attention_backward(None, grad, query, key, value)


def _lengths(sequences: Any) -> list[int]:
    """Of each sequence of a batch [B, T, E], padded or nested."""
    if sequences.is_nested:
        return [int(size) for size in sequences._nested_tensor_size()[:, 0].tolist()]
    return [sequences.shape[1]] * sequences.shape[0]


def _multi_head(_: Any, query: Any, key: Any, value: Any, embed_dim: int, num_heads: int, *__: Any, **___: Any) -> Work:
    queries, keys = _lengths(query), _lengths(key)
    scores = sum(q * k for q, k in zip(queries, keys, strict=True))
    projected = 2 * sum(queries) + 2 * sum(keys)  # query and output; key and value
    macs = projected * embed_dim**2 + 2 * scores * embed_dim
    return macs, 2 * macs + projected * embed_dim + SOFTMAX * scores * num_heads


def _encoder_layer(out: Any, /, src: Any, embed_dim: int, num_heads: int, *args: Any, **kwargs: Any) -> Work:
    """``args`` from the fourth on: qkv's and the projection's weight and bias, use_gelu, norm_first, eps, two norms'
    weight and bias, and from the fifteenth on the first feed-forward's weight.
    """
    hidden = args[11].shape[0]
    macs, flops = _multi_head(out, src, src, src, embed_dim, num_heads)
    tokens = sum(_lengths(src))
    more = 2 * tokens * embed_dim * hidden
    biases_and_activation = tokens * (2 * hidden + embed_dim)
    norms_and_residuals = 2 * (LAYER_NORM + 1) * tokens * embed_dim
    return macs + more, flops + 2 * more + biases_and_activation + norms_and_residuals


CHAPTER = Chapter(
    "Attention",
    "S and T are the lengths of queries and keys, D and V the sizes of a head of queries and of values, B H the heads "
    "of all samples.  Causal and masked attention count in full, as is the custom.  A fused kernel's softmax is not "
    "counted: its flops are its matrix products, as torch's own counter has them.  What takes the math road is counted "
    "op by op.",
    (
        Rule(
            (
                "_scaled_dot_product_flash_attention_for_cpu",
                "_scaled_dot_product_fused_attention_overrideable",
                "_scaled_dot_product_attention_math_for_mps",
                "higher_order::flex_attention",
            ),
            _attention,
            "B H S T (D + V)",
            "2 MACs",
            "as `torch.utils.flop_counter` counts the CUDA kernels",
        ),
        Rule(
            (
                "_scaled_dot_product_flash_attention_for_cpu_backward",
                "_scaled_dot_product_fused_attention_overrideable_backward",
            ),
            _attention_backward,
            "B H S T (3 D + 2 V): five products, 2.5 x the forward, of which one is the forward's, done again",
            "2 MACs",
            "as `torch.utils.flop_counter` counts the CUDA kernels; FlashAttention (arXiv:2205.14135), algorithm 4",
        ),
        Rule(
            ("higher_order::flex_attention_backward",),
            _flex_backward,
            "B H S T (3 D + 2 V)",
            "2 MACs",
            "as attention's backward",
        ),
        Rule(
            ("_native_multi_head_attention",),
            _multi_head,
            "(2 S + 2 T) E^2 + 2 S T E of each sequence, E the embedding's size; padding of nested batches is no work",
            "2 MACs + biases 1 an element + the softmax of each head",
            "the ops that it fuses",
        ),
        Rule(
            ("_transformer_encoder_layer_fwd",),
            _encoder_layer,
            "as `_native_multi_head_attention`, + 2 S E F, F the feed-forward's size",
            "2 MACs + biases, activation, two residuals and two layer norms, as the ops on their own",
            "the ops that it fuses",
        ),
    ),
)
