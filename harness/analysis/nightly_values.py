"""One number per night: what a watched figure of a setting came to.

    ttft_s                the metric over the turns of the script: a geometric mean in which every turn of every night
                          weighs the same, whoever failed (below)
    ttft_s.p50            the statistic over the answered turns of each launch, then the geometric mean over launches
    peak_memory_bytes.max
    checks, failures      shares: checks passed of those to be met; turns that failed or were never reached
    text                  mean log-probability per token of replies that were forced (`forced`), in nats

Survivors' averages lie: a night on which the long turns fail would look fast. So a metric without a statistic is fitted
over all nights of a line at once, in logarithms,

    log value = night + turn of the script

by least squares, and a night's value is exp(night + mean of the turns). Where every night played every turn that is the
geometric mean of the night. Nights that have no turn in common with the others say nothing about the difference. So is
`text`, by replies instead of turns and without a logarithm: of each night only what was forced on others too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.analysis.arrays import SETTING
from harness.config.figures import LEAST_TURNS, STATISTICS
from harness.config.rules import parse_rule
from harness.documents import did_you_mean
from harness.errors import UsageError
from harness.metrics import METRICS, Direction

Values = npt.NDArray[np.float64]

NEEDED = (
    *SETTING, "conversation_id", "turn_index", "launch", "state", "length", "weights", "checks_passed",
)  # fmt: skip
"""The columns of `Run.turns` that are read whatever is watched."""
FORCED_COLUMNS = ("night", *SETTING, "reply", "logprob")
"""`reply` is a number that is the same for equal ids after an equal prompt, `logprob` the mean over its tokens."""
ALWAYS = NEEDED[:7]
"""Those without which a turn is no turn."""
VALUE_COLUMNS = (
    "night", "run_id", "created_at", "device", "config", *SETTING, "figure", "unit", "better", "value", "launch_low",
    "launch_high", "launches", "turns", "answer",
)  # fmt: skip
UNRULED = ("ttft_s", "tpot_s", "e2e_s", "peak_memory_bytes.max", "host_rss_bytes.max", "checks", "failures")
"""What is watched where no rule says what is."""
_TITLES = {
    "checks": "Checks passed",
    "failures": "Turns failed or not reached",
    "text": "Log-probability of forced replies",
}
_BETTER: Mapping[str, Direction] = {"checks": "higher", "failures": "lower", "text": "neither"}
_ROUNDS = 100
_STILL = 1e-12
"""Steps smaller than this, in logarithms, end the fit."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A figure that is followed from night to night."""

    name: str
    """As in a rule: `ttft_s.p50`, checks, failures."""
    metric: str | None = None
    """None: a share."""
    statistic: str | None = None

    @classmethod
    def named(cls, name: str) -> Watched:
        """The figure of a name. Raises UsageError where there is none."""
        metric, dot, statistic = name.partition(".")
        if name in _TITLES:
            return cls(name)
        if metric not in METRICS:
            known = [*METRICS, *_TITLES]
            raise UsageError(name, "is nothing that can be watched", did_you_mean(metric, known) or known[0])
        if dot and statistic not in STATISTICS:
            known = [f"{metric}.{each}" for each in STATISTICS]
            raise UsageError(name, f"{metric} has no statistic {statistic}", f"write one of {', '.join(known)}")
        if not dot and METRICS[metric].unit == "bytes":
            return cls(f"{name}.max", metric, "max")
        return cls(name, metric, statistic or None)

    @property
    def unit(self) -> str:
        """A unit of the metrics; ratio for a share, nats for text."""
        if self.metric is None:
            return "nats" if self.name == "text" else "ratio"
        return METRICS[self.metric].unit

    @property
    def title(self) -> str:
        if self.metric is None:
            return _TITLES[self.name]
        return METRICS[self.metric].title + (f", {self.statistic}" if self.statistic else "")

    @property
    def better(self) -> Direction:
        """Which way is better."""
        if self.metric is None:
            return _BETTER[self.name]
        return METRICS[self.metric].direction

    @property
    def scale(self) -> Literal["ratio", "difference"]:
        """How two nights are compared: metrics by their ratio, shares and text by their difference."""
        return "difference" if self.metric is None else "ratio"


