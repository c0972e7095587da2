"""The numbers that a model holds as they lie in memory. A quantised tensor claims the dtype and the size of what it
stands for; what it takes is in the plain tensors inside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


def plain(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The plain tensors that a tensor consists of: itself, or those inside a quantised one, scales included."""
    whole: Any = tensor
    if hasattr(whole, "__tensor_flatten__") and type(whole) not in (torch.Tensor, nn.Parameter):
        names, _ = whole.__tensor_flatten__()
        for name in names:
            yield from plain(getattr(whole, name))
        return
    yield tensor
    state: Any = getattr(whole, "quant_state", None)  # bitsandbytes keeps its scales beside 4-bit weights
    scales = getattr(state, "absmax", None)
    if isinstance(scales, torch.Tensor):
        yield scales


def stored_bytes(*tensors: torch.Tensor) -> int:
    """What tensors take in memory."""
    return sum(part.numel() * part.element_size() for tensor in tensors for part in plain(tensor))


def bytes_by_dtype(model: nn.Module) -> dict[str, int]:
    """What a model's parameters and buffers take, by the dtype they are stored in; shared ones count once."""
    found: dict[str, int] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        for part in plain(tensor):
            name = str(part.dtype).removeprefix("torch.")
            found[name] = found.get(name, 0) + part.numel() * part.element_size()
    return found


def unquantised(model: nn.Module, *, but: nn.Module | None) -> tuple[list[str], int]:
    """(the linear layers whose weights are plain floating-point numbers, of how many), the layer `but` left out."""
    linear = {name: one for name, one in model.named_modules() if isinstance(one, nn.Linear) and one is not but}
    left = [
        name
        for name, one in linear.items()
        if type(one) is nn.Linear and type(one.weight) is nn.Parameter and one.weight.is_floating_point()
    ]
    return left, len(linear)
