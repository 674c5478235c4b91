"""Softmax, normalizations and losses."""

from __future__ import annotations

from typing import Any

from distprof.flops.formulas.rule import Chapter, Formula, Rule, Work, numel, per_input, per_output

SOFTMAX = 5  # maximum, difference, exponential, sum, quotient
STANDARDIZED = 5  # mean, difference, square, sum, product with 1 / deviation
LAYER_NORM = STANDARDIZED + 2  # weight and bias
#: The standardized input again (2), its product with the gradient, two sums, subtraction of two scaled corrections (3),
#: a product with 1 / deviation.
_INPUT_GRADIENT = 9


def _one_if_given(operand: Any) -> int:
    return 0 if operand is None else 1


def _norm(standardized: int) -> Formula:
    """Makes the formula of a norm whose second argument is the normalized shape (layer norm, RMS norm)."""

    def formula(_: Any, x: Any, shape: Any, weight: Any = None, bias: Any = None, *__: Any, **___: Any) -> Work:
        affine = _one_if_given(weight) + (bias is not None and not isinstance(bias, float))  # RMS: bias is eps
        return 0, (standardized + affine) * numel(x)

    return formula


def _group_norm(_: Any, x: Any, weight: Any = None, bias: Any = None, *__: Any, **___: Any) -> Work:
    return 0, (STANDARDIZED + _one_if_given(weight) + _one_if_given(bias)) * numel(x)


def _batch_norm(_: Any, x: Any, weight: Any = None, bias: Any = None, *rest: Any, **__: Any) -> Work:
    """``rest``: running statistics, if any, then whether it trains, if the op has that argument."""
    trains = next((argument for argument in rest if isinstance(argument, bool)), True)
    return 0, ((STANDARDIZED if trains else 2) + _one_if_given(weight) + _one_if_given(bias)) * numel(x)


def _batch_norm_inference(_: Any, x: Any, weight: Any = None, bias: Any = None, *__: Any, **___: Any) -> Work:
    return _batch_norm(None, x, weight, bias, False)


def _backward(x: Any, weight: Any, mask: Any, input_gradient: int = _INPUT_GRADIENT) -> Work:
    wanted = [*mask, False]
    gradients = (input_gradient + _one_if_given(weight), 2, 1)  # of weight: product, sum; of bias: sum
    return 0, numel(x) * sum(flops for flops, is_wanted in zip(gradients, wanted, strict=False) if is_wanted)


def _layer_norm_backward(
    _: Any, grad: Any, x: Any, shape: Any, mean: Any, rstd: Any, weight: Any, bias: Any, mask: Any, **__: Any
) -> Work:
    return _backward(x, weight, mask)


def _rms_norm_backward(_: Any, grad: Any, x: Any, shape: Any, rstd: Any, weight: Any, mask: Any, **__: Any) -> Work:
    return _backward(x, weight, mask, 6)


def _group_norm_backward(_: Any, grad: Any, x: Any, mean: Any, rstd: Any, weight: Any, *rest: Any, **__: Any) -> Work:
    return _backward(x, weight, rest[-1])


def _batch_norm_backward(_: Any, grad: Any, x: Any, weight: Any, *rest: Any, **__: Any) -> Work:
    """``rest``: running and saved statistics, whether it trains, eps, the requested gradients."""
    *_, trains, _eps, mask = rest[:7]
    return _backward(x, weight, mask, _INPUT_GRADIENT if trains else 1)


def _cudnn_batch_norm_backward(_: Any, x: Any, grad: Any, weight: Any, *__: Any, **___: Any) -> Work:
    return _backward(x, weight, (True, True, True))


def _loss(flops: int) -> Formula:
    """Makes a formula of ``flops`` for each input element, and one more for the sum if the loss is one number."""

    def formula(out: Any, /, x: Any, *_: Any, **__: Any) -> Work:
        return 0, (flops + (out.dim() == 0 and x.dim() > 0)) * numel(x)

    return formula


def _targets(_: Any, x: Any, target: Any, *__: Any, **___: Any) -> Work:
    return 0, int(target.numel())


def _targets_backward(_: Any, grad: Any, x: Any, target: Any, *__: Any, **___: Any) -> Work:
    return 0, int(target.numel())


def _ctc(out: Any, /, *_: Any, **__: Any) -> Work:
    return 0, 7 * numel(out[1])


def _ctc_backward(_: Any, *args: Any, **__: Any) -> Work:
    return 0, 14 * numel(args[6])


SOFTMAXES = Chapter(
    "Softmax",
    "",
    (
        Rule(("_softmax", "_safe_softmax", "_log_softmax", "_masked_softmax"), per_output(SOFTMAX), "0",
             f"{SOFTMAX} an element: maximum, difference, exponential, sum, quotient (or difference)"),
        Rule(("_softmax_backward_data", "_log_softmax_backward_data", "_masked_softmax_backward"), per_output(4), "0",
             "4 an element: two products (or exponential and product), sum, difference"),
        Rule(("logsumexp", "logcumsumexp"), per_input(4), "0", "4 an input element"),
    ),
)  # fmt: skip

