"""The page docs/MODELS.md: the counts, in tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from importlib.metadata import version

import torch

from distprof.merge.report import ModuleStats, Report
from models import deepspeed_counts, distprof_counts
from models.differences import differences
from models.parts import PARTS, Part
from models.shapes import BERT_LARGE, EXPERTS, MIXTURES, MODELS, Shape

MADE_WITH = ("torch", "transformers", "deepspeed")
HEAD = """\
# The work of known models

`make docs` counts these models and writes this page; a test counts them again. Made with {versions}.

Parameters, MACs and flops are those of one forward, by the conventions of [FLOPS.md](FLOPS.md). MACs are exact: they
are what a calculation by hand gives. Flops depend on conventions, so the last column names every op in which
distprof's and DeepSpeed's differ, and by how much; the figures of a line add up to the difference.
"""
MODELS_TEXT = """\
Counted on the meta device, where nothing runs, in evaluation mode, attention eager. `examples/` has the first nine,
with random weights: `vision.py`, `bert.py`, `gpt2.py` and `t5.py` print their whole profiles. The others are
transformers' configs, the mixtures with `grouped_mm` experts.

DeepSpeed's figures are those of `get_model_profile` of the installed DeepSpeed, with one correction: on meta it counts
every Linear with a bias twice, because torch's meta kernels call functions that it has patched. The corrected figures
are those that it gives where the model runs.
"""
NOTES = """\
What DeepSpeed does not see at all: `tanh`; sums and products written with `+` and `*`; `mean`, `pow` and `rsqrt`, of
which root mean square norms are made; activations that a model imported before the profile began (`gelu`); and
`_grouped_mm`, that is, all experts of a mixture. Where both count, distprof has 5 flops an element of a softmax
(DeepSpeed: 1), 7 of a layer norm and 4 of a batch norm with weight and bias (5 and 2), every element of a pooling
window (1 an input element), and the bias of a Linear (none).
"""
PARTS_TEXT = """\
Run on CPU, forward and backward, every input with a gradient; 2 x MACs is what torch's FlopCounterMode calls flops. It
knows no kernel of CPU attention and none of recurrent layers, and counts the weight's gradient of a grouped convolution
`groups` times.
"""
EXPERTS_TEXT = """\
Small mixtures (2 layers, 8 experts, 2 of them a token, 2 x 16 tokens), run on CPU: whichever way transformers computes
the experts, the work is the same.
"""


def page() -> str:
    versions = ", ".join(f"{name} {version(name).partition('+')[0]}" for name in MADE_WITH)
    blocks = (_models(), _parts(), _experts())
    return "\n".join([HEAD.format(versions=versions), *(line for block in blocks for line in block)])


def _models() -> Iterator[str]:
    yield f"## Models\n\n{MODELS_TEXT}"
    yield from _table(
        "model", "input", "params", "MACs", "flops", "DeepSpeed's flops", "distprof's less DeepSpeed's, by op"
    )
    large: Report | None = None
    for shape in MODELS:
        report, counted = count(shape)
        large = report if shape.title == BERT_LARGE else large
        model = report.modules[0]
        yield _row(shape.title, shape.given, model.params, model.macs, *_compared(report, counted))
    yield f"\n{NOTES}"
    assert large is not None
    yield f"{_inside(large)}\n"


def count(shape: Shape) -> tuple[Report, deepspeed_counts.Counted]:
    """Returns the counts of distprof and of DeepSpeed, on the meta device."""
    with torch.device("meta"):
        model, inputs = shape.make().eval(), shape.inputs()
    with torch.no_grad():
        return distprof_counts.count(model, partial(model, **inputs)), deepspeed_counts.count(model, inputs)


def _inside(large: Report) -> str:
    encoder = _module(large, "encoder")
    layer = _module(large, "encoder.layer.0")
    inside = (module for module in large.modules if module.name.startswith(f"{layer.name}."))
    linears = sum(_macs(module) for module in inside if module.class_name == "Linear")
    return (
        f"Inside of {BERT_LARGE}: its encoder has {_macs(encoder):,} MACs; one of the {len(_layers(large))} layers\n"
        f"has {_macs(layer):,}, of which {linears:,} are in its six Linears, and the rest is attention."
    )


def _layers(report: Report) -> list[ModuleStats]:
    return [module for module in report.modules if module.class_name == "BertLayer"]


def _module(report: Report, name: str) -> ModuleStats:
    return next(module for module in report.modules if module.name == name)


def _macs(module: ModuleStats) -> int:
    return round(module.macs or 0)


def _parts() -> Iterator[str]:
    yield f"## Parts\n\n{PARTS_TEXT}"
    yield from _table(
        "module", "input", "params", "2 x MACs, forward", "2 x MACs, backward", "torch's counter, both",
        "flops, forward", "DeepSpeed's flops", "distprof's less DeepSpeed's, by op",
    )  # fmt: skip
    for part in PARTS:
        yield _part(part)
    yield ""


def _part(part: Part) -> str:
    torch.manual_seed(0)
    module, inputs = part.make(), list(part.inputs())

    def train() -> None:
        module(*inputs).sum().backward()

    report = distprof_counts.count(module, train)
    stats = report.modules[0]
    products = (2 * (stats.macs or 0), 2 * (stats.bwd_macs or 0), deepspeed_counts.count_by_torch(train))
    return _row(
        part.title, part.given, stats.params, *products, *_compared(report, deepspeed_counts.count(module, inputs))
    )


def _experts() -> Iterator[str]:
    yield f"## Experts\n\n{EXPERTS_TEXT}"
    yield from _table("model", "experts", "MACs", "flops")
    for title, make in MIXTURES.items():
        for how in EXPERTS:
            torch.manual_seed(0)
            model = make(how).eval()
            with torch.no_grad():
                stats = distprof_counts.count(model, partial(model, torch.arange(32).view(2, 16))).modules[0]
            yield _row(title, f"`{how}`", stats.macs, stats.flops)
    yield ""


def _compared(report: Report, counted: deepspeed_counts.Counted) -> tuple[float | str, ...]:
    """Returns the flops of both and the ops that differ.  Raises ValueError if these do not explain all of it."""
    flops = round(report.modules[0].flops or 0)
    by_op = differences((op for op in report.ops if op.kind == "forward"), counted)
    if sum(by_op.values()) != flops - counted.flops.total():
        raise ValueError(f"{flops} less {counted.flops.total()} is not what its ops make: {by_op}")
    return flops, counted.flops.total(), ", ".join(f"{number:+,} {name}" for name, number in by_op.items()) or "none"


def _table(*head: str) -> Iterable[str]:
    numbers = ("params", "MACs", "flops", "counter")
    ruler = ("---:" if any(word in title for word in numbers) and "by op" not in title else "---" for title in head)
    return _row(*head), f"|{'|'.join(ruler)}|"


def _row(*cells: float | str | None) -> str:
    return f"| {' | '.join(cell if isinstance(cell, str) else f'{round(cell or 0):,}' for cell in cells)} |"
