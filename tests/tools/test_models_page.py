"""Tests docs/MODELS.md against the counts of distprof and DeepSpeed, and against known figures of the models."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from support.forking.server import forking_python
from support.processes import output_of

pytestmark = [pytest.mark.stack("deepspeed", "transformers"), pytest.mark.slow]

HOUSE = Path(__file__).parents[2]
PAGE = (HOUSE / "docs" / "MODELS.md").read_text(encoding="utf-8")

#: Makes the page, and profiles its models on CPU with the get_model_profile of both profilers.
COUNT = """
import gc, json, sys
from pathlib import Path
from models.page import count, page
from models.shapes import MODELS, Shape, bert, sentences
from deepspeed.profiling.flops_profiler import get_model_profile as theirs
from distprof import get_model_profile as ours

gc.freeze()  # else each collection goes through all objects of the stacks
Path(sys.argv[1]).write_text(page(), encoding="utf-8")
found = {}
for shape in (MODELS[0], Shape("BERT-tiny", "", lambda: bert("tiny", "eager"), lambda: sentences(2, 8))):
    report, counted = count(shape)
    run = dict(kwargs=shape.inputs(), print_profile=False, as_string=False, warm_up=0)
    model, stats = shape.make(), report.modules[0]
    found[shape.title] = {
        "on meta": [stats.flops, stats.macs, stats.params], "on cpu": ours(model, **run),
        "theirs on meta": [counted.flops.total(), counted.macs.total()], "theirs on cpu": theirs(model, **run)[:2],
    }
print("found", json.dumps(found))
"""


class Made:
    def __init__(self, page: str, found: dict[str, dict[str, Any]]) -> None:
        self.page, self.found = page, found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, clean_env: dict[str, str]) -> Made:
    page = tmp_path_factory.mktemp("models") / "page.md"
    environment = {**clean_env, "PYTHONPATH": str(HOUSE / "examples"), "DS_ACCELERATOR": "cpu"}
    python = forking_python(clean_env)
    shown = output_of("-c", COUNT, page, cwd=HOUSE / "tools", env=environment, executable=python)
    (found,) = (line for line in shown.splitlines() if line.startswith("found "))
    return Made(page.read_text(encoding="utf-8"), json.loads(found.removeprefix("found ")))


def rows(section: str) -> dict[str, list[str]]:
    """Returns the lines of one table, by their first cells."""
    table = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return {line[0]: line[1:] for line in lines[1:]}


def numbers(cells: list[str]) -> list[int]:
    return [int(cell.replace(",", "")) for cell in cells]


MODELS, PARTS = rows("Models"), rows("Parts")


def macs(model: str) -> int:
    return numbers(MODELS[model][2:3])[0]


def test_the_page_is_what_is_counted(made: Made) -> None:
    versions = [version(name).partition("+")[0] for name in ("torch", "transformers", "deepspeed")]
    if "Made with torch {}, transformers {}, deepspeed {}.".format(*versions) not in PAGE:
        pytest.skip(f"the page was made with other versions than torch, transformers and deepspeed {versions}")
    assert made.page == PAGE, "run: make docs"


@pytest.mark.parametrize("model", ["LeNet-5", "BERT-tiny"])
def test_counting_on_meta_gives_what_running_gives(made: Made, model: str) -> None:
    found = made.found[model]
    assert found["on meta"] == found["on cpu"]
    assert found["theirs on meta"] == found["theirs on cpu"]


@pytest.mark.parametrize(
    ("model", "params", "macs", "deepspeed"),
    [
        ("LeNet-5", 61_706, 426_516_480, 866_066_432),
        ("LeNet-5 with its softmax", 61_706, 426_516_480, 866_076_672),
        ("AlexNet", 61_100_840, 714_188_480, 1_429_741_184),
        ("ResNet-50 v1.5", 25_557_032, 4_089_184_256, None),
        ("ViT-B/16", 86_567_656, None, None),
        ("BERT-base", 109_482_240, 11_174_215_680, 22_363_078_656),
        ("GPT-2", 124_439_808, None, None),
        ("T5-small", 60_506_624, None, None),
        ("Llama-2-7B", 6_738_415_616, None, None),
        ("Mixtral-8x7B", 46_702_792_704, None, None),
        ("Qwen3-30B-A3B", 30_532_122_624, None, None),
    ],
)
def test_published_figures(model: str, params: int, macs: int | None, deepspeed: int | None) -> None:
    counted = numbers(MODELS[model][1:5])
    expected = [params, macs, None, deepspeed]
    assert [number for number, known in zip(counted, expected, strict=True) if known] == list(filter(None, expected))


def decoder(layers: int, hidden: int, keys: int, heads: int, mlp: int, vocabulary: int, tokens: int = 128) -> int:
    """Returns the MACs of a decoder with gated MLPs; ``heads`` and ``keys`` are the widths of queries and of keys and
    values.
    """
    linears = hidden * (2 * heads + 2 * keys) + 3 * hidden * mlp
    return tokens * (layers * (linears + 2 * tokens * heads) + hidden * vocabulary)


def encoder(layers: int, hidden: int, mlp: int, tokens: int) -> int:
    return layers * tokens * (4 * hidden**2 + 2 * hidden * mlp + 2 * tokens * hidden)


def test_macs_by_pencil() -> None:
    bert_large = 80 * (encoder(24, 1024, 4096, 128) + 1024**2)
    assert macs("BERT-base") == encoder(12, 768, 3072, 128) + 768**2
    assert macs("BERT-Large") == bert_large
    assert macs("ViT-B/16") == encoder(12, 768, 3072, 197) + 196 * 768**2 + 768 * 1000
    assert macs("GPT-2") == encoder(12, 768, 3072, 128) + 128 * 768 * 50257
    assert macs("Llama-2-7B") == decoder(32, 4096, 4096, 4096, 11008, 32000)
    routers = 32 * 128 * 4096 * 8
    assert macs("Mixtral-8x7B") == decoder(32, 4096, 1024, 4096, 2 * 14336, 32000) + routers
    routers = 48 * 128 * 2048 * 128
    assert macs("Qwen3-30B-A3B") == decoder(48, 2048, 512, 4096, 8 * 768, 151936) + routers


def test_macs_of_t5_by_pencil() -> None:
    """Cross attention reads 128 tokens of the encoder; the head is as wide as the vocabulary."""
    read, write, hidden, mlp = 128, 32, 512, 2048
    crossing = 6 * (2 * write * hidden**2 + 2 * read * hidden**2 + 2 * write * read * hidden)
    assert macs("T5-small") == (
        encoder(6, hidden, mlp, read) + encoder(6, hidden, mlp, write) + crossing + write * hidden * 32128
    )


def test_the_inside_of_bert_large() -> None:
    """3,156.801 GMACs of the encoder; 128.85 of a layer's Linears."""
    (line,) = (part for part in PAGE.split("\n\n") if part.startswith("Inside of BERT-Large"))
    assert "3,156,800,962,560 MACs" in line
    assert "128,849,018,880 are in its six Linears" in " ".join(line.split())


