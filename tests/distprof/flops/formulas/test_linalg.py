"""Factorizations, compared with loops that run the textbook's algorithm and count."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from distprof.flops.attribution import Attribution
from distprof.flops.counter import FlopMode

aten = torch.ops.aten
N, SIDES = 60, 20
A = torch.eye(N) * N + torch.ones(N, N)


def flops(run: Callable[[], object]) -> int:
    with FlopMode(Attribution()) as mode:
        run()
    assert mode.error is None
    assert not mode.uncounted
    assert not mode.macs
    return sum(mode.flops.values())


def elimination_by_loops(m: int, n: int) -> int:
    """Counts by loops: each column subtracts a multiple of itself from all later ones."""
    return sum(2 * (m - i - 1) * (n - i - 1) for i in range(min(m, n)))


def about(found: int, expected: int) -> bool:
    """Whether the counts are equal except for terms of a lower order."""
    return abs(found - expected) <= 0.1 * expected


def test_lu_and_ops_that_use_it() -> None:
    lu, side = elimination_by_loops(N, N), 2 * sum(i for i in range(N)) * SIDES
    b = torch.ones(N, SIDES)
    assert about(flops(lambda: torch.linalg.lu_factor(A)), lu)
    assert about(flops(lambda: torch.linalg.lu_factor(torch.ones(N, 2 * N) + torch.eye(N, 2 * N))) - 2 * N * N,
                 elimination_by_loops(N, 2 * N))  # fmt: skip
    assert about(flops(lambda: torch.linalg.solve(A, b)), lu + 2 * side)
    assert about(flops(lambda: torch.linalg.solve_triangular(A, b, upper=True)), side)
    assert about(flops(lambda: torch.linalg.inv(A)), 2 * N**3)
    assert about(flops(lambda: torch.linalg.slogdet(A)), lu)


def test_cholesky() -> None:
    assert about(flops(lambda: torch.linalg.cholesky(A)), elimination_by_loops(N, N) // 2)
    factor = torch.linalg.cholesky(A)
    assert about(flops(lambda: torch.cholesky_solve(torch.ones(N, SIDES), factor)), 2 * N * N * SIDES)


def test_householder_reflections() -> None:
    """Each of k reflections is a product with a vector and an outer product: 4 an element of the remaining matrix."""
    m, n = 2 * N, N
    factored = sum(4 * (m - i) * (n - i) for i in range(n))
    tall = torch.rand(m, n)
    assert about(flops(lambda: torch.linalg.qr(tall, "r")), factored)
    assert about(flops(lambda: torch.linalg.qr(tall)), 2 * factored)
    assert about(flops(lambda: torch.geqrf(tall)), factored)


def test_values_without_vectors_and_batches() -> None:
    """Calls the ops, as torch's functions compute vectors, too, while a mode is on."""
    eigh, values = flops(lambda: torch.linalg.eigh(A)), flops(lambda: aten._linalg_eigh(A, "L", False))
    assert (eigh, values) == (9 * N**3, 4 * N**3 // 3)
    svd, singular = (
        flops(lambda: torch.linalg.svd(A, full_matrices=False)),
        flops(lambda: aten._linalg_svd(A, False, False)),
    )
    assert (svd, singular) == (22 * N**3, 4 * N**3 - 4 * N**3 // 3)
    batch = A.expand(3, N, N)
    assert flops(lambda: torch.linalg.eigh(batch)) == 3 * eigh
    assert flops(lambda: torch.linalg.eigh(A.to(torch.complex64))) == 4 * eigh


@pytest.mark.parametrize("run", [torch.linalg.pinv, torch.linalg.eigvals, torch.linalg.eig, torch.linalg.det,
                                 lambda a: torch.linalg.lstsq(a, a), torch.linalg.cond, torch.linalg.matrix_rank,
                                 torch.linalg.ldl_factor])  # fmt: skip
def test_all_are_counted(run: Callable[[Tensor], object]) -> None:
    assert flops(lambda: run(A)) >= N**3 // 3