def watched_by(config: Mapping[str, Any] | None) -> tuple[tuple[Watched, ...], tuple[str, ...]]:
    """What the rules of a config are about, and the rules that nobody understands; of None what is watched without."""
    if config is None:
        return tuple(Watched.named(name) for name in UNRULED), ()
    found: dict[str, Watched] = {}
    strange = []
    for subject, bound in ((config.get("gate") or {}).get("rules") or {}).items():
        try:
            rule = parse_rule(subject, bound)
        except ValueError:
            strange.append(str(subject))
            continue
        found.setdefault(rule.name, Watched.named(rule.name))
    return tuple(found.values()), tuple(strange)


def nightly_values(
    turns: pd.DataFrame,
    forced: pd.DataFrame,
    nights: pd.DataFrame,
    watched: Mapping[tuple[str, str], tuple[Watched, ...]],
    due: Sequence[Mapping[tuple[str, int], int]],
) -> pd.DataFrame:
    """One row per night, setting and watched figure that has a value, with columns `VALUE_COLUMNS` but `answer`:

    `launch_low` and `launch_high` are the lowest and the highest launch, `turns` how many turns are behind it. `turns`
    has the columns `NEEDED` and the metrics, `forced` has `FORCED_COLUMNS`; `due` tells how many checks each turn of a
    night's script has.
    """
    lines = nights[["night", "run_id", "created_at", "device", "config"]]
    keys = ["device", "config", *SETTING]
    parts = []
    for _, rows in turns.merge(lines, on="night").groupby(keys, sort=False, observed=True):
        known = rows.head(1).to_dict("records")[0]
        played = rows[rows["state"] != "missing"]
        for figure in watched[known["device"], known["config"]]:
            found = _likely(forced, played) if figure.name == "text" else _by_launch(figure, played, due)
            if len(found):
                parts.append(_by_night(figure, found).assign(**{key: known[key] for key in keys}))
    columns = [name for name in VALUE_COLUMNS if name != "answer"]
    if not parts:
        return pd.DataFrame(columns=columns)
    return pd.concat(parts, ignore_index=True).merge(lines[["night", "run_id", "created_at"]], on="night")[columns]


def _by_night(figure: Watched, found: pd.DataFrame) -> pd.DataFrame:
    """What launches came to, by night: their geometric mean where they have one."""
    logs = figure.scale == "ratio" and bool((found["value"] > 0).all())
    shown = found.assign(middle=np.log(found["value"]) if logs else found["value"])
    by_night = shown.groupby("night", sort=True).agg(
        value=("middle", "mean"),
        launch_low=("value", "min"),
        launch_high=("value", "max"),
        launches=("value", "size"),
        turns=("turns", "sum"),
    )
    by_night["value"] = np.exp(by_night["value"]) if logs else by_night["value"]
    return by_night.reset_index().assign(figure=figure.name, unit=figure.unit, better=figure.better)


def _by_launch(figure: Watched, rows: pd.DataFrame, due: Sequence[Mapping[tuple[str, int], int]]) -> pd.DataFrame:
    """What a figure of a setting came to: night, launch, value, turns."""
    if figure.metric is None:
        failed: Values = np.asarray(rows["state"] != "done", dtype=np.float64)
        return _checks(rows, due) if figure.name == "checks" else _share(rows, failed, np.ones(len(rows)))
    done = rows[rows["state"].eq("done") & rows[figure.metric].notna()]
    numbers = done[figure.metric].to_numpy(dtype=np.float64)
    if figure.statistic is None:
        done, logs = done[numbers > 0], np.log(numbers[numbers > 0])
        return _fitted(done, logs)
    grouped = done.groupby(["night", "launch"], sort=True, observed=True)[figure.metric]
    match figure.statistic:
        case "mean" | "min" | "max":
            value = grouped.agg(figure.statistic)
        case _:
            value = grouped.quantile(float(figure.statistic.removeprefix("p")) / 100)
    size = grouped.size()
    enough = size >= LEAST_TURNS.get(figure.statistic, 1)
    return pd.DataFrame({"value": value[enough], "turns": size[enough]}).reset_index()


