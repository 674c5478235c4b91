"""Pooling, upsampling, grid sampling, and Fourier transforms."""

from __future__ import annotations

from math import log2, prod
from typing import Any

from distprof.flops.formulas.rule import Chapter, Formula, Rule, Work, numel, per_input, per_output


def _window_size(kernel: Any, dims: int) -> int:
    sizes = [kernel] if isinstance(kernel, int) else list(kernel)
    return prod(sizes * dims if len(sizes) == 1 else sizes)


def _pool(dims: int) -> Formula:
    def formula(out: Any, /, x: Any, kernel: Any, *_: Any, **__: Any) -> Work:
        return 0, numel(out if not isinstance(out, tuple) else out[0]) * _window_size(kernel, dims)

    return formula


def _average_backward(dims: int) -> Formula:
    def formula(_: Any, grad: Any, x: Any, kernel: Any, *__: Any, **___: Any) -> Work:
        return 0, numel(grad) * _window_size(kernel, dims)

    return formula


def _grid_sample(out: Any, /, x: Any, grid: Any, mode: int = 0, *_: Any, **__: Any) -> Work:
    """``mode`` 0 is linear in 2 or 3 dimensions, 1 nearest, 2 cubic."""
    taps = {0: 2 ** grid.shape[-1], 1: 0, 2: 16}[mode]
    return 0, numel(out) * max(2 * taps - 1, 0)


def _grid_sample_backward(_: Any, grad: Any, x: Any, grid: Any, mode: int = 0, *__: Any, **___: Any) -> Work:
    taps = {0: 2 ** grid.shape[-1], 1: 0, 2: 16}[mode]
    return 0, numel(grad) * max(2 * (2 * taps), 1)


def _fourier(flops: float, of_result: bool) -> Formula:
    """Makes a formula of ``flops`` x N log2 N, over the transformed dimensions of the argument or of the result."""

    def formula(out: Any, /, x: Any, dim: Any, *_: Any, **__: Any) -> Work:
        whole = out if of_result else x
        return 0, round(flops * whole.numel() * log2(max(prod(whole.shape[d] for d in dim), 1)))

    return formula


POOLING = Chapter(
    "Pooling and resampling",
    "",
    (
        *(
            Rule(ops, _pool(dims), "0", "1 for each element of the window of each output element (comparison or sum)")
            for dims, ops in (
                (1, ("avg_pool1d",)),
                (2, ("avg_pool2d", "max_pool2d_with_indices", "fractional_max_pool2d", "mkldnn_max_pool2d")),
                (3, ("avg_pool3d", "max_pool3d_with_indices", "fractional_max_pool3d", "mkldnn_max_pool3d")),
            )
        ),
        *(
            Rule((f"avg_pool{dims}d_backward",), _average_backward(dims), "0",
                 "1 for each element of the window of each element of the output's gradient")
            for dims in (2, 3)
        ),
        Rule(("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool2d", "adaptive_max_pool3d",
              "mkldnn_adaptive_avg_pool2d"),
             per_input(1), "0", "1 an input element"),
        Rule(("_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward",
              "mkldnn_adaptive_avg_pool2d_backward"), per_output(1), "0",
             "1 an element of the input's gradient"),
        Rule(("mkldnn_max_pool2d_backward", "mkldnn_max_pool3d_backward",
              "max_pool2d_with_indices_backward", "max_pool3d_with_indices_backward",
              "adaptive_max_pool2d_backward",
              "adaptive_max_pool3d_backward", "fractional_max_pool2d_backward", "fractional_max_pool3d_backward",
              "upsample_nearest1d_backward", "upsample_nearest2d_backward", "upsample_nearest3d_backward",
              "_upsample_nearest_exact1d_backward", "_upsample_nearest_exact2d_backward",
              "_upsample_nearest_exact3d_backward",
              "reflection_pad1d_backward", "reflection_pad2d_backward", "reflection_pad3d_backward",
              "replication_pad1d_backward", "replication_pad2d_backward", "replication_pad3d_backward"),
             per_input(1), "0", "1 an element of the output's gradient, which is added to the input's gradient"),
        *(
            Rule(ops, per_output(2 * taps - 1), "0", f"{2 * taps - 1} an output element: {taps} products and their sum")
            for taps, ops in (
                (2, ("upsample_linear1d",)),
                (4, ("upsample_bilinear2d", "_upsample_bilinear2d_aa")),
                (8, ("upsample_trilinear3d",)),
                (16, ("upsample_bicubic2d", "_upsample_bicubic2d_aa")),
            )
        ),
        *(
            Rule((f"{op}_backward",), per_input(2 * taps), "0",
                 f"{2 * taps} an element of the output's gradient: {taps} products, each added to the input's gradient")
            for taps, op in ((2, "upsample_linear1d"), (4, "upsample_bilinear2d"), (8, "upsample_trilinear3d"),
                             (16, "upsample_bicubic2d"), (4, "_upsample_bilinear2d_aa"), (16, "_upsample_bicubic2d_aa"))
        ),
        Rule(("grid_sampler_2d", "grid_sampler_3d", "cudnn_grid_sampler"), _grid_sample, "0",
             "an output element, as upsampling with as many taps"),
        Rule(("grid_sampler_2d_backward", "grid_sampler_3d_backward"), _grid_sample_backward, "0",
             "4 a tap and element of the output's gradient: for the gradients of input and grid"),
    ),
)  # fmt: skip

FOURIER = Chapter(
    "Fourier transforms",
    "N is the product of the transformed sizes.",
    (
        Rule(
            ("_fft_c2c",),
            _fourier(5, False),
            "0",
            "5 N log2 N a transform",
            "radix-2 Cooley-Tukey, as FFTW's benchmarks",
        ),
        Rule(("_fft_r2c",), _fourier(2.5, False), "0", "2.5 N log2 N a transform", "half of a complex one"),
        Rule(("_fft_c2r",), _fourier(2.5, True), "0", "2.5 N log2 N a transform", "half of a complex one"),
    ),
)
