"""A night held against the nights before it, by the rules of its config.

    tonight = harness.load("results/tonight")
    window = [harness.load(night) for night in find_nights("results/baselines/…/nightly")]
    judged = gate(tonight, window, rules)
    judged.answer       pass, regression, cannot tell, not comparable, some failed
    judged.verdicts     one for each rule and cell, with numbers and a reason

Nothing but a pass is a pass. What is missing tonight, was not there before, was not measured, has no turn in common
with the window, or is of another plan or machine is told as such, and a night with any of it has not passed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.analysis.frames import Run
from harness.analysis.gating.cells import Cell, assigned
from harness.analysis.gating.measured import Floors, Measured
from harness.analysis.gating.replies import Replies
from harness.analysis.gating.window import Against, Night, against, differing, finished, ledger, newest, settings_of
from harness.analysis.ledger import ledger as checks_of
from harness.analysis.pairing import work
from harness.analysis.sides import Pair, Setting, Side
from harness.analysis.stability import instabilities, stabilities
from harness.analysis.verdict import Gate
from harness.config.rules import OF_THE_ANCHOR, Gating, Rule
from harness.errors import Mistake, NotComparableError, UsageError


def gate(
    candidate: Run,
    baselines: Sequence[Run],
    rules: Gating,
    floors: Floors = lambda rule, cell: None,
    *,
    confirm: Sequence[Run] = (),
    strict: bool = False,
) -> Gate:
    """Judge a run by the newest `rules.window` of the baselines.

    floors: what a calibration knows of the noise of a cell. confirm: runs of the same config, of fewer models or
    conversations perhaps, made because some cells were suspicious. strict: whatever is suspect – a driver, a version of
    a library – makes numbers incomparable.

    Raises UsageError where there is no baseline, or a rule is about what no run has; NotComparableError where what
    should confirm was played under other conditions than tonight.
    """
    window = newest(candidate, baselines, rules.window)
    held = against(candidate, window, strict=strict)
    further = _further(candidate, held, confirm)
    asked = [
        (rule, cell)
        for rule, cells in assigned(rules.parsed, (candidate, window[-1]))
        for cell in _on_trial(rule, cells, rules.anchor, held)
    ]
    measured = [(rule, cell) for rule, cell in asked if rule.metric is not None]
    said = [(rule, cell) for rule, cell in asked if rule.metric is None]
    replies = Replies(candidate, held, further)
    verdicts = {
        **dict(zip(measured, Measured(rules, held, further, floors).verdicts(measured), strict=True)),
        **dict(zip(said, replies.verdicts(said), strict=True)),
    }
    return Gate(
        candidate=candidate,
        baseline=window,
        verdicts=tuple(verdicts[line] for line in asked),
        ledger=ledger(held.values()),
        notes=(*replies.notes, *_notes(candidate, window, held)),
        flips=replies.flips,
        confirmed_by=tuple(confirm),
    )


def _on_trial(rule: Rule, cells: Sequence[Cell], anchor: str | None, held: Mapping[Setting, Against]) -> Iterator[Cell]:
    """The cells but those of which the rule says nothing: the speed of the machine, replies that are drawn. Raises
    UsageError where none is left to be judged."""
    if rule.kind == "text":
        drawn = {setting for setting, here in held.items() if here.tonight and not _greedy(here.tonight)}
        cells = [cell for cell in cells if (cell.model, cell.sampling, cell.concurrency) not in drawn]
        if not cells:
            fact = "every sampling draws at random, and only greedy replies can be held against each other"
            raise UsageError(f"gate.rules.{rule.text}", fact, "add a sampling with do_sample: false, or leave it out")
    if rule.kind == "speed" and anchor is not None and ("model", anchor) in rule.where:
        raise UsageError(f"gate.rules.{rule.text}", *OF_THE_ANCHOR)
    for cell in cells:
        if not (rule.kind == "speed" and cell.model == anchor):
            yield cell


def _greedy(side: Side) -> bool:
    return {(model, sampling) for model, sampling, _ in side.settings} <= checks_of(side.run).greedy


def _further(
    candidate: Run, held: Mapping[Setting, Against], confirm: Sequence[Run]
) -> dict[Setting, tuple[Night, ...]]:
    """The settings of tonight that were played again. Raises NotComparableError where that was other work."""
    given = {candidate.run_id, *(night.run.run_id for here in held.values() for night in here.nights)}
    twice = [run.run_id for run in confirm if run.run_id in given]
    if twice:
        raise UsageError(twice[0], "cannot confirm what it is part of", "give runs that were made afterwards")
    older = [run.run_id for run in confirm if run.begun < candidate.begun]
    if older:
        fact = f"was made before {candidate.run_id}, and confirms nothing of it"
        raise UsageError(older[0], fact, "give runs that were made afterwards")
    found: dict[Setting, tuple[Night, ...]] = {}
    mistakes: list[Mistake] = []
    for run in map(finished, confirm):
        for setting in settings_of(run):
            here, side = held.get(setting), Side(run, *setting)
            if here is None or here.tonight is None or not len(side.turns):
                continue
            shared = work(Pair(side, here.tonight))
            night = Night(run, shared, differing(shared, same_plan=False))
            found[setting] = (*found.get(setting, ()), night)
            mistakes += [
                Mistake(run.run_id, f"cannot confirm {candidate.run_id}: {difference}")
                for difference in (*night.blockers("speed"), *night.blockers("behaviour"))
            ]
    if mistakes:
        raise NotComparableError(list(dict.fromkeys(mistakes)))
    if confirm and not found:
        runs = ", ".join(run.run_id for run in confirm)
        raise UsageError(runs, f"played nothing of {candidate.run_id} again", "give runs of the same config")
    return found


def _notes(candidate: Run, window: Sequence[Run], held: Mapping[Setting, Against]) -> Iterator[str]:
    """What else keeps numbers from meaning what they seem to mean."""
    later = [run.run_id for run in window if str(run.manifest["created_at"]) > str(candidate.manifest["created_at"])]
    if later:
        yield f"Of the window these nights are later than {candidate.run_id}: {', '.join(later)}."
    for here in held.values():
        aside = max(len(here.nights) - len(here.comparable(lane)) for lane in ("speed", "behaviour"))
        if aside:
            yield f"{here.name}: {aside} of {here.had} nights are not comparable with tonight, and set aside."
        if here.missing and here.tonight is not None:
            yield f"{here.name}: launches that were broken off do not count, {here.missing} turns of them are missing."
    yield from map(str, candidate.manifest["warnings"])
    yield from instabilities(stabilities(candidate))
