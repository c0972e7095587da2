"""How likely replies were: forced.jsonl as frames, and what has moved between two runs.

    known(baseline)                replies to be forced on another run: execute(plan, …, force=known(baseline))
    shifts(candidate, baseline)    by how much the log-probabilities of the baseline's replies have moved, by turn
    changes(candidate, baseline)   the replies that came out another way, where they part, and whether that was a tie

A line counts for what it holds, not for whose it is called: the same ids after the same prompt (`prompt_hash`) of the
same setting are the same reply, whichever run said it first. So a run whose greedy replies are the baseline's has them
forced once, and nights that forced the same replies are what the machine's own noise is read from.

All logarithms are natural: shifts and margins are in nats per token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.analysis.arrays import SETTING
from harness.analysis.frames import Run, once_per_run
from harness.analysis.nights import forced_lines
from harness.errors import StoreError
from harness.forced import Known, Said

Reals = npt.NDArray[np.float64]
Setting = tuple[str, str, int]
"""(model, sampling, concurrency)"""
Turn = tuple[Setting, str, int]
"""(setting, conversation_id, turn_index)"""

SHIFT_COLUMNS = {
    "model": "string",
    "sampling": "string",
    "concurrency": "Int64",
    "conversation_id": "string",
    "turn_index": "Int64",
    "tokens": "Int64",
    "mean": "Float64",
    "drift": "Float64",
    "worst": "Float64",
    "worst_token": "Int64",
    "baseline_logprob": "Float64",
    "candidate_logprob": "Float64",
    "same_prompt": "boolean",
    "why_not": "string",
    "refused": "boolean",
}
"""Of the `tokens` of a reply: `mean` candidate − baseline of the log-probability, `drift` the mean of its absolute
value, `worst` the one that moved farthest with its place `worst_token` (from 0); `_logprob` the means on either side.
Where these are absent `why_not` says why; `refused`: the candidate was asked, and could not tell. `same_prompt` is
absent where the candidate tells no prompt."""

CHANGE_COLUMNS = {
    "model": "string",
    "sampling": "string",
    "concurrency": "Int64",
    "conversation_id": "string",
    "turn_index": "Int64",
    "follows": "boolean",
    "token": "Int64",
    "baseline_id": "Int64",
    "candidate_id": "Int64",
    "baseline_margin": "Float64",
    "candidate_margin": "Float64",
    "user": "string",
    "baseline_reply": "string",
    "candidate_reply": "string",
    "common": "Int64",
}
"""`follows`: the prompt was another one, because an earlier reply was. `token`: place of the first id that differs,
from 0, and the ids there (absent where a reply had ended). `baseline_margin`: by how much the baseline preferred its id
to the likeliest other; `candidate_margin`: by how much the candidate, forced up to there, prefers its own to the
baseline's. `common`: with how many equal characters both replies begin, back to the beginning of a word."""


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """A reply as it was forced."""

    turn: Turn
    of: str
    ids: npt.NDArray[np.int64]
    prompt_hash: str | None
    logprobs: Reals
    margins: Reals
    why_not: str | None

    @property
    def reply(self) -> tuple[Turn, str | None, bytes]:
        """What makes it the same reply as another."""
        return self.turn, self.prompt_hash, self.ids.tobytes()


@once_per_run
def lines(run: Run) -> Sequence[Line]:
    """What was forced in a run; of several lines about one reply of one run the last. Raises StoreError where
    forced.jsonl cannot be read, or holds something else."""
    found: dict[tuple[Turn, str], Line] = {}
    try:
        for told in forced_lines(run):
            cell = told["cell"]
            setting = (cell["model"], cell["sampling"], cell["concurrency"])
            line = Line(
                turn=(setting, cell["conversation_id"], told["turn_index"]),
                of=told["of"],
                ids=np.array(told["ids"], dtype=np.int64),
                prompt_hash=told["prompt_hash"],
                logprobs=np.array(told["logprobs"], dtype=np.float64),
                margins=np.array(told["margins"], dtype=np.float64),
                why_not=told["why_not"],
            )
            found[line.turn, line.of] = line
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(str(run.path), f"holds a forced reply that cannot be read: {error}", "restore it") from error
    return tuple(found.values())


def own(run: Run) -> Mapping[Turn, Line]:
    """What a run's own replies were like, by turn."""
    return {line.turn: line for line in lines(run) if line.of == run.run_id}


def known(run: Run) -> tuple[Known, ...]:
    """The greedy replies of a run, to be forced on others: those it had forced itself, with their texts.

    Raises StoreError as `lines` does.
    """
    told = _told(run)
    conversations: dict[tuple[Setting, str], list[Said]] = {}
    for (setting, conversation_id, turn_index), line in sorted(own(run).items()):
        reply, finish_reason = told.get((setting, conversation_id, turn_index), (None, None))
        said = Said(turn_index, reply, finish_reason, tuple(line.ids.tolist()), line.prompt_hash)
        conversations.setdefault((setting, conversation_id), []).append(said)
    return tuple(
        Known(run.run_id, *setting, conversation_id, tuple(replies))
        for (setting, conversation_id), replies in conversations.items()
    )


def _told(run: Run) -> Mapping[Turn, tuple[str | None, Any]]:
    """Reply and finish reason of the turns that are forced: of repeat 0 of launch 0."""
    first = run.turns[(run.turns["launch"] == 0) & (run.turns["repeat"] == 0)]
    names = [*SETTING, "conversation_id", "turn_index", "reply", "finish_reason"]
    values = ([None if value is pd.NA else value for value in first[name].tolist()] for name in names)
    return {
        ((model, sampling, level), conversation, turn): (reply, finish)
        for model, sampling, level, conversation, turn, reply, finish in zip(*values, strict=True)
    }


