"""Ops on quantized numbers, and products with 2:4 sparse weights."""

from __future__ import annotations

from math import prod
from typing import Any

from distprof.flops.formulas.rule import Chapter, Formula, Rule, Work, only_macs, per_output

_GATES = {"lstm": 4, "gru": 3, "rnn_relu": 1, "rnn_tanh": 1}


def _packed_last(out: Any, /, x: Any, *_: Any, **__: Any) -> Work:
    return only_macs(out.numel() * x.shape[-1])


def _mixed(
    out: Any, /, x: Any, weight: Any, scale: Any, bias: Any = None, activation: Any = None, *_: Any, **__: Any
) -> Work:
    macs = out.numel() * x.shape[-1]
    return macs, 2 * macs + ((bias is not None) + (activation not in (None, "", "none"))) * out.numel()


def _dynamic_4bit(out: Any, /, x: Any, weight: Any, block: int, inputs: int, *_: Any, **__: Any) -> Work:
    return only_macs(out.numel() * inputs)


def _sparse_weight(out: Any, /, x: Any, weight: Any, *_: Any, **kwargs: Any) -> Work:
    """Counts a product whose weight [N, K / 2] holds the kept elements."""
    macs = out.numel() * weight.shape[-1]
    return macs, 2 * macs + (kwargs.get("bias") is not None) * out.numel()


def _sparse_first(out: Any, /, a: Any, *_: Any, **__: Any) -> Work:
    """Counts a product whose first matrix [M, K / 2] holds the kept elements."""
    return only_macs(out.numel() * a.shape[-1])


def _sparse_first_with_sum(out: Any, /, x: Any, a: Any, *_: Any, **__: Any) -> Work:
    macs = out.numel() * a.shape[-1]
    return macs, 2 * macs + out.numel()


def _cslt(out: Any, /, a: Any, b: Any, bias: Any = None, *_: Any, **__: Any) -> Work:
    """Counts by the result's and the dense matrix's shapes [K, N]: cuSPARSELt's compressed matrix has none."""
    macs = out.numel() * b.shape[0] // 2
    return macs, 2 * macs + (bias is not None) * out.numel()


def _linear(more: int = 0) -> Formula:
    """Makes the formula of a packed weight, with ``more`` flops an output element (an activation)."""

    def formula(out: Any, /, x: Any, packed: Any, *_: Any, **__: Any) -> Work:
        macs = out.numel() * x.shape[-1]
        return macs, 2 * macs + (more + (packed.unpack()[1] is not None)) * out.numel()

    return formula


def _convolution(more: int = 0, *, transposed: bool = False) -> Formula:
    def formula(out: Any, /, x: Any, *args: Any, **__: Any) -> Work:
        packed = next(argument for argument in args if hasattr(argument, "unpack"))
        weight, bias = packed.unpack()
        macs = (x if transposed else out).numel() * prod(weight.shape[1:])
        return macs, 2 * macs + (more + (bias is not None)) * out.numel()

    return formula


def _onednn_linear(out: Any, /, x: Any, x_scale: Any, x_zero: Any, weight: Any, *args: Any, **__: Any) -> Work:
    macs = out.numel() * x.shape[-1]
    return macs, 2 * macs + (args[2] is not None if len(args) > 2 else 0) * out.numel()


