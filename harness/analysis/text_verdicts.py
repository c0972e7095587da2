"""Whether a night says what the baseline said: has the model moved, or was it only a tie that fell the other way?

Greedy text is no measure: one id between two that were as good as equal, and everything after it is different. What is
judged is how likely the baseline's replies are under tonight's model (`forced.shifts`), against the floor that rounding
has (`text_floor`). The interval of the mean shift tells how much it varies between conversations; nothing is decided by
it.

A reply that changed is a *near tie* where neither side preferred its id by more than the shifts can move two ids
against each other. Any other change is one even if the log-probabilities have stayed: then it is not the model but what
decodes – the engine, its cache, the sampling –, which the forced pass does not go through.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from harness.analysis.forced import Setting, changes, of_setting, own, shifts
from harness.analysis.frames import Run
from harness.analysis.stats import t_quantile
from harness.analysis.text_floor import Figures, Floor, computes_alike, figures, floor_of
from harness.analysis.verdict import Answer

_MARGINS = ("baseline_margin", "candidate_margin")


@dataclass(frozen=True, slots=True)
class TextVerdict:
    """What was said in one setting, judged against the newest baseline that had its replies forced."""

    model: str
    sampling: str
    concurrency: int
    answer: Answer
    reason: str
    baseline_run: str | None = None
    """Whose replies were forced."""
    shift: float | None = None
    """The mean shift, candidate − baseline, in nats per token; with its interval over conversations, None below two."""
    low: float | None = None
    high: float | None = None
    figures: Figures | None = None
    floor: Floor | None = None
    baseline_perplexity: float | None = None
    """exp(−mean log-probability of the replies), and that of the same replies tonight."""
    candidate_perplexity: float | None = None
    changed: int = 0
    """Replies that came out another way, those that follow from an earlier change left out; of them near ties:"""
    near_ties: int = 0
    tie: float | None = None
    """How far from a tie, in nats, a reply may part and be a near tie; None where margins tell nothing of that, as
    under a penalty, or there is nothing to go by."""
    nights: int = 0
    """Others of the window that forced the same replies."""
    needed: str | None = None
    """What would decide where nobody can tell."""
    notes: tuple[str, ...] = ()


def text_verdicts(candidate: Run, window: Sequence[Run], confirm: Sequence[Run] = ()) -> list[TextVerdict]:
    """One verdict per greedy setting whose replies were forced, tonight or in the window, by setting.

    `window` are the baselines, oldest first; the newest that forced its own replies of a setting, as many as any of
    them, is what tonight is held against, the others show the machine's noise. `confirm` are further launches of
    tonight that forced the same replies; one that did not tells nothing. Raises StoreError where what was forced cannot
    be read.
    """
    references = _references(window)
    verdicts = [
        TextVerdict(*setting, "cannot tell", "no baseline had its replies forced", needed="a baseline that had")
        for setting in _settings(candidate).keys() - references.keys()
    ]
    for reference in window:
        settings = [setting for setting, run in references.items() if run is reference]
        if not settings:
            continue
        tonight = _Launch.of_run(candidate, reference)
        again = [(run, _Launch.of_run(run, reference)) for run in confirm]
        others = [shifts(run, reference) for run in window if run is not reference]
        verdicts += [_judged(each, candidate, reference, tonight.of(each), others, again) for each in settings]
    return sorted(verdicts, key=lambda verdict: (verdict.model, verdict.sampling, verdict.concurrency))


def _settings(run: Run) -> Counter[Setting]:
    """How many replies of each setting a run had forced of its own."""
    return Counter(setting for (setting, _, _), line in own(run).items() if line.why_not is None)


def _references(window: Sequence[Run]) -> dict[Setting, Run]:
    """The newest night that forced the most replies of each setting: what a worker that died left of a night would
    say nothing of the rest."""
    found: dict[Setting, tuple[int, Run]] = {}
    for run in window:
        for setting, count in _settings(run).items():
            if setting not in found or count >= found[setting][0]:
                found[setting] = (count, run)
    return {setting: run for setting, (_, run) in found.items()}


@dataclass(frozen=True, slots=True, eq=False)
class _Launch:
    """What one launch made of the baseline's replies."""

    moved: pd.DataFrame
    """`forced.shifts`"""
    parted: pd.DataFrame
    """`forced.changes`"""

    @classmethod
    def of_run(cls, run: Run, reference: Run) -> _Launch:
        return cls(shifts(run, reference), changes(run, reference))

    def of(self, setting: Setting) -> _Launch:
        return _Launch(of_setting(self.moved, setting), of_setting(self.parted, setting))

    def found(self, floor: Floor, *, margins: bool) -> list[str]:
        """What of it is no rounding and no near tie, in words; without `margins` to go by, what is no rounding. Changed
        replies of a model that has moved come of that, and are not told again."""
        told = figures(self.moved)
        beyond = [] if told is None else told.beyond(floor)
        return beyond or (_no_ties(self.changed(near_tie=False, tie=_tie(told, floor))) if margins else [])

    def changed(self, *, near_tie: bool, tie: float) -> list[Mapping[str, Any]]:
        """The changed replies that are near ties, or are none; without those that follow from an earlier one."""
        rows: list[Mapping[str, Any]] = self.parted[~self.parted["follows"].astype(bool)].to_dict("records")  # type: ignore[assignment]
        return [row for row in rows if is_near_tie(row, tie) is near_tie]


