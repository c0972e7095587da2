"""Whether a model fits: what it takes in memory, set against what a device has. Arithmetic; the numbers come from
`backends/hf/dry_run.py` and `meters/capacity.py`.

    needed = weights + conversations × (cache + work)

The cache grows with the context, but for layers with a sliding window, which stop growing, and recurrent states, which
never grow. Work is what a forward makes and throws away; conversations are counted as if all were prefilled at once,
as `engine: batched` does at worst.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from harness.meters.capacity import Capacity

Answer = Literal["fits", "fits with offload", "does not fit"]
_ENDLESS = 2**24
"""Tokens beyond which nobody asks, for models whose context has no end."""
_CROWD = 2**16


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a model takes in memory, in bytes, estimated from its config."""

    parameters: int
    dtype: str
    """That it is loaded in."""
    weight_bytes: int
    """As its spec asks for it: parameters and buffers."""
    weight_bytes_as: Mapping[str, int]
    """The same in other dtypes and quantisations."""
    kv_bytes_per_token: int
    """Of all layers, those with a sliding window included."""
    windowed_kv_bytes_per_token: int
    window_tokens: int | None
    """How far back those layers look; None where there are none."""
    state_bytes: int
    """What the cache of a conversation holds however short it is."""
    work: tuple[tuple[int, int], ...]
    """(ids, bytes) of prefills that were tried, from short to long."""
    work_together: tuple[tuple[int, int], ...]
    """The same for each of several that are prefilled together, whose padding has to be masked."""
    context_tokens: int | None

    def cache_bytes(self, tokens: int) -> int:
        """What the cache of a conversation of so many tokens holds."""
        windowed = min(tokens, self.window_tokens) if self.window_tokens is not None else 0
        full = self.kv_bytes_per_token - self.windowed_kv_bytes_per_token
        return self.state_bytes + full * tokens + self.windowed_kv_bytes_per_token * windowed

    def work_bytes(self, tokens: int, *, together: bool = False) -> int:
        """The most that a forward over so many tokens makes besides the cache.

        Bytes per token lie on lines between those that were tried: exact for what grows with a prompt and with its
        square, as masks do.
        """
        tried = self.work_together if together else self.work
        after = next((at for at, (ids, _) in enumerate(tried) if ids >= tokens), len(tried) - 1)
        (less, small), (more, large) = tried[max(after - 1, 0)], tried[after]
        rate, slope = large / more, 0.0
        if more > less and tokens > less:
            slope = (large / more - small / less) / (more - less)
        if tokens > more:  # a rate that falls between the last two would fall below nothing far out
            slope = max(slope, 0.0)
        return round(tokens * (rate + slope * (tokens - more)))

    def needed_bytes(self, tokens: int, conversations: int = 1) -> int:
        """Everything, for so many conversations of so many tokens at a time."""
        work = self.work_bytes(tokens, together=conversations > 1)
        return self.weight_bytes + conversations * (self.cache_bytes(tokens) + work)


@dataclass(frozen=True, slots=True)
class Fit:
    """A model on a device."""

    device: str
    usable_bytes: int
    tokens: int
    conversations: int
    needed_bytes: int
    answer: Answer
    largest_context: int | None
    """Tokens that one conversation may have there, within the model's own limit; None where not one fits."""
    largest_concurrency: int | None
    """Conversations of `tokens` that fit at a time; None where not one fits."""


def judge(footprint: Footprint, place: Capacity, tokens: int, conversations: int, host_bytes: int) -> Fit:
    """Whether it fits there. `host_bytes` are those to which weights could be moved that find no room on an
    accelerator; 0 where nothing may be."""
    needed = footprint.needed_bytes(tokens, conversations)
    beside = needed - footprint.weight_bytes
    answer: Answer = "does not fit"
    if needed <= place.usable_bytes:
        answer = "fits"
    elif place.is_accelerator and beside < place.usable_bytes and needed <= place.usable_bytes + host_bytes:
        answer = "fits with offload"
    most = footprint.context_tokens or _ENDLESS
    return Fit(
        place.name,
        place.usable_bytes,
        tokens,
        conversations,
        needed,
        answer,
        _largest(most, lambda some: footprint.needed_bytes(some) <= place.usable_bytes),
        _largest(_CROWD, lambda some: footprint.needed_bytes(tokens, some) <= place.usable_bytes),
    )


def _largest(most: int, fits: Callable[[int], bool]) -> int | None:
    """The largest number from 1 to `most` that fits, where what is larger never fits better."""
    if not fits(1):
        return None
    low, high = 1, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
