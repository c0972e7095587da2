"""Utilisations that cannot be: more bytes or operations per second than the device was measured to do.

Such a number says that one of three things is wrong – the clock, the count of bytes and operations, or the measured
ceiling – and nothing about the model. Weights that fit into the processor's last cache need no memory bandwidth, so
there that ceiling holds nothing back; the rate of matrix products holds wherever the weights lie.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from harness.analysis.frames import Run
from harness.metrics import METRICS

IMPOSSIBLE = 1.05
"""Five per cent are left to the error of the ceiling, which is itself a measurement."""


def impossible(run: Run) -> Iterator[str]:
    """A sentence for every model and ceiling that some of its turns exceed."""
    cached = {
        (launch["model"], launch["launch"])
        for launch in run.manifest["launches"]
        if (launch.get("roofline") or {}).get("fits_in_cache")
    }
    for metric, exempt in (("bandwidth_utilisation", cached), ("prefill_flop_utilisation", set())):
        beyond = run.turns.loc[(run.turns[metric] > IMPOSSIBLE).fillna(False), ["model", "launch", metric]]
        if exempt:
            beyond = beyond.loc[[place not in exempt for place in zip(beyond["model"], beyond["launch"], strict=True)]]
        for model, turns in beyond.groupby("model", sort=False):
            yield _sentence(str(model), metric, turns[metric])


def _sentence(model: str, metric: str, values: pd.Series[float]) -> str:
    return (
        f"{model}: {METRICS[metric].title.lower()} above {100 * IMPOSSIBLE:.0f} % in {len(values)} turns, up to "
        f"{100 * values.max():.0f} %. That is impossible: the meter, the roofline or the clock is wrong; do not "
        "use its speeds before it is found out."
    )