def _judged(
    setting: Setting,
    candidate: Run,
    reference: Run,
    tonight: _Launch,
    others: Sequence[pd.DataFrame],
    again: Sequence[tuple[Run, _Launch]],
) -> TextVerdict:
    told = figures(tonight.moved)
    whole = _cannot_compare(setting, candidate, reference, tonight.moved)
    if whole is not None or told is None:
        words = "every reply is the same, word for word; how likely they are was not looked at"
        return whole or TextVerdict(*setting, "pass", words, reference.run_id)
    nights = [night for night in (figures(of_setting(rows, setting)) for rows in others) if night is not None]
    floor = floor_of(setting, candidate, reference, nights)
    tie = _tie(told, floor)
    changed, ties = (tonight.changed(near_tie=near, tie=tie) for near in (False, True))
    margins = _by_its_own_scores(reference, setting, floor)
    found = tonight.found(floor, margins=margins)
    agreed = computes_alike(candidate, setting) and any(not night.beyond(floor) for night in nights)
    seen_again = [
        part.found(floor, margins=margins)
        for run, launch in again
        if figures((part := launch.of(setting)).moved) is not None  # else it has seen nothing, and refutes nothing
        and _cannot_compare(setting, run, reference, part.moved) is None
    ]
    answer, reason = _answer(found, seen_again, agreed=agreed)
    if changed and not margins and not found:
        answer, reason = "cannot tell", f"{_replies_changed(changed)} {_PENALISED}"
    low, high = _interval(told.by_conversation)
    return TextVerdict(
        *setting,
        answer,
        reason or _as_likely(told),
        reference.run_id,
        told.mean,
        low,
        high,
        told,
        floor,
        math.exp(-told.baseline_logprob),
        math.exp(-told.candidate_logprob),
        len(changed) + len(ties),
        len(ties),
        tie if margins else None,
        len(nights),
        "a further launch that forces the same replies" if answer == "suspicion" else None,
        _notes(told, changed, ties, tie) if answer == "pass" else (),
    )


def _cannot_compare(setting: Setting, candidate: Run, reference: Run, moved: pd.DataFrame) -> TextVerdict | None:
    """What keeps replies from being compared; None where nothing does. A reply that nobody tried to force and is the
    same, word for word, needs no forcing; one that the model could not be asked about does."""
    strangers = moved[moved["same_prompt"].eq(False).fillna(False).astype(bool)]
    if len(strangers):
        reason = f"the prompt of {_turn(strangers.iloc[0])} is another one than in {reference.run_id}"
        more = f", and of {len(strangers) - 1} more turns" if len(strangers) > 1 else ""
        return TextVerdict(*setting, "not comparable", reason + more, reference.run_id)
    before, now = (_words(run, setting) for run in (reference, candidate))
    untold = moved[moved["mean"].isna()].to_dict("records")
    lacking = [
        row
        for row in untold
        if row["refused"] is True
        or (place := (row["conversation_id"], row["turn_index"])) not in before
        or before[place] != now.get(place)
    ]
    if not lacking:
        return None
    count = f"{len(lacking)} of {len(moved)} replies cannot be held against {reference.run_id}"
    reason = f"{count}: {_turn(lacking[0])}: {lacking[0]['why_not']}"
    return TextVerdict(*setting, "cannot tell", reason, reference.run_id, needed="a run that forces them")