def shifts(candidate: Run, baseline: Run) -> pd.DataFrame:
    """One row per reply that the baseline had forced of its own: `SHIFT_COLUMNS`, by setting and turn.

    Raises StoreError as `lines` does.
    """
    here = {line.reply: line for line in lines(candidate)}
    named = {(line.turn, line.of): line for line in lines(candidate)}
    rows = []
    for turn, line in sorted(own(baseline).items()):
        found = here.get(line.reply)
        row = _turn_columns(turn) | {"tokens": len(line.ids), "same_prompt": True, "refused": False}
        if line.why_not is None and found is not None and found.why_not is None:
            if np.isfinite(found.logprobs).all() or not np.isfinite(line.logprobs).all():
                rows.append(row | _moved(line.logprobs, found.logprobs))
            else:
                rows.append(row | {"why_not": "a log-probability is no number", "refused": True})
            continue
        other = found or named.get((turn, baseline.run_id))
        row["refused"] = line.why_not is None and other is not None and other.why_not is not None
        if line.why_not is not None:
            why_not, same = f"not forced in {baseline.run_id}: {line.why_not}", None
        elif other is None:
            why_not, same = "was not forced", None
        elif other.why_not is not None:
            why_not, same = other.why_not, None if other.prompt_hash is None else other.prompt_hash == line.prompt_hash
        else:
            why_not, same = "the prompt is another one", False
        rows.append(row | {"why_not": why_not, "same_prompt": same})
    return _frame(rows, SHIFT_COLUMNS)


def _moved(baseline: Reals, candidate: Reals) -> dict[str, Any]:
    by = candidate - baseline
    farthest = int(np.argmax(np.abs(by)))
    return {
        "mean": float(by.mean()),
        "drift": float(np.abs(by).mean()),
        "worst": float(by[farthest]),
        "worst_token": farthest,
        "baseline_logprob": float(baseline.mean()),
        "candidate_logprob": float(candidate.mean()),
    }


def changes(candidate: Run, baseline: Run) -> pd.DataFrame:
    """One row per greedy reply that is not the baseline's, id by id, of those both runs had forced of their own:
    `CHANGE_COLUMNS`, by setting and turn.

    Raises StoreError as `lines` does.
    """
    now, here = own(candidate), {line.reply: line for line in lines(candidate)}
    before_said, now_said = _told(baseline), _told(candidate)
    users = _users(candidate)
    rows = []
    for turn, before in sorted(own(baseline).items()):
        after = now.get(turn)
        if after is None or np.array_equal(after.ids, before.ids):
            continue
        follows = after.prompt_hash != before.prompt_hash
        texts = [said.get(turn, (None, None))[0] for said in (before_said, now_said)]
        row = _turn_columns(turn) | {
            "follows": follows,
            "user": users.get(turn),
            "baseline_reply": texts[0],
            "candidate_reply": texts[1],
            "common": in_common(*texts),
        }
        rows.append(row if follows else row | _parted(before, after, here.get(before.reply)))
    return _frame(rows, CHANGE_COLUMNS)


def _parted(before: Line, after: Line, forced: Line | None) -> dict[str, Any]:
    """Where two replies to one prompt part, and how near to a tie that was on either side."""
    both = min(len(before.ids), len(after.ids))
    unlike = np.flatnonzero(before.ids[:both] != after.ids[:both])
    if not len(unlike):  # one is the beginning of the other
        return {"token": both}
    at = int(unlike[0])
    told: dict[str, Any] = {
        "token": at,
        "baseline_id": int(before.ids[at]),
        "candidate_id": int(after.ids[at]),
    }
    if before.why_not is None:
        told["baseline_margin"] = float(before.margins[at])
    if after.why_not is None and forced is not None and forced.why_not is None:
        # Up to here both hold the same ids, so the two log-probabilities are of the same place.
        told["candidate_margin"] = float(after.logprobs[at] - forced.logprobs[at])
    return told


def in_common(one: str | None, other: str | None) -> int:
    """With how many equal characters two replies begin, back to the beginning of a word; 0 where there is none."""
    if one is None or other is None:
        return 0
    same = next((at for at, (ours, theirs) in enumerate(zip(one, other, strict=False)) if ours != theirs), None)
    if same is None:
        return min(len(one), len(other))
    return max(one.rfind(space, 0, same) + 1 for space in (" ", "\n"))


def _users(run: Run) -> Mapping[Turn, str]:
    first = run.turns[(run.turns["launch"] == 0) & (run.turns["repeat"] == 0) & run.turns["user"].notna()]
    names = [*SETTING, "conversation_id", "turn_index", "user"]
    return {
        ((m, s, level), talk, turn): user
        for m, s, level, talk, turn, user in zip(*(first[n] for n in names), strict=True)
    }


def _turn_columns(turn: Turn) -> dict[str, Any]:
    setting, conversation_id, turn_index = turn
    return dict(zip(SETTING, setting, strict=True)) | {"conversation_id": conversation_id, "turn_index": turn_index}


def _frame(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> pd.DataFrame:
    return pd.DataFrame(
        {name: pd.Series([row.get(name) for row in rows], dtype=dtype) for name, dtype in columns.items()}
    )


def of_setting(frame: pd.DataFrame, setting: Setting) -> pd.DataFrame:
    """The rows of a setting."""
    mask = np.ones(len(frame), dtype=bool)
    for name, value in zip(SETTING, setting, strict=True):
        mask &= (frame[name] == value).to_numpy(dtype=bool, na_value=False)
    return frame[mask]
