"""Summaries of a run as frames: by setting, by turn, by conversation. Reports format them; nothing here prints.

Units are those of the metrics (seconds, bytes, tokens); a `_p50` is the typical value of `stats.typical` and comes
with the `_low` and `_high` of its interval. Speed is of turns that were answered; checks count every planned turn
that was played: one that failed or was not reached has failed all its checks, because survivors' averages lie. What
is forced to a length, or comes from random weights, says nothing: no figure speaks of it. Levels of concurrency are
never mixed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

import numpy as np
import pandas as pd

from harness.analysis.arrays import SETTING, STATES, Array, View, by_launch, groups, view
from harness.analysis.frames import Run
from harness.analysis.ledger import Ledger, ledger
from harness.analysis.stability import SPREAD_OF, Stability, stabilities
from harness.analysis.stats import Estimate, centre, median, pass_rate, percentile, typical
from harness.analysis.tables import Row, table

SPEED = ("ttft_s", "tpot_s", "output_tokens_per_s", "e2e_s")
"""The speed metrics of a setting, each with p50 and interval."""
TAILS = ("ttft_s", "tpot_s")
"""Those with p95 and p99, where there are samples enough."""
MEMORY = ("peak_memory_bytes", "device_used_bytes", "host_rss_bytes", "kv_cache_bytes")
"""The gauges of a turn."""
_OF_TURNS = ("prompt_tokens", "cached_tokens", "completion_tokens", "tokens_left", "dropped_messages", *MEMORY)
EFFORT = ("energy_j", "energy_per_token_j", "bandwidth_utilisation", "prefill_flop_utilisation")
"""What a turn took of the machine, and how much of the machine's best that is: each with its p50."""
STEADINESS = tuple(f"{metric}_{name}" for metric in SPREAD_OF for name in ("launch_sd", "turn_sd"))
"""How much the very same work differs, as standard deviations of logarithms (`spread.Spread`)."""

_Summary = Callable[[Row, View, Ledger], Row]
"""(the keys of a group, its turns, what checks they were to meet) → its row"""


def by_setting(run: Run) -> pd.DataFrame:
    """One row per model × sampling × concurrency, in the order of the config.

    Columns: run_id model sampling concurrency launches conversations turns done failed not_reached missing; checks_rate
    checks_low checks_high checks_basis; for every metric of `SPEED` its _p50 _low _high, of `TAILS` its _p95 _p99,
    and speed_basis; completion_tokens_p50 completion_tokens_mean; truncated_rate (None under length: fixed, where
    every reply is cut off on purpose); repetition_mean; the most of peak_memory_bytes, device_used_bytes,
    host_rss_bytes and kv_cache_bytes over the turns; of `EFFORT` the _p50; load_s and first_turn_s (medians over the
    model's launches); stability (the badge of `stability.Stability`) and what it goes by: ttft_s_launch_sd
    ttft_s_turn_sd tpot_s_launch_sd tpot_s_turn_sd and foreign_load.
    """
    steady = {(each.model, each.sampling, each.concurrency): each for each in stabilities(run)}
    loads = {name: run.launches.groupby("model")[name].median() for name in ("load_s", "first_turn_s")}

    def row(keys: Row, turns: View, checks: Ledger) -> Row:
        done = turns.done
        passed = _pass_rate(keys, turns, checks)
        return {
            "launches": len(np.unique(_played(turns)["launch"])),
            **_counts(turns),
            **_with_interval("checks", "rate", passed),
            "checks_basis": passed.basis,
            **_speeds(done),
            **{f"{name}_p{q}": percentile(done.known(name), q) for name in TAILS for q in (95, 99)},
            "speed_basis": typical(by_launch(done, "e2e_s")).basis,
            "completion_tokens_p50": _middle(_answered(done).known("completion_tokens")),
            **_behaviour(turns),
            **{name: max(done.known(name).tolist(), default=None) for name in MEMORY},
            **{f"{name}_p50": centre(by_launch(done, name)) for name in EFFORT},
            **{name: loads[name].get(keys["model"]) for name in loads},
            **_steadiness(steady[keys["model"], keys["sampling"], keys["concurrency"]]),
        }

    return _table(run, SETTING, row)


def by_settings(runs: Sequence[Run]) -> pd.DataFrame:
    """`by_setting` of several runs, one table after the other; `run_id` tells them apart."""
    return pd.concat([by_setting(run) for run in runs], ignore_index=True)