def _answer(found: Sequence[str], again: Sequence[Sequence[str]], *, agreed: bool) -> tuple[Answer, str | None]:
    """`found` tonight, and `again` in each further launch; `agreed`: this machine is known to say the same in every
    launch, so that one is enough."""
    if not found:
        return "pass", None
    words = "; ".join(found)
    launches = f"{len(again)} further launch{'es' if len(again) > 1 else ''}"
    if again and all(again):
        return "regression", f"{words}; seen again in {launches}"
    if again:
        return "pass", f"{words}; not seen again in {launches}"
    if agreed:
        return "regression", f"{words}; this machine computes alike every time, and another night says as the baseline"
    return "suspicion", words


_PENALISED = "where the sampling does not choose by the model's own scores, so that nobody knows whether it was a tie"


def _by_its_own_scores(run: Run, setting: Setting, floor: Floor) -> bool:
    """Whether the replies of a greedy setting are the likeliest ids, as they are not under a penalty."""
    chosen = (line.margins for turn, line in own(run).items() if turn[0] == setting)
    return not any((margins < -floor.tie).any() for margins in chosen)


def _replies_changed(rows: Sequence[Mapping[str, Any]]) -> str:
    more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
    return f"the reply to {_turn(rows[0])}{more} changed at token {rows[0]['token']}"


def _no_ties(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    first = rows[0]
    margins = [abs(float(first[name])) for name in _MARGINS if pd.notna(first[name])]
    by = f", {max(margins):.2g} nats from a tie" if margins else ""
    where_to_look = "look at the engine, its cache and the sampling"
    return [f"{_replies_changed(rows)}{by}, though it is as likely as it was: {where_to_look}"]


def _tie(told: Figures | None, floor: Floor) -> float:
    """How far two ids may be apart and still change places by what else has shifted."""
    return max(floor.tie, 0.0 if told is None else 2 * min(abs(told.worst), floor.worst))


def is_near_tie(row: Mapping[str, Any], tie: float) -> bool:
    """Whether a changed reply (`forced.changes`) parts where neither side preferred its id by more than `tie`."""
    return all(pd.notna(row[name]) and abs(float(row[name])) <= tie for name in _MARGINS)


def _as_likely(told: Figures) -> str:
    replies = f"the {told.turns} replies are as likely as they were"
    if told.worst == 0:
        return f"{replies}, to the bit"
    return f"{replies}: {told.mean:+.1g} nats per token, no token off by more than {abs(told.worst):.1g}"


def _notes(
    told: Figures, changed: Sequence[Mapping[str, Any]], ties: Sequence[Mapping[str, Any]], tie: float
) -> tuple[str, ...]:
    if ties:
        replies = "reply" if len(ties) == 1 else "replies"
        return (f"{len(ties)} {replies} changed at a near tie: neither side preferred its id by over {tie:.2g} nats",)
    if not changed and told.worst != 0:
        return ("every reply is the same, but its log-probabilities are not, to the bit: another kernel or model",)
    return ()


def _interval(means: Sequence[float]) -> tuple[float | None, float | None]:
    """Student's, at 95 %, over conversations."""
    if len(means) < 2:
        return None, None
    reach = t_quantile(len(means) - 1) * stdev(means) / math.sqrt(len(means))
    return fmean(means) - reach, fmean(means) + reach


def _turn(row: Any) -> str:
    return f"{row['conversation_id']} turn {row['turn_index']}"


def _words(run: Run, setting: Setting) -> Mapping[tuple[str, int], tuple[Any, ...]]:
    """What was answered to which prompt, by turn, in repeat 0 of launch 0."""
    rows = of_setting(run.turns, setting)
    rows = rows[(rows["launch"] == 0) & (rows["repeat"] == 0) & (rows["state"] == "done")]
    names = ("conversation_id", "turn_index", "prompt_hash", "reply", "reasoning", "finish_reason")
    values = ([None if value is pd.NA else value for value in rows[name].tolist()] for name in names)
    return {(talk, turn): tuple(said) for talk, turn, *said in zip(*values, strict=True)}
