"""Generates docs/FLOPS.md from the registry of formulas: ``python tools/flops_page.py``."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

from distprof.flops.attention_recompute import BACKWARDS
from distprof.flops.formulas.rule import Chapter, Rule
from distprof.flops.registry import CHAPTERS
from distprof.flops.zero_cost import NAMESPACES, OPS

PAGE = Path(__file__).parent.parent / "docs" / "FLOPS.md"
WIDTH = 120

HEAD = """\
# How work is counted

`make docs` writes this page from the registry of formulas in `distprof/flops/`.

A **MAC** is one multiply-accumulate of a matrix product, a convolution or attention. **Flops** are all floating-point
operations: 2 for each MAC, and element-wise work by the conventions below. Tests compare a report's MACs with counts by
hand and with torch's own counter (`torch.utils.flop_counter.FlopCounterMode`, whose flops are 2 x MACs). Flops depend
on conventions, which this page defines.

- Each addition, multiplication, comparison that returns a number, or function of a number in the textbook's formula is
  one flop, however many instructions a device uses: `exp` is 1, and so is `gelu`.
- Ops that return integers or booleans count 0 (masks, indices). Quantized numbers count as the real numbers that they
  represent.
- A complex number counts as two real ones, by the operations on these: a sum or difference of complex numbers is 2
  flops, a product 6, a product or quotient with a real number 2, a quotient 11, a magnitude 4, any other function 6,
  and a multiply-accumulate 4 MACs (torch's own counter counts one). A convolution of complex numbers is three real
  convolutions and the sums between them, as torch computes it (Gauss); Fourier transforms have a formula of their own;
  factorizations are 4 x the real ones.
- A factor of 1 (`alpha`, `value`) is no product: `a + b` is 1 flop an element, `add(a, b, alpha=0.1)` is 2.
- A bias is 1 flop an output element. In backward, the sum that is its gradient is 1 an element of the output's
  gradient.
- Backward counts the ops that ran: without a gradient there is no work. autograd's own sums of gradients that reach one
  parameter or tensor count 0.
- Kernels are counted by their arguments' shapes. Rows that a kernel skips because of values (padding inside a batch,
  causal or block masks, tokens after the last offset of a grouped matmul) count.

At the first call of an op in a counted step, its formula is looked up in this order:

1. formulas that the script registered with `distprof.register_formula(op, flops, macs=None)`;
2. `addmm`, `baddbmm`, convolutions and their backward as below: torch's own formulas leave out the added operand (a
   bias), and have the backward of grouped convolutions wrong;
3. `torch.utils.flop_counter.flop_registry`, with those that the script added by `register_flop_formula`; MACs are half
   of its flops. It has `mm`, `bmm`, `_scaled_mm`, attention on CUDA and flex attention (forward 2 matrix products,
   backward 5), to whose flops the element-wise work of the chapter on attention is added;
4. the tables below.

An op without a formula is no error: the report lists it as not counted, with its number of calls.
"""


def page() -> str:
    return "\n".join(
        [HEAD, *(line for chapter in CHAPTERS for line in _chapter(chapter)), *_zero_cost(), *_utilization()]
    )


def _chapter(chapter: Chapter) -> Iterator[str]:
    yield f"## {chapter.title}\n"
    if chapter.text:
        yield f"{_wrapped(chapter.text)}\n"
    yield "| op | MACs | flops | from |"
    yield "|---|---|---|---|"
    yield from map(_row, chapter.rules)
    yield ""


def _row(rule: Rule) -> str:
    ops = ", ".join(f"`{op}`" for op in rule.ops)
    return f"| {ops} | {rule.macs} | {rule.flops} | {rule.source} |"


def _zero_cost() -> Iterator[str]:
    yield "## No flops, by decision\n"
    text = "Views and these ops move, select, order, make or convert numbers, or return facts of tensors. They count 0."
    yield f"{_wrapped(text)}\n"
    yield f"{_wrapped(', '.join(f'`{op}`' for op in sorted(OPS)))}\n"
    libraries = ", ".join(f"`{name}`" for name in sorted(NAMESPACES))
    yield _wrapped(
        f"All ops of these libraries, for communication, bookkeeping and queries, count 0, too: {libraries}."
    )
    yield ""


def _utilization() -> Iterator[str]:
    yield "## What MFU counts\n"
    yield _wrapped(
        "MFU (model flops utilization) and HFU (hardware flops utilization) count 2 flops a MAC and nothing else, "
        "because their peak is that of matrix products, as in the paper that introduced MFU (PaLM, arXiv:2204.02311, "
        "appendix B: 6 N + 12 L H Q T a token).  HFU counts the MACs that ran.  MFU counts those of forward and "
        "backward, without recomputation: by activation checkpointing, and by the kernels of fused attention, which "
        "compute Q K^T again in their backward.  So attention's backward is 2 x its forward in MFU with any backend, "
        "and 2.5 x in HFU if it is fused.  Causal attention counts in full in both.  MFU has no MACs of optimizers."
    )
    yield ""
    named = ", ".join(f"`{op}`" for op in BACKWARDS)
    yield _wrapped(f"Backward ops that repeat B H S T D MACs of the forward: {named}.")
    yield ""


def _wrapped(text: str) -> str:
    return textwrap.fill(text.replace(".  ", ". "), WIDTH, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