NORMS = Chapter(
    "Normalization",
    "",
    (
        Rule(("native_layer_norm",), _norm(STANDARDIZED), "0",
             "5 an element (mean, difference, square, sum, product), 1 more for a weight and 1 for a bias"),
        Rule(("native_group_norm",), _group_norm, "0", "as layer norm"),
        Rule(("_fused_rms_norm",), _norm(3), "0", "3 an element (square, sum, product), 1 more for a weight"),
        Rule(("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_functional",
              "_batch_norm_with_update", "cudnn_batch_norm", "miopen_batch_norm"), _batch_norm, "0",
             "training, as layer norm; evaluation, 2 an element, 1 more for a weight and 1 for a bias"),
        Rule(("_native_batch_norm_legit_no_training",), _batch_norm_inference, "0",
             "2 an element, 1 more for a weight and 1 for a bias"),
        Rule(("batch_norm_stats",), per_input(4), "0", "4 an element (mean, difference, square, sum)"),
        Rule(("batch_norm_elemt",), per_output(4), "0", "4 an element (difference, product, weight, bias)"),
        Rule(("native_layer_norm_backward",), _layer_norm_backward, "0",
             "an element: 9 for the gradient of the input and 1 more with a weight, 2 for the gradient of the weight, "
             "1 for that of the bias, each if requested"),
        Rule(("native_group_norm_backward",), _group_norm_backward, "0", "as layer norm's"),
        Rule(("_fused_rms_norm_backward",), _rms_norm_backward, "0",
             "an element: 6 for the gradient of the input and 1 more with a weight, 2 for the gradient of the weight"),
        Rule(("native_batch_norm_backward", "batch_norm_backward"), _batch_norm_backward, "0",
             "training, as layer norm's; evaluation, 1 for the gradient of the input and 1 more with a weight"),
        Rule(("cudnn_batch_norm_backward", "miopen_batch_norm_backward"), _cudnn_batch_norm_backward, "0",
             "as layer norm's, all three gradients"),
        Rule(("batch_norm_backward_reduce",), per_input(4), "0", "4 an element (two sums, difference, product)"),
        Rule(("batch_norm_backward_elemt",), per_output(6), "0", "6 an element"),
        Rule(("_weight_norm_interface",), per_output(3), "0", "3 an element (square, sum, product)"),
        Rule(("_weight_norm_interface_backward",), per_output(5), "0", "5 an element"),
        Rule(("renorm",), per_output(3), "0", "3 an element (square, sum, product)"),
    ),
)  # fmt: skip


def _pairs(_: Any, *args: Any, **__: Any) -> Work:
    """The scores [..., classes] are the first argument, or the second after a gradient."""
    scores = max(args[:2], key=lambda one: one.dim())
    return 0, 3 * numel(scores) * scores.shape[-1]


LOSSES = Chapter(
    "Losses",
    "Losses that torch composes of other ops are counted op by op.  A loss that is one number costs 1 more an element, "
    "for the sum.",
    (
        Rule(("mse_loss",), _loss(2), "0", "2 an element (difference, square)"),
        Rule(("smooth_l1_loss", "huber_loss", "soft_margin_loss"), _loss(4), "0", "4 an element"),
        Rule(("binary_cross_entropy",), _loss(7), "0",
             "7 an element (two logarithms, two differences, two products, sum)"),
        Rule(("binary_cross_entropy_with_logits",), _loss(7), "0", "7 an element"),
        Rule(("multi_margin_loss",), _loss(4), "0", "4 an element"),
        Rule(("multilabel_margin_loss_forward", "multilabel_margin_loss_backward"), _pairs, "0",
             "3 a pair of classes, of which at most one is a target (difference, comparison, sum)"),
        Rule(("nll_loss_forward", "nll_loss2d_forward"), _targets, "0", "1 a target, whose score is picked and summed"),
        Rule(("nll_loss_backward", "nll_loss2d_backward"), _targets_backward, "0", "1 a target"),
        Rule(("mse_loss_backward",), per_output(2), "0", "2 an element (difference, product)"),
        Rule(("smooth_l1_loss_backward", "huber_loss_backward"), per_output(3), "0", "3 an element"),
        Rule(("soft_margin_loss_backward", "multi_margin_loss_backward"), per_output(4), "0", "4 an element"),
        Rule(("binary_cross_entropy_backward",), per_output(5), "0",
             "5 an element (two differences, two products, quotient)"),
        Rule(("_ctc_loss",), _ctc, "0", "7 a cell of the forward table (a logsumexp of three, and a sum)"),
        Rule(("_ctc_loss_backward",), _ctc_backward, "0", "14 a cell of the forward table"),
    ),
)  # fmt: skip
