"""Copies small tensors to the host at the end of a step, without waiting for the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from distprof.records import Array


def start_copies(tensors: Sequence[torch.Tensor]) -> Callable[[], list[Array]]:
    """Starts one copy for each device and dtype, without waiting; returns a function that reads the arrays.

    The tensors need no gradient, and nothing may change them: those of the host are not copied.  Autograd stays on,
    because an exception from outside might leave it off.
    """
    places: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for index, tensor in enumerate(tensors):
        if not tensor.is_cpu:
            places.setdefault((tensor.device, tensor.dtype), []).append(index)
    copies = [(indices, _copy(torch.cat([tensors[i] for i in indices]))) for indices in places.values()]
    lengths = [tensor.numel() for tensor in tensors] if copies else []

    def read() -> list[Array]:
        arrays = {index: tensor.numpy() for index, tensor in enumerate(tensors) if tensor.is_cpu}
        for indices, copy in copies:
            every, end = copy.numpy(), 0
            for index in indices:  # np.split makes a dozen calls for each
                begin, end = end, end + lengths[index]
                arrays[index] = every[begin:end]
        return [arrays[index] for index in range(len(tensors))]

    return read


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.device.type != "cuda":
        return tensor.cpu()
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
