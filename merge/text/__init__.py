"""The report as text: a first page with the answer, DeepSpeed's blocks and line names, then ranks, skew, experts."""

from __future__ import annotations

from distprof.merge.report import Report
from distprof.merge.text.blocks.collectives import collectives_block
from distprof.merge.text.blocks.hangs import hangs_block
from distprof.merge.text.blocks.header import header_block
from distprof.merge.text.blocks.hosts import hosts_block
from distprof.merge.text.blocks.long_steps import long_steps_block
from distprof.merge.text.blocks.memory import memory_block
from distprof.merge.text.blocks.moe.experts import experts_block
from distprof.merge.text.blocks.pipeline import pipeline_block
from distprof.merge.text.blocks.places import places_block
from distprof.merge.text.blocks.ranks import ranks_block
from distprof.merge.text.blocks.reduced_windows import reduced_windows_block
from distprof.merge.text.blocks.skew import skew_block
from distprof.merge.text.blocks.time_use import time_block
from distprof.merge.text.blocks.warmup import warmup_block
from distprof.merge.text.blocks.work import work_block
from distprof.merge.text.deepspeed.aggregated import aggregated_profile
from distprof.merge.text.deepspeed.profile import profile_summary
from distprof.merge.text.deepspeed.tree import detailed_profile
from distprof.merge.text.first_page import first_page
from distprof.merge.text.format.lines import join_blocks
from distprof.plain import dataclass

#: The blocks that DeepSpeed's profiler does not have, in their order.
_DISTPROF_BLOCKS = (
    time_block,
    reduced_windows_block,
    work_block,
    places_block,
    ranks_block,
    hosts_block,
    hangs_block,
    long_steps_block,
    warmup_block,
    memory_block,
    pipeline_block,
    skew_block,
    collectives_block,
    experts_block,
)


@dataclass(frozen=True)
class TextOptions:
    """How much the report shows."""

    depth: int | None = None  # of the module tree, None: all of it
    top: int = 3  # classes at each depth of the aggregated profile
    detail: bool = True  # whether to show the module tree
    page: str = ""  # name of the HTML page beside the text, if there is one


#: What is shown if nothing else is asked for.
DEFAULTS = TextOptions()


def render(report: Report, options: TextOptions) -> str:
    """Returns the whole text of ``summary.txt``."""
    blocks = [
        *first_page(report, options.page),
        header_block(report),
        profile_summary(report),
        aggregated_profile(report, options.depth, options.top),
    ]
    if options.detail:
        blocks.append(detailed_profile(report, options.depth))
    return join_blocks([*blocks, *(block(report) for block in _DISTPROF_BLOCKS)])


def render_first_page(report: Report, options: TextOptions = DEFAULTS) -> str:
    """Returns the page alone with which ``summary.txt`` begins."""
    return join_blocks(first_page(report, options.page))
