"""Fused attention kernels that torch's own counter lacks, and the fused encoder layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distprof.flops.formulas.norms import LAYER_NORM, SOFTMAX
from distprof.flops.formulas.rule import Chapter, Formula, Rule, Work, only_macs

#: Prefixes of the names of all fused attention ops, also of those that torch's own counter knows.
_FUSED = (
    "_scaled_dot_product_flash", "_scaled_dot_product_efficient", "_scaled_dot_product_cudnn",
    "_scaled_dot_product_fused", "_scaled_dot_product_attention_math_for_mps", "_flash_attention",
    "_efficient_attention", "_cudnn_attention",
)  # fmt: skip


def _scores(query: Any, key: Any) -> int:
    """Returns the number of elements of Q K^T; several heads of queries may share one of keys (grouped queries)."""
    return int(query.numel() // query.shape[-1] * key.shape[-2])


def _attention(_: Any, query: Any, key: Any, value: Any, *__: Any, **___: Any) -> Work:
    """Counts Q K^T and P V."""
    return only_macs(_scores(query, key) * (query.shape[-1] + value.shape[-1]))


def _attention_backward(_: Any, grad: Any, query: Any, key: Any, value: Any, *__: Any, **___: Any) -> Work:
    """Counts Q K^T again, dP = dO V^T, dV = P^T dO, dQ = dS K, dK = dS^T Q."""
    return only_macs(_scores(query, key) * (3 * query.shape[-1] + 2 * value.shape[-1]))


def _flex_backward(
    _: Any, query: Any, key: Any, value: Any, out: Any, logsumexp: Any, grad: Any, *__: Any, **___: Any
) -> Work:
    return _attention_backward(None, grad, query, key, value)


_MASKS = ("attn_mask", "attn_bias", "bias", "is_causal", "custom_mask_type")
_SOFTMAX_BACKWARD = 6  # softmax's derivative 4, and the probabilities again: difference, exponential


class _Arguments:
    """Finds the arguments of a fused kernel by its schema; a higher-order op has only query, key and value."""

    def __init__(self, func: Any) -> None:
        schema = getattr(func, "_schema", None)
        self._places = {one.name: place for place, one in enumerate(schema.arguments)} if schema is not None else {}
        self._first = self._places.get("query", 0)

    def operands(self, args: Sequence[Any]) -> Any:
        return args[self._first : self._first + 3]

    def is_set(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        place = self._places.get(name, len(args))
        value = args[place] if place < len(args) else kwargs.get(name)
        return value is not None if hasattr(value, "numel") else bool(value)


def with_elementwise_flops(func: Any, products: Formula) -> Formula:
    """Adds the element-wise flops of the math backend to a formula, so that all backends count the same work."""
    arguments, is_backward = _Arguments(func), name_of(func).endswith("_backward")
    heads = -3 if "scaled_dot_product" in name_of(func) or not hasattr(func, "_schema") else -2

    def formula(out: Any, /, *args: Any, **kwargs: Any) -> Work:
        macs, _ = products(out, *args, **kwargs)
        query, key, value = arguments.operands(args)
        d, v = query.shape[-1], value.shape[-1]
        scores = macs // (3 * d + 2 * v if is_backward else d + v)
        masked = any(arguments.is_set(name, args, kwargs) for name in _MASKS)
        dropped = arguments.is_set("dropout_p", args, kwargs)
        scaled = query.numel() + key.numel() * query.shape[heads] // key.shape[heads]
        each = (_SOFTMAX_BACKWARD if is_backward else SOFTMAX) + masked + 2 * dropped
        return macs, 2 * macs + each * scores + scaled

    return formula


def name_of(func: Any) -> str:
    """Returns the name of an op without its overload, or of a higher-order op."""
    packet = getattr(func, "_overloadpacket", func)
    return str(getattr(packet, "__name__", ""))


def is_fused(func: Any) -> bool:
    """Whether the op is a fused attention kernel."""
    name = name_of(func)
    return name.startswith(_FUSED) or name in ("flex_attention", "flex_attention_backward")


def _lengths(sequences: Any) -> list[int]:
    """Returns the length of each sequence in a batch [B, T, E], padded or nested."""
    if sequences.is_nested:
        return [int(size) for size in sequences._nested_tensor_size()[:, 0].tolist()]
    return [sequences.shape[1]] * sequences.shape[0]


def _multi_head(
    _: Any, query: Any, key: Any, value: Any, embed_dim: int, num_heads: int, *weights: Any, **kwargs: Any
) -> Work:
    """``weights`` are weight and bias of qkv, weight and bias of the projection, and the mask."""
    queries, keys = _lengths(query), _lengths(key)
    scores = sum(q * k for q, k in zip(queries, keys, strict=True))
    projected = 2 * sum(queries) + 2 * sum(keys)  # query and output; key and value
    macs = projected * embed_dim**2 + 2 * scores * embed_dim
    mask = weights[4] if len(weights) > 4 else kwargs.get("mask")
    each = SOFTMAX + (mask is not None)
    scaled = (sum(queries) + sum(keys)) * embed_dim
    return macs, 2 * macs + projected * embed_dim + each * scores * num_heads + scaled


def _encoder_layer(out: Any, /, src: Any, embed_dim: int, num_heads: int, *args: Any, **kwargs: Any) -> Work:
    """``args`` from the fourth on: qkv's and the projection's weight and bias, use_gelu, norm_first, eps, two norms'
    weight and bias, then the feed-forward's weights and biases, and the mask.
    """
    hidden = args[11].shape[0]
    mask = args[15] if len(args) > 15 else kwargs.get("mask")
    macs, flops = _multi_head(out, src, src, src, embed_dim, num_heads, mask=mask)
    tokens = sum(_lengths(src))
    more = 2 * tokens * embed_dim * hidden
    biases_and_activation = tokens * (2 * hidden + embed_dim)
    norms_and_residuals = 2 * (LAYER_NORM + 1) * tokens * embed_dim
    return macs + more, flops + 2 * more + biases_and_activation + norms_and_residuals


CHAPTER = Chapter(
    "Attention",
    "S and T are the lengths of queries and keys, D and V the sizes of a head of queries and of values, B H the heads "
    "of all samples.  Causal and masked attention count in full, as is usual.  Attention in the math backend is "
    "counted op by op, and a fused kernel has the same flops beside its products.  EXTRA is 5 a score (softmax), 1 "
    "more with a mask or causal, 2 more with dropout, and B H (S + T) D for the scaling of queries and keys.  In "
    "backward it is 4 a score, the scaling of both gradients, and again a difference, an exponential, the mask and "
    "dropout.  The function by which flex attention changes scores is not counted.  Kernels that torch's own counter "
    "knows have its MACs.",
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
            "2 MACs + EXTRA",
            "as `torch.utils.flop_counter` counts the CUDA kernels",
        ),
        Rule(
            (
                "_scaled_dot_product_flash_attention_for_cpu_backward",
                "_scaled_dot_product_fused_attention_overrideable_backward",
            ),
            _attention_backward,
            "B H S T (3 D + 2 V): five products, 2.5 x the forward; one of them repeats the forward's",
            "2 MACs + EXTRA",
            "as `torch.utils.flop_counter` counts the CUDA kernels; FlashAttention (arXiv:2205.14135), algorithm 4",
        ),
        Rule(
            ("higher_order::flex_attention_backward",),
            _flex_backward,
            "B H S T (3 D + 2 V)",
            "2 MACs + EXTRA",
            "as attention's backward",
        ),
        Rule(
            ("_native_multi_head_attention",),
            _multi_head,
            "(2 S + 2 T) E^2 + 2 S T E a sequence, E the embedding's size; nested batches have no padding",
            "2 MACs + 1 an element for biases + EXTRA of each head",
            "the ops that it fuses",
        ),
        Rule(
            ("_transformer_encoder_layer_fwd",),
            _encoder_layer,
            "as `_native_multi_head_attention`, + 2 S E F, F the feed-forward's size",
            "2 MACs + biases, activation, two residuals and two layer norms, as the separate ops",
            "the ops that it fuses",
        ),
    ),
)
