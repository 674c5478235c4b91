"""Work on complex numbers equals the same work written out with real numbers."""

from __future__ import annotations

import pytest
import torch
from support.work import Run, work
from torch import Tensor, nn

M, K, N = 3, 4, 5


def ones(*shape: int, dtype: torch.dtype = torch.complex64) -> Tensor:
    return torch.ones(shape, dtype=dtype)


A, B, X = ones(M, K), ones(K, N), ones(M, N)
R = torch.ones(M, N)


class Pair:
    """A complex tensor as two real ones, with textbook arithmetic."""

    def __init__(self, *shape: int) -> None:
        self.re, self.im = torch.ones(shape), torch.ones(shape)


P, Q = Pair(M, N), Pair(M, N)
C, D = Pair(M, K), Pair(K, N)


@pytest.mark.parametrize(
    ("run", "by_hand"),
    [
        (lambda: X + X, lambda: (P.re + Q.re, P.im + Q.im)),
        (lambda: X - X, lambda: (P.re - Q.re, P.im - Q.im)),
        (lambda: torch.add(X, X, alpha=2), lambda: (torch.add(P.re, Q.re, alpha=2), torch.add(P.im, Q.im, alpha=2))),
        (lambda: -X, lambda: (-P.re, -P.im)),
        (lambda: X * X, lambda: (P.re * Q.re - P.im * Q.im, P.re * Q.im + P.im * Q.re)),
        (lambda: X * 2.0, lambda: (P.re * 2.0, P.im * 2.0)),
        (lambda: X * R, lambda: (P.re * R, P.im * R)),
        (lambda: R * X, lambda: (P.re * R, P.im * R)),
        (lambda: X / 2.0, lambda: (P.re / 2.0, P.im / 2.0)),
        (lambda: X.clone().mul_(2j), lambda: (P.re * Q.re - P.im * Q.im, P.re * Q.im + P.im * Q.re)),
        (X.abs, lambda: torch.sqrt(P.re * P.re + P.im * P.im)),
        (X.sum, lambda: (P.re.sum(), P.im.sum())),
        (X.conj, lambda: None),
        (lambda: torch.view_as_real(X), lambda: None),
        (lambda: torch.complex(R, R), lambda: None),
        (lambda: torch.polar(R, R), lambda: (R * R.cos(), R * R.sin())),
        (lambda: torch._foreach_add([X], [X]), lambda: (P.re + Q.re, P.im + Q.im)),
        (lambda: torch._foreach_mul([X], 2.0), lambda: (P.re * 2, P.im * 2)),
    ],
)  # fmt: skip
def test_element_by_element(run: Run, by_hand: Run) -> None:
    assert work(run) == work(by_hand)


def quotient() -> None:
    scale = Q.re * Q.re + Q.im * Q.im
    (P.re * Q.re + P.im * Q.im) / scale, (P.im * Q.re - P.re * Q.im) / scale


def test_quotient() -> None:
    assert work(lambda: X / X) == work(quotient) == (0, 11 * M * N)


@pytest.mark.parametrize(
    ("run", "products", "more"),
    [
        (lambda: A @ B, M * K * N, 0),
        (lambda: torch.addmm(X, A, B), M * K * N, 2 * M * N),
        (lambda: torch.bmm(A[None], B[None]), M * K * N, 0),
        (lambda: A @ B[:, 0], M * K, 0),
        (lambda: torch.dot(B[:, 0], B[:, 0]), K, 0),
        (lambda: torch.vdot(B[:, 0], B[:, 0]), K, 0),
        (lambda: nn.functional.linear(A, B.t().contiguous(), X[0]), M * K * N, 2 * M * N),
        (lambda: torch.einsum("ij,jk->ik", A, B), M * K * N, 0),
    ],
)
def test_multiply_accumulate(run: Run, products: int, more: int) -> None:
    assert work(run) == (4 * products, more)


def test_matrix_product() -> None:
    """By hand, 2 more sums join the two halves of each number; in 4 MACs they are included."""
    macs, sums = work(lambda: (C.re @ D.re - C.im @ D.im, C.re @ D.im + C.im @ D.re))
    assert work(lambda: A @ B) == (macs, 0)
    assert sums == 2 * M * N


@pytest.mark.parametrize("backward", [False, True])
def test_convolution(backward: bool) -> None:
    """(a + bi)(c + di) = (ac - bd) + ((a + b)(c + d) - ac - bd)i."""
    inputs, outputs, size, kernel = 2, 3, 5, 3
    layer = nn.Conv2d(inputs, outputs, kernel, dtype=torch.complex64, bias=False)
    x = ones(1, inputs, size, size).requires_grad_()
    each = outputs * (size - kernel + 1) ** 2 * inputs * kernel**2
    assert each == 486
    out = layer(x)
    gradient = torch.ones_like(out)
    macs, _ = work(lambda: out.backward(gradient)) if backward else work(lambda: layer(x))
    assert macs == (2 if backward else 1) * 3 * each
    assert 3 * each <= 4 * each, "no more than by the textbook's formula"


def test_backward() -> None:
    a, b = A.clone().requires_grad_(), B.clone().requires_grad_()
    out = a @ b
    gradient = torch.ones_like(out)
    assert work(lambda: out.backward(gradient)) == (2 * 4 * M * K * N, 0)


def test_fourier_transform() -> None:
    size = 16
    assert work(lambda: torch.fft.fft(ones(size))) == (0, 5 * size * 4)


def test_rotary_embeddings() -> None:
    q, angles = torch.ones(2, 6, 8), torch.ones(6, 4)
    rotations = torch.polar(torch.ones_like(angles), angles)

    def in_complex() -> None:
        torch.view_as_real(torch.view_as_complex(q.view(2, 6, 4, 2)) * rotations).flatten(2)

    def in_real() -> None:
        one, other, cos, sin = q[..., ::2], q[..., 1::2], rotations.real, rotations.imag
        torch.stack([one * cos - other * sin, one * sin + other * cos], -1).flatten(2)

    assert work(in_complex) == work(in_real) == (0, 6 * q.numel() // 2)
