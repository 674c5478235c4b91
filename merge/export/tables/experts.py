"""The table of experts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from distprof.merge.export.tables.table import Maker, RowTable
from distprof.merge.report import ExpertLayerStats, Report


class _Expert(NamedTuple):
    layer: ExpertLayerStats
    number: int
    mean: float | None  # of the tokens of the layer's experts; None where one is not known, or all are 0

    @property
    def tokens(self) -> int | None:
        return self.layer.tokens[self.number]

    @property
    def over_mean(self) -> float | None:
        return None if self.tokens is None or self.mean is None else self.tokens / self.mean


def _rows(report: Report) -> Iterator[_Expert]:
    for layer in report.experts:
        known = [tokens for tokens in layer.tokens if tokens is not None]
        mean = sum(known) / len(known) if any(known) and len(known) == len(layer.tokens) else None
        for number in range(layer.num_experts):
            yield _Expert(layer, number, mean)


def _hosts(row: _Expert) -> tuple[int, ...]:
    return row.layer.expert_ranks[row.number]


def _item(values: tuple[int, ...], number: int) -> int | None:
    return values[number] if values else None


def _times_hottest(row: _Expert) -> int | None:
    batches = row.layer.micro_batches
    return batches.times_hottest[row.number] if batches is not None else None


def _padding_share(row: _Expert) -> float | None:
    counted = row.layer.counted
    return counted.padding_shares[row.number] if counted is not None and counted.padding_shares else None


EXPERTS: RowTable[_Expert] = RowTable(
    "experts",
    "one expert of one MoE layer, over all ranks and timed iterations",
    _rows,
    (
        Maker("layer", "name of the MoE layer", lambda row: row.layer.name),
        Maker("expert", "number of the expert in the layer", lambda row: row.number),
        Maker("ranks", "ranks that host it, with spaces between", lambda row: " ".join(map(str, _hosts(row)))),
        Maker("steps", "timed iterations of the load", lambda row: row.layer.steps),
        Maker("tokens", "tokens that it processed in all of these"),
        Maker("tokens_over_mean", "tokens / mean of the layer's experts", lambda row: row.over_mean),
        Maker("routed_tokens", "tokens that routers chose it for", lambda row: _item(row.layer.routed, row.number)),
        Maker("padding_share", "of its tokens in the counted iteration, those that are padding", _padding_share),
        Maker("capacity", "choices of it that ranks can keep in all timed iterations", lambda row: row.layer.capacity),
        Maker("times_hottest", "single micro-batches in which it had most tokens", _times_hottest),
        Maker(
            "micro_batch_max_over_mean",
            "largest / mean load of the layer's experts, in the median micro-batch",
            lambda row: None if row.layer.micro_batches is None else row.layer.micro_batches.max_over_mean,
        ),
        Maker("dead", "whether it got no token", lambda row: row.number in row.layer.dead),
    ),
)
