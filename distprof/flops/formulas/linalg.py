"""Factorizations and solvers of linear algebra: the leading terms in textbooks, for each matrix of a batch."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from distprof.flops.formulas.rule import Chapter, Formula, Rule, Work

_GOLUB = "Golub and Van Loan, Matrix Computations"
_LAPACK = "LAPACK Working Note 41, appendix C"


def _batch(a: Any) -> int:
    return prod(a.shape[:-2])


def _square(each: Callable[[int], int]) -> Formula:
    """Makes the formula of an op on square matrices; ``each`` returns the flops of one with n rows."""

    def formula(_: Any, a: Any, *__: Any, **___: Any) -> Work:
        return 0, _batch(a) * each(a.shape[-1])

    return formula


def _thirds(times: int) -> Formula:
    return _square(lambda n: times * n**3 // 3)


def _elimination_flops(m: int, n: int) -> int:
    """Returns the products and sums that eliminate the columns of an m x n matrix, one after the other."""
    k = min(m, n)
    return (6 * m * n * k - 3 * (m + n) * k**2 + 2 * k**3) // 3


def _lu(_: Any, a: Any, *__: Any, **___: Any) -> Work:
    return 0, _batch(a) * _elimination_flops(*a.shape[-2:])


def _solve(factors: int, matrix: int, right: int, each: int) -> Formula:
    """Makes a formula of ``factors`` / 3 x n^3, and ``each`` x n for each element of the right side.

    ``matrix`` and ``right`` are the positions of the matrix and of the right side.
    """

    def formula(_: Any, *args: Any, **__: Any) -> Work:
        a, b = args[matrix], args[right]
        n = a.shape[-1]
        return 0, _batch(a) * factors * n**3 // 3 + each * n * b.numel()

    return formula


def _q_flops(m: int, columns: int, k: int) -> int:
    """Returns the flops of making m x columns of Q from k reflections."""
    return 4 * m * columns * k - 2 * (m + columns) * k**2 + 4 * k**3 // 3


def _qr(_: Any, a: Any, mode: str = "reduced", *__: Any, **___: Any) -> Work:
    m, n = a.shape[-2:]
    k = min(m, n)
    columns = {"r": 0, "reduced": k, "complete": m}[mode]
    return 0, _batch(a) * (2 * _elimination_flops(m, n) + (_q_flops(m, columns, k) if columns else 0))


def _geqrf(_: Any, a: Any, *__: Any, **___: Any) -> Work:
    return 0, _batch(a) * 2 * _elimination_flops(*a.shape[-2:])


def _orgqr(_: Any, a: Any, tau: Any, *__: Any, **___: Any) -> Work:
    return 0, _batch(a) * _q_flops(a.shape[-2], a.shape[-1], tau.shape[-1])


def _eigh(_: Any, a: Any, uplo: str = "L", compute_v: bool = True, *__: Any, **___: Any) -> Work:
    return _square(lambda n: 9 * n**3 if compute_v else 4 * n**3 // 3)(None, a)


def _svd_flops(m: int, n: int, *, full: bool, vectors: bool) -> int:
    long, short = max(m, n), min(m, n)
    if not vectors:
        return 4 * long * short**2 - 4 * short**3 // 3
    return 4 * long**2 * short + 8 * long * short**2 + 9 * short**3 if full else 14 * long * short**2 + 8 * short**3


def _svd(_: Any, a: Any, full_matrices: bool = False, compute_uv: bool = True, *__: Any, **___: Any) -> Work:
    return 0, _batch(a) * _svd_flops(*a.shape[-2:], full=full_matrices, vectors=compute_uv)


def _pinv(_: Any, a: Any, *__: Any, **___: Any) -> Work:
    m, n = a.shape[-2:]
    return 0, _batch(a) * (_svd_flops(m, n, full=False, vectors=True) + 2 * m * n * min(m, n))


def _lstsq(_: Any, a: Any, b: Any, *__: Any, **___: Any) -> Work:
    m, n = a.shape[-2:]
    sides = b.numel() // max(b.shape[-2], 1)
    return 0, _batch(a) * 2 * _elimination_flops(m, n) + sides * (4 * m * n - 2 * n**2 + n**2)


CHAPTER = Chapter(
    "Linear algebra",
    "The flops are those of each matrix of a batch: n x n if it is square, else m x n with m >= n, and k right sides.  "
    "None of these is a MAC.  With complex numbers it is four times as much.",
    (
        Rule(("linalg_cholesky_ex", "cholesky", "linalg_ldl_factor_ex"), _thirds(1), "0", "n^3 / 3", _GOLUB),
        Rule(("linalg_lu_factor_ex", "linalg_lu"), _lu, "0", "m n^2 - n^3 / 3; for a square matrix 2 n^3 / 3", _GOLUB),
        Rule(("_linalg_det", "_linalg_slogdet", "cholesky_inverse"), _thirds(2), "0", "2 n^3 / 3", _LAPACK),
        Rule(("linalg_inv_ex",), _thirds(6), "0", "2 n^3", _LAPACK),
        Rule(("_linalg_solve_ex",), _solve(2, 0, 1, 2), "0", "2 n^3 / 3 + 2 n^2 k", _GOLUB),
        Rule(("linalg_solve_triangular",), _solve(0, 0, 1, 1), "0", "n^2 k", _GOLUB),
        Rule(("triangular_solve",), _solve(0, 1, 0, 1), "0", "n^2 k", _GOLUB),
        Rule(("cholesky_solve", "_cholesky_solve_helper"), _solve(0, 1, 0, 2), "0", "2 n^2 k", _GOLUB),
        Rule(("linalg_lu_solve", "linalg_ldl_solve"), _solve(0, 0, 2, 2), "0", "2 n^2 k", _GOLUB),
        Rule(("linalg_qr",), _qr, "0", "2 m n^2 - 2 n^3 / 3, and the same again for the columns of Q", _GOLUB),
        Rule(("geqrf",), _geqrf, "0", "2 m n^2 - 2 n^3 / 3", _GOLUB),
        Rule(("linalg_householder_product",), _orgqr, "0",
             "4 m n k - 2 (m + n) k^2 + 4 k^3 / 3, k reflections", _LAPACK),
        Rule(("_linalg_eigh",), _eigh, "0", "9 n^3, without vectors 4 n^3 / 3", _GOLUB),
        Rule(("linalg_eig",), _square(lambda n: 25 * n**3), "0", "25 n^3", _GOLUB),
        Rule(("linalg_eigvals", "_linalg_eigvals"), _square(lambda n: 10 * n**3), "0", "10 n^3", _GOLUB),
        Rule(("_linalg_svd",), _svd, "0",
             "14 m n^2 + 8 n^3; without vectors 4 m n^2 - 4 n^3 / 3, with all of them 4 m^2 n + 8 m n^2 + 9 n^3",
             _GOLUB),
        Rule(("linalg_pinv",), _pinv, "0", "as `_linalg_svd`, + 2 m n^2", "the ops into which it decomposes"),
        Rule(("linalg_lstsq",), _lstsq, "0", "2 m n^2 - 2 n^3 / 3 + (4 m n - n^2) k", _GOLUB),
    ),
)  # fmt: skip
