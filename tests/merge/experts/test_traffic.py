"""Traffic of tokens between ranks, from the choices of each rank's router."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.reports import report_of
from support.synthetic import WIDTH, Job, rank_records, shard_of

from distprof.merge.analyse import analyse
from distprof.merge.load.run import run_of_shards
from distprof.merge.report import ExpertTraffic
from distprof.records import FORWARD, ExpertLoad, ExpertRouting, Header, LayerRouting, Record


def choices(rank: int) -> list[int]:
    """Returns how often the router of a rank chooses each of four experts in a step."""
    return [10 * rank + expert + 1 for expert in range(4)]


def traffic(hosts: int = 1, **job: Any) -> ExpertTraffic | None:
    made = Job(**{"noise": 0, "experts": 4, "steps": 2, "layers": 2, **job})

    def changed(rank: int, record: Record) -> list[Record]:
        if isinstance(record, Header):
            return [replace(record, host=f"node{rank * hosts // made.world}")]
        if isinstance(record, ExpertLoad):
            return [ExpertRouting(record.iteration, (LayerRouting(0, np.array(choices(rank)), drops_known=True),))]
        return [record]

    ranks = range(made.world)
    shards = [shard_of(out for one in rank_records(made, rank) for out in changed(rank, one)) for rank in ranks]
    return analyse(run_of_shards(shards)).expert_traffic


def test_tokens_go_to_the_rank_of_their_expert() -> None:
    found = traffic(dp=2, ep=2)
    assert found is not None and found.ranks == (0, 1)
    assert found.tokens == ((1 + 2, 3 + 4), (11 + 12, 13 + 14))
    assert found.elsewhere_share == pytest.approx((7 + 23) / (10 + 50))
    assert found.token_bytes == 4 * WIDTH
    assert found.bytes == 4 * 4 * WIDTH * (7 + 23), "there and back, in forward and backward"
    assert found.other_host_share == 0


def test_tokens_stay_in_their_ep_group() -> None:
    """Ranks 0 and 1 are a group, and 2 and 3 another one."""
    found = traffic(dp=4, ep=2, hosts=2)
    assert found is not None
    assert np.array(found.tokens).tolist() == [[3, 7, 0, 0], [23, 27, 0, 0], [0, 0, 43, 47], [0, 0, 63, 67]]
    assert found.other_host_share == 0


def test_tokens_for_experts_of_other_hosts() -> None:
    found = traffic(dp=2, ep=2, hosts=2, mode=FORWARD)
    assert found is not None and found.other_host_share == found.elsewhere_share == 0.5
    assert found.bytes == 2 * 4 * WIDTH * 30, "nothing goes back in backward"


def test_nothing_is_sent_where_all_ranks_have_all_experts() -> None:
    assert traffic(dp=2) is None


def test_all_tokens_of_a_whole_run_arrive_at_their_experts() -> None:
    report = report_of(dp=4, ep=2, layers=4, experts=8, routes=True)
    assert [layer.dropped for layer in report.experts] == [0, 0] and not any(one.breach for one in report.experts)
    assert report.expert_traffic is not None
    sent = np.array(report.expert_traffic.tokens)
    hosted = sum(tokens or 0 for layer in report.experts for tokens in layer.tokens) / report.experts[0].steps
    assert sent.sum() == pytest.approx(hosted) and not sent[:2, 2:].any() and not sent[2:, :2].any()
