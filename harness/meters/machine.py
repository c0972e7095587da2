"""What this machine can do at most: the rate of a copy through its memory, the rate of a matrix product, its cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The best a device did, measured; None where it could not be."""

    copy_bytes_per_s: float | None
    """Bytes read and bytes written, together, by a copy larger than any cache."""
    matrix_flops_per_s: float | None
    """Floating-point operations of a large square matrix product, two for every multiply-add."""
    cache_bytes: int | None
    """Size of the last cache before the memory."""


def ceilings(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """The ceilings of a device for a dtype, measured once per machine and remembered for a week."""
    raise NotImplementedError
