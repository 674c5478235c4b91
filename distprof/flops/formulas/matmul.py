"""Products of matrices and vectors that torch's own counter lacks, or counts without what they are added to."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from distprof.flops.formulas.norms import SOFTMAX
from distprof.flops.formulas.rule import Chapter, Rule, Work, numel, only_macs


def _rows_by_matrix(out: Any, /, a: Any, b: Any, *_: Any, **__: Any) -> Work:
    """Each element of the result is a sum over the last dimension of ``a``."""
    return only_macs(out.numel() * a.shape[-1])


def _linear(out: Any, /, x: Any, weight: Any, bias: Any = None, *_: Any, **__: Any) -> Work:
    macs = out.numel() * x.shape[-1]
    return macs, 2 * macs + (out.numel() if bias is not None else 0)


def added(kwargs: Mapping[str, Any]) -> int:
    """Flops an output element of ``beta`` x what a product is added to, and of ``alpha`` x the product."""
    beta, alpha = kwargs.get("beta", 1), kwargs.get("alpha", 1)
    return int(beta != 0) + int(beta not in (0, 1)) + int(alpha != 1)


def _added_product(out: Any, /, _: Any, a: Any, *__: Any, **kwargs: Any) -> Work:
    macs = a.numel()
    return macs, 2 * macs + added(kwargs) * out.numel()


def _sum_of_products(out: Any, /, _: Any, a: Any, b: Any, *__: Any, **kwargs: Any) -> Work:
    macs = a.numel() * b.shape[-1]
    return macs, 2 * macs + added(kwargs) * out.numel()


def _activated(out: Any, /, *args: Any, **kwargs: Any) -> Work:
    macs, flops = _sum_of_products(out, *args, **kwargs)
    return macs, flops + out.numel()


def _dot(_: Any, a: Any, *__: Any, **___: Any) -> Work:
    return only_macs(a.numel())


def _outer(out: Any, /, *_: Any, **kwargs: Any) -> Work:
    macs = out.numel()
    return macs, 2 * macs + max(added(kwargs) - 1, 0) * macs


def _grouped(_: Any, a: Any, b: Any, *__: Any, **___: Any) -> Work:
    """Rows of ``a`` [M, K] against one [K, N] of ``b`` [G, K, N] each; columns of ``b`` [K, N] against one [M, K] of
    ``a`` [G, M, K] each; both 2-D, the groups cut K; both 3-D, a batch.
    """
    groups = a.shape[0] if a.dim() == 3 and b.dim() == 2 else 1
    return only_macs(a.numel() * b.shape[-1] // groups)


def _trilinear(_: Any, a: Any, b: Any, c: Any, *expand: Any, **__: Any) -> Work:
    """Every element of the product of three, each unsqueezed at its ``expand`` and all broadcast, then summed."""
    shapes = [_unsqueezed(tensor.shape, where) for tensor, where in zip((a, b, c), expand, strict=False)]
    return only_macs(prod(max(sizes) for sizes in zip(*shapes, strict=True)))


def _unsqueezed(shape: Any, where: Any) -> list[int]:
    sizes = list(shape)
    for dim in where:
        sizes.insert(dim, 1)
    return sizes


def _embedding_bag(
    out: Any,
    /,
    weight: Any,
    indices: Any,
    offsets: Any,
    scale: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Any = None,
    *_: Any,
    **__: Any,
) -> Work:
    """mode 0 sums, 1 means, 2 takes the maximum."""
    taken = indices.numel() * weight.shape[-1]
    return 0, taken * (2 if per_sample_weights is not None else 1) + (numel(out[0]) if mode == 1 else 0)


def _embedding_bag_backward(_: Any, grad: Any, indices: Any, *__: Any, **___: Any) -> Work:
    return 0, indices.numel() * grad.shape[-1]


def _weighted_bag_backward(_: Any, grad: Any, weight: Any, indices: Any, *__: Any, **___: Any) -> Work:
    return 0, 2 * indices.numel() * grad.shape[-1]


def _mm_plus_mm(out: Any, /, a: Any, b: Any, c: Any, d: Any, *_: Any, **__: Any) -> Work:
    macs = out.numel() * (a.shape[-1] + c.shape[-1])
    return macs, 2 * macs + out.numel()


def _linear_backward(_: Any, x: Any, grad: Any, weight: Any, mask: Any, *__: Any, **___: Any) -> Work:
    macs = grad.numel() * weight.shape[-1] * (bool(mask[0]) + bool(mask[1]))
    return macs, 2 * macs + (grad.numel() if mask[2] else 0)


def _linear_backward_input(_: Any, size: Any, grad: Any, weight: Any, *__: Any, **___: Any) -> Work:
    return only_macs(grad.numel() * weight.shape[-1])


def _linear_backward_weights(
    _: Any, grad: Any, x: Any, weight: Any, biased: bool = False, *__: Any, **___: Any
) -> Work:
    macs = grad.numel() * x.shape[-1]
    return macs, 2 * macs + (grad.numel() if biased else 0)


def _affine_grid(out: Any, /, theta: Any, *_: Any, **__: Any) -> Work:
    return only_macs(out.numel() * theta.shape[-1])


def _chunked_loss(_: Any, x: Any, weight: Any, target: Any, bias: Any = None, *args: Any, **__: Any) -> Work:
    """``args`` of the op that makes its gradients in forward end with whether they are asked for: of the input, of the
    weight, of the bias.
    """
    made = sum(map(bool, args[8:10]))
    logits = x.shape[0] * weight.shape[0]
    macs = (1 + made) * logits * weight.shape[1]
    return macs, 2 * macs + (SOFTMAX + (bias is not None)) * logits


CHAPTER = Chapter(
    "Matrix products",
    "M, K and N are rows, inner size and columns.  Matrices of integers count like others.  What is added (to "
    "`addmm`, a bias) is 1 flop an output element, and 0 with `beta=0`; a factor (`beta`, `alpha`) that is "
    "not 1 is 1 more.",
    (
        Rule(
            ("addmm", "baddbmm", "addbmm"),
            _sum_of_products,
            "M K N of each matrix of a batch",
            "2 MACs + what is added",
            "MACs as `torch.utils.flop_counter`",
        ),
        Rule(("_addmm_activation",), _activated, "as `addmm`", "as `addmm` + 1 an output element"),
        Rule(
            ("_grouped_mm", "_scaled_grouped_mm", "_scaled_grouped_mm_v2"),
            _grouped,
            "M K N of each group: rows that belong to one group meet one matrix",
            "2 MACs",
            "a matmul for each group",
        ),
        Rule(
            ("_scaled_mm_v2", "_int_mm", "_weight_int8pack_mm"),
            _rows_by_matrix,
            "M K N",
            "2 MACs",
            "as `mm`",
        ),
        Rule(
            ("mkldnn::_linear_pointwise", "mkldnn_linear", "mkl::_mkl_linear"),
            _linear,
            "M K N",
            "2 MACs + 1 an output element for a bias",
            "as `addmm`",
        ),
        Rule(
            ("mkldnn_linear_backward", "linear_backward"),
            _linear_backward,
            "M K N for the gradient of the input and for that of the weight, where asked for",
            "2 MACs + 1 an element of the output's gradient for that of a bias",
            "a matmul for each",
        ),
        Rule(("mkldnn_linear_backward_input",), _linear_backward_input, "M K N", "2 MACs", "a matmul"),
        Rule(
            ("mkldnn_linear_backward_weights",),
            _linear_backward_weights,
            "M K N",
            "2 MACs + 1 an element of the output's gradient for that of a bias",
            "a matmul",
        ),
        Rule(
            ("inductor::_mm_plus_mm",),
            _mm_plus_mm,
            "M K N of both products",
            "2 MACs + 1 an output element",
            "two matmuls and their sum",
        ),
        Rule(("mv",), _dot, "M K", "2 MACs", "a matmul of N = 1"),
        Rule(("addmv",), _added_product, "M K", "2 MACs + what is added", "a matmul of N = 1"),
        Rule(("dot", "vdot"), _dot, "K", "2 MACs", "a matmul of M = N = 1"),
        Rule(("affine_grid_generator",), _affine_grid, "3 (in space: 4) an output element", "2 MACs", "a matmul"),
        Rule(("addr",), _outer, "M N", "2 MACs", "a product and a sum an element"),
        Rule(("_trilinear",), _trilinear, "every element of the broadcast product (`nn.Bilinear`: B I J O)", "2 MACs"),
        Rule(
            (
                "torch_nn::_linear_cross_entropy_batch_chunked",
                "torch_nn::_linear_cross_entropy_batch_chunked_no_reduction",
            ),
            _chunked_loss,
            "M K N of the logits, and as many again for each gradient (of the input, of the weight) that it makes in "
            "forward",
            "2 MACs + the softmax of each logit, 1 more a logit for a bias",
            "a matmul for each",
        ),
        Rule(
            ("_embedding_bag", "_embedding_bag_forward_only"),
            _embedding_bag,
            "0",
            "1 an element looked up, 2 with weights of samples; mode mean, 1 more an output element",
        ),
        Rule(
            ("_embedding_bag_backward", "_embedding_bag_dense_backward"),
            _embedding_bag_backward,
            "0",
            "1 an element looked up",
        ),
        Rule(("_embedding_bag_per_sample_weights_backward",), _weighted_bag_backward, "0", "2 an element looked up"),
    ),
)
