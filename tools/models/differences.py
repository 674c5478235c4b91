"""Where distprof's flops and DeepSpeed's differ: the ops that make the difference, and how much each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from distprof.merge.report import OpStats
from models import theirs

#: What is done beside the multiply-accumulates, by torch's op and by DeepSpeed's function; others go by their own name.
_OURS = {
    "addmm": "bias of `addmm`",
    "convolution": "bias of `convolution`",
    "_softmax": "`softmax`",
    "_safe_softmax": "`softmax`",
    "max_pool2d_with_indices": "`max_pool2d`",
    "_adaptive_avg_pool2d": "`mean`",
    "mkldnn_rnn_layer": "`lstm`",
    "native_layer_norm": "`layer_norm`",
    "native_batch_norm": "`batch_norm`",
}
_THEIRS = {
    "linear": "bias of `addmm`",
    "addmm": "bias of `addmm`",
    "conv2d": "bias of `convolution`",
    "conv_transpose2d": "bias of `convolution`",
    "adaptive_avg_pool2d": "`mean`",
    theirs.RECURRENT: "`lstm`",
}
_PRODUCTS = {
    "conv2d": "`convolution`",
    "conv_transpose2d": "`convolution`",
    "convolution": "`convolution`",
    "_grouped_mm": "`_grouped_mm`",
    "mkldnn_rnn_layer": "`lstm`",
}


def differences(ours: Iterable[OpStats], counted: theirs.Counted) -> dict[str, int]:
    """Ours less theirs, by what is done, the largest first, of a forward."""
    found: Counter[str] = Counter()
    for op in ours:
        name = op.name.removeprefix("aten.").removesuffix("_")
        found[_PRODUCTS.get(name, "matrix products")] += 2 * round(op.macs)
        found[_OURS.get(name, f"`{name}`")] += round(op.flops - 2 * op.macs)
    for name, flops in counted.flops.items():
        found[_PRODUCTS.get(name, "matrix products")] -= 2 * counted.macs[name]
        found[_THEIRS.get(name, f"`{name}`")] -= flops - 2 * counted.macs[name]
    return {name: number for name, number in sorted(found.items(), key=lambda item: -abs(item[1])) if number}
