"""The estimated work of ops without a formula, which orders them in the report."""

from __future__ import annotations

import torch

from distprof.flops.attribution import Attribution
from distprof.flops.counter import FlopMode
from distprof.flops.likely_work import likely_work


def test_matrix_product() -> None:
    m, k, n = 6, 20, 10
    assert likely_work((torch.ones(m, k), torch.ones(k, n)), {}, torch.ones(m, n)) == m * k * n
    x, weight, out = torch.ones(2, 4, 9, 9), torch.ones(6, 4, 3, 3), torch.ones(2, 6, 9, 9)
    assert likely_work((x,), {"weight": weight}, out) == out.numel() * 4 * 9 // 3, "divided by the kernel's side"


def test_element_wise_op() -> None:
    x = torch.ones(6, 20)
    assert likely_work((x, x), {}, x) == likely_work((x,), {}, torch.ones(())) == 120
    assert likely_work((x.long(), x > 0), {}, x.long()) == 0
    assert likely_work((1, [x, None], "mode"), {}, None) == 120


def test_ordered_by_work_not_by_calls() -> None:
    small, large = torch.eye(2), torch.eye(64)
    with FlopMode(Attribution()) as mode:
        torch.linalg.matrix_exp(large)
        for _ in range(5):
            torch.ops.aten._compute_linear_combination(small[None].expand(1, 2, 2), torch.ones(1, 1))
    assert mode.uncounted == {"aten.linalg_matrix_exp": 1, "aten._compute_linear_combination": 5}
    assert max(mode.uncounted_work, key=lambda name: mode.uncounted_work[name]) == "aten.linalg_matrix_exp"