def _onednn_convolution(out: Any, /, x: Any, x_scale: Any, x_zero: Any, weight: Any, *args: Any, **__: Any) -> Work:
    macs = out.numel() * (weight.numel() // out.shape[1])
    return macs, 2 * macs + (args[2] is not None if len(args) > 2 else 0) * out.numel()


def _bag(out: Any, /, weight: Any, indices: Any, *_: Any, **__: Any) -> Work:
    return 0, indices.numel() * out.shape[-1]


def _cell(gates: int) -> Formula:
    def formula(_: Any, x: Any, hx: Any, *__: Any, **___: Any) -> Work:
        state = hx if hasattr(hx, "numel") else hx[0]
        return only_macs(gates * state.numel() * (x.shape[-1] + state.shape[-1]))

    return formula


def _names(pattern: str, *names: str) -> tuple[str, ...]:
    return tuple(pattern.format(name) for name in names)


_ONE = (
    "add", "add_out", "add_scalar", "add_scalar_out", "mul", "mul_out", "mul_scalar", "mul_scalar_out", "celu", "clamp",
    "elu", "hardswish", "leaky_relu", "prelu", "relu6", "sigmoid", "threshold",
)  # fmt: skip
_TWO = (
    "add_relu", "add_relu_out", "add_scalar_relu", "add_scalar_relu_out", "mul_relu", "mul_relu_out", "mul_scalar_relu",
    "mul_scalar_relu_out",
)  # fmt: skip
_CONVOLVED = "output elements x (C_in / groups x kernel)"
_WITH_BIAS = "2 MACs + 1 an output element for a bias"

CHAPTER = Chapter(
    "Quantized and pruned products",
    "Quantized numbers count as the real numbers that they represent; quantizing and dequantizing convert numbers and "
    "count 0.  A 2:4 sparse weight counts by its kept elements, as other sparse tensors: half of the dense product.",
    (
        Rule(("_weight_int4pack_mm", "_weight_int4pack_mm_for_cpu", "_weight_int4pack_mm_with_scales_and_zeros"),
             _packed_last, "M K N", "2 MACs", "as `mm`"),
        Rule(("_mixed_dtypes_linear",), _mixed, "M K N", "2 MACs + 1 an output element for a bias, 1 for an activation",
             "as `addmm`"),
        Rule(("_dyn_quant_matmul_4bit",), _dynamic_4bit, "M K N", "2 MACs", "as `mm`"),
        Rule(("_sparse_semi_structured_linear",), _sparse_weight, "M K N / 2", _WITH_BIAS, "the kept elements"),
        Rule(("_sparse_semi_structured_mm",), _sparse_first, "M K N / 2", "2 MACs", "the kept elements"),
        Rule(("_sparse_semi_structured_addmm",), _sparse_first_with_sum, "M K N / 2", "2 MACs + 1 an output element",
             "the kept elements"),
        Rule(("_cslt_sparse_mm",), _cslt, "M K N / 2", _WITH_BIAS, "the kept elements"),
        Rule(_names("quantized::{}", "linear", "linear_dynamic", "linear_dynamic_fp16"), _linear(), "M K N", _WITH_BIAS,
             "as `addmm`"),
        Rule(_names("quantized::{}", "linear_relu", "linear_leaky_relu", "linear_tanh", "linear_relu_dynamic",
                    "linear_relu_dynamic_fp16"), _linear(1), "M K N", f"{_WITH_BIAS}, 1 for the activation",
             "as `addmm`"),
        Rule(_names("quantized::{}", "conv1d", "conv2d", "conv3d", "conv1d_dynamic", "conv2d_dynamic",
                    "conv3d_dynamic"),
             _convolution(), _CONVOLVED, _WITH_BIAS, "as `convolution`"),
        Rule(_names("quantized::{}", "conv1d_relu", "conv2d_relu", "conv3d_relu", "conv2d_add"), _convolution(1),
             _CONVOLVED, f"{_WITH_BIAS}, 1 for the activation or sum", "as `convolution`"),
        Rule(("quantized::conv2d_add_relu",), _convolution(2), _CONVOLVED, f"{_WITH_BIAS}, 2 for both",
             "as `convolution`"),
        Rule(_names("quantized::conv_transpose{}", "1d", "2d", "3d", "1d_dynamic", "2d_dynamic", "3d_dynamic"),
             _convolution(transposed=True), "input elements x (C_out / groups x kernel)", _WITH_BIAS,
             "as `convolution`"),
        Rule(("onednn::qlinear_pointwise",), _onednn_linear, "M K N", _WITH_BIAS, "as `addmm`"),
        Rule(_names("onednn::{}_pointwise", "qconv", "qconv1d", "qconv2d", "qconv3d"), _onednn_convolution, _CONVOLVED,
             _WITH_BIAS, "as `convolution`"),
        *(
            Rule((f"quantized::quantized_{kind}_cell_dynamic",), _cell(gates), f"{gates} H (I + H) a position",
                 "2 MACs",
                 "the equations of the cell")
            for kind, gates in _GATES.items()
        ),
        Rule(("quantized::matmul",), _packed_last, "M K N", "2 MACs", "as `mm`"),
        Rule(_names("quantized::{}", *_ONE), per_output(1), "0", "1 an output element"),
        Rule(_names("quantized::{}", *_TWO), per_output(2), "0", "2 an output element"),
        Rule(("quantized::softmax",), per_output(5), "0", "5 an output element"),
        Rule(_names("quantized::{}", "layer_norm", "group_norm", "instance_norm"), per_output(7), "0",
             "7 an output element"),
        Rule(_names("quantized::batch_norm{}", "", "1d", "2d", "3d"), per_output(4), "0", "4 an output element"),
        Rule(_names("quantized::batch_norm{}_relu", "", "1d", "2d", "3d"), per_output(5), "0", "5 an output element"),
        Rule(_names("quantized::embedding_bag_{}", "byte", "4bit"), _bag, "0", "1 an element looked up"),
        Rule(("_add_relu",), per_output(2), "0", "2 an output element"),
        Rule(("fake_quantize_per_tensor_affine_cachemask", "fake_quantize_per_channel_affine_cachemask",
              "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams", "_fake_quantize_learnable_per_tensor_affine",
              "_fake_quantize_learnable_per_channel_affine"), per_output(6), "0",
             "6 an output element: quotient, rounding, addition of the zero point, clamping, its subtraction, product"),
        Rule(("_fused_moving_avg_obs_fq_helper",), per_output(8), "0",
             "8 an output element: as above, minimum, maximum"),
    ),
)  # fmt: skip
