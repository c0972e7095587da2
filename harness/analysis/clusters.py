"""Means over conversations: the conversations are the sample, and turns of one belong together.

A figure of a setting is a ratio over its conversations, r = Σ_c part_c / Σ_c whole_c: what is counted or added up, over
how many there were. Over several samplings it is the mean of their ratios, each weighing the same. Its variance is the
linearised one of ratio estimates over clusters (Cochran, Sampling Techniques, 3rd ed., §§ 6.3 and 9A),

    v = C/(C−1) · Σ_c e_c²,    e_c = mean over samplings s of (part_sc − r_s · whole_sc) / Σ_c whole_sc

in which the samplings answer the same conversations, so that what they share stays in e_c and is not taken for chance.
"""

from __future__ import annotations

import math

import numpy as np

from harness.analysis.arrays import Array
from harness.analysis.stats import (
    CONVERSATIONS_TO_GENERALISE,
    Basis,
    Estimate,
    effective_size,
    t_quantile,
    wilson,
)


def over_conversations(parts: Array, wholes: Array, *, most: float = math.inf, turns: int | None = None) -> Estimate:
    """The mean of the samplings' ratios with its interval; `parts` and `wholes` are (samplings, conversations). Every
    sampling has a whole above 0 somewhere.

    Where `turns` is given the figure is the share of so many turns: its interval is Wilson's at the number of
    independent turns that these are worth, as of `stats.pass_rate`. Otherwise it is a t-interval, kept within
    [0, `most`]; there is none where every conversation has the very same value, which is no proof that others would.

    No interval below two conversations; below six it is marked "few conversations".
    """
    clusters = parts.shape[1]
    if not parts.size:
        return Estimate(None)
    total = wholes.sum(axis=1, keepdims=True)
    ratios = parts.sum(axis=1, keepdims=True) / total
    value = float(ratios.mean())
    if clusters < 2:
        return Estimate(value, n=clusters)
    residuals = ((parts - ratios * wholes) / total).mean(axis=0)
    variance = clusters / (clusters - 1) * float((residuals**2).sum())
    quantile = t_quantile(clusters - 1)
    basis: Basis = "conversations" if clusters >= CONVERSATIONS_TO_GENERALISE else "few conversations"
    if turns is not None:
        low, high = wilson(value, effective_size(value, variance, clusters, max(turns, clusters)), quantile)
        return Estimate(value, low, high, basis, clusters)
    if np.allclose(residuals, 0, atol=1e-12):
        return Estimate(value, n=clusters)
    reach = quantile * math.sqrt(variance)
    return Estimate(value, max(0.0, value - reach), min(most, value + reach), basis, clusters)
