"""Sparse tensors, whose work is counted by their stored elements."""

from __future__ import annotations

from typing import Any

from distprof.flops.formulas.matmul import addition_flops
from distprof.flops.formulas.rule import (
    SPARSE,
    Chapter,
    Formula,
    NoFormulaError,
    PerInput,
    PerOutput,
    Rule,
    Work,
    first_tensor,
    is_real_work,
    numel,
    only_macs,
    per_output,
    stored_numel,
)
from distprof.tensors.nested_tensors import op_tensors

_MEAN = 1  # torch's mode of an embedding bag


def _is_sparse(value: Any) -> bool:
    return any(tensor.layout in SPARSE for tensor in op_tensors((value,)))


def _product_macs(a: Any, b: Any) -> int:
    """Returns the MACs of a sparse and a dense matrix; those of two sparse ones depend on the positions of elements."""
    if _is_sparse(a) == _is_sparse(b):
        raise NoFormulaError
    return stored_numel(a) * int(b.shape[-1]) if _is_sparse(a) else stored_numel(b) * int(a.shape[-2])


def _matmul(_: Any, a: Any, b: Any, *__: Any, **___: Any) -> Work:
    return only_macs(_product_macs(a, b))


def _product_with_sum(out: Any, /, _: Any, a: Any, b: Any, *__: Any, **kwargs: Any) -> Work:
    macs = _product_macs(a, b)
    return macs, 2 * macs + addition_flops(kwargs) * stored_numel(out)


def _vector(_: Any, a: Any, x: Any, *__: Any, **___: Any) -> Work:
    return only_macs(stored_numel(a))


def _vector_sum(out: Any, /, _: Any, a: Any, x: Any, *__: Any, **kwargs: Any) -> Work:
    return stored_numel(a), 2 * stored_numel(a) + addition_flops(kwargs) * stored_numel(out)


def _sampled_product(out: Any, /, _: Any, a: Any, b: Any, *__: Any, **kwargs: Any) -> Work:
    macs = stored_numel(out) * a.shape[-1]
    return macs, 2 * macs + addition_flops(kwargs) * stored_numel(out)


def _reduced(out: Any, /, a: Any, b: Any, reduce: str = "sum", *_: Any, **__: Any) -> Work:
    products = _product_macs(a, b)
    if reduce in ("sum", "mean"):
        return products, 2 * products + (numel(out[0]) if reduce == "mean" else 0)
    return 0, 2 * products  # a product and a comparison


def _reduced_backward(
    _: Any, a: Any, grad: Any, b: Any, reduce: str, arg_out: Any, output_mask: Any, *__: Any, **___: Any
) -> Work:
    return only_macs(stored_numel(a) * int(grad.shape[-1]) * sum(map(bool, output_mask)))


def _coalesce(out: Any, /, x: Any, *_: Any, **__: Any) -> Work:
    """Counts one sum for each duplicate element."""
    return 0, stored_numel(x) - stored_numel(out)


def _stored_sum(_: Any, x: Any, *__: Any, **___: Any) -> Work:
    return 0, numel(x)


def _bag_backward(out: Any, /, grad: Any, *args: Any, **__: Any) -> Work:
    """Counts the scaling of rows of the output's gradient, which are copied and not added up.

    ``args`` from the eighth on are the mode, whether the gradient is sparse, and weights of samples.
    """
    mode, weights = args[7], args[9] if len(args) > 9 else None
    return 0, ((mode == _MEAN) + (weights is not None)) * stored_numel(out)


#: Rules of ops that also accept dense tensors.
_ALSO_DENSE = (
    Rule(("mm", "bmm"), _matmul, "stored elements of the sparse matrix x columns (rows) of the dense one", "2 MACs",
         "a product and a sum for each"),
    Rule(("addmm", "baddbmm"), _product_with_sum, "as `mm`", "2 MACs + the added operand, as `addmm`"),
    Rule(("mv",), _vector, "stored elements", "2 MACs", "a matmul of N = 1"),
    Rule(("addmv",), _vector_sum, "stored elements", "2 MACs + the added operand, as `addmv`", "a matmul of N = 1"),
    Rule(("_embedding_bag_backward",), _bag_backward, "0",
         "1 an element looked up for a mean, 1 with weights of samples, else 0"),
)  # fmt: skip

#: Rules of ops that always have a sparse operand.
ONLY_SPARSE = (
    Rule(("hspmm",), _matmul, "as `mm`", "2 MACs"),
    Rule(("_sparse_addmm", "sspaddmm"), _product_with_sum, "as `mm`", "2 MACs + the added operand, as `addmm`"),
    Rule(("sparse_sampled_addmm",), _sampled_product, "stored elements of the result x K",
         "2 MACs + the added operand, as `addmm`"),
    Rule(("_sparse_mm_reduce_impl",), _reduced, "as `mm`; 0 for a maximum or minimum",
         "2 a product and its sum or comparison, 1 more an output element for a mean"),
    Rule(("_sparse_mm_reduce_impl_backward",), _reduced_backward, "as `mm`, for each requested gradient", "2 MACs"),
    Rule(("_coalesce",), _coalesce, "0", "1 for each element that is added to another"),
    Rule(("_sparse_sum", "_sparse_csr_sum", "_sparse_csr_prod"), _stored_sum, "0", "1 a stored element"),
    Rule(("_sparse_softmax", "_sparse_log_softmax"), per_output(5), "0", "5 a stored element"),
    Rule(("_sparse_softmax_backward_data", "_sparse_log_softmax_backward_data"), per_output(4), "0",
         "4 a stored element"),
)  # fmt: skip

CHAPTER = Chapter(
    "Sparse tensors",
    "COO, CSR, CSC, BSR and BSC tensors count by their stored elements, explicit zeros and duplicates included.  "
    "Element-wise ops count by the stored elements of their result or, if it is dense (the update by a sparse "
    "gradient), by those of their sparse operand; sums, means and norms by those of their input.  Other ops of this "
    "page are not counted for sparse tensors, nor is a product of two sparse tensors.",
    (*_ALSO_DENSE, *ONLY_SPARSE),
)

_BY_NAME = {op: rule.formula for rule in (*_ALSO_DENSE, *ONLY_SPARSE) for op in rule.ops}
_REDUCTIONS = frozenset({"sum", "nansum", "prod"})  # their dense formulas count stored elements already


def formula(name: str, counted: Formula) -> Formula:
    """Returns the formula of an op with a sparse operand or result; ``counted`` is that for dense ones."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    if isinstance(counted, PerOutput):
        return _each_element(counted)
    if isinstance(counted, PerInput):
        return _each_input(counted)
    return counted if name in _REDUCTIONS else _unknown


def _each_element(counted: PerOutput) -> Formula:
    def formula_of_stored(out: Any, /, *args: Any, **kwargs: Any) -> Work:
        result = first_tensor(out)
        if not is_real_work(result):
            return 0, 0
        touched = [result] if _is_sparse(result) else [tensor for tensor in op_tensors(args) if _is_sparse(tensor)]
        if not touched:
            raise NoFormulaError
        return 0, counted.each(args, kwargs) * max(map(stored_numel, touched))

    return formula_of_stored


def _each_input(counted: PerInput) -> Formula:
    def formula_of_stored(out: Any, /, *args: Any, **kwargs: Any) -> Work:
        if not _is_sparse(args[counted.argument]):
            raise NoFormulaError
        return counted(out, *args, **kwargs)

    return formula_of_stored


def _unknown(*_: Any, **__: Any) -> Work:
    raise NoFormulaError
