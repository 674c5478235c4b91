"""The Detailed and the Aggregated Profile: shares add up, and repeated layers are folded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from support.reports import report_of

from distprof.merge.report import ModuleStats, Report
from distprof.merge.text.deepspeed.aggregated import aggregated_profile
from distprof.merge.text.deepspeed.tree import detailed_profile

DENSE = {"dp": 2, "layers": 4, "experts": 0, "noise": 0.0}


@dataclass
class Node:
    """A module as it is printed."""

    indent: int
    title: str
    numbers: str
    times: int  # how many modules this line represents, with folding at all levels
    leaf: bool

    def share(self, what: str) -> float:
        found = re.search(rf"= ([\d.]+)% {what}", self.numbers)
        assert found, self.numbers
        return float(found[1])


def parsed(report: Report, depth: int | None = None) -> list[Node]:
    lines = list(detailed_profile(report, depth))
    return list(nodes_of(lines[max(i for i, line in enumerate(lines) if not line) + 1 :]))


def nodes_of(lines: list[str]) -> Iterator[Node]:
    times: dict[int, int] = {-2: 1}
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        found = re.match(r"( *)((?:\([^()]*\): )?(?:(\d+) x )?\w+)\((.*)$", line)
        if found:
            indent = len(found[1])
            times[indent] = times[indent - 2] * int(found[3] or 1)
            yield Node(indent, found[2], found[4] or after.strip(), times[indent], leaf=bool(found[4]))


def titles(report: Report, depth: int | None = None) -> list[str]:
    return [node.title for node in parsed(report, depth)]


def changed(report: Report, name: str, **values: Any) -> Report:
    modules = tuple(replace(m, **values) if m.name == name else m for m in report.modules)
    return replace(report, modules=modules)


def module(report: Report, name: str) -> ModuleStats:
    return next(m for m in report.modules if m.name == name)


def test_macs_of_leaves_add_up_to_the_model() -> None:
    leaves = [node for node in parsed(report_of(**DENSE)) if node.leaf]
    assert sum(node.times * node.share("MACs") for node in leaves) == pytest.approx(100, abs=0.2)


def test_params_of_pipeline_stages_add_up_to_the_model() -> None:
    nodes = parsed(report_of(dp=2, pp=2, layers=8, experts=0))
    assert sum(node.times * node.share("Params") for node in nodes if node.leaf) == pytest.approx(100, abs=0.4)


def test_roots_add_up_to_100_percent() -> None:
    roots = [node for node in parsed(report_of(**DENSE)) if node.indent == 0]
    for what in ("Params", "MACs", "latency"):
        assert sum(node.share(what) for node in roots) == pytest.approx(100)


def test_equal_neighbours_are_folded() -> None:
    nodes = {node.title: node for node in parsed(report_of(**DENSE))}
    assert nodes["(0-3): 4 x Block"].times == 4
    assert sum("attn" in title for title in nodes) == 1


def test_latency_of_folded_layers_is_their_mean() -> None:
    report = changed(report_of(**DENSE), "blocks.2", forward_ns=9_000_000.0)
    others = [module(report, f"blocks.{number}").forward_ns or 0 for number in (0, 1, 3)]
    node = next(node for node in parsed(report) if node.title == "(0-3): 4 x Block")
    assert f"{round((sum(others) + 9_000_000) / 4e6, 2):g} ms" in node.numbers


def test_latency_inside_folded_layers_is_a_mean() -> None:
    report = changed(report_of(**DENSE), "blocks.3.attn.qkv", forward_ns=8_400_000.0)
    node = next(node for node in parsed(report) if node.title == "(qkv): Linear")
    assert node.numbers.split(", ")[2].startswith("2.4 ms = "), "three of 0.4 ms and one of 8.4 ms"


@pytest.mark.parametrize(
    "values", [{"self_macs": 7.0}, {"calls": 7.0}, {"params": 7.0}, {"extra_repr": "7"}, {"class_name": "Other"}]
)
def test_layers_that_differ_are_not_folded(values: dict[str, object]) -> None:
    found = titles(changed(report_of(**DENSE), "blocks.1.attn.proj", **values))
    assert [title for title in found if title.endswith("Block")] == ["(0, 2-3): 3 x Block", "(1): Block"]


def test_alternating_layers_are_folded() -> None:
    """A long model has as many lines as a short one; every second block is a mixture of experts."""
    short, long = (parsed(report_of(dp=2, layers=layers, noise=0.0)) for layers in (4, 188))
    assert len(long) == len(short) < 40, "a model of 94 layers with experts"
    assert [node.title for node in long if node.title.endswith("Block")] == [
        "(0, 2, ..., 186): 94 x Block",
        "(1, 3, ..., 187): 94 x Block",
    ]
    assert sum(node.times * node.share("Params") for node in long if node.leaf) == pytest.approx(100, abs=3)


def test_experts_are_folded_although_their_tokens_differ() -> None:
    report = report_of(dp=2, layers=2, noise=0.0)
    expert = module(report, "blocks.1.moe.experts.2.up")
    hot = changed(report, "blocks.1.moe.experts.2.up", macs=4 * (expert.macs or 0), self_macs=9.0, calls=3.0)
    nodes = parsed(hot)
    (experts,) = [node for node in nodes if node.title == "(0-3): 4 x MLP"]
    mean = (3 + 4) / 4 * (expert.macs or 0)
    up = nodes[nodes.index(experts) + 1]
    assert up.title == "(up): Linear" and f"{round(mean / 1e6, 2):g} MMACs" in up.numbers, "the mean of four experts"


def test_a_number_of_thousands_of_digits_is_a_name() -> None:
    report = report_of(**DENSE)
    modules = [replace(m, name=m.name.replace("blocks.1", "blocks." + "1" * 5000)) for m in report.modules]
    assert "(" + "1" * 5000 + "): Block" in titles(replace(report, modules=tuple(modules)))


def test_layers_without_successive_numbers_are_not_folded() -> None:
    report = report_of(dp=2, pp=2, layers=4, experts=0)
    report = replace(
        report,
        modules=tuple(replace(m, name=m.name.replace("blocks.1", "blocks.7")) for m in report.modules),
    )
    assert "(0): Block" in titles(report)
    assert "(7): Block" in titles(report)


def test_modules_on_some_ranks_are_marked() -> None:
    nodes = parsed(report_of(dp=2, pp=2, layers=4, experts=0))
    assert "on 2 of 4 ranks" in next(node for node in nodes if node.title == "(embed): Embedding").numbers


def test_a_module_in_a_wrapper_has_no_name() -> None:
    assert titles(report_of(**DENSE))[:2] == ["DistributedDataParallel", "GPT"]


def test_depth_limits_the_tree() -> None:
    report = report_of(**DENSE)
    assert titles(report, depth=0) == ["DistributedDataParallel", "GPT"], "wrappers do not count as depth"
    assert titles(report, depth=1)[-3:] == ["(blocks): ModuleList", "(norm): LayerNorm", "(head): Linear"]
    blocks = next(node for node in parsed(report, depth=1) if node.title == "(blocks): ModuleList")
    inside = sum(m.name.startswith("blocks.") for m in report.modules)
    assert blocks.numbers.endswith(f"{inside} modules inside)")


def test_deep_nesting_is_printed() -> None:
    report = report_of(**DENSE)
    root = report.modules[0]
    chain = [replace(root, name="x" * level, parent=level - 1, depth=level, class_name="Deep") for level in range(3000)]
    lines = list(detailed_profile(replace(report, modules=tuple(chain)), None))
    assert sum("Deep(" in line for line in lines) == 3000


def test_aggregated_profile_has_every_depth() -> None:
    lines = list(aggregated_profile(report_of(**DENSE), None, 3))
    deepest = max(m.depth for m in report_of(**DENSE).modules) - 1  # the wrapper is no depth of the model
    assert [line for line in lines if line.startswith("depth")] == [f"depth {d}:" for d in range(deepest + 1)]
    assert lines[2:4] == ["depth 0:", "    params      - {'GPT': '261.76 K'}"]


def test_aggregated_profile_with_top_and_depth() -> None:
    lines = list(aggregated_profile(report_of(**DENSE), 1, 1))
    assert lines[1].startswith("Top 1 modules in terms of params, MACs or fwd latency at different model depths")
    assert lines[-3] == "    params      - {'ModuleList': '197.63 K'}"
    assert [line for line in lines if line.startswith("depth")] == ["depth 0:", "depth 1:"]


def test_aggregated_profile_sums_over_modules_of_a_class() -> None:
    report = report_of(**DENSE)
    attention = sum(m.macs or 0 for m in report.modules if m.class_name == "Attention")
    line = next(line for line in aggregated_profile(report, None, 9) if "MACs" in line and "Attention" in line)
    assert f"'Attention': '{round(attention / 1e6, 2):g} MMACs'" in line


def test_aggregated_profile_without_counts() -> None:
    lines = list(aggregated_profile(report_of(dp=2, counted=False), 0, 1))
    assert "    MACs        - n/a" in lines
