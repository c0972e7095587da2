"""How much the time of the very same work differs: between launches, and within one.

Two sources of chance are told apart, because repeating turns only averages away the smaller one. Every time is taken
to be work × launch × rest, so its logarithm is a sum

    log y = work + launch + rest

of a fixed effect of the work (which turn, which prompt, how many ids) and two random ones: how this process as a whole
came out – where its memory lies, what clocks it met – and what happened during this turn. Their standard deviations
are estimated by the analysis of variance (Searle, Casella and McCulloch, Variance Components, 1992, ch. 4): with N
times of W kinds of work in L launches, every kind equally often in each launch, and sums over all N times,

    within²  = Σ rest² / (N − W − L + 1)
    between² = max(0, Σ launch² / (L − 1) − within²) · L / N

A standard deviation of logarithms is a share: 0.05 is five per cent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.analysis.arrays import means

Numbers = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Spread:
    """The two standard deviations of the logarithms. None where there is nothing to estimate them from."""

    launch_sd: float | None = None
    """Between launches; None with a single one."""
    turn_sd: float | None = None
    """Between two turns of the same work in one launch."""
    degrees: int = 0
    """Degrees of freedom of `turn_sd`."""


def spread(work: Codes, launch: Codes, times: Numbers) -> Spread:
    """The spread of some positive times; `work` and `launch` are codes, equal where the work and the launch are.

    Looks at work that was done equally often in every launch and more than once, so that launches are compared by the
    same work.
    """
    _, launch = np.unique(launch, return_inverse=True)
    _, work = np.unique(work, return_inverse=True)
    launches, kinds = int(launch.max(initial=0)) + 1, int(work.max(initial=-1)) + 1
    often = np.bincount(work * launches + launch, minlength=kinds * launches).reshape(kinds, launches)
    alike = (often == often[:, :1]).all(axis=1) & (often.sum(axis=1) > 1)
    kept = alike[work]
    degrees = int(kept.sum()) - int(alike.sum()) - launches + 1
    if degrees < 1:
        return Spread()
    logs, launch = np.log(times[kept]), launch[kept]
    rest = logs - means(work[kept], logs)
    effect = means(launch, rest)
    within = float(((rest - effect) ** 2).sum()) / degrees
    if launches < 2:
        return Spread(None, math.sqrt(within), degrees)
    per_launch = len(logs) / launches
    between = float((effect**2).sum()) / (launches - 1) - within
    return Spread(math.sqrt(max(0.0, between) / per_launch), math.sqrt(within), degrees)
