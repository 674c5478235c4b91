"""Products of matrices and vectors that torch's own counter lacks, or counts without the added operand."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from distprof.flops.formulas.norms import SOFTMAX
from distprof.flops.formulas.rule import Chapter, Rule, Work, numel, only_macs


def _rows_by_matrix(out: Any, /, a: Any, b: Any, *_: Any, **__: Any) -> Work:
    """Counts each element of the result as a sum over the last dimension of ``a``."""
    return only_macs(out.numel() * a.shape[-1])


def _linear(out: Any, /, x: Any, weight: Any, bias: Any = None, *_: Any, **__: Any) -> Work:
    macs = out.numel() * x.shape[-1]
    return macs, 2 * macs + (out.numel() if bias is not None else 0)


def addition_flops(kwargs: Mapping[str, Any]) -> int:
    """Returns the flops an output element for adding ``beta`` x an operand to ``alpha`` x a product."""
    beta, alpha = kwargs.get("beta", 1), kwargs.get("alpha", 1)
    return int(beta != 0) + int(beta not in (0, 1)) + int(alpha != 1)


def _vector_product_with_sum(out: Any, /, _: Any, a: Any, *__: Any, **kwargs: Any) -> Work:
    macs = a.numel()
    return macs, 2 * macs + addition_flops(kwargs) * out.numel()


def _product_with_sum(out: Any, /, _: Any, a: Any, b: Any, *__: Any, **kwargs: Any) -> Work:
    macs = a.numel() * b.shape[-1]
    return macs, 2 * macs + addition_flops(kwargs) * out.numel()


def _with_activation(out: Any, /, *args: Any, **kwargs: Any) -> Work:
    macs, flops = _product_with_sum(out, *args, **kwargs)
    return macs, flops + out.numel()


def _dot(_: Any, a: Any, *__: Any, **___: Any) -> Work:
    return only_macs(a.numel())


def _outer(out: Any, /, *_: Any, **kwargs: Any) -> Work:
    macs = out.numel()
    return macs, 2 * macs + max(addition_flops(kwargs) - 1, 0) * macs


def _grouped_product(_: Any, a: Any, b: Any, *__: Any, **___: Any) -> Work:
    """Counts a grouped matmul of any form.

    Each row of ``a`` [M, K] meets one matrix of ``b`` [G, K, N]; or each column of ``b`` [K, N] one of ``a`` [G, M, K].
    If both are 2-D, the groups split K; if both are 3-D, they are a batch.
    """
    groups = a.shape[0] if a.dim() == 3 and b.dim() == 2 else 1
    return only_macs(a.numel() * b.shape[-1] // groups)


def _grouped_product_backward(_: Any, a: Any, b: Any, *__: Any, **___: Any) -> Work:
    """Counts the gradients of both operands: ``a`` [M, K], of which each row met one matrix of ``b`` [G, K, N]."""
    return only_macs(2 * a.numel() * b.shape[-1])


def _trilinear(_: Any, a: Any, b: Any, c: Any, *expand: Any, **__: Any) -> Work:
    """Counts each element of the broadcast product of three tensors, each unsqueezed at its ``expand`` dimensions."""
    shapes = [_unsqueezed(tensor.shape, dimensions) for tensor, dimensions in zip((a, b, c), expand, strict=False)]
    return only_macs(prod(max(sizes) for sizes in zip(*shapes, strict=True)))


def _unsqueezed(shape: Any, dimensions: Any) -> list[int]:
    sizes = list(shape)
    for dim in dimensions:
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
    """``mode`` 0 is the sum, 1 the mean, 2 the maximum."""
    elements = indices.numel() * weight.shape[-1]
    return 0, elements * (2 if per_sample_weights is not None else 1) + (numel(out[0]) if mode == 1 else 0)


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
    _: Any, grad: Any, x: Any, weight: Any, has_bias: bool = False, *__: Any, **___: Any
) -> Work:
    macs = grad.numel() * x.shape[-1]
    return macs, 2 * macs + (grad.numel() if has_bias else 0)


def _affine_grid(out: Any, /, theta: Any, *_: Any, **__: Any) -> Work:
    return only_macs(out.numel() * theta.shape[-1])


def _chunked_loss(_: Any, x: Any, weight: Any, target: Any, bias: Any = None, *args: Any, **__: Any) -> Work:
    """Counts the logits, and the gradients that the op makes in forward.

    ``args`` end with the gradients that are requested: of the input, of the weight, of the bias.
    """
    made = sum(map(bool, args[8:10]))
    logits = x.shape[0] * weight.shape[0]
    macs = (1 + made) * logits * weight.shape[1]
    return macs, 2 * macs + (SOFTMAX + (bias is not None)) * logits


CHAPTER = Chapter(
    "Matrix products",
    "M, K and N are rows, inner size and columns.  Integer matrices count as others.  An added operand (in `addmm`, "
    "a bias) is 1 flop an output element, and 0 with `beta=0`; each factor (`beta`, `alpha`) that is not 1 is 1 more.",
    (
        Rule(
            ("addmm", "baddbmm", "addbmm"),
            _product_with_sum,
            "M K N of each matrix of a batch",
            "2 MACs + the added operand",
            "MACs as `torch.utils.flop_counter`",
        ),
        Rule(("_addmm_activation",), _with_activation, "as `addmm`", "as `addmm` + 1 an output element"),
        Rule(
            ("_grouped_mm", "_scaled_grouped_mm", "_scaled_grouped_mm_v2", "transformers::grouped_mm_fallback"),
            _grouped_product,
            "M K N of each group: the rows of one group meet one matrix",
            "2 MACs",
            "a matmul for each group",
        ),
        Rule(
            ("transformers::grouped_mm_fallback_backward",),
            _grouped_product_backward,
            "M K N of each group, for the gradient of the rows and for that of the matrices",
            "2 MACs",
            "a matmul for each group and gradient",
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
            "M K N for each requested gradient of the input and of the weight",
            "2 MACs + 1 an element of the output's gradient for the gradient of a bias",
            "a matmul for each",
        ),
        Rule(("mkldnn_linear_backward_input",), _linear_backward_input, "M K N", "2 MACs", "a matmul"),
        Rule(
            ("mkldnn_linear_backward_weights",),
            _linear_backward_weights,
            "M K N",
            "2 MACs + 1 an element of the output's gradient for the gradient of a bias",
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
        Rule(("addmv",), _vector_product_with_sum, "M K", "2 MACs + the added operand", "a matmul of N = 1"),
        Rule(("dot", "vdot"), _dot, "K", "2 MACs", "a matmul of M = N = 1"),
        Rule(
            ("affine_grid_generator",), _affine_grid, "3 an output element, in three dimensions 4", "2 MACs", "a matmul"
        ),
        Rule(("addr",), _outer, "M N", "2 MACs", "a product and a sum an element"),
        Rule(("_trilinear",), _trilinear, "every element of the broadcast product (`nn.Bilinear`: B I J O)", "2 MACs"),
        Rule(
            (
                "torch_nn::_linear_cross_entropy_batch_chunked",
                "torch_nn::_linear_cross_entropy_batch_chunked_no_reduction",
            ),
            _chunked_loss,
            "M K N for the logits, and the same for each gradient (of the input, of the weight) that it makes in "
            "forward",
            "2 MACs + the softmax of each logit, 1 more a logit for a bias",
            "a matmul for each",
        ),
        Rule(
            ("_embedding_bag", "_embedding_bag_forward_only"),
            _embedding_bag,
            "0",
            "1 an element looked up, 2 with weights of samples; 1 more an output element for a mean",
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
