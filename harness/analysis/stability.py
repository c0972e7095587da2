"""Whether the machine held still while a setting was measured, and if not, what gives it away.

A figure of an unstable machine is no figure of the model: it would come out differently tomorrow. Six signs are looked
for, and each one found is a `Reason`. A setting without any is `stable` only where repeated work shows how much it
varies; where nothing was repeated there is nothing to say.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from harness.analysis.arrays import SETTING, Array, View, groups, view
from harness.analysis.drift import Drift, drifts
from harness.analysis.frames import Run, once_per_run
from harness.analysis.spread import Spread, spread
from harness.metrics import METRICS

SPREAD_LIMIT = 0.1
"""pyperf calls a benchmark unstable from a standard deviation of a tenth of the mean on (pyperf check)."""
DEGREES_TO_JUDGE = 5
"""With fewer degrees of freedom a standard deviation may well be half or three times what it seems (χ²)."""
FOREIGN_LIMIT = 0.1
"""Share of the machine's processors: what others take beyond it is no background any more, and is taken from us."""
SPREAD_OF = ("ttft_s", "tpot_s")
NOT_HELD_DOWN = frozenset({"gpu_idle", "applications_clocks_setting", "display_clock_setting"})
"""Reasons for low clocks that are no throttling: nothing to do, or clocks that someone has set, to keep them still."""

Kind = Literal["spread", "drift", "throttling", "foreign load", "shared accelerator", "warm-up"]

REMEDIES: dict[Kind, str] = {
    "spread": "stop what else runs, set threads and cpu_affinity, or let replies be longer",
    "drift": "look for heat: let the machine cool, or lock its clocks",
    "throttling": "see to cooling and the power limit, or lock the clocks lower",
    "foreign load": "stop the other processes, or measure on a machine of your own",
    "shared accelerator": "stop the other processes, or choose another accelerator",
    "warm-up": "look at what else the machine does; harness run again when it is quiet",
}


@dataclass(frozen=True, slots=True)
class Reason:
    """One sign that the machine did not hold still."""

    kind: Kind
    size: float
    """How much of it there is, in the unit of the kind: for telling the worst."""
    fact: str


@dataclass(frozen=True, slots=True)
class Stability:
    """What there is to say about how steady one setting was measured."""

    model: str
    sampling: str
    concurrency: int
    spreads: Mapping[str, Spread]
    """By metric of `SPREAD_OF`."""
    foreign_load: float | None
    """Processors that others kept busy, on average over the time of the turns; None where nobody looked."""
    reasons: tuple[Reason, ...]

    @property
    def badge(self) -> str | None:
        """`stable`, `unstable: ` and the kinds of its reasons, or None where no work was repeated and no sign found."""
        if self.reasons:
            return "unstable: " + ", ".join(dict.fromkeys(reason.kind for reason in self.reasons))
        judged = any(each.degrees >= DEGREES_TO_JUDGE for each in self.spreads.values())
        return "stable" if judged else None


@once_per_run
def stabilities(run: Run) -> list[Stability]:
    """One per setting, in the order of the config."""
    turns = run.turns
    seen = view(run)
    everything = View(ChainMap({**_work(turns, seen), "throttled": _throttled(turns)}, seen.arrays), seen.rows)
    drifted = {drift.model: drift for drift in drifts(run) if drift.matters}
    return [
        _stability(run, model, sampling, int(concurrency), setting.done, drifted.get(model))
        for (model, sampling, concurrency), setting in groups(turns, SETTING, everything)
    ]


def instabilities(found: list[Stability]) -> Iterator[str]:
    """What to beware of, one sentence per model and kind of reason: the worst of its settings, and what to do."""
    told: dict[tuple[str, Kind], list[tuple[Stability, Reason]]] = {}
    for each in found:
        for reason in each.reasons:
            told.setdefault((each.model, reason.kind), []).append((each, reason))
    for (model, kind), signs in told.items():
        worst, reason = max(signs, key=lambda sign: sign[1].size)
        settings = len({(each.sampling, each.concurrency) for each, _ in signs})
        where = f", worst with {worst.sampling}" if settings > 1 and kind in ("spread", "foreign load") else ""
        yield f"{model} is unstable ({kind}{where}): {reason.fact}; {REMEDIES[kind]}."


