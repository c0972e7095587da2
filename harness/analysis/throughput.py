"""What a machine gets done with several conversations at a time, by level of concurrency.

Time is *busy* time: what the turns' [start, text ready] intervals cover together, within a launch. Turns of one step
overlap and are counted once; what lies between two steps – records being written, the next conversations being opened –
is nobody's turn and is not counted. Turns that failed have no end, and are neither in the counts nor in the time.

Launches are the sample, as for every speed: each has one figure per level, and `stats.typical` tells their middle.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from harness.analysis.arrays import SETTING
from harness.analysis.frames import Run
from harness.analysis.stats import Estimate, typical
from harness.analysis.summary import by_setting

LATENCIES = ("ttft_s", "tpot_s", "e2e_s")
"""Of a turn, as those who wait for it see it: from `by_setting`."""
_NAMES = ("output_tokens_per_s", "turns_per_s", "speedup")
_LATENCY_COLUMNS = [f"{name}_{part}" for name in LATENCIES for part in ("p50", "low", "high")]


def has_levels(run: Run) -> bool:
    """Whether anything was to be played together."""
    return bool(max(run.plan.get("concurrency", [1])) > 1)  # format 1 knew no other


def throughput(run: Run) -> pd.DataFrame:
    """One row per model × sampling × level of concurrency, in the order of the config.

    Columns: run_id model sampling concurrency turns (answered) batch_size_mean (how many conversations were really
    answered together, mean over turns); output_tokens_per_s and turns_per_s of all conversations over busy time, and
    speedup (the tokens per second over those of level 1 in the same launch; absent without that level), each as _p50
    _low _high over launches; for a turn's `LATENCIES` their _p50 _low _high.
    """
    settings = by_setting(run)
    answered = run.turns[(run.turns["state"] == "done") & run.turns["e2e_s"].notna()]
    busy = _by_launch(answered)
    counted = answered.groupby(list(SETTING), sort=False)["batch_size"].agg(["size", "mean"])
    rows = []
    for setting in settings.to_dict("records"):
        key = tuple(setting[name] for name in SETTING)
        size, mean = counted.loc[key] if key in counted.index else (0, None)
        rows.append(
            {
                "run_id": run.run_id,
                **dict(zip(SETTING, key, strict=True)),
                "turns": int(size),
                "batch_size_mean": mean,
                **{
                    f"{name}_{part}": value
                    for name in _NAMES
                    for part, value in _parts(typical(_values(busy, key, name))).items()
                },
                **{name: setting[name] for name in _LATENCY_COLUMNS},
            }
        )
    texts, counts = {"run_id", "model", "sampling"}, {"concurrency", "turns"}
    return pd.DataFrame(
        {
            name: pd.Series(
                [row[name] for row in rows],
                dtype="string" if name in texts else "Int64" if name in counts else "Float64",
            )
            for name in rows[0]
        }
    )


def _by_launch(answered: pd.DataFrame) -> pd.DataFrame:
    """One row per setting and launch in which time has passed: `output_tokens_per_s`, `turns_per_s`, `speedup`."""
    keys = [*SETTING, "launch"]
    spans = answered[[*keys, "completion_tokens"]].assign(
        # Seconds since the run's first turn: those since the epoch would leave a float no nanoseconds.
        start=(answered["started_at"] - answered["started_at"].min()).dt.total_seconds(),
    )
    spans["end"] = spans["start"] + answered["e2e_s"].astype("float64")
    spans = spans.sort_values("start", kind="stable")
    covered = spans.groupby(keys, sort=False)["end"].cummax()  # up to and including this turn …
    before = covered.groupby([spans[key] for key in keys], sort=False).shift()  # … and up to the turn before it
    spans["busy"] = (spans["end"] - spans["start"].where(before.isna() | (before < spans["start"]), before)).clip(
        lower=0
    )
    sums = spans.groupby(keys, sort=False).agg(
        tokens=("completion_tokens", "sum"), turns=("busy", "size"), busy=("busy", "sum")
    )
    timed = sums[sums["busy"] > 0].reset_index()
    timed["output_tokens_per_s"] = timed["tokens"].astype("float64") / timed["busy"]
    timed["turns_per_s"] = timed["turns"] / timed["busy"]
    single = timed.loc[timed["concurrency"] == 1, ["model", "sampling", "launch", "output_tokens_per_s"]]
    timed = timed.merge(single, on=["model", "sampling", "launch"], how="left", suffixes=("", "_alone"))
    timed["speedup"] = timed["output_tokens_per_s"] / timed["output_tokens_per_s_alone"]
    return timed


def _values(busy: pd.DataFrame, key: tuple[object, ...], name: str) -> Mapping[int, list[float]]:
    here = busy[(busy[list(SETTING)] == list(key)).all(axis=1)]
    known = here[here[name].notna()]
    return {int(launch): [float(value)] for launch, value in zip(known["launch"], known[name], strict=True)}


def _parts(estimate: Estimate) -> dict[str, float | None]:
    return {"p50": estimate.value, "low": estimate.low, "high": estimate.high}
