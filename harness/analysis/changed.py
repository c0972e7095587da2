"""The replies of a night that are not what they were, with where they part and what is known about that.

Of a greedy setting the first play is held against the newest night of the window that it may be held against: id by id
where both had their replies forced (`forced.changes`), which tells a near tie from a change, and else by text. Of
checks that turned there are both replies in the gate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from harness.analysis.arrays import SETTING
from harness.analysis.forced import CHANGE_COLUMNS, Setting, changes, in_common, of_setting, own
from harness.analysis.frames import Run
from harness.analysis.gating.window import Against, against
from harness.analysis.ledger import ledger
from harness.analysis.text_verdicts import is_near_tie, text_verdicts
from harness.analysis.verdict import Gate

KINDS = ("change", "open", "near tie", "another prompt")
"""What a reply that differs is: a change; nobody knows, as it was not forced, or not chosen by the model's own scores;
a near tie that fell the other way; the answer to another prompt, as after an earlier reply that differs."""
CHANGED_COLUMNS = {
    name: dtype for name, dtype in CHANGE_COLUMNS.items() if name not in ("follows", "baseline_id", "candidate_id")
} | {"baseline_run": "string", "kind": "string"}
"""As in `forced.CHANGE_COLUMNS`; `baseline_run` is the night that `baseline_reply` is of, `kind` one of `KINDS`."""
_PLACE = ["conversation_id", "turn_index"]


def changed_replies(gate: Gate) -> pd.DataFrame:
    """One row per greedy reply of tonight that differs: `CHANGED_COLUMNS`, by `KINDS`, then by setting and turn.

    Raises StoreError where what was forced cannot be read.
    """
    held = against(gate.candidate, gate.baseline)
    greedy = ledger(gate.candidate).greedy
    found = [
        rows
        for setting, here in sorted(held.items())
        if here.tonight is not None and setting[:2] in greedy
        for rows in _of_setting(gate.candidate, setting, here)
    ]
    columns = {name: pd.Series([], dtype=dtype) for name, dtype in CHANGED_COLUMNS.items()}
    together = pd.concat([pd.DataFrame(columns), *found], ignore_index=True)[list(CHANGED_COLUMNS)]
    return together.sort_values("kind", key=lambda kinds: kinds.map(KINDS.index), kind="stable", ignore_index=True)


def _of_setting(candidate: Run, setting: Setting, here: Against) -> Iterator[pd.DataFrame]:
    """The replies of one setting that differ; nothing where no night may be held against tonight."""
    nights = [night.run for night in here.comparable("behaviour")]
    forced = next((night for night in reversed(nights) if _forced(night, setting)), None)
    if forced is not None and _forced(candidate, setting):
        rows = of_setting(changes(candidate, forced), setting)
        if len(rows):
            yield rows.assign(baseline_run=forced.run_id, kind=_kinds(rows, _tie(candidate, nights, setting)))
    elif nights:
        yield _by_text(candidate, nights[-1], setting)


def _forced(run: Run, setting: Setting) -> bool:
    return any(turn[0] == setting for turn in own(run))


def _tie(candidate: Run, nights: Sequence[Run], setting: Setting) -> float | None:
    verdicts = text_verdicts(candidate, nights)
    return next(each.tie for each in verdicts if (each.model, each.sampling, each.concurrency) == setting)


def _kinds(rows: pd.DataFrame, tie: float | None) -> list[str]:
    return [_kind(row, tie) for row in rows.to_dict("records")]  # type: ignore[arg-type]


def _kind(row: Mapping[str, object], tie: float | None) -> str:
    if row["follows"] is True:
        return "another prompt"
    if tie is None:
        return "open"
    return "near tie" if is_near_tie(row, tie) else "change"


def _by_text(candidate: Run, baseline: Run, setting: Setting) -> pd.DataFrame:
    """The replies of the first play whose texts differ."""
    before, now = (_first_play(run, setting) for run in (baseline, candidate))
    both = now.merge(before, on=_PLACE, suffixes=("", "_before"), sort=True)
    both = both[(both["reply"] != both["reply_before"]).fillna(value=True).astype(bool)]
    other = (both["prompt_hash"] != both["prompt_hash_before"]).fillna(value=False).to_numpy(dtype=bool)
    texts = zip(both["reply_before"].tolist(), both["reply"].tolist(), strict=True)
    values: dict[str, object] = {
        **dict(zip(SETTING, setting, strict=True)),
        **{name: both[name].tolist() for name in (*_PLACE, "user")},
        "baseline_reply": both["reply_before"].tolist(),
        "candidate_reply": both["reply"].tolist(),
        "common": [in_common(one, another) for one, another in texts],
        "baseline_run": baseline.run_id,
        "kind": np.where(other, "another prompt", "open").tolist(),
    }
    return pd.DataFrame(
        {
            name: pd.Series(values.get(name, pd.NA), index=range(len(both)), dtype=dtype)
            for name, dtype in CHANGED_COLUMNS.items()
        }
    )


def _first_play(run: Run, setting: Setting) -> pd.DataFrame:
    first = of_setting(run.turns, setting)
    first = first[(first["launch"] == 0) & (first["repeat"] == 0) & (first["state"] == "done")]
    return first[[*_PLACE, "prompt_hash", "user", "reply"]]


def turned_checks(gate: Gate) -> pd.DataFrame:
    """`Gate.flips`, and with how many characters both replies begin: `common`."""
    replies = (gate.flips[f"{side}_reply"].tolist() if len(gate.flips) else [] for side in ("baseline", "candidate"))
    common = [in_common(*(None if pd.isna(said) else said for said in both)) for both in zip(*replies, strict=True)]
    return gate.flips.assign(common=pd.Series(common, index=gate.flips.index, dtype="Int64"))
