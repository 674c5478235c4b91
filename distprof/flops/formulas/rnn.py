"""Recurrent layers in fused kernels."""

from __future__ import annotations

from typing import Any

from distprof.flops.formulas.rule import Chapter, Rule, Work, per_output

_RELU, _TANH, _LSTM, _GRU = range(4)  # torch's rnn modes
_GATES = {_RELU: 1, _TANH: 1, _LSTM: 4, _GRU: 3}
#: Flops beside the gates' sums and functions.  LSTM: f c + i g, tanh c, its product with o.  GRU: r h, n + z (h - n).
_OF_STATE = {_RELU: 0, _TANH: 0, _LSTM: 5, _GRU: 4}


def _cell_flops(mode: int, hidden: int, has_biases: bool) -> int:
    """Returns the flops of one cell at one position, without its matrix products.

    A gate is a sum of two products, two biases and a function.
    """
    return hidden * (_GATES[mode] * (4 if has_biases else 2) + _OF_STATE[mode])


def _layer(x: Any, weights: tuple[Any, Any], mode: int, hidden: int, has_biases: bool, times: int = 1) -> Work:
    positions = x.numel() // x.shape[-1]
    macs = times * positions * sum(weight.numel() for weight in weights)
    return macs, 2 * macs + times * positions * _cell_flops(mode, hidden, has_biases)


def _mkldnn(
    _: Any, x: Any, w_input: Any, w_hidden: Any, b_input: Any, b_hidden: Any, hx: Any, cx: Any, reverse: bool,
    batch_sizes: Any, mode: int, hidden: int, layers: int, has_biases: bool, *__: Any, **___: Any,
) -> Work:  # fmt: skip
    return _layer(x, (w_input, w_hidden), mode, hidden, has_biases)


def _mkldnn_backward(
    _: Any, x: Any, w_input: Any, w_hidden: Any, b_input: Any, b_hidden: Any, hx: Any, cx: Any, out: Any, hy: Any,
    cy: Any, grad: Any, grad_hy: Any, grad_cy: Any, reverse: bool, mode: int, hidden: int, layers: int,
    has_biases: bool, *__: Any, **___: Any,
) -> Work:  # fmt: skip
    return _layer(x, (w_input, w_hidden), mode, hidden, has_biases, times=2)


def _stacked(x: Any, weights: Any, mode: int, hidden: int, times: int) -> Work:
    """Counts all layers and directions: each weight meets every position once.

    ``x`` is [.., .., input], or packed [positions, input].
    """
    positions = x.numel() // x.shape[-1]
    matrices = [weight for weight in weights if weight.dim() == 2]
    cells = sum(weight.shape[0] == _GATES[mode] * hidden for weight in matrices) // 2  # not projections
    macs = times * positions * sum(weight.numel() for weight in matrices)
    flops = cells * _cell_flops(mode, hidden, has_biases=len(weights) > len(matrices))
    return macs, 2 * macs + times * positions * flops


def _cudnn(
    _: Any,
    x: Any,
    weights: Any,
    stride: int,
    buffer: Any,
    hx: Any,
    cx: Any,
    mode: int,
    hidden: int,
    *__: Any,
    **___: Any,
) -> Work:
    return _stacked(x, weights, mode, hidden, 1)


def _miopen(
    _: Any, x: Any, weights: Any, stride: int, hx: Any, cx: Any, mode: int, hidden: int, *__: Any, **___: Any
) -> Work:
    return _stacked(x, weights, mode, hidden, 1)


def _cudnn_backward(
    _: Any, x: Any, weights: Any, stride: int, buffer: Any, hx: Any, cx: Any, out: Any, grad: Any, grad_hy: Any,
    grad_cy: Any, mode: int, hidden: int, *rest: Any, **__: Any,
) -> Work:  # fmt: skip
    """``rest`` ends with the requested gradients; that of the input is always computed, for the steps before."""
    return _stacked(x, weights, mode, hidden, 1 + bool(rest[-1][3]))


_FORWARD = (
    "G H (I + H) a position, layer and direction; P x H more with a projection",
    "2 MACs + per position, layer and direction: 4 G H (2 G H without biases), LSTM 5 H more, GRU 4 H more",
    "the equations of `nn.LSTM`, `nn.GRU`, `nn.RNN`",
)
_BACKWARD = (
    "2 x the forward: gradients of inputs and of weights (cuDNN, MIOpen: 1 x if no weight needs a gradient)",
    "2 x the forward",
    "the equations' derivatives",
)

CHAPTER = Chapter(
    "Recurrent layers",
    "I and H are the sizes of input and state, G the number of gates: RNN 1, LSTM 4, GRU 3.  Layers that torch "
    "composes of other ops (GRU and RNN on CPU) are counted op by op.",
    (
        Rule(("mkldnn_rnn_layer",), _mkldnn, *_FORWARD),
        Rule(("_cudnn_rnn",), _cudnn, *_FORWARD),
        Rule(("miopen_rnn",), _miopen, *_FORWARD),
        Rule(("mkldnn_rnn_layer_backward",), _mkldnn_backward, *_BACKWARD),
        Rule(("_cudnn_rnn_backward", "miopen_rnn_backward"), _cudnn_backward, *_BACKWARD),
        Rule(("_thnn_fused_lstm_cell",), per_output(21), "0", "21 an element of the state"),
        Rule(("_thnn_fused_gru_cell",), per_output(16), "0", "16 an element of the state"),
        Rule(
            ("_thnn_fused_lstm_cell_backward_impl", "_thnn_fused_gru_cell_backward"),
            per_output(10),
            "0",
            "10 an element of the gates' gradient",
        ),
    ),
)