@pytest.mark.parametrize(
    ("part", "forward", "backward"),
    [
        ("attention, fused", 12_582_912, 31_457_280),
        ("attention, math", 12_582_912, 25_165_824),
        ("LSTM(64, 128, 2 layers)", 2 * 40 * 4 * 128 * (64 + 128 + 128 + 128), None),
        ("one Linear(64, 64), three times", 3 * 2 * 8 * 64 * 64, None),
        ("ConvTranspose2d(16, 8, 4, stride 2, padding 1)", 2 * 16 * 256 * 8 * 16, None),
        ("depthwise Conv2d(32, 32, 3, padding 1)", 2 * 32 * 256 * 9, None),
    ],
)
def test_parts_by_pencil(part: str, forward: int, backward: int | None) -> None:
    """Without another number, backward is twice the forward: gradients of inputs and of weights."""
    assert numbers(PARTS[part][2:4]) == [forward, backward or 2 * forward]


def test_experts_agree_to_the_flop() -> None:
    lines = PAGE.partition("## Experts\n")[2].splitlines()
    for model in ("Mixtral", "Qwen3-MoE"):
        counts = [line.split(" | ")[1:] for line in lines if line.startswith(f"| {model} |")]
        assert [how for how, *_ in counts] == ["`eager`", "`batched_mm`", "`grouped_mm`"]
        assert len({tuple(numbers) for _, *numbers in counts}) == 1


def test_differences_name_all_their_ops() -> None:
    for cells in [*MODELS.values(), *PARTS.values()]:
        ours, deepspeed = numbers(cells[-3:-1])
        named = [int(one.split(" ", 1)[0].replace(",", "")) for one in cells[-1].split(", ") if one != "none"]
        assert sum(named) == ours - deepspeed
