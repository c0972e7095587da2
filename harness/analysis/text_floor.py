"""What of a shift in log-probabilities is rounding, and what is a model that has moved: three figures and their floor.

    mean     the shift of the log-probabilities, averaged over conversations: a model that has become less sure
    drift    the mean absolute shift of that turn where it is largest: something that strikes some prompts only
    worst    the largest shift of any token: something that strikes a few tokens only

The conversations are no sample here, and the model is no random variable: a machine that computes alike every time has
no shift at all, so what is beyond the floor is a fact about these replies.

Other kernels – another attention, library, driver – round otherwise, and that is no regression. What they do grows
with the rounding of the dtype: on the built-in models it was measured, and in float32 it is thousands of times less
than what one weight matrix scaled by 1.01 does (docs/gate.md has the table). `LEAST` lies above it. In bfloat16 that
change is as small as what another attention does; the two are told apart where nothing that chooses kernels has changed
since the baseline, the machine computes alike every time, and `EXACT_NIGHTS` nights agree to the bit: then rounding
excuses nothing, and the floor is float32's. Where the probe says that a machine does not compute alike, the floor is
what the nights of the window show, if that is more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import numpy as np
import pandas as pd

from harness.analysis.forced import Setting
from harness.analysis.frames import Run

EXACT_NIGHTS = 3
"""So many nights that agree to the bit stand for a machine that does so. It is also the fewest that noise is read
from."""
NOISE = 3.0
"""How often the median of the nights' noise a shift may be on a machine that does not compute alike every time."""


@dataclass(frozen=True, slots=True)
class Floor:
    """What of each figure is no change, in nats per token; `tie`: how far two ids may be apart and be a near tie."""

    mean: float
    drift: float
    worst: float
    tie: float


LEAST: Mapping[str, Floor] = {
    "float32": Floor(2e-5, 1e-4, 2e-3, 4e-3),
    "float16": Floor(1e-3, 2e-2, 0.25, 0.03),
    "bfloat16": Floor(2e-2, 0.1, 2.0, 0.25),
}
"""By dtype, in float16 and bfloat16 half as much again as another attention did at the most. `tie` in bfloat16 is two
steps of its logits between 16 and 32, in float16 two of theirs."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What has moved in one setting."""

    mean: float
    drift: float
    worst: float
    where: tuple[str, int, int]
    """(conversation, turn, token) of the worst."""
    by_conversation: tuple[float, ...]
    """Mean shift per token of each."""
    turns: int
    tokens: int
    baseline_logprob: float
    candidate_logprob: float

    def beyond(self, floor: Floor) -> list[str]:
        """What of this is more than the floor, in words."""
        talk, turn, token = self.where
        less = "less" if self.mean < 0 else "more"
        told = (
            (f"replies are {less} likely by {{:.2g}} nats per token", self.mean, floor.mean),
            ("log-probabilities of a turn are off by {:.2g} nats per token", self.drift, floor.drift),
            (f"token {token} of {talk} turn {turn} is off by {{:.2g}} nats", self.worst, floor.worst),
        )
        return [f"{words.format(abs(value))} (floor {least:.2g})" for words, value, least in told if abs(value) > least]


def figures(rows: pd.DataFrame) -> Figures | None:
    """Of the turns of one setting (`forced.shifts`) that were forced on both sides; None without any."""
    told = rows[rows["mean"].notna()]
    if told.empty:
        return None
    tokens, talks = told["tokens"].astype("float64"), told["conversation_id"]
    sums = (told["mean"].astype("float64") * tokens).groupby(talks, sort=False).sum()
    means = tuple((sums / tokens.groupby(talks, sort=False).sum()).tolist())
    farthest = told.iloc[int(np.argmax(np.abs(told["worst"].to_numpy(dtype=np.float64))))]
    return Figures(
        mean=fmean(means),
        drift=float(told["drift"].max()),
        worst=float(farthest["worst"]),
        where=(str(farthest["conversation_id"]), int(farthest["turn_index"]), int(farthest["worst_token"])),
        by_conversation=means,
        turns=len(told),
        tokens=int(tokens.sum()),
        baseline_logprob=float((told["baseline_logprob"] * tokens).sum() / tokens.sum()),
        candidate_logprob=float((told["candidate_logprob"] * tokens).sum() / tokens.sum()),
    )


def floor_of(setting: Setting, candidate: Run, baseline: Run, nights: Sequence[Figures]) -> Floor:
    """What is no change in a setting; `nights` are the figures of other nights against the same baseline, the oldest
    first."""
    dtype = str(_launch(baseline, setting).get("facts", {}).get("dtype"))
    least = LEAST.get(dtype, LEAST["bfloat16"])  # what is stored more coarsely is computed in no less
    if len(nights) < EXACT_NIGHTS:
        return least
    if computes_alike(candidate, setting) and computes_alike(baseline, setting):
        exact = all(night.worst == 0 for night in nights[-EXACT_NIGHTS:])
        finest = LEAST["float32"]
        same = _kernels(candidate, setting) == _kernels(baseline, setting)
        return Floor(finest.mean, finest.drift, finest.worst, least.tie) if exact and same else least
    noise = [NOISE * median(abs(getattr(night, name)) for night in nights) for name in ("mean", "drift", "worst")]
    mean, drift, worst = map(max, noise, (least.mean, least.drift, least.worst))
    return Floor(mean, drift, worst, least.tie)


def computes_alike(run: Run, setting: Setting) -> bool:
    """Whether the probe found that the same comes out every time, to the bit."""
    return (_launch(run, setting).get("probe") or {}).get("equal") is True


def _launch(run: Run, setting: Setting) -> Mapping[str, Any]:
    """What the manifest tells of the launch that forced: the last process of launch 0 that loaded the model."""
    entries = [
        entry
        for entry in run.manifest["launches"]
        if entry["model"] == setting[0] and entry["launch"] == 0 and not entry.get("failure")
    ]
    return entries[-1] if entries else {}


def _kernels(run: Run, setting: Setting) -> Mapping[str, Any]:
    """Whatever chooses how something is computed, and thereby how it is rounded."""
    launch, machine = _launch(run, setting), run.manifest["environment"]
    facts = launch.get("facts", {})
    libraries = {**machine.get("libraries", {}), **((launch.get("environment") or {}).get("libraries") or {})}
    return {
        **{name: machine.get(name) for name in ("cpu", "gpus", "gpu_driver")},
        **{name: facts.get(name) for name in ("class", "dtype", "attention", "quantization", "devices")},
        **{name: launch.get(name) for name in ("threads", "cpu_affinity")},
        "libraries": {name: libraries.get(name) for name in ("torch", "transformers", "accelerate")},
    }
