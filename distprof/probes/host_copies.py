"""Copies small tensors to the host at the end of a step, without waiting for the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from distprof.records import Array


def start_copies(tensors: Sequence[torch.Tensor]) -> Callable[[], list[Array]]:
    """Starts one copy for each device and dtype, without waiting; returns a function that reads the arrays.

    A tensor that comes several times is one array.  The tensors need no gradient, and nothing may change them: those of
    the host are not copied.  Autograd stays on, because an exception from outside might leave it off.
    """
    every = {id(tensor): tensor for tensor in tensors}
    places: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for key, tensor in every.items():
        if not tensor.is_cpu:
            places.setdefault((tensor.device, tensor.dtype), []).append(key)
    copies = [(keys, _copy(torch.cat([every[key] for key in keys]))) for keys in places.values()]

    def read() -> list[Array]:
        arrays = {key: _array(tensor) for key, tensor in every.items() if tensor.is_cpu}
        for keys, copy in copies:
            whole, end = _array(copy), 0
            for key in keys:  # np.split makes a dozen calls for each
                begin, end = end, end + every[key].numel()
                arrays[key] = whole[begin:end]
        return [arrays[id(tensor)] for tensor in tensors]

    return read


def _array(tensor: torch.Tensor) -> Array:
    """Returns the numbers; those of half precision, which numpy cannot add up or does not know, in single precision."""
    return (tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor).numpy()


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.device.type != "cuda":
        return tensor.cpu()
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
