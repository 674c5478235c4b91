"""The differences between distprof's flops and DeepSpeed's, op by op."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from distprof.merge.report import OpStats
from models import deepspeed_counts

#: Names of the flops beside the multiply-accumulates, by torch's op and DeepSpeed's function; others keep theirs.
_NAMES_BY_OP = {
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
_NAMES_BY_FUNCTION = {
    "linear": "bias of `addmm`",
    "addmm": "bias of `addmm`",
    "conv2d": "bias of `convolution`",
    "conv_transpose2d": "bias of `convolution`",
    "adaptive_avg_pool2d": "`mean`",
    deepspeed_counts.RECURRENT: "`lstm`",
}
_PRODUCTS = {
    "conv2d": "`convolution`",
    "conv_transpose2d": "`convolution`",
    "convolution": "`convolution`",
    "_grouped_mm": "`_grouped_mm`",
    "mkldnn_rnn_layer": "`lstm`",
}


def differences(ops: Iterable[OpStats], counted: deepspeed_counts.Counted) -> dict[str, int]:
    """Returns distprof's flops of a forward less DeepSpeed's, by name, the largest difference first."""
    found: Counter[str] = Counter()
    for op in ops:
        name = op.name.removeprefix("aten.").removesuffix("_")
        found[_PRODUCTS.get(name, "matrix products")] += 2 * round(op.macs)
        found[_NAMES_BY_OP.get(name, f"`{name}`")] += round(op.flops - 2 * op.macs)
    for name, flops in counted.flops.items():
        found[_PRODUCTS.get(name, "matrix products")] -= 2 * counted.macs[name]
        found[_NAMES_BY_FUNCTION.get(name, f"`{name}`")] -= flops - 2 * counted.macs[name]
    return {name: number for name, number in sorted(found.items(), key=lambda item: -abs(item[1])) if number}
