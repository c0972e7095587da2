"""What a reader of a run's tables must know: which estimand a table speaks about, and what it cannot say."""

from __future__ import annotations

from harness.analysis.ceilings import impossible
from harness.analysis.frames import Run
from harness.analysis.length_limit import length_notes
from harness.analysis.samples import sampler_note
from harness.analysis.settings import twins
from harness.analysis.stability import instabilities, stabilities
from harness.analysis.stats import CONVERSATIONS_TO_GENERALISE


def behaviour_caption(run: Run) -> str:
    """What the intervals of a table about replies mean."""
    n = run.turns["conversation_id"].nunique()
    if n < 2:
        return (
            "Behaviour: the conversations are the sample; one conversation has no interval and says nothing of others."
        )
    caption = f"Behaviour: the {n} conversations are the sample, 95 % intervals."
    if n < CONVERSATIONS_TO_GENERALISE:
        caption += f" Fewer than {CONVERSATIONS_TO_GENERALISE}: no claim about other conversations."
    return caption


def speed_caption(run: Run) -> str:
    """What the intervals of a table about speed mean."""
    n = run.turns.loc[run.turns["state"] == "done", "launch"].nunique()
    if n < 2:
        return "Speed: p50 over the turns of one launch; 95 % intervals speak of this launch only, not of the next one."
    return (
        f"Speed: the conversations are fixed, the {n} launches are the sample; p50 with 95 % intervals over launches."
    )


def notes(run: Run) -> tuple[str, ...]:
    """Whatever keeps the numbers of this run from meaning what they seem to mean, one sentence each."""
    states = run.turns["state"].value_counts()
    missing, failed, unreached = (int(states.get(state, 0)) for state in ("missing", "failed", "not_reached"))
    found = []
    if missing:
        found.append(f"Turns still missing: {missing}. The run is not finished; harness run --resume completes it.")
    if failed or unreached:
        found.append(
            f"Turns that failed: {failed}, never reached: {unreached}. Their checks count as failed; "
            "they are in no speed figure."
        )
    if left_out := _not_in_every_launch(run):
        found.append(
            f"Turns answered in some launches only: {left_out}. Speed p50 leaves them out, so that every launch is "
            "measured by the same turns."
        )
    if unpaired := int((run.turns["paired"] == False).sum()):  # noqa: E712 – absent is neither
        found.append(
            f"Turns drawn in a batch: {unpaired}. What they drew depends on the others too: they are no paired draws "
            "with those of other samplings, and do not come again where a turn is run alone."
        )
    if run.superseded:
        found.append(
            f"Turns of broken or repeated attempts: {run.superseded}. They stay in turns.jsonl and count nowhere."
        )
    if (sampled := sampler_note(run.manifest["launches"])) is not None:
        found.append(sampled)
    if run.manifest.get("torn_lines"):
        found.append(f"Torn lines cut off turns.jsonl: {run.manifest['torn_lines']}.")
    if run.plan["history"] == "generated" and len(run.plan["models"]) * len(run.plan["samplings"]) > 1:
        found.append(
            "history: generated – every setting answers its own replies, so after the first turn prompts may differ "
            "and speeds be those of different prompts; --lane speed compares equal ones."
        )
    if run.plan["length"] == "natural" and len(run.plan["models"]) * len(run.plan["samplings"]) > 1:
        found.append("length: natural – replies differ in length; tok/s and end-to-end time depend on it, TPOT hardly.")
    if run.plan["length"] == "fixed":
        found.append("length: fixed – replies are forced to their length: read speed here, not eloquence.")
    found += twins(run)
    found += length_notes(run)
    found += instabilities(stabilities(run))
    found += impossible(run)
    return tuple(found)


def _not_in_every_launch(run: Run) -> int:
    """How many answered turns have no counterpart in another launch."""
    place = ["model", "sampling", "concurrency", "conversation_id", "turn_index", "repeat"]
    done = run.turns.loc[run.turns["state"] == "done", [*place, "launch"]]
    launches = done["launch"].nunique()
    if launches < 2:
        return 0
    return int((done.groupby(place)["launch"].transform("size") < launches).sum())