def _likely(forced: pd.DataFrame, played: pd.DataFrame) -> pd.DataFrame:
    """How likely replies were on the nights and in the setting of these turns, of those that were forced on more than
    one of the nights."""
    rows = forced.merge(played[["night", *SETTING]].drop_duplicates(), on=["night", *SETTING])
    means = rows.groupby(["night", "reply"], as_index=False)["logprob"].mean()
    means = means[means.groupby("reply")["night"].transform("size") > 1]
    if not len(means):
        return pd.DataFrame(columns=["night", "launch", "value", "turns"])
    night, nights = pd.factorize(means["night"], sort=True)
    reply = pd.factorize(means["reply"])[0]
    values = means["logprob"].to_numpy(dtype=np.float64)
    effect = _turn_effects(values, night, reply)
    count = np.bincount(night)
    value = np.bincount(night, values - effect[reply]) / count + effect.mean()
    return pd.DataFrame({"night": nights, "launch": 0, "value": value, "turns": count})


def _checks(rows: pd.DataFrame, due: Sequence[Mapping[tuple[str, int], int]]) -> pd.DataFrame:
    """One that failed, or was not reached, has met none of the checks that the script has for it. Replies that mean
    nothing meet none and fail none."""
    rows = rows[rows["length"].ne("fixed") & rows["weights"].ne("random")]
    owed = [
        due[night].get((talk, turn), 0)
        for night, talk, turn in zip(rows["night"], rows["conversation_id"], rows["turn_index"], strict=True)
    ]
    total: Values = np.array(owed, dtype=np.float64)
    met: Values = np.where(rows["state"].eq("done"), rows["checks_passed"].fillna(0).to_numpy(dtype=np.float64), 0.0)
    checked = total > 0
    return _share(rows[checked], met[checked], total[checked])


def _share(rows: pd.DataFrame, parts: Values, wholes: Values) -> pd.DataFrame:
    summed = (
        rows[["night", "launch"]]
        .assign(part=parts, whole=wholes, turns=1)
        .groupby(["night", "launch"], sort=True, observed=True)
        .sum()
    )
    return summed.assign(value=summed["part"] / summed["whole"]).reset_index()[["night", "launch", "value", "turns"]]


def _fitted(rows: pd.DataFrame, logs: Values) -> pd.DataFrame:
    """The metric of every launch of every night, turns of the script being alike in all of them."""
    if not len(rows):
        return pd.DataFrame(columns=["night", "launch", "value", "turns"])
    place = rows.groupby(["conversation_id", "turn_index"], sort=False, observed=True).ngroup().to_numpy()
    night = pd.factorize(rows["night"])[0]
    # Of a night, a turn of the script is one observation, however often it was played.
    cells, cell = np.unique(night * (int(place.max()) + 1) + place, return_inverse=True)
    means = np.bincount(cell, logs) / np.bincount(cell)
    turn = _turn_effects(means, cells // (int(place.max()) + 1), cells % (int(place.max()) + 1))
    beside = rows[["night", "launch"]].assign(left=logs - turn[place], turns=1)
    found = beside.groupby(["night", "launch"], sort=True, observed=True).agg(
        left=("left", "mean"), turns=("turns", "sum")
    )
    return found.assign(value=np.exp(found["left"] + turn.mean())).reset_index()[["night", "launch", "value", "turns"]]


def _turn_effects(values: Values, night: npt.NDArray[np.int64], turn: npt.NDArray[np.int64]) -> Values:
    """The turns' part of value = night + turn, by alternating least squares; one round where nothing is missing."""
    nights, turns = np.bincount(night), np.bincount(turn)
    level = np.zeros(len(nights))
    for _ in range(_ROUNDS):
        effect: Values = np.bincount(turn, values - level[night]) / turns
        before, level = level, np.bincount(night, values - effect[turn]) / nights
        level -= level.mean()
        if np.abs(level - before).max() < _STILL:
            break
    return effect
