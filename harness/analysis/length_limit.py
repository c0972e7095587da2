"""Where a limit that counts the prompt begins to bite: `max_length`, or the model's context.

The history grows turn by turn, and what is left for a reply shrinks by as much, unseen until one is cut off. Before a
turn the conversation has room for

    tokens left at its start = limit − prompt_tokens = tokens_left + completion_tokens

ids. The limit *bites* at a turn that it cuts off, or leaves no room for at all; under `on_overflow: error` at one that
is refused, under `drop_oldest` at the first one whose prompt leaves out messages. `max_new_tokens` is no such limit: it
is the same in every turn.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.analysis.arrays import SETTING, STATES, view
from harness.analysis.frames import Run, once_per_run
from harness.analysis.settings import in_effect
from harness.backends.limits import Limits

REASONS = ("max_length", "context")
"""Finish reasons of a reply that met such a limit."""
_REFUSED = "ContextOverflow"
_PLACE = ["run_id", *SETTING, "conversation_id"]


@once_per_run
def length_limits(run: Run) -> pd.DataFrame:
    """One row per model × sampling × concurrency × conversation that was played, in the order of the plan.

    Columns: run_id model sampling concurrency conversation_id; limited_by (`max_length` or `context`), limit_tokens
    (absent where that is not known) and on_overflow; plays, how often the conversation was played, and not_reached,
    how many turns were never reached in all of them; turn_index, the first turn at which the limit bites in any play –
    absent, like all that follows, where it never does; bitten, in how many plays it bites there: cut_off of them by
    cutting the reply off, refused by refusing the prompt; tokens_left_at_start, the median over these, and
    dropped_messages, the most.
    """
    places, told = _told(run)
    begun = told["turn_index"] == told.groupby("place")["turn_index"].transform("min")
    biting = told[told["bitten"]]
    biting = biting[biting["turn_index"] == biting.groupby("place")["turn_index"].transform("min")]
    found = places.merge(_limits(run), how="left", on=["model", "sampling"])
    found["on_overflow"] = pd.Series(run.plan["on_overflow"], found.index, dtype="string")
    by_place = {"plays": begun.groupby(told["place"]).sum(), "not_reached": told.groupby("place")["not_reached"].sum()}
    at_first = biting.groupby("place").agg(
        {"turn_index": "first", "bitten": "sum", "cut_off": "sum", "refused": "sum",
         "tokens_left_at_start": "median", "dropped_messages": "max"}
    )  # fmt: skip
    counted = pd.DataFrame({**by_place, **at_first.reindex(found.index)})
    types = {name: "Float64" if name == "tokens_left_at_start" else "Int64" for name in counted}
    return pd.concat([found, counted.astype(types)], axis=1)


def tokens_left(run: Run) -> pd.DataFrame:
    """One row per turn of the rows of `length_limits`: run_id model sampling concurrency conversation_id turn_index;
    turns, in how many plays it was reached; tokens_left_at_start, their median, absent where no limit is known."""
    places, told = _told(run)
    reached = told[~told["not_reached"]].groupby(["place", "turn_index"])["tokens_left_at_start"]
    counted = reached.agg(["size", "median"]).reset_index()
    return pd.concat(
        [
            places.iloc[counted["place"]].reset_index(drop=True),
            counted["turn_index"].astype("Int64"),
            counted["size"].astype("Int64").rename("turns"),
            counted["median"].astype("Float64").rename("tokens_left_at_start"),
        ],
        axis=1,
    )


def bitten(run: Run) -> pd.DataFrame:
    """The rows of `length_limits` in which the limit bites, with tokens_left_by_turn: the tokens left at the start of
    each turn until then, the first turn first."""
    limits = length_limits(run)
    found = limits[limits["turn_index"].notna()].reset_index(drop=True)
    until = tokens_left(run).merge(found[[*_PLACE, "turn_index"]], on=_PLACE, suffixes=("", "_of_bite"))
    until = until[until["turn_index"] <= until["turn_index_of_bite"]]
    left = until.groupby(_PLACE)["tokens_left_at_start"].agg(list).rename("tokens_left_by_turn")
    return found.merge(left.reset_index(), how="left", on=_PLACE)


def length_notes(run: Run) -> tuple[str, ...]:
    """A sentence for every limit of every model that bites: the earliest turn, and what happens there."""
    turns = run.turns
    if not (
        turns["finish_reason"].isin(REASONS) | (turns["error"] == _REFUSED) | (turns["dropped_messages"] > 0)
    ).any():
        return ()
    rows = bitten(run)
    limits = ["model", "limited_by", "limit_tokens"]
    return tuple(_sentence(of_limit) for _, of_limit in rows.groupby(limits, sort=False, dropna=False))


def _sentence(rows: pd.DataFrame) -> str:
    first = rows.sort_values("turn_index", kind="stable").iloc[0]
    known = pd.notna(first["limit_tokens"])
    name = f"{first['limited_by']}={first['limit_tokens']}" if known else str(first["limited_by"])
    turn = f"turn {first['turn_index']} of {first['conversation_id']}"
    if first["refused"]:
        said = f"refuses {turn} (on_overflow: error)"
    elif not first["cut_off"]:
        said = f"drops the oldest {first['dropped_messages']} messages before {turn} (on_overflow: drop_oldest)"
    elif first["tokens_left_at_start"] == 0:
        said = f"leaves no room for {turn}"
    else:
        said = f"cuts off {turn} ({first['tokens_left_at_start']:g} tokens left at its start)"
    if first["bitten"] < first["plays"]:
        said += f" in {first['bitten']} of {first['plays']} plays"
    others = rows["conversation_id"].nunique() - 1
    if others:
        said += f"; it bites in {others} more conversation{'s' * (others > 1)}"
    if lost := int(rows["not_reached"].sum()):
        said += f"; later turns that were never reached: {lost}"
    return f"{first['model']}: {name} {said}."


@once_per_run
def _told(run: Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The places – settings and conversations –, and what there is to know of each played turn: `place` is the row of
    its place."""
    everything = view(run)
    seen = everything.where(everything["state"] != STATES.index("missing"))
    turns = run.turns.iloc[seen.rows]
    setting = turns[list(SETTING)].groupby(list(SETTING), sort=False, observed=True).ngroup().to_numpy()
    _, first_row, place = np.unique(
        setting * (int(seen["conversation"].max(initial=0)) + 1) + seen["conversation"],
        return_index=True, return_inverse=True,
    )  # fmt: skip
    cut_off = turns["finish_reason"].isin(REASONS).to_numpy() & (seen["state"] == STATES.index("done"))
    refused = (turns["error"] == _REFUSED).to_numpy(dtype=bool, na_value=False)
    return turns[_PLACE].iloc[first_row].reset_index(drop=True), pd.DataFrame(
        {
            "place": place,
            "turn_index": seen["turn_index"].astype(np.int64),
            "not_reached": seen["state"] == STATES.index("not_reached"),
            "cut_off": cut_off,
            "refused": refused,
            "bitten": cut_off | refused | (seen["dropped_messages"] > 0),
            "tokens_left_at_start": np.where(refused, 0, seen["tokens_left"] + seen["completion_tokens"]),
            "dropped_messages": seen["dropped_messages"],
        }
    )


def _limits(run: Run) -> pd.DataFrame:
    """limited_by and limit_tokens of every model × sampling."""
    contexts = {entry["model"]: entry.get("facts", {}).get("context_tokens") for entry in run.manifest["launches"]}
    rows = [
        (model, sampling["name"], Limits.of(in_effect(run, model, sampling), contexts.get(model)))
        for model in (spec["label"] for spec in run.plan["models"])
        for sampling in run.plan["samplings"]
    ]
    return pd.DataFrame(
        {
            "model": pd.Series([model for model, _, _ in rows], dtype="string"),
            "sampling": pd.Series([sampling for _, sampling, _ in rows], dtype="string"),
            "limited_by": pd.Series([limit.total_reason for _, _, limit in rows], dtype="string"),
            "limit_tokens": pd.Series([limit.total for _, _, limit in rows], dtype="Int64"),
        }
    )
