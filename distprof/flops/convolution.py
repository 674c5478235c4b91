"""Convolutions: what torch's own counter has wrong of their backward, and the bias that it leaves out."""

from __future__ import annotations

from math import prod
from typing import Any

from distprof.flops.rule import Chapter, Rule, Work


def _macs(x: Any, weight: Any, out: Any, transposed: bool) -> int:
    """Each output element of a convolution is a sum over one filter [C_in / groups, *kernel]; each input element of a
    transposed one goes into [C_out / groups, *kernel] places.  Groups are in the weight's shape.
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


def _convolution_backward(
    _: Any, grad: Any, x: Any, weight: Any, bias_sizes: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int, output_mask: Any, **__: Any,
) -> Work:  # fmt: skip
    """The gradients of the input and of the weight are as much work as the forward, each."""
    macs = _macs(x, weight, grad, transposed) * (bool(output_mask[0]) + bool(output_mask[1]))
    return macs, 2 * macs + (grad.numel() if output_mask[2] else 0)


CHAPTER = Chapter(
    "Convolutions",
    "Padding counts like input.  torch's own formula of the backward counts the gradient of the weight `groups` times.",
    (
        Rule(
            ("convolution", "_convolution", "cudnn_convolution", "convolution_overrideable", "_slow_conv2d_forward"),
            _convolution,
            "output elements x (C_in / groups x kernel); transposed: input elements x (C_out / groups x kernel)",
            "2 MACs + 1 an output element for a bias",
            "MACs as `torch.utils.flop_counter`",
        ),
        Rule(
            ("mkldnn::_convolution_pointwise", "mkldnn::_convolution_pointwise_"),
            _pointwise,
            "output elements x (C_in / groups x kernel)",
            "2 MACs + 1 an output element for a bias",
            "as `convolution`",
        ),
        Rule(
            ("convolution_backward",),
            _convolution_backward,
            "as the forward, for the gradient of the input and for that of the weight, where asked for",
            "2 MACs + 1 an element of the output's gradient for that of a bias",
            "each product of the forward is in one product of each gradient",
        ),
    ),
)