def _work(turns: pd.DataFrame, seen: View) -> dict[str, Array]:
    """A code of the work a turn was: which turn of the script, on which very prompt, with how many ids in reply."""
    prompt, _ = pd.factorize(turns["prompt_hash"], use_na_sentinel=False)
    replied = np.nan_to_num(seen["completion_tokens"], nan=-1).astype(np.int64) + 1
    code = prompt * (int(seen["place"].max(initial=0)) + 1) + seen["place"]
    code, _ = pd.factorize(code)
    return {"work": code * (int(replied.max(initial=0)) + 1) + replied}


def _throttled(turns: pd.DataFrame) -> Array:
    """1 where the clocks of an accelerator were held down, 0 where they were not, NaN where there is none to ask."""
    told = turns["throttle"]
    found = np.full(len(turns), np.nan)
    asked = np.flatnonzero(told.notna().to_numpy())
    reasons = told.iloc[asked].explode()
    held = reasons.notna() & ~reasons.isin(NOT_HELD_DOWN)
    found[asked] = held.groupby(level=0, sort=False).any().to_numpy()
    return found


def _stability(run: Run, model: str, sampling: str, concurrency: int, done: View, drift: Drift | None) -> Stability:
    spreads = {}
    for metric in SPREAD_OF:
        timed = done.where(done[metric] > 0)
        spreads[metric] = spread(timed["work"], timed["launch"].astype(np.int64), timed[metric])
    foreign_load = _foreign_load(done)
    reasons = [
        *_spread_reasons(spreads),
        *_drift_reasons(drift),
        *_throttling_reasons(run, done),
        *_foreign_reasons(done, foreign_load, run.manifest["environment"].get("cpu_threads")),
        *_warmup_reasons(run, model, sampling, concurrency),
    ]
    return Stability(model, sampling, concurrency, spreads, foreign_load, tuple(reasons))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _spread_reasons(spreads: Mapping[str, Spread]) -> Iterator[Reason]:
    for metric, each in spreads.items():
        if each.turn_sd is not None and each.turn_sd > SPREAD_LIMIT and each.degrees >= DEGREES_TO_JUDGE:
            fact = (
                f"{METRICS[metric].title.lower()} of the very same work varies by {_percent(each.turn_sd)} within a "
                f"launch (limit {_percent(SPREAD_LIMIT)})"
            )
            yield Reason("spread", each.turn_sd, fact)


def _drift_reasons(drift: Drift | None) -> Iterator[Reason]:
    if drift is not None:
        yield Reason(
            "drift",
            abs(drift.change),
            f"a token took {_percent(abs(drift.change))} {'more' if drift.change > 0 else 'less'} time in the last "
            f"third of a launch than in the first (Kendall's τ, p = {drift.p:.2g})",
        )


def _throttling_reasons(run: Run, done: View) -> Iterator[Reason]:
    held = done.where(done["throttled"] == 1)
    if len(held):
        share = len(held) / len(done.known("throttled"))
        named = run.turns["throttle"].iloc[held.rows].explode()
        why = ", ".join(named[~named.isin(NOT_HELD_DOWN)].value_counts().index)
        yield Reason(
            "throttling", share, f"clocks were held down before or after {_percent(share)} of the turns ({why})"
        )


def _foreign_load(done: View) -> float | None:
    """Weighted by the time of the turns: the kernel counts processor time in steps longer than many a turn."""
    gauged = done.where(~np.isnan(done["foreign_load"]) & (done["e2e_s"] > 0))
    if not len(gauged):
        return None
    return float(np.average(gauged["foreign_load"], weights=gauged["e2e_s"]))


def _foreign_reasons(done: View, load: float | None, processors: int | None) -> Iterator[Reason]:
    if load is not None and processors and load > FOREIGN_LIMIT * processors:
        fact = f"other processes kept {load:.1f} of {processors} processors busy (limit {_percent(FOREIGN_LIMIT)})"
        yield Reason("foreign load", load / processors, fact)
    others = done.known("device_processes") > 1
    if others.any():
        share = float(others.mean())
        yield Reason(
            "shared accelerator", share, f"other processes were on its accelerators in {_percent(share)} of the turns"
        )


def _warmup_reasons(run: Run, model: str, sampling: str, concurrency: int) -> Iterator[Reason]:
    passes = [
        int(warmed["passes"])
        for launch in run.manifest["launches"]
        if launch["model"] == model
        for warmed in launch.get("warmups", ())  # the first format kept none
        if (warmed["sampling"], warmed["concurrency"]) == (sampling, concurrency) and warmed["settled"] is False
    ]
    if passes:
        launches = f"{len(passes)} launch{'es' if len(passes) > 1 else ''}"
        fact = f"after {max(passes)} warm-up passes the last two still did not take the same time, in {launches}"
        yield Reason("warm-up", float(len(passes)), fact)
