"""Convolutions, of which torch's own counter has the backward wrong and leaves out the bias."""

from __future__ import annotations

from math import prod
from typing import Any

from distprof.flops.formulas.rule import Chapter, Formula, Rule, Work


def _macs(x: Any, weight: Any, out: Any, transposed: bool) -> int:
    """Returns the MACs of a convolution, where the weight's shape includes the groups.

    Each output element is a sum over one filter [C_in / groups, *kernel]; in a transposed convolution each input
    element goes into [C_out / groups, *kernel] output elements.
    """
    return int((x if transposed else out).numel() * prod(weight.shape[1:]))


def _convolution(
    out: Any,
    /,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    transposed: bool = False,
    *_: Any,
    **__: Any,
) -> Work:
    macs = _macs(x, weight, out, transposed)
    return macs, 2 * macs + (out.numel() if bias is not None else 0)


def _pointwise(out: Any, /, x: Any, weight: Any, bias: Any = None, *_: Any, **__: Any) -> Work:
    return _convolution(out, x, weight, bias)


def _kernel_first(transposed: bool = False) -> Formula:
    """Makes the formula of an op whose kernel size comes before the bias."""

    def formula(out: Any, /, x: Any, weight: Any, kernel: Any, bias: Any = None, *_: Any, **__: Any) -> Work:
        return _convolution(out, x, weight, bias, transposed=transposed)

    return formula


def _transposed(out: Any, /, x: Any, weight: Any, bias: Any = None, *_: Any, **__: Any) -> Work:
    return _convolution(out, x, weight, bias if hasattr(bias, "numel") else None, transposed=True)


def _with_activation(out: Any, /, x: Any, weight: Any, bias: Any = None, *_: Any, **__: Any) -> Work:
    macs, flops = _convolution(out, x, weight, bias)
    return macs, flops + out.numel()


def _with_sum(out: Any, /, x: Any, weight: Any, z: Any, alpha: Any, bias: Any = None, *_: Any, **__: Any) -> Work:
    """Adds ``alpha`` x ``z`` and an activation."""
    macs, flops = _convolution(out, x, weight, bias)
    return macs, flops + (2 + (alpha not in (None, 1))) * out.numel()


def _time_first(out: Any, /, x: Any, weight: Any, bias: Any, *_: Any, **__: Any) -> Work:
    macs = out.numel() * prod(weight.shape[:-1])
    return macs, 2 * macs + out.numel()


def _slow_backward(_: Any, grad: Any, x: Any, weight: Any, *args: Any, **kwargs: Any) -> Work:
    mask = kwargs["output_mask"] if "output_mask" in kwargs else args[3]
    return _convolution_backward(None, grad, x, weight, None, 1, 0, 1, False, 0, 1, mask)


def _convolution_backward(
    _: Any, grad: Any, x: Any, weight: Any, bias_sizes: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int, output_mask: Any, **__: Any,
) -> Work:  # fmt: skip
    """Counts the gradients of the input and of the weight as the forward, each."""
    macs = _macs(x, weight, grad, transposed) * (bool(output_mask[0]) + bool(output_mask[1]))
    return macs, 2 * macs + (grad.numel() if output_mask[2] else 0)


CHAPTER = Chapter(
    "Convolutions",
    "Padding counts as input.  torch's own formula of the backward counts the gradient of the weight `groups` times.",
    (
        Rule(
            ("convolution", "_convolution", "cudnn_convolution", "convolution_overrideable", "_slow_conv2d_forward"),
            _convolution,
            "output elements x (C_in / groups x kernel); transposed: input elements x (C_out / groups x kernel)",
            "2 MACs + 1 an output element for a bias",
            "MACs as `torch.utils.flop_counter`",
        ),
        Rule(
            (
                "_conv_depthwise2d",
                "conv_depthwise3d",
                "slow_conv3d_forward",
                "slow_conv_dilated2d",
                "slow_conv_dilated3d",
            ),
            _kernel_first(),
            "output elements x (C_in / groups x kernel)",
            "2 MACs + 1 an output element for a bias",
            "as `convolution`",
        ),
        Rule(
            ("slow_conv_transpose2d", "slow_conv_transpose3d"),
            _kernel_first(transposed=True),
            "input elements x (C_out / groups x kernel)",
            "2 MACs + 1 an output element for a bias",
            "as `convolution`",
        ),
        Rule(
            ("cudnn_convolution_transpose", "miopen_convolution_transpose", "mkldnn::_convolution_transpose_pointwise"),
            _transposed,
            "input elements x (C_out / groups x kernel)",
            "2 MACs + 1 an output element for a bias",
            "as `convolution`",
        ),
        Rule(
            ("cudnn_convolution_relu", "miopen_convolution_relu"),
            _with_activation,
            "output elements x (C_in / groups x kernel)",
            "2 MACs + 1 an output element for a bias, 1 for the activation",
            "as `convolution`",
        ),
        Rule(
            ("cudnn_convolution_add_relu", "miopen_convolution_add_relu"),
            _with_sum,
            "output elements x (C_in / groups x kernel)",
            "2 MACs + 1 an output element for a bias, 1 for the sum, 1 for its factor, 1 for the activation",
            "as `convolution`",
        ),
        Rule(
            ("conv_tbc",),
            _time_first,
            "output elements x (C_in x kernel)",
            "2 MACs + 1 an output element for the bias",
            "as `convolution`",
        ),
        Rule(
            ("_slow_conv2d_backward",),
            _slow_backward,
            "as `convolution_backward`",
            "as `convolution_backward`",
            "as `convolution_backward`",
        ),
        Rule(
            (
                "mkldnn::_convolution_pointwise",
                "mkldnn::_convolution_pointwise_",
                "mkldnn_convolution",
                "miopen_convolution",
                "miopen_depthwise_convolution",
                "_nnpack_spatial_convolution",
                "_mps_convolution",
            ),
            _pointwise,
            "output elements x (C_in / groups x kernel)",
            "2 MACs + 1 an output element for a bias",
            "as `convolution`",
        ),
        Rule(
            ("convolution_backward",),
            _convolution_backward,
            "as the forward, for each requested gradient of the input and of the weight",
            "2 MACs + 1 an element of the output's gradient for the gradient of a bias",
            "each product of the forward is in one product of each gradient",
        ),
    ),
)
