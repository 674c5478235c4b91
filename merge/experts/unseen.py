"""Why the tokens of some layers' experts are n/a: they run inside compiled code, or nothing shows them.

A part of a layer that is not called, in a layer that is, may also be called by its ``forward()``: both look alike.
"""

from __future__ import annotations

from collections.abc import Iterator

from distprof.merge.analysis import Analysis
from distprof.merge.experts.load import expert_layers, layer_label
from distprof.merge.wording import join_words
from distprof.merge.work.compiled_kernels import inside_compiled


def unseen_notes(analysis: Analysis) -> Iterator[str]:
    """Yields a sentence for each of the reasons; none where no step was timed."""
    if not any(window.steps for window in analysis.windows.values()):
        return
    without = [layer for layer in expert_layers(analysis) if {*layer.tokens} == {None}]
    unseen = [layer.name for layer in without if not layer.routed]
    chosen = [layer.name for layer in without if layer.routed]
    compiled = _in_compiled_code(analysis) if unseen else set()
    inside = [name for name in unseen if name in compiled]
    others = [name for name in unseen if name not in compiled]
    if inside:
        yield (
            f"compiled, not seen: tokens of experts are n/a in {join_words(inside)}: parts of it run inside compiled "
            "code, or by a call of their forward()"
        )
    if others:
        yield (
            f"tokens of experts are n/a in {join_words(others)}: neither a router's output nor a call of experts shows "
            "them; distprof.record_experts(layer, counts) records what the script counts"
        )
    if chosen:
        yield (
            f"tokens of experts are n/a in {join_words(chosen)}, where routers' choices are known: no call of experts "
            "shows how many of these they processed"
        )


def _in_compiled_code(analysis: Analysis) -> set[str]:
    """Returns the labels of layers of which a part is inside a compiled region."""
    found = set()
    for column, data in enumerate(analysis.ranks):
        if data.rank in analysis.counts:
            hidden = inside_compiled(data.tree, analysis.counts[data.rank])
            places = analysis.union.index(column)
            for layer in data.layers:
                if hidden[list(data.tree.subtree(layer.row))].any():
                    found.add(layer_label(analysis.union.modules[int(places[layer.row])], layer.name))
    return found
