"""torch's primitives (prims), into which decompositions expand."""

from __future__ import annotations

from distprof.flops.formulas.linalg import CHAPTER as LINALG
from distprof.flops.formulas.pointwise import sum_of_input
from distprof.flops.formulas.rule import Chapter, Rule, per_input, per_output
from distprof.flops.formulas.sampling import FOURIER

_POINTWISE = (
    "abs", "acos", "acosh", "add", "asin", "asinh", "atan", "atan2", "atanh", "bessel_i0", "bessel_i0e", "bessel_i1",
    "bessel_i1e", "bessel_j0", "bessel_j1", "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "cbrt", "ceil",
    "conj_physical", "cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv", "erfc", "erfcx", "exp", "exp2", "expm1",
    "floor", "fmax", "fmin", "fmod", "frexp", "gcd", "ge", "gt", "hypot", "igamma", "igammac", "isfinite", "le",
    "lgamma", "log", "log10", "log1p", "log2", "lt", "maximum", "minimum", "mul", "ndtri", "ne", "neg", "nextafter",
    "pow", "reciprocal", "remainder", "round", "rsqrt", "shift_left", "shift_right_arithmetic", "sign", "signbit",
    "sin", "sinh", "spherical_bessel_j0", "sqrt", "sub", "tan", "tanh", "trunc", "zeta",
)  # fmt: skip
#: Primitives that move, make or convert numbers, or return facts of tensors, as the aten ops of the same names.
ZERO_COST = (
    "as_strided", "as_strided_scatter", "broadcast_in_dim", "cat", "clone", "collapse", "collapse_view", "conj",
    "convert_element_type", "copy_strided", "copy_to", "device_put", "empty", "empty_permuted", "empty_strided", "fill",
    "full", "full_like", "imag", "iota", "item", "maximum_value", "minimum_value", "normal", "real", "reshape",
    "resize", "rev", "scalar_tensor", "split_dim", "squeeze", "transpose", "uniform", "view_of", "view_of_dtype",
    "where",
    "_make_token", "_sink_tokens", "slice", "inductor_seed", "inductor_seeds", "inductor_random", "inductor_randint",
)  # fmt: skip


def _prims(*names: str) -> tuple[str, ...]:
    return tuple(f"prims::{name}" for name in names)


def _rule_of(chapter: Chapter, name: str) -> Rule:
    return next(rule for rule in chapter.rules if name in rule.ops)


CHAPTER = Chapter(
    "Primitives",
    "Primitives that move, make or convert numbers count 0, as the aten ops of the same names.",
    (
        Rule(_prims(*_POINTWISE), per_output(1), "0", "1 an output element, 0 if the result is integers or booleans"),
        Rule(_prims("sum", "prod", "xor_sum"), sum_of_input, "0", "1 an input element"),
        Rule(_prims("amax", "amin"), per_input(1), "0", "1 an input element"),
        Rule(_prims("var"), per_input(4), "0", "4 an input element"),
        Rule(_prims("fft_c2c"), _rule_of(FOURIER, "_fft_c2c").formula, "0", "as `_fft_c2c`"),
        Rule(_prims("fft_r2c"), _rule_of(FOURIER, "_fft_r2c").formula, "0", "as `_fft_r2c`"),
        Rule(_prims("fft_c2r"), _rule_of(FOURIER, "_fft_c2r").formula, "0", "as `_fft_c2r`"),
        Rule(_prims("svd"), _rule_of(LINALG, "_linalg_svd").formula, "0", "as `_linalg_svd`"),
    ),
)
