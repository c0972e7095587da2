"""What was said: a tie that fell the other way passes, a model that has moved does not, and neither is guessed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

import harness
from harness.analysis.forced import changes, lines, shifts
from harness.analysis.frames import Run
from harness.analysis.nights import keep
from harness.analysis.text_floor import LEAST
from harness.analysis.text_verdicts import TextVerdict, text_verdicts
from harness.errors import StoreError
from harness.forced import ForcedReply
from harness.store import FORCED
from tests.builders import cell, launch, plan, store, turn

PLAN = plan(conversations={"a": 2, "b": 1, "c": 1})
PLACES = (("a", 0), ("a", 1), ("b", 0), ("c", 0))
IDS = (5, 6, 7, 2)
LOGPROBS = (-0.5, -1.0, -0.25, -0.125)
MARGINS = (2.0, 0.001, 3.0, 4.0)
"""The second id is nearly a tie."""
FACTS = {"dtype": "float32", "class": "LlamaForCausalLM", "attention": "sdpa"}
Saying = Mapping[tuple[str, int], Any]


def reply(place: tuple[str, int], of: str, **values: Any) -> ForcedReply:
    here = ForcedReply(cell(conversation_id=place[0]), place[1], of, IDS, "prompt", LOGPROBS, (9,) * 4, MARGINS)
    return replace(here, **values)


def night(
    tmp_path: Path,
    run_id: str,
    *,
    own: Saying | None = None,
    of: Mapping[str, Saying] | None = None,
    by: Sequence[float] = (0.0,),
    probe: bool | None = True,
    facts: Mapping[str, Any] = FACTS,
    texts: Mapping[tuple[str, int], str] | None = None,
    forces: bool = True,
) -> Run:
    """A run: what its own replies (`own`: fields of a place's line) and those of other runs were found to be; every
    log-probability is shifted `by` so much, in turns."""

    def moved(line: ForcedReply) -> ForcedReply:
        told = [one + by[at % len(by)] for at, one in enumerate(line.logprobs)]
        return replace(line, logprobs=tuple(told))

    told = [moved(reply(place, run_id, **(own or {}).get(place, {}))) for place in PLACES]
    for other, saying in (of or {}).items():
        told += [moved(reply(place, other, **fields)) for place, fields in saying.items()]
    said = texts or {}
    records = [
        turn(
            cell(conversation_id=talk),
            index,
            prompt_hash="prompt",
            completion_ids=IDS,
            completion_tokens=4,
            reply=said.get((talk, index), "It is motion."),
        )
        for talk, index in PLACES
    ]
    launches = [launch("pico", 0, facts=dict(facts), probe=None if probe is None else {"equal": probe})]
    path = store(tmp_path, records, PLAN, run_id, launches=launches)
    if forces:
        (path / FORCED).write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in told))
    return harness.load(path)


def judged(candidate: Run, *window: Run, confirm: Sequence[Run] = ()) -> TextVerdict:
    (verdict,) = text_verdicts(candidate, window, confirm)
    return verdict


def test_shifts_are_those_worked_out_by_hand(tmp_path: Path) -> None:
    before = night(tmp_path, "before")
    after = night(tmp_path, "after", by=(0.25, -0.5))
    (first, *_) = shifts(after, before).to_dict("records")

    assert first["tokens"] == 4
    assert first["mean"] == pytest.approx((0.25 - 0.5 + 0.25 - 0.5) / 4)
    assert first["drift"] == pytest.approx(0.375)
    assert (first["worst"], first["worst_token"]) == (pytest.approx(-0.5), 1)
    assert first["baseline_logprob"] == pytest.approx(-1.875 / 4)


def test_figures_of_a_setting_are_means_over_conversations_and_the_worst_of_turns(tmp_path: Path) -> None:
    before = night(tmp_path, "before")
    after = night(tmp_path, "after", own={("b", 0): {"logprobs": tuple(one - 0.5 for one in LOGPROBS)}})
    verdict = judged(after, before)

    assert verdict.shift == pytest.approx(-0.5 / 3)  # of a, b and c only b has moved
    sd = math.sqrt(((-0.5 + 0.5 / 3) ** 2 + 2 * (0.5 / 3) ** 2) / 2)
    assert verdict.high == pytest.approx(-0.5 / 3 + 4.302653 * sd / math.sqrt(3))  # t of 2 degrees of freedom
    assert verdict.figures is not None
    assert (verdict.figures.drift, verdict.figures.worst) == (pytest.approx(0.5), pytest.approx(-0.5))
    assert verdict.figures.where[:2] == ("b", 0)
    assert verdict.baseline_perplexity == pytest.approx(math.exp(1.875 / 4))
    assert verdict.candidate_perplexity == pytest.approx(math.exp((4 * 1.875 + 4 * 0.5) / 16))


def test_the_same_to_the_bit_passes(tmp_path: Path) -> None:
    verdict = judged(night(tmp_path, "after"), night(tmp_path, "before"))
    assert (verdict.answer, verdict.changed, verdict.shift) == ("pass", 0, 0.0)
    assert "to the bit" in verdict.reason
    assert verdict.notes == ()


def test_rounding_passes_with_a_note(tmp_path: Path) -> None:
    verdict = judged(night(tmp_path, "after", by=(1e-6, -1e-6)), night(tmp_path, "before"))
    assert verdict.answer == "pass"
    assert "not, to the bit" in verdict.notes[0]


def test_a_model_that_has_moved_is_a_suspicion_until_it_is_seen_again(tmp_path: Path) -> None:
    before, after = night(tmp_path, "before"), night(tmp_path, "after", by=(-0.01,))
    again, gone = night(tmp_path, "again", by=(-0.011,)), night(tmp_path, "gone")

    assert judged(after, before).answer == "suspicion"
    assert judged(after, before).needed is not None
    assert "less likely by 0.01 nats per token (floor 2e-05)" in judged(after, before).reason
    assert judged(after, before, confirm=[again]).answer == "regression"
    assert judged(after, before, confirm=[again, gone]).answer == "pass"
    assert "not seen again" in judged(after, before, confirm=[gone]).reason


def test_where_a_machine_computes_alike_and_another_night_agrees_once_is_enough(tmp_path: Path) -> None:
    older, before = night(tmp_path, "older"), night(tmp_path, "before")
    assert judged(night(tmp_path, "after", by=(-0.01,)), older, before).answer == "regression"
    assert judged(night(tmp_path, "unprobed", by=(-0.01,), probe=None), older, before).answer == "suspicion"
    assert judged(night(tmp_path, "uneven", by=(-0.01,), probe=False), older, before).answer == "suspicion"


def test_a_turn_that_moved_among_many_that_did_not_is_found(tmp_path: Path) -> None:
    moved = {("c", 0): {"logprobs": (-0.5, -1.0, -0.25, -0.128)}}
    verdict = judged(night(tmp_path, "after", own=moved), night(tmp_path, "before"))
    assert verdict.answer == "suspicion"
    assert "token 3 of c turn 0 is off by 0.003 nats" in verdict.reason


FLIPPED = {"ids": (5, 8, 9, 2), "logprobs": (-0.5, -0.999, -3.0, -1.0), "margins": (2.0, 0.001, 1.0, 1.0)}


def test_a_near_tie_that_fell_the_other_way_passes_and_is_told(tmp_path: Path) -> None:
    before = night(tmp_path, "before", texts={("b", 0): "It is motion."})
    after = night(
        tmp_path, "after", own={("b", 0): FLIPPED}, of={"before": {("b", 0): {}}}, texts={("b", 0): "It is force."}
    )
    verdict = judged(after, before)

    assert (verdict.answer, verdict.changed, verdict.near_ties) == ("pass", 1, 1)
    assert "1 reply changed at a near tie" in verdict.notes[0]
    (row,) = changes(after, before).to_dict("records")
    assert (row["token"], row["baseline_id"], row["candidate_id"]) == (1, 6, 8)
    assert (row["baseline_margin"], row["candidate_margin"]) == (pytest.approx(0.001), pytest.approx(0.001))
    assert row["baseline_reply"][: row["common"]] == "It is "
    assert (row["baseline_reply"], row["candidate_reply"]) == ("It is motion.", "It is force.")


def test_a_reply_that_changed_where_nothing_was_near_a_tie_is_not_the_models_doing(tmp_path: Path) -> None:
    other = {**FLIPPED, "ids": (8, 6, 7, 2), "logprobs": (-2.5, -1.0, -0.25, -0.1)}
    after = night(tmp_path, "after", own={("b", 0): other}, of={"before": {("b", 0): {}}})
    verdict = judged(after, night(tmp_path, "before"))

    assert (verdict.answer, verdict.changed, verdict.near_ties) == ("suspicion", 1, 0)
    assert "the reply to b turn 0 changed at token 0, 2 nats from a tie, though it is as likely" in verdict.reason
    assert "look at the engine" in verdict.reason


def test_under_a_penalty_a_changed_reply_is_no_evidence_either_way(tmp_path: Path) -> None:
    penalised = {("a", 0): {"margins": (2.0, 0.001, -1.5, 4.0)}}  # an id that the model's own scores had not chosen
    other = {**FLIPPED, "ids": (8, 6, 7, 2), "logprobs": (-2.5, -1.0, -0.25, -0.1)}
    before = night(tmp_path, "before", own=penalised)
    of = {"before": {("b", 0): {}}}
    after = night(tmp_path, "after", own={**penalised, ("b", 0): other}, of=of)
    moved = night(tmp_path, "moved", own={**penalised, ("b", 0): other}, of=of, by=(-0.01,))

    assert judged(after, before).answer == "cannot tell"
    assert "nobody knows whether it was a tie" in judged(after, before).reason
    assert judged(moved, before).answer == "suspicion"


def test_replies_that_follow_from_an_earlier_change_are_not_counted(tmp_path: Path) -> None:
    own = {("a", 0): FLIPPED, ("a", 1): {"ids": (1, 2), "prompt_hash": "another", "logprobs": (-1.0, -1.0)}}
    after = night(tmp_path, "after", own=own, of={"before": {("a", 0): {}, ("a", 1): {}}})
    before = night(tmp_path, "before")

    assert list(changes(after, before)["follows"]) == [False, True]
    assert (judged(after, before).answer, judged(after, before).changed) == ("pass", 1)


def test_another_prompt_is_not_comparable(tmp_path: Path) -> None:
    of = {"before": {place: {"prompt_hash": "another"} for place in PLACES}}
    after = night(tmp_path, "after", own={place: {"prompt_hash": "another"} for place in PLACES}, of=of)
    verdict = judged(after, night(tmp_path, "before"))
    assert verdict.answer == "not comparable"
    assert verdict.reason == "the prompt of a turn 0 is another one than in before, and of 3 more turns"


def test_what_was_not_forced_passes_only_where_every_word_is_the_same(tmp_path: Path) -> None:
    before = night(tmp_path, "before")
    same = night(tmp_path, "same", forces=False)
    other = night(tmp_path, "other", forces=False, texts={("c", 0): "It is force."})

    assert judged(same, before).answer == "pass"
    assert "word for word" in judged(same, before).reason
    assert judged(other, before).answer == "cannot tell"
    assert judged(other, before).reason == "1 of 4 replies cannot be held against before: c turn 0: was not forced"


def test_a_reply_that_could_not_be_forced_is_told_with_its_reason(tmp_path: Path) -> None:
    failed = {("b", 0): {"logprobs": (), "margins": (), "best": (), "why_not": "OutOfMemory: 2 GiB more than there is"}}
    after = night(tmp_path, "after", own=failed, texts={("b", 0): "It is force."})
    assert judged(after, night(tmp_path, "before")).reason.endswith("b turn 0: OutOfMemory: 2 GiB more than there is")


def test_without_a_baseline_that_forced_nobody_can_tell(tmp_path: Path) -> None:
    verdict = judged(night(tmp_path, "after"), night(tmp_path, "before", forces=False))
    assert verdict.answer == "cannot tell"
    assert text_verdicts(night(tmp_path, "plain", forces=False), []) == []


def test_the_newest_baseline_that_forced_is_the_one(tmp_path: Path) -> None:
    window = [night(tmp_path, "old", by=(-0.01,)), night(tmp_path, "new"), night(tmp_path, "plain", forces=False)]
    verdict = judged(night(tmp_path, "after"), *window)
    assert (verdict.answer, verdict.baseline_run, verdict.nights) == ("pass", "new", 1)


def test_bfloat16_is_allowed_its_rounding_unless_nights_agree_to_the_bit(tmp_path: Path) -> None:
    facts = {**FACTS, "dtype": "bfloat16"}
    nights = [night(tmp_path, f"night{n}", facts=facts) for n in range(4)]
    after = night(tmp_path, "after", facts=facts, by=(0.03, -0.03))

    assert judged(after, *nights[:3]).answer == "pass"  # two other nights are too few
    exact = judged(after, *nights)
    assert exact.answer == "regression"
    assert exact.floor is not None
    assert (exact.floor.worst, exact.floor.tie) == (LEAST["float32"].worst, LEAST["bfloat16"].tie)
    eager = night(tmp_path, "eager", facts={**facts, "attention": "eager"}, by=(0.03, -0.03))
    assert judged(eager, *nights).answer == "pass"  # another kernel may round so
    uneven = night(tmp_path, "uneven", facts=facts, by=(0.03, -0.03), probe=False)
    assert judged(uneven, *nights).answer == "pass"


def test_a_machine_that_does_not_compute_alike_is_held_against_its_own_nights(tmp_path: Path) -> None:
    window = [night(tmp_path, f"night{n}", by=(0.01, -0.01 * n), probe=False) for n in range(1, 4)]
    before = night(tmp_path, "before", probe=False)
    like_them = night(tmp_path, "like them", by=(0.02, -0.02), probe=False)
    like_none = night(tmp_path, "like none", by=(0.2, -0.2), probe=False)

    assert judged(like_them, *window, before).answer == "pass"
    verdict = judged(like_none, *window, before)
    assert verdict.answer == "suspicion"
    assert verdict.floor is not None
    assert verdict.floor.worst == pytest.approx(3 * 0.02)  # the median of 0.01, 0.02 and 0.03


def test_a_night_file_is_judged_like_its_run(tmp_path: Path) -> None:
    before, after = night(tmp_path, "before"), night(tmp_path, "after", by=(-0.01,))
    kept = [harness.load(keep(run, tmp_path / f"{run.run_id}.parquet")) for run in (before, after)]
    assert judged(kept[1], kept[0]) == judged(after, before)


def test_of_two_lines_about_one_reply_the_last_counts_and_a_wrong_one_is_told(tmp_path: Path) -> None:
    run = night(tmp_path, "before")
    with (run.path / FORCED).open("ab") as file:
        file.write(orjson.dumps(reply(("a", 0), "before", why_not="a second time")) + b"\n")
    assert len(lines(run)) == 4
    assert [line.why_not for line in lines(run) if line.turn[1:] == ("a", 0)] == ["a second time"]

    torn = night(tmp_path, "torn")
    (torn.path / FORCED).write_bytes(b'{"cell": {}}\n')
    with pytest.raises(StoreError, match="cannot be read"):
        lines(torn)


def test_a_further_launch_that_was_not_asked_how_likely_they_are_refutes_nothing(tmp_path: Path) -> None:
    before, after = night(tmp_path, "before"), night(tmp_path, "after", by=(-0.01,))
    unasked = night(tmp_path, "unasked", forces=False)

    assert judged(after, before, confirm=[unasked]).answer == "suspicion"
    assert judged(after, before, confirm=[unasked, night(tmp_path, "again", by=(-0.01,))]).answer == "regression"


def test_a_log_probability_that_is_no_number_is_never_a_pass(tmp_path: Path) -> None:
    before = night(tmp_path, "before")
    broken = {("b", 0): {"logprobs": (-0.5, float("nan"), -0.25, -0.125)}}
    refused = {("b", 0): {"logprobs": (), "margins": (), "best": (), "why_not": "scores that are no numbers"}}

    assert judged(night(tmp_path, "nan", own=broken), before).reason.endswith("a log-probability is no number")
    assert judged(night(tmp_path, "nan-2", own=broken), before).answer == "cannot tell"
    assert judged(night(tmp_path, "refused", own=refused), before).answer == "cannot tell"


def test_a_night_that_forced_only_some_replies_does_not_stand_for_all(tmp_path: Path) -> None:
    whole = night(tmp_path, "whole")
    part = night(tmp_path, "part", own={("c", 0): {"logprobs": (), "margins": (), "best": (), "why_not": "it died"}})
    after = night(tmp_path, "after", own={("c", 0): {"logprobs": tuple(one - 3 for one in LOGPROBS)}})

    assert judged(after, whole, part).baseline_run == "whole"
    assert judged(after, whole, part).answer in ("suspicion", "regression")
