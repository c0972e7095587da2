"""How large a context a model could hold, and what ended it: its own limit, the memory, or merely the script.

Conversations whose context grows turn by turn find the limit by bracketing it: the largest context that was answered
lies below, the smallest prompt that was not lies above. Running out of memory is such an end, not a mishap of the
measurement; so is a worker that the system killed for its memory, which tells no prompt size any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from harness.analysis.arrays import SETTING
from harness.analysis.frames import Run
from harness.analysis.summary import MEMORY
from harness.analysis.tables import Row, setting_of, table

TAG = "context-limit"
"""Conversations that are there to find it: a run that plays one is told also that the script ended first."""
LIMITS = ("context", "max_length")
"""Finish reasons of a turn that met a limit of the conversation's length."""
SCRIPT = "end of script"
_CELL = [*SETTING, "conversation_id", "repeat", "launch"]
_LOOKED_AT = [*_CELL, "state", "finish_reason", "error", "prompt_tokens", "completion_tokens", *MEMORY]


def context_limits(run: Run) -> pd.DataFrame:
    """One row per model × sampling × concurrency that was played.

    Columns: run_id model sampling concurrency; answered_tokens, the largest context (prompt and reply) of a turn that
    generated anything; unanswered_tokens, the smallest prompt larger than that of which this is not so, absent where
    the last turn filled the limit to its end or never told its prompt; context_tokens, what the model says it can
    hold; ended_by, how the conversations ended: `context`, `max_length`, the kind of a failure (OutOfMemory, Timeout,
    WorkerDied …), `end of script`, or several of them, the most frequent first; and the memory of the largest turn.
    """
    turns = run.turns[_LOOKED_AT]
    played = turns[turns["state"].isin(["done", "failed"])]
    # Rows of a conversation follow each other in the order of its turns.
    last = played.drop_duplicates(_CELL, keep="last")
    ends = dict(iter(last.groupby(list(SETTING), sort=False)))
    contexts = _contexts(run)
    rows = [
        {
            **setting_of(run.run_id, values),
            "context_tokens": contexts.get(str(values[0])),
            **_row(setting, ends[values]),
        }
        for values, setting in played.groupby(list(SETTING), sort=False)
    ]
    names = ("answered_tokens", "unanswered_tokens", "context_tokens", "ended_by", *MEMORY)
    return table(rows, ["run_id", *SETTING, *names])


def limits_met(run: Run) -> pd.DataFrame:
    """The rows of `context_limits` that are a finding: a conversation met a limit or ran out of memory – or the run
    plays one that is there to find out, and then its script may have ended first."""
    limits = context_limits(run)
    if any(TAG in conversation.get("tags", ()) for conversation in run.plan["conversations"]):
        return limits
    return limits[limits["ended_by"].str.contains("|".join((*LIMITS, "OutOfMemory")))]


def _row(played: pd.DataFrame, last: pd.DataFrame) -> Row:
    spoken = played[(played["state"] == "done") & (played["completion_tokens"].fillna(0) > 0)]
    silent = last.loc[(last["state"] == "failed") | (last["completion_tokens"] == 0), "prompt_tokens"].dropna()
    context = (spoken["prompt_tokens"] + spoken["completion_tokens"]).fillna(0)
    largest = spoken.iloc[int(context.argmax())] if len(spoken) else None
    answered = None if largest is None else int(context.max())
    beyond = silent[silent > (answered or 0)]
    return {
        "answered_tokens": answered,
        "unanswered_tokens": int(beyond.min()) if len(beyond) else None,
        "ended_by": ", ".join(_ends(last).value_counts().index),
        **{name: None if largest is None else largest[name] for name in MEMORY},
    }


def _ends(last: pd.DataFrame) -> pd.Series[Any]:
    """How each conversation ended."""
    reason = last["finish_reason"].where(last["finish_reason"].isin(LIMITS), SCRIPT)
    return last["error"].fillna(reason)


def _contexts(run: Run) -> Mapping[str, int]:
    """By model, as its own config says."""
    return {
        launch["model"]: launch["facts"]["context_tokens"]
        for launch in run.manifest["launches"]
        if launch.get("facts", {}).get("context_tokens") is not None
    }
