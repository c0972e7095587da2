"""One row of a comparison in words: the same words on a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from harness.analysis.compare import NOT_COMPARABLE, Comparison
from harness.report.markdown import spans
from harness.report.units import ABSENT, interval, memory, ms, number, percent

Row = Mapping[Any, Any]
FAIRNESS = (
    "What differs besides the thing compared. Where there is a blocker, numbers are shown and no answer is given; a "
    "suspect may be where a difference comes from."
)
ANSWERS = (
    "Effect: candidate over baseline (×) or candidate − baseline, with its 95 % interval; q: the share of chance finds "
    "among all rows that are at least as sure. Speed, memory, loading: the conversations are fixed, the launches are "
    "the sample. Behaviour: the conversations are the sample, and values are means over them, each counting alike, "
    "where a report's tables count each check or turn alike. More of them: how many would find, four times of five, a "
    "difference as large as it looks, to one as small as the margin."
)
FLIPS = "Flips: checks that went from pass to fail (lost) or back (gained), in these conversations."
BY_TURN = "By turn: where in the conversations speed differs; q over this table."


def heading(comparison: Comparison) -> str:
    """What is compared with what, and what is taken for too small to matter."""
    runs = " and ".join(run.run_id for run in comparison.runs)
    share = f"{100 * comparison.margin:g}"
    return f"Compared by {comparison.compared}: {runs} · margin ±{share} % of speed, ±{share} points of rates"


def differences(comparison: Comparison) -> Iterator[dict[str, str]]:
    """The rows of the ledger; what all pairs have in common once, of the rest it is said whose it is. Absent things are
    empty."""
    told = ["field", "baseline_value", "candidate_value", "speed", "behaviour", "remark"]
    for cells, of in comparison.ledger.fillna(dict.fromkeys(told, "")).groupby(told, sort=False):
        row = dict(zip(told, map(str, cells), strict=True))
        if len(of) < len(comparison.pairs):
            row["field"] += f" ({'; '.join(map(sides, of.to_dict('records')))})"
        yield row


def sides(row: Row) -> str:
    """Which two settings a row is about."""
    setting = f" ({row['setting']})" if row["setting"] else ""
    return f"{row['baseline']} → {row['candidate']}{setting}"


TITLES = {
    "ttft_s": "TTFT ms",
    "tpot_s": "TPOT ms",
    "e2e_s": "end to end ms",
    "output_tokens_per_s": "tok/s",
    "s_per_1k_gold_chars": "s per 1000 characters",
    "peak_memory_bytes": "GPU memory",
    "device_used_bytes": "GPU in use",
    "host_rss_bytes": "host memory",
    "kv_cache_bytes": "KV cache",
    "load_s": "load s",
    "first_turn_s": "first turn ms",
    "check_pass_rate": "checks passed",
    "completion_tokens": "tokens",
    "truncation_rate": "cut off",
    "failure_rate": "not answered",
    "repetition": "repetition",
}
"""What the rows are called, with units where the values do not say them."""
_SECONDS = ("load_s", "s_per_1k_gold_chars")


def value(row: Row, name: str) -> str:
    """A value of one side, in the unit of the title."""
    found = row[name]
    if row["unit"] == "s":
        return number(found) if row["metric"] in _SECONDS else ms(found)
    return memory(found) if row["unit"] == "bytes" else percent(found) if row["unit"] == "rate" else number(found)


def effect(row: Row) -> str:
    if pd.isna(row["effect"]):
        return ABSENT
    if row["scale"] == "ratio":
        return f"×{number(row['effect'])}"
    return f"{_signed(row, row['effect'])}{_points(row)}"


def between(row: Row) -> str:
    """The interval of the effect; nothing where there is none."""
    if row["scale"] == "ratio":
        return interval(row["low"], row["high"], number)
    if pd.isna(row["low"]):
        return ""
    return f"{_signed(row, row['low'])} to {_signed(row, row['high'])}"


def _points(row: Row) -> str:
    return " points" if row["unit"] == "rate" else ""


def _signed(row: Row, found: float) -> str:
    shown = number(100 * found if row["unit"] == "rate" else found)
    return shown.replace("-", "−") if found <= 0 else f"+{shown}"


def q(row: Row) -> str:
    return ABSENT if pd.isna(row["q"]) else "<0.001" if row["q"] < 0.001 else f"{row['q']:.3f}"


def answer(row: Row) -> str:
    """The answer, who is better or what would tell, in a few words."""
    found = str(row["answer"])
    if found == "different":
        found += f": {row['better']} better" if pd.notna(row["better"]) else ""
        return found + (f" ({row['reason']})" if pd.notna(row["reason"]) else "")
    if found == NOT_COMPARABLE:
        return f"{found}: {row['reason']}"
    return found if found == "equivalent" else f"{found}: {_what_tells(row)}"


def _what_tells(row: Row) -> str:
    if row["basis"] == "one launch":
        return "one launch"
    if pd.isna(row["needed"]):
        return "no spread known"
    soon, sure = (int(row[name]) - int(row["n"]) for name in ("needed_as_seen", "needed"))
    if sure <= 0:
        return "too near the margin"
    return (f"{soon} to " if 0 < soon < sure else "") + _several(sure, row, "more ")


def _several(n: int, row: Row, more: str = "") -> str:
    """`4 launches`, or conversations, whichever the row is about."""
    if str(row["basis"]).endswith("conversations"):
        return f"{n} {more}conversation{'' if n == 1 else 's'}"
    return f"{n} {more}launch{'' if n == 1 else 'es'}"


def samples(rows: pd.DataFrame) -> str:
    """How much the answers of a pair are made from: `Samples: 4 launches, 6 conversations.`"""
    told = [_several(int(row["n"]), row) for row in rows[rows["effect"].notna()].to_dict("records")]
    return f"Samples: {', '.join(dict.fromkeys(told)) or 'none'}."


def not_compared(rows: pd.DataFrame) -> list[str]:
    """Why metrics have no row, one line per reason."""
    absent = rows[rows["effect"].isna()]
    return [
        f"Not compared: {', '.join(TITLES[name] for name in of['metric'])} – {reason}."
        for reason, of in absent.groupby("reason", sort=False)
    ]


def footing(rows: pd.DataFrame) -> list[str]:
    """What the answers of a pair stand on: samples, and how many turns speed is about and why not all."""
    timed = rows[(rows["estimand"] == "speed") & rows["effect"].notna() & rows["left_out_why"].notna()]
    unpaired = [
        f"Speed of {row['turns']} turns; not paired – {row['left_out_why']}." for row in timed.to_dict("records")
    ]
    return [samples(rows), *unpaired[:1]]


def by_turn(turns: pd.DataFrame) -> str:
    """At which turns the speed of a pair is different, in one line; nothing where at none."""
    changed = turns[turns["answer"] == "different"].groupby("metric", sort=False)["turn_index"].agg(list)
    told = [f"{TITLES[str(metric)]} {spans(numbers)}" for metric, numbers in changed.items()]
    return f"Different at turns (of {spans(turns['turn_index'].unique().tolist())}): {'; '.join(told)}." if told else ""


def rates(row: Row) -> str:
    """How a check went: `lost 1/1 → 0/1`."""
    plays = [
        f"{row[f'{side}_rate'] * row[f'{side}_times']:.0f}/{row[f'{side}_times']}" for side in ("baseline", "candidate")
    ]
    return f"{row['change']} {' → '.join(plays)}"


def said(row: Row, side: str) -> str:
    """A reply, or why there is none."""
    reply, detail = row[f"{side}_reply"], row[f"{side}_detail"]
    return str(reply) if pd.notna(reply) else f"no reply: {detail if pd.notna(detail) else 'not reached'}"
