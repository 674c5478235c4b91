"""torchvision's own kernels."""

from __future__ import annotations

from math import prod
from typing import Any

from distprof.flops.formulas.rule import Chapter, NoFormulaError, Rule, Work

_SAMPLE = 7  # a linear sample in two dimensions: 4 products and their sum
_SAMPLE_BACKWARD = 16  # 4 a tap: for the gradients of the input and of the position


def _macs_and_samples(out: Any, x: Any, weight: Any) -> tuple[int, int]:
    """Returns (MACs, samples)."""
    positions = out.numel() // out.shape[1]
    return out.numel() * prod(weight.shape[1:]), positions * x.shape[1] * prod(weight.shape[2:])


def _deform_conv(out: Any, /, x: Any, weight: Any, offset: Any, mask: Any, bias: Any, *args: Any, **__: Any) -> Work:
    macs, samples = _macs_and_samples(out, x, weight)
    return macs, 2 * macs + (_SAMPLE + bool(args[-1])) * samples + out.numel()


def _deform_conv_backward(
    _: Any, grad: Any, x: Any, weight: Any, offset: Any, mask: Any, bias: Any, *args: Any, **__: Any
) -> Work:
    macs, samples = _macs_and_samples(grad, x, weight)
    return 2 * macs, 4 * macs + (_SAMPLE + _SAMPLE_BACKWARD + 3 * bool(args[-1])) * samples + grad.numel()


def _samples(ratio: int) -> int:
    if ratio <= 0:
        raise NoFormulaError("the number of samples depends on the regions' values")
    return ratio**2


def _roi_align(
    out: Any, /, x: Any, rois: Any, scale: float, height: int, width: int, ratio: int = -1, *_: Any, **__: Any
) -> Work:
    result = out if hasattr(out, "numel") else out[0]
    return 0, (_SAMPLE + 1) * _samples(ratio) * result.numel()


def _roi_align_backward(
    _: Any, grad: Any, rois: Any, scale: float, height: int, width: int, batch: int, channels: int, h: int, w: int,
    ratio: int, *__: Any, **___: Any,
) -> Work:  # fmt: skip
    return 0, (_SAMPLE + 1) * _samples(ratio) * grad.numel()


CHAPTER = Chapter(
    "Kernels of torchvision",
    "`roi_align` without a `sampling_ratio`, and `roi_pool`, take a number of samples that depends on the regions' "
    "values, so they are not counted.  `nms` only selects, and counts 0.",
    (
        Rule(("torchvision::deform_conv2d",), _deform_conv, "output elements x (C_in / groups x kernel)",
             "2 MACs + 7 a sample (C_in x kernel a position), 1 more with a mask, + 1 an output element for the bias",
             "as `convolution`, and bilinear samples"),
        Rule(("torchvision::_deform_conv2d_backward",), _deform_conv_backward, "2 x the forward",
             "2 MACs + 23 a sample (computed again), 3 more with a mask, + 1 an element of the output's gradient",
             "as `convolution_backward`, and bilinear samples"),
        Rule(("torchvision::roi_align", "torchvision::ps_roi_align"), _roi_align, "0",
             "8 a sample, `sampling_ratio`^2 of each output element"),
        Rule(("torchvision::_roi_align_backward",), _roi_align_backward, "0",
             "8 a sample, `sampling_ratio`^2 of each element of the output's gradient"),
    ),
)  # fmt: skip
