"""Element-wise ops and reductions: one flop a number, with few exceptions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distprof.flops.formulas.rule import (
    Chapter,
    Formula,
    Rule,
    Work,
    is_real_work,
    numel,
    per_input,
    per_output,
    zero_work,
)

#: The formula of all other ops that have torch's tag ``pointwise``: one flop an output element.
POINTWISE = per_output(1)


def _alpha_flops(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Returns 1 if a sum multiplies its second operand by ``alpha``, else 0."""
    return int(kwargs.get("alpha", args[2] if len(args) > 2 else 1) != 1)


def _value_flops(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Returns 1 if ``addcmul`` multiplies the added product by ``value``, else 0."""
    value = kwargs.get("value", args[3] if len(args) > 3 else 1)
    return int(not isinstance(value, (int, float)) or value != 1)


_BOOLEAN = (
    "eq", "ne", "lt", "le", "gt", "ge", "not_equal", "less", "less_equal", "greater", "greater_equal", "logical_and",
    "logical_or", "logical_xor", "logical_not", "isnan", "isinf", "isfinite", "isposinf", "isneginf", "signbit",
)  # fmt: skip
_SUMS = ("add", "sub", "rsub")
_OF_PRODUCTS = ("addcmul", "addcdiv")

#: Formulas of the ops on lists (``_foreach_add_``) that are not one flop an element.
_FOREACH = {
    **dict.fromkeys(_SUMS, per_input(1, more=_alpha_flops)),
    **dict.fromkeys(_OF_PRODUCTS, per_input(2, more=_value_flops)),
    "lerp": per_input(3),
    "norm": per_input(2),
}

#: Ops that torch, or some version of it, does not tag as pointwise.
_ONE = (
    "elu", "celu", "selu", "hardswish", "leaky_relu", "log_sigmoid_forward", "softplus", "relu6", "rrelu_with_noise",
    "_prelu_kernel", "mish", "silu", "gelu", "hardtanh", "hardsigmoid", "native_dropout_backward", "polar",
    "xlogy", "special_entr", "sgn", "square", "logaddexp", "exponential", "softshrink", "hardshrink", "threshold",
    "floor_divide",
)  # fmt: skip
_BACKWARDS = (
    "elu_backward", "gelu_backward", "silu_backward", "mish_backward", "glu_backward", "hardswish_backward",
    "hardsigmoid_backward", "hardtanh_backward", "hardshrink_backward", "softshrink_backward", "leaky_relu_backward",
    "log_sigmoid_backward", "logit_backward", "rrelu_with_noise_backward", "sigmoid_backward", "softplus_backward",
    "tanh_backward", "threshold_backward", "_prelu_kernel_backward",
)  # fmt: skip


def foreach(name: str) -> Formula:
    """Returns the formula of an op on a list of tensors; ``name`` is without ``_foreach_``."""
    return _FOREACH.get(name, per_input(1))


def _accumulate(_: Any, x: Any, indices: Any, values: Any, accumulate: bool = False, *__: Any, **___: Any) -> Work:
    return 0, numel(values) if accumulate else 0


def sum_of_input(out: Any, /, x: Any, *_: Any, **__: Any) -> Work:
    return 0, numel(x) if is_real_work(out) else 0


def _cdist(out: Any, /, x: Any, *_: Any, **__: Any) -> Work:
    return 0, 3 * numel(out) * x.shape[-1]


def _cdist_backward(_: Any, grad: Any, x: Any, *__: Any, **___: Any) -> Work:
    return 0, 4 * numel(grad) * x.shape[-1]


CHAPTER = Chapter(
    "Element by element",
    "Every op that torch tags as pointwise and that is nowhere else on this page counts 1 an output element: sums, "
    "products, roots, activations, comparisons that return a number.  Ops that return integers or booleans count 0.",
    (
        Rule(_ONE, POINTWISE, "0", "1 an output element"),
        Rule(_BACKWARDS, per_output(2), "0", "2 an output element: the derivative, and its product with the gradient"),
        Rule(_BOOLEAN, zero_work, "0", "0, also if the booleans are stored as another type (`lt_`)"),
        Rule(_SUMS, per_output(1, _alpha_flops), "0", "1 an output element, 2 with a factor (`alpha`)"),
        Rule(_OF_PRODUCTS, per_output(2, _value_flops), "0", "2 an element, 3 with a factor (`value`)"),
        Rule(("lerp",), per_output(3), "0", "3 an element"),
        Rule(("glu", "native_dropout"), per_output(2), "0", "2 an output element"),
        Rule(("linalg_cross",), per_output(5), "0", "5 an output element"),
        Rule(("_foreach_*",), foreach(""), "0",
             "1 an element of the list; `_foreach_norm` 2, `_foreach_lerp` 3; `_foreach_add`, `_foreach_sub`, "
             "`_foreach_addcmul` and `_foreach_addcdiv` as those of one tensor; `_foreach_copy_` and `_foreach_zero_` "
             "0"),
        Rule(("_amp_foreach_non_finite_check_and_unscale",), per_input(1), "0", "1 an element"),
    ),
)  # fmt: skip

REDUCTIONS = Chapter(
    "Reductions and sums",
    "",
    (
        Rule(("sum", "nansum", "prod", "cumsum", "cumprod"), sum_of_input, "0",
             "1 an input element (0 if the result is integers, as the offsets of a grouped matmul)"),
        Rule(("mean", "amax", "amin", "max", "min", "argmax", "argmin", "cummax", "cummin", "_cummax_helper",
              "_cummin_helper", "trace"), per_input(1), "0", "1 an input element"),
        Rule(("norm", "linalg_vector_norm", "linalg__powsum", "aminmax"), per_input(2), "0", "2 an input element"),
        Rule(("var", "std", "var_mean", "std_mean"), per_input(4), "0",
             "4 an input element (mean, difference, square, sum)"),
        Rule(("_cdist_forward", "_pdist_forward"), _cdist, "0",
             "3 an output element and dimension (difference, square, sum)"),
        Rule(("_cdist_backward", "_pdist_backward"), _cdist_backward, "0",
             "4 an element of the gradient and dimension (difference, power, product, sum)"),
        Rule(("dist",), per_input(3), "0", "3 an element (difference, power, sum)"),
        Rule(("_segment_reduce_backward",), per_output(1), "0", "1 an element of the input's gradient"),
        Rule(("_unsafe_masked_index_put_accumulate",), per_input(1, 3), "0", "1 a value that is accumulated"),
        Rule(("index_add", "scatter_add", "scatter_reduce", "index_reduce"), per_input(1, 3), "0",
             "1 an element that is added"),
        Rule(("index_put", "_index_put_impl", "_unsafe_index_put"), _accumulate, "0",
             "1 a value that is accumulated, else 0"),
        Rule(("embedding_dense_backward", "embedding_backward", "unfold_backward", "col2im"), per_input(1), "0",
             "1 an element of the gradient, which is added to its place"),
    ),
)  # fmt: skip
