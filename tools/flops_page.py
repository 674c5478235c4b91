"""docs/FLOPS.md, made from the registry of formulas: ``python tools/flops_page.py`` writes it anew."""

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
operations: 2 for each MAC, and element-wise work by the conventions below. A report's MACs are held against pencil and
paper and against torch's own counter (`torch.utils.flop_counter.FlopCounterMode`, whose flops are 2 x MACs); flops
depend on conventions, which is why they stand here.

- Each addition, multiplication, comparison that gives a number, or function of a number that the textbook's formula
  asks for is one flop, however many instructions a device spends on it: `exp` is 1, and so is `gelu`.
- What gives integers or truth values counts 0 (masks, indices). Numbers of quantized tensors count as what they stand
  for.
- A complex number is two real ones, and counted are the operations on these: a sum or difference of complex numbers is
  2 flops, a product 6, a product or quotient with a real number 2, a quotient 11, a magnitude 4, any other function 6,
  and a multiply-accumulate 4 MACs (torch's own counter has it as one). A convolution of complex numbers is three of
  real ones and the sums between them, for that is what torch makes of it (Gauss); a Fourier transform has a count of
  its own; factorizations are 4 x the real ones.
- A factor that is 1 (`alpha`, `value`) is no product: `a + b` is 1 flop an element, `add(a, b, alpha=0.1)` is 2.
- A bias is 1 flop an output element, and in backward the sum that gives its gradient, 1 an element of the output's
  gradient.
- Backward is what really ran: no gradient, no work. What autograd itself does to add up gradients that reach one
  parameter or tensor is nobody's work and counts 0.
- Kernels are counted by their arguments' shapes. Rows that a kernel leaves out by their values (padding inside a batch,
  causal or block masks, tokens behind the last offset of a grouped matmul) count.

Formulas are looked for in this order, when a counted step first meets an op:

1. what the script gave to `distprof.register_formula(op, flops, macs=None)`;
2. `addmm`, `baddbmm`, convolutions and their backward as below: torch's own formulas leave out what is added (a bias),
   and have the backward of grouped convolutions wrong;
3. `torch.utils.flop_counter.flop_registry`, with what the script added by `register_flop_formula`; MACs are half of its
   flops. It knows `mm`, `bmm`, `_scaled_mm`, and attention on CUDA and flex attention (forward 2 matrix products,
   backward 5), to whose flops is added what the chapter on attention says;
4. the tables below.

An op that none of them knows is no error: the report lists it as not counted, with its calls.
"""


def page() -> str:
    return "\n".join([HEAD, *(line for chapter in CHAPTERS for line in _chapter(chapter)), *_moved(), *_utilization()])


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


def _moved() -> Iterator[str]:
    yield "## No flops, by decision\n"
    text = (
        "Views, and these, move, pick, order, make or convert numbers, or tell about tensors. They are counted: as 0."
    )
    yield f"{_wrapped(text)}\n"
    yield f"{_wrapped(', '.join(f'`{op}`' for op in sorted(OPS)))}\n"
    libraries = ", ".join(f"`{name}`" for name in sorted(NAMESPACES))
    yield _wrapped(f"And all ops of these libraries, which communicate, keep books or ask: {libraries}.")
    yield ""


def _utilization() -> Iterator[str]:
    yield "## What MFU counts\n"
    yield _wrapped(
        "MFU (model flops utilization) and HFU (hardware flops utilization) count 2 flops a MAC and nothing else: "
        "their peak is that of matrix products, and so is the count in the paper that brought MFU (PaLM, "
        "arXiv:2204.02311, appendix B: 6 N + 12 L H Q T a token).  HFU counts the MACs that ran.  MFU counts those of "
        "forward and backward, without what was worked out again: by activation checkpointing, and by the kernels of "
        "fused attention, which run Q K^T again in their backward.  So attention's backward is 2 x its forward in MFU, "
        "whatever the backend, and 2.5 x in HFU where it was fused.  Causal attention counts in full in both.  An "
        "optimizer's MACs are none of the model's."
    )
    yield ""
    named = ", ".join(f"`{op}`" for op in BACKWARDS)
    yield _wrapped(f"Backwards of which B H S T D MACs are done again: {named}.")
    yield ""


def _wrapped(text: str) -> str:
    return textwrap.fill(text.replace(".  ", ". "), WIDTH, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
