"""The profile of one model in one process as text: the blocks that DeepSpeed's profiler has, and the ops."""

from __future__ import annotations

from distprof.merge.report import Report
from distprof.merge.text.blocks.header import header_block
from distprof.merge.text.blocks.ops import ops_block
from distprof.merge.text.blocks.time_use import time_block
from distprof.merge.text.blocks.work import work_block
from distprof.merge.text.deepspeed.aggregated import aggregated_profile
from distprof.merge.text.deepspeed.profile import profile_summary
from distprof.merge.text.deepspeed.tree import detailed_profile
from distprof.merge.text.format.lines import join_blocks

_NOTE = (
    "(outside modules): the backward of what ran outside of the profiled model, such as a loss; its forward is in no"
    " row.  Autograd's own sums of gradients are in no row either."
)


def render_model(report: Report, *, depth: int | None, top: int, detail: bool, tree: int | None = None) -> str:
    """Returns the whole report.

    The aggregated profile shows ``top`` classes (0: no such block) down to ``depth`` (None: all depths); ``detail``
    adds the module tree down to depth ``tree`` (None: all of it, as DeepSpeed shows it).
    """
    blocks = [header_block(report), profile_summary(report)]
    if top:
        blocks.append(aggregated_profile(report, depth, top))
    if detail:
        blocks.append(detailed_profile(report, tree))
    return join_blocks([*blocks, time_block(report), work_block(report, _NOTE), ops_block(report)])


def render_aggregated(report: Report, *, depth: int | None, top: int) -> str:
    """Returns the aggregated profile alone."""
    return join_blocks([aggregated_profile(report, depth, top)])
