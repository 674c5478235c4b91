"""Ops on sparse tensors count by stored elements, or not at all."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import torch
from support.work import counted, work
from torch import Tensor, nn

ROWS, INNER, COLUMNS = 6, 8, 3
DENSE = (torch.arange(ROWS * INNER).reshape(ROWS, INNER) % 5 == 0).float()  # an irregular number of stored elements
STORED = sum(1 for row in DENSE.tolist() for one in row if one)
LAYOUTS = [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc]


@pytest.fixture(autouse=True)
def ignore_beta_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def sparse(layout: torch.layout, dense: Tensor = DENSE) -> Tensor:
    return dense.to_sparse(layout=layout)


X, Y = torch.ones(INNER, COLUMNS), torch.ones(ROWS, COLUMNS)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("run", "macs", "more"),
    [
        (lambda a: a @ X, STORED * COLUMNS, 0),
        (lambda a: Y.t() @ a, STORED * COLUMNS, 0),
        (lambda a: torch.addmm(Y, a, X), STORED * COLUMNS, ROWS * COLUMNS),
        (lambda a: torch.addmm(Y, a, X, beta=0.5, alpha=2), STORED * COLUMNS, 3 * ROWS * COLUMNS),
        (lambda a: torch.sparse.mm(a, X), STORED * COLUMNS, 0),
        (lambda a: a @ X[:, 0], STORED, 0),
        (lambda a: a * 2, 0, STORED),
        (torch.relu, 0, STORED),
        (torch.sum, 0, STORED),
        (lambda a: torch.zeros(ROWS, INNER).add_(a), 0, STORED),
        (lambda a: torch.zeros(ROWS, INNER).add_(a, alpha=-0.1), 0, 2 * STORED),
    ],
)
def test_stored_elements_count(layout: torch.layout, run: Callable[[Tensor], object], macs: int, more: int) -> None:
    a = sparse(layout)
    try:
        run(a)
    except RuntimeError as error:
        pytest.skip(f"torch has no such op: {str(error)[:60]}")
    assert work(lambda: run(a)) == (macs, more)


def test_blocks_count_all_elements() -> None:
    a = DENSE.to_sparse_bsr((2, 2))
    stored = a.values().numel()
    assert stored > STORED
    assert work(lambda: a @ X) == (stored * COLUMNS, 0)


def test_ops_of_sparse_tensors_only() -> None:
    csr, coo = sparse(torch.sparse_csr), sparse(torch.sparse_coo)
    assert work(lambda: torch.sparse.softmax(coo, 1)) == (0, 5 * STORED)
    assert work(lambda: torch.sparse.sum(coo, 1)) == (0, STORED)
    assert work(lambda: torch.sparse.mm(csr, X, "sum")) == (STORED * COLUMNS, 0)
    assert work(lambda: torch.sparse.mm(csr, X, "amax")) == (0, 2 * STORED * COLUMNS)
    sampled = STORED * COLUMNS
    assert work(lambda: torch.sparse.sampled_addmm(csr, Y, X.t(), beta=0)) == (sampled, 0)
    assert work(lambda: torch.sparse.sampled_addmm(csr, Y, X.t())) == (sampled, STORED)
    batch = torch.stack([coo, coo])
    assert work(lambda: torch.bmm(batch, torch.ones(2, INNER, COLUMNS))) == (2 * STORED * COLUMNS, 0)


def test_coalesce() -> None:
    twice = torch.sparse_coo_tensor(torch.tensor([[0, 0, 2]]), torch.ones(3, 4), (5, 4))
    assert work(twice.coalesce) == (0, 4)


def test_product_of_two_sparse_matrices() -> None:
    a = sparse(torch.sparse_coo)
    mode = counted(lambda: a @ a.t())
    assert mode.uncounted == {"aten.mm": 1}
    assert not mode.flops


def test_ops_without_a_sparse_rule() -> None:
    a = sparse(torch.sparse_coo)
    mode = counted(
        lambda: (torch.ones(INNER, COLUMNS) @ torch.ones(COLUMNS, 1), a @ a.t(), Y.t() @ torch.ones(ROWS, 1))
    )
    assert mode.uncounted == {"aten.mm": 1}
    assert sum(mode.macs.values()) == INNER * COLUMNS + COLUMNS * ROWS


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_backward_of_a_sparse_product(layout: torch.layout) -> None:
    x = X.clone().requires_grad_()
    out = sparse(layout) @ x
    gradient = torch.ones_like(out)
    assert work(lambda: out.backward(gradient)) == (STORED * COLUMNS, 0)


TABLE, WIDTH = 50, 4
LOOKED_UP = torch.tensor([1, 2, 2, 7, 7, 7])


def step(optimizer: torch.optim.Optimizer, table: nn.Embedding) -> int:
    """Returns the flops of a second step."""
    for run in (optimizer.step, None):
        optimizer.zero_grad()
        table(LOOKED_UP).sum().backward()
        if run is not None:
            run()
    mode = counted(optimizer.step)
    assert not mode.uncounted
    return sum(mode.flops.values())


def test_update_by_a_sparse_gradient() -> None:
    table = nn.Embedding(TABLE, WIDTH, sparse=True)
    assert step(torch.optim.SGD(table.parameters(), lr=0.1), table) == 2 * len(LOOKED_UP) * WIDTH

    momentum = torch.optim.SGD(table.parameters(), lr=0.1, momentum=0.9)
    flops = step(momentum, table)
    kept = momentum.state[table.weight]["momentum_buffer"]._values().numel()
    assert flops == len(LOOKED_UP) * WIDTH + (1 + 2) * kept, "the old buffer; its sum with the gradient, the update"

    rows = len(Counter(LOOKED_UP.tolist()))
    coalesced, each, counter = len(LOOKED_UP) - rows, 7, 1
    adagrad = torch.optim.Adagrad(table.parameters(), lr=0.1)
    assert step(adagrad, table) == (coalesced + each * rows) * WIDTH + counter


def test_sparse_adam() -> None:
    table = nn.Embedding(TABLE, WIDTH, sparse=True)
    optimizer = torch.optim.SparseAdam(list(table.parameters()))
    table(LOOKED_UP).sum().backward()
    mode = counted(optimizer.step)
    assert not mode.uncounted
    assert 0 < sum(mode.flops.values()) <= 20 * len(LOOKED_UP) * WIDTH < TABLE * WIDTH * 20


@pytest.mark.parametrize(("mode", "each"), [("sum", 0), ("mean", 1)])
def test_sparse_gradient_of_a_bag(mode: str, each: int) -> None:
    out = nn.EmbeddingBag(TABLE, WIDTH, mode=mode, sparse=True)(LOOKED_UP[None])
    gradient = torch.ones_like(out)
    assert work(lambda: out.backward(gradient)) == (0, each * len(LOOKED_UP) * WIDTH)