def by_turn(run: Run) -> pd.DataFrame:
    """One row per model × sampling × concurrency × turn_index: how a conversation grows.

    Columns: conversations (that have such a turn) and turns with their states; checks_rate (no interval: one turn of
    a few conversations carries none); medians of prompt_tokens cached_tokens completion_tokens tokens_left
    dropped_messages, and of the memory that `by_setting` has the most of, as _p50; prefill_s_p50; the `SPEED` metrics
    as in `by_setting`.
    """

    def row(keys: Row, turns: View, checks: Ledger) -> Row:
        done = turns.done
        return {
            **_counts(turns),
            "checks_rate": _pass_rate(keys, turns, checks).value,
            **{f"{name}_p50": _middle(done.known(name)) for name in _OF_TURNS},
            "prefill_s_p50": centre(by_launch(done, "prefill_s")),
            **_speeds(done),
        }

    return _table(run, (*SETTING, "turn_index"), row)


def by_conversation(run: Run, most: int | None = None) -> pd.DataFrame:
    """One row per model × sampling × concurrency × conversation_id, of the first `most` conversations of the plan or of
    all: turns with their states, checks_rate, completion_tokens_mean, truncated_rate, repetition_mean, e2e_s_p50 (of a
    turn)."""
    wanted = {conversation["id"] for conversation in run.plan["conversations"][:most]}

    def row(keys: Row, turns: View, checks: Ledger) -> Row:
        return {
            **_counts(turns),
            "checks_rate": _pass_rate(keys, turns, checks).value,
            **_behaviour(turns),
            "e2e_s_p50": centre(by_launch(turns.done, "e2e_s")),
        }

    return _table(run, (*SETTING, "conversation_id"), row, lambda keys: keys["conversation_id"] in wanted)


def _table(
    run: Run, keys: Sequence[str], row: _Summary, wanted: Callable[[Row], bool] = lambda keys: True
) -> pd.DataFrame:
    checks, everything = ledger(run), view(run)
    rows = []
    for values, turns in groups(run.turns, keys, everything):
        named = dict(zip(keys, values, strict=True))
        if wanted(named):
            rows.append({"run_id": run.run_id, **named, **row(named, turns, checks)})
    return table(rows, dict.fromkeys(name for row in rows for name in row))


def _played(turns: View) -> View:
    return turns.where(turns["state"] != STATES.index("missing"))


def _counts(turns: View) -> Row:
    states = np.bincount(turns["state"], minlength=len(STATES)).tolist()
    return {
        "conversations": len(np.unique(turns["conversation"])),
        "turns": len(turns),
        **dict(zip(STATES, states, strict=True)),
    }


def _behaviour(turns: View) -> Row:
    done = turns.done
    meaningful = not turns.babble
    return {
        "completion_tokens_mean": _mean(_answered(done).known("completion_tokens")),
        "truncated_rate": _mean(done["cut_off"]) if meaningful else None,
        "repetition_mean": _mean(done.known("repetition")) if meaningful else None,
    }


def _steadiness(found: Stability) -> Row:
    return {
        "stability": found.badge,
        **{
            f"{metric}_{name}": getattr(each, name)
            for metric, each in found.spreads.items()
            for name in ("launch_sd", "turn_sd")
        },
        "foreign_load": found.foreign_load,
    }


def _answered(done: View) -> View:
    """The turns that generated something: a prompt at the limit has no reply to speak of."""
    return done.where(np.nan_to_num(done["completion_tokens"], nan=1) > 0)


def _pass_rate(keys: Row, turns: View, checks: Ledger) -> Estimate:
    """The pass rate of some turns of a setting; none where replies mean nothing."""
    if turns.babble:
        return Estimate(None)
    tally = checks.tally(turns, keys["model"], keys["sampling"])
    return pass_rate(tally.passed, tally.total, tally.turns)


def _speeds(done: View) -> Row:
    return {
        name: value
        for metric in SPEED
        for name, value in _with_interval(metric, "p50", typical(by_launch(done, metric))).items()
    }


def _with_interval(name: str, point: str, estimate: Estimate) -> Row:
    return {f"{name}_{point}": estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _middle(values: Array) -> float | None:
    return median(values) if len(values) else None


def _mean(values: Array) -> float | None:
    return fmean(values.tolist()) if len(values) else None
