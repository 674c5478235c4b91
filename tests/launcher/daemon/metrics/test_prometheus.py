"""Tests of the metrics with a real Prometheus, which scrapes a real run and answers the queries of the dashboard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.daemon.processes import daemon_pids, resident_kilobytes
from support.daemon.prometheus import Prometheus, require_prometheus, scraping
from support.scripts import NewWorkplace, Workplace, wait_for

EXAMPLES = Path(__file__).parents[4] / "examples" / "monitoring"
#: Two ranks of a language model with experts, which meet in each iteration; rank 1 takes longest.
TRAIN = """
import torch.distributed as dist
from torch.utils.data import DataLoader

class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(8, 2)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
    def forward(self, x):
        tokens = x.flatten(0, 1)
        chosen = torch.arange(len(tokens)) % 4 > 0
        picked = [tokens[~chosen], tokens[chosen]]
        return torch.cat([expert(some) for expert, some in zip(self.experts, picked)]) * self.gate(tokens).sum()

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(50, 8)
        self.layer = Layer()
    def forward(self, ids):
        return self.layer(self.words(ids)).sum()

dist.init_process_group("gloo")
model, rank = Model(), dist.get_rank()
optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
stop = torch.zeros(())
while not stop:
    for ids in DataLoader(torch.zeros(12, 16, dtype=torch.int64), batch_size=4):
        model(ids).backward()
        until = time.monotonic() + 0.05 * rank
        while time.monotonic() < until:
            pass
        stop.fill_(os.path.exists("stop"))
        dist.all_reduce(stop)
        optimizer.step()
        optimizer.zero_grad()
        if stop:
            break
dist.destroy_process_group()
"""
TIMED = 4


@pytest.fixture(scope="module")
def place(new_workplace: NewWorkplace) -> Iterator[Workplace]:
    """A running job with metrics over HTTP and in a file."""
    require_prometheus()
    place = new_workplace().forking()
    place.write("train.py", TRAIN)
    (place.folder / "textfile").mkdir()
    place.write("distprof.toml", "peak-tflops = 0.001\nmetrics = 0\n")
    started = place.start_run("--nproc", "2", "--metrics-textfile", "textfile", "train.py", timed=TIMED)
    yield place
    (place.folder / "stop").touch()
    assert started.wait().code == 0
    wait_for(lambda: not list((place.folder / "textfile").iterdir()))  # the daemon ends once no rank lives
    wait_for(lambda: not list((place.folder / "runs" / "x" / "nodes").glob("*.targets.json")))


def target(place: Workplace) -> str:
    folder = place.folder / "runs" / "x" / "nodes"
    wait_for(lambda: any(folder.glob("*.targets.json")))
    ((path,),) = [list(folder.glob("*.targets.json"))]
    ((found,),) = [one["targets"] for one in json.loads(path.read_text())]
    assert found.startswith("127.0.0.1:")
    return str(found)


@pytest.fixture(scope="module")
def server(place: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """The example's Prometheus, with the port of the run and a shorter interval."""
    config = (EXAMPLES / "prometheus.yml").read_text(encoding="utf-8")
    assert "localhost:9400" in config and "scrape_interval: 5s" in config
    config = config.replace("localhost:9400", target(place)).replace("scrape_interval: 5s", "scrape_interval: 1s")
    with scraping(config, tmp_path_factory.mktemp("prometheus")) as found:
        yield found


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((EXAMPLES / "grafana" / "distprof.json").read_text(encoding="utf-8"))
    return found


def test_each_query_of_the_dashboard_has_data(server: Prometheus) -> None:
    queries = [one["expr"] for panel in dashboard()["panels"] for one in panel["targets"]]
    assert len(queries) > 10
    for query in queries:
        filled = query.replace("$run", ".+").replace("$__rate_interval", "1m")
        assert "$" not in filled
        wait_for(lambda filled=filled: _is_answered(server, filled))  # type: ignore[misc]


def _is_answered(server: Prometheus, query: str) -> bool:
    found = server.query(query)
    return bool(found) and all(series["value"][1] not in ("NaN", "+Inf") for series in found)


def test_the_files_that_the_compose_file_mounts_are_there() -> None:
    """The compose file itself is not started: it needs images of a registry."""
    compose = (EXAMPLES / "compose.yaml").read_text(encoding="utf-8")
    mounted = re.findall(r"^ +- \./([^:]+):", compose, re.MULTILINE)
    assert len(mounted) == 4 and all((EXAMPLES / name).is_file() for name in mounted)


def test_the_values_are_those_of_the_job(server: Prometheus) -> None:
    wait_for(lambda: bool(server.query("distprof_mfu_ratio")))

    def by_rank(expression: str) -> dict[str, float]:
        return {one["metric"]["rank"]: float(one["value"][1]) for one in server.query(expression)}

    assert by_rank("distprof_rank_up") == {"0": 1, "1": 1}
    # 4 samples of 16 tokens in each iteration; of 64 tokens the second expert gets 48, and the mean is 32.
    assert by_rank("distprof_expert_tokens") == {"0": 64, "1": 64}
    assert by_rank("distprof_expert_overload_ratio") == {"0": 1.5, "1": 1.5}
    assert by_rank("distprof_tokens_per_second / distprof_samples_per_second") == {"0": 16, "1": 16}
    assert by_rank('distprof_phase_seconds{phase="data"} >= 0').keys() == {"0", "1"}
    assert all(0 < value < 1 for value in by_rank("distprof_mfu_ratio").values())
    wait_for(lambda: by_rank("distprof_straggler") == {"0": 0, "1": 1})
    assert by_rank("distprof_slowest_iterations / distprof_sampled_iterations")["1"] > 0.5
    waits = by_rank("distprof_collective_wait_ratio")
    assert waits["0"] > waits["1"]
    # All iterations but the few that were recorded took about as long as rank 1 computes.
    means = by_rank("distprof_iteration_seconds_sum / distprof_iteration_seconds_count")
    assert means.keys() == {"0", "1"} and all(value > 0.05 for value in means.values())
    (one,) = server.query('distprof_rank_info{rank="1"}')
    assert one["metric"]["run"] == "x" and one["metric"]["device"] == "cpu" and one["metric"]["place"] == "dp 1"
    assert "gpu_uuid" not in one["metric"]  # there is no GPU


def test_the_file_for_node_exporter_has_the_same_metrics(place: Workplace, server: Prometheus) -> None:
    folder = place.folder / "textfile"
    wait_for(lambda: any(folder.glob("*.prom")))
    (path,) = folder.glob("*.prom")
    wait_for(lambda: "distprof_mfu_ratio{" in path.read_text())
    served = {name for one in server.query('{__name__=~"distprof_.*"}') for name in [one["metric"]["__name__"]]}
    written = {line.partition("{")[0] for line in path.read_text().splitlines() if not line.startswith("#")}
    assert written == served


def test_the_daemon_stays_small_with_metrics(place: Workplace, server: Prometheus) -> None:
    wait_for(lambda: any(one["health"] == "up" for one in server.targets()))
    (pid,) = daemon_pids(place.folder / "runs" / "x")
    assert resident_kilobytes(pid) < 60 * 1024
    assert "torch" not in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
