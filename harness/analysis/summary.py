"""Summaries of a run as frames: by setting, by turn, by conversation. Reports format them; nothing here prints.

Units are those of the metrics (seconds, bytes, tokens); a `_p50` is the typical value of `stats.typical` and comes
with the `_low` and `_high` of its interval. Speed is of turns that were answered; checks count every planned turn
that was played: one that failed or was not reached has failed all its checks, because survivors' averages lie.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import lru_cache
from statistics import fmean, median
from typing import Any

import pandas as pd

from harness.analysis.frames import Run
from harness.analysis.ledger import Ledger, ledger
from harness.analysis.stats import Estimate, centre, pass_rate, percentile, typical
from harness.conversations.repetition import repetition

SPEED = ("ttft_s", "tpot_s", "output_tokens_per_s", "e2e_s")
"""The speed metrics of a setting, each with p50 and interval."""
TAILS = ("ttft_s", "tpot_s")
"""Those with p95 and p99, where there are samples enough."""
CUT_OFF = ("max_new_tokens", "max_length", "context")
"""Finish reasons of a reply that was cut off."""
_OF_TURNS = ("prompt_tokens", "cached_tokens", "completion_tokens", "tokens_left", "dropped_messages")
_MEMORY = ("peak_memory_bytes", "device_used_bytes", "host_rss_bytes")
_STATES = ("done", "failed", "not_reached", "missing")

_DTYPES = {
    **dict.fromkeys(("run_id", "model", "sampling", "conversation_id", "checks_basis", "speed_basis"), "string"),
    **dict.fromkeys(("turn_index", "launches", "conversations", "turns", *_STATES), "Int64"),
    **dict.fromkeys(_MEMORY, "Int64"),
}
"""Everything else is a real number."""

Row = dict[str, Any]


def by_setting(run: Run) -> pd.DataFrame:
    """One row per model × sampling, in the order of the config.

    Columns: run_id model sampling launches conversations turns done failed not_reached missing; checks_rate
    checks_low checks_high checks_basis; for every metric of `SPEED` its _p50 _low _high, of `TAILS` its _p95 _p99,
    and speed_basis; completion_tokens_p50 completion_tokens_mean; truncated_rate (None under length: fixed, where
    every reply is cut off on purpose); repetition_mean; the most of peak_memory_bytes, device_used_bytes and
    host_rss_bytes over the turns; load_s and first_turn_s (medians over the model's launches).
    """
    checks = ledger(run)
    return _table(run, ["model", "sampling"], lambda turns: _setting(run, turns, checks))


def by_settings(runs: Sequence[Run]) -> pd.DataFrame:
    """`by_setting` of several runs, one table after the other; `run_id` tells them apart."""
    return pd.concat([by_setting(run) for run in runs], ignore_index=True)


def by_turn(run: Run) -> pd.DataFrame:
    """One row per model × sampling × turn_index: how a conversation grows.

    Columns: conversations (that have such a turn) and turns with their states; checks_rate (no interval: one turn of
    a few conversations carries none); medians of prompt_tokens cached_tokens completion_tokens tokens_left
    dropped_messages as _p50; prefill_s_p50; the `SPEED` metrics as in `by_setting`.
    """
    checks = ledger(run)

    def row(turns: pd.DataFrame) -> Row:
        done = turns[turns["state"] == "done"]
        return {
            **_counts(turns),
            "checks_rate": _pass_rate(turns, checks).value,
            **{f"{name}_p50": _middle(done[name]) for name in _OF_TURNS},
            "prefill_s_p50": centre(_by_launch(done, "prefill_s")),
            **_speeds(done),
        }

    return _table(run, ["model", "sampling", "turn_index"], row)


def by_conversation(run: Run) -> pd.DataFrame:
    """One row per model × sampling × conversation_id: turns with their states, checks_rate, completion_tokens_mean,
    truncated_rate, repetition_mean, e2e_s_p50 (of a turn)."""
    checks = ledger(run)

    def row(turns: pd.DataFrame) -> Row:
        done = turns[turns["state"] == "done"]
        return {
            **_counts(turns),
            "checks_rate": _pass_rate(turns, checks).value,
            **_behaviour(done),
            "e2e_s_p50": centre(_by_launch(done, "e2e_s")),
        }

    return _table(run, ["model", "sampling", "conversation_id"], row)


def _table(run: Run, keys: list[str], row: Callable[[pd.DataFrame], Row]) -> pd.DataFrame:
    groups = run.turns.groupby(keys, sort=False)
    rows = [{"run_id": run.run_id, **dict(zip(keys, _tuple(key), strict=True)), **row(group)} for key, group in groups]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pd.DataFrame(
        {name: pd.Series([row.get(name) for row in rows], dtype=_DTYPES.get(name, "Float64")) for name in names}
    )


def _tuple(key: Hashable) -> tuple[Any, ...]:
    return key if isinstance(key, tuple) else (key,)


def _setting(run: Run, turns: pd.DataFrame, checks: Ledger) -> Row:
    done = turns[turns["state"] == "done"]
    passed = _pass_rate(turns, checks)
    launches = run.launches[run.launches["model"] == turns["model"].iloc[0]]
    return {
        "launches": turns.loc[turns["state"] != "missing", "launch"].nunique(),
        **_counts(turns),
        **_with_interval("checks", "rate", passed),
        "checks_basis": passed.basis,
        **_speeds(done),
        **{f"{name}_p{q}": percentile(_values(done[name]), q) for name in TAILS for q in (95, 99)},
        "speed_basis": typical(_by_launch(done, "e2e_s")).basis,
        "completion_tokens_p50": _middle(_answered(done)["completion_tokens"]),
        **_behaviour(done),
        **{name: _most(done[name]) for name in _MEMORY},
        "load_s": _middle(launches["load_s"]),
        "first_turn_s": _middle(launches["first_turn_s"]),
    }


def _counts(turns: pd.DataFrame) -> Row:
    states = turns["state"].value_counts()
    return {
        "conversations": turns["conversation_id"].nunique(),
        "turns": len(turns),
        **{state: int(states.get(state, 0)) for state in _STATES},
    }


def _behaviour(done: pd.DataFrame) -> Row:
    fixed = (done["length"] == "fixed").any()
    replies: Iterable[str] = [] if fixed else _answered(done)["reply"].dropna()
    return {
        "completion_tokens_mean": _mean(_values(_answered(done)["completion_tokens"])),
        "truncated_rate": None if fixed else _mean([reason in CUT_OFF for reason in done["finish_reason"]]),
        "repetition_mean": _mean([_repetition(reply) for reply in replies]),
    }


_repetition = lru_cache(maxsize=None)(repetition)
"""Three tables of a report look at every reply, which the frame holds anyway."""


def _answered(done: pd.DataFrame) -> pd.DataFrame:
    """The turns that generated something: a prompt at the limit has no reply to speak of."""
    return done[done["completion_tokens"].fillna(1) > 0]


def _pass_rate(turns: pd.DataFrame, checks: Ledger) -> Estimate:
    """The pass rate of some turns; none under `length: fixed`, where replies are forced babble."""
    return Estimate(None) if (turns["length"] == "fixed").any() else pass_rate(checks.tallies(turns))


def _speeds(done: pd.DataFrame) -> Row:
    return {
        name: value
        for metric in SPEED
        for name, value in _with_interval(metric, "p50", typical(_by_launch(done, metric))).items()
    }


def _with_interval(name: str, point: str, estimate: Estimate) -> Row:
    return {f"{name}_{point}": estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _by_launch(done: pd.DataFrame, metric: str) -> Mapping[int, Sequence[float]]:
    """The values of a metric by launch, of the turns that have one in every launch: medians over different turns
    would differ by their turns."""
    known = done.loc[done[metric].notna(), ["conversation_id", "turn_index", "repeat", "launch", metric]]
    launches = known["launch"].nunique()
    if launches > 1:
        everywhere = known.groupby(["conversation_id", "turn_index", "repeat"])["launch"].transform("size") == launches
        known = known[everywhere]
    values: dict[int, list[float]] = {}
    for launch, value in zip(known["launch"].tolist(), known[metric].tolist(), strict=True):
        values.setdefault(launch, []).append(float(value))
    return values


def _values(column: pd.Series[Any]) -> list[float]:
    return [float(value) for value in column.dropna()]


def _middle(column: pd.Series[Any]) -> float | None:
    values = _values(column)
    return median(values) if values else None


def _most(column: pd.Series[Any]) -> float | None:
    return max(_values(column), default=None)


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
