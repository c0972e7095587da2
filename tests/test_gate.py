"""A gate: red for what got worse, never a pass for what is missing, never red for what got better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from harness.analysis.effects import memory_of, speed_effect
from harness.analysis.frames import Run, load
from harness.analysis.gate import gate
from harness.analysis.pairing import work
from harness.analysis.sides import Pair, Side
from harness.analysis.verdict import Verdict
from harness.errors import NotComparableError, UsageError
from harness.records import Cell, Memory, TurnRecord
from harness.store import FORCED
from tests.builders import checks
from tests.nights import again, failing, night, noise, rules, stored_night, usual

TIMES = ("ttft_s", "tpot_s", "e2e_s")
FASTER = ("decode_tokens_per_s", "output_tokens_per_s")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return night(tmp_path_factory.mktemp("gate"), 0)


@pytest.fixture(scope="module")
def window(base: Run) -> list[Run]:
    """Seven nights that differ by half a per cent, as their launches do."""
    dice = np.random.default_rng(0)
    made = []
    for number in range(1, 8):
        found = noise(base, dice, nights=0.005, launches=0.005)
        made.append(again(again(base, number, found, TIMES), number, -found, FASTER))
    return made


def tonight(base: Run, logs: Any, metrics: tuple[str, ...] = TIMES, number: int = 20) -> Run:
    return again(base, number, logs, metrics)


def only(verdicts: Sequence[Verdict]) -> Verdict:
    (verdict,) = verdicts
    return verdict


def changed(run: Run, **plan: Any) -> Run:
    return replace(run, manifest={**run.manifest, "plan": {**run.plan, **plan}})


def alike(first: Run, count: int) -> list[Run]:
    """So many nights that are the same."""
    return [again(first, number, 0.0) for number in range(1, count + 1)]


# What got worse, and what did not.


def test_a_night_like_the_others_passes(base: Run, window: list[Run]) -> None:
    judged = gate(tonight(base, 0.004), window, rules(tpot_s="+5%", decode_tokens_per_s="-5%", checks="exact"))

    assert [verdict.answer for verdict in judged.verdicts] == ["pass"] * 3
    assert (judged.answer, judged.exit_code) == ("pass", 0)


def test_a_slower_night_is_suspicious_and_further_launches_make_it_red(base: Run, window: list[Run]) -> None:
    slow, again_slow = tonight(base, np.log(1.2)), tonight(base, np.log(1.2), number=21)

    suspected = gate(slow, window, rules(tpot_s="+5%"))
    confirmed = gate(slow, window, rules(tpot_s="+5%"), confirm=[again_slow])

    assert only(suspected.verdicts).answer == "suspicion"
    assert (suspected.answer, suspected.exit_code) == ("cannot tell", 4)
    verdict = only(confirmed.verdicts)
    assert verdict.answer == "regression"
    assert (confirmed.answer, confirmed.exit_code) == ("regression", 3)
    assert verdict.change == pytest.approx(1.2, rel=0.01)
    assert verdict.low is not None
    assert verdict.high is not None
    assert 1 < verdict.low < 1.2 < verdict.high
    assert (verdict.margin, verdict.launches, verdict.nights) == (pytest.approx(1.05), 6, 7)
    assert verdict.sentence.startswith("tpot_s of pico, greedy: regression, +19.5 % (+1")


def test_a_suspicion_that_is_not_seen_again_passes(base: Run, window: list[Run]) -> None:
    judged = gate(tonight(base, np.log(1.15)), window, rules(tpot_s="+10%"), confirm=[tonight(base, 0.0, number=21)])

    assert only(judged.verdicts).answer == "pass"


def test_a_faster_night_is_never_red(base: Run, window: list[Run]) -> None:
    fast = again(tonight(base, np.log(0.5)), 20, np.log(2), FASTER)
    lines = {"tpot_s": "+5%", "ttft_s.p50": "+5%", "e2e_s per turn": "auto", "decode_tokens_per_s": "-5%"}

    judged = gate(fast, window, rules(**lines), confirm=[replace(fast, manifest={**fast.manifest, "run_id": "more"})])

    assert {verdict.answer for verdict in judged.verdicts} == {"pass"}


def test_a_rate_that_falls_is_worse(base: Run, window: list[Run]) -> None:
    slow = tonight(base, np.log(0.8), FASTER)
    more = tonight(base, np.log(0.8), FASTER, number=21)

    verdict = only(gate(slow, window, rules(decode_tokens_per_s="-5%"), confirm=[more]).verdicts)

    assert verdict.answer == "regression"
    assert verdict.change == pytest.approx(0.8, rel=0.01)
    assert verdict.margin == pytest.approx(0.95)
    assert verdict.at_most is not None
    assert verdict.at_most < 0.8, "what is not exceeded in the direction that is worse"


def test_a_regression_at_one_turn_is_found_at_that_turn(base: Run, window: list[Run]) -> None:
    at_turn_1 = np.log(1.3) * (base.turns["turn_index"] == 1).to_numpy()

    judged = gate(tonight(base, at_turn_1), window, rules(**{"e2e_s per turn": "+10%"}),
                  confirm=[tonight(base, at_turn_1, number=21)])  # fmt: skip

    assert [(each.turn_index, each.answer) for each in judged.verdicts] == [(0, "pass"), (1, "regression")]
    assert judged.verdicts[1].change == pytest.approx(1.3, rel=0.01)


def test_the_paired_effect_is_the_mean_over_turns_of_the_log_ratio(base: Run, window: list[Run]) -> None:
    """Half of the turns a fifth slower: exp(½ · log 1.2)."""
    half = np.log(1.2) * (base.turns["turn_index"] == 0).to_numpy()
    still = [again(base, number, 0.0) for number in range(1, 8)]

    verdict = only(gate(tonight(base, half), still, rules(tpot_s="+20%")).verdicts)

    assert verdict.change == pytest.approx(1.2**0.5)
    assert verdict.candidate == pytest.approx(verdict.baseline * 1.2**0.5)  # type: ignore[operator]


def test_a_statistic_is_that_of_the_turns_of_a_launch(base: Run) -> None:
    slow_first = np.log(3) * (base.turns["conversation_id"] == "physics").to_numpy()
    still = [again(base, number, 0.0) for number in range(1, 8)]
    lines = {"ttft_s.max": "+50%", "ttft_s.p50": "+50%", "ttft_s.mean": "+90%"}

    judged = gate(tonight(base, slow_first), still, rules(**lines))

    assert [round(verdict.change or 0, 3) for verdict in judged.verdicts] == [3, 1, pytest.approx(5 / 3, abs=1e-3)]


def test_an_absolute_margin_is_one_of_the_window(base: Run, window: list[Run]) -> None:
    """tpot is 2 ms in the window: 0.1 ms more are 5 %."""
    verdict = only(gate(tonight(base, 0.0), window, rules(tpot_s="+0.1ms")).verdicts)

    assert verdict.margin == pytest.approx(1.05, abs=0.001)


def test_memory_is_judged_in_bytes_or_as_a_share(base: Run) -> None:
    still = [again(base, number, 0.0) for number in range(1, 5)]
    more = base.turns.copy()
    more["host_rss_bytes"] = more["host_rss_bytes"] + 300 * 2**20
    grown = replace(again(base, 20, 0.0), turns=more)

    told = {
        bound: only(gate(grown, still, rules(host_rss_bytes=bound)).verdicts)
        for bound in ("+256MiB", "+512MiB", "+5%", "+20%", "+0B")
    }

    assert {bound: verdict.answer for bound, verdict in told.items()} == {
        "+256MiB": "suspicion", "+512MiB": "pass", "+5%": "suspicion", "+20%": "pass", "+0B": "suspicion",
    }  # fmt: skip
    assert told["+256MiB"].change == 300 * 2**20
    assert told["+256MiB"].scale == "difference"
    assert told["+5%"].change == pytest.approx(1 + 300 / 3072)


def test_the_most_specific_rule_decides(base: Run, window: list[Run]) -> None:
    lines = {"tpot_s where model=pico": "+30%", "tpot_s": "+5%"}

    verdict = only(gate(tonight(base, np.log(1.2)), window, rules(**lines)).verdicts)

    assert (verdict.rule, verdict.answer) == ("tpot_s where model=pico: +30%", "pass")


def test_more_cells_make_it_harder_to_be_red(base: Run, window: list[Run]) -> None:
    one = only(gate(tonight(base, 0.0), window, rules(tpot_s="+5%")).verdicts)
    many = gate(tonight(base, 0.0), window, rules(**{"tpot_s": "+5%", "e2e_s per turn": "+5%", "ttft_s": "+5%"}))

    assert one.resolvable is not None
    assert many.verdicts[0].resolvable is not None
    assert one.resolvable < many.verdicts[0].resolvable


# What can be held against what.


def test_only_turns_that_are_the_same_work_are_compared(base: Run, window: list[Run]) -> None:
    """A reply was another one, so the next prompt is too, and that turn is so slow that it would be red."""
    later = ((base.turns["conversation_id"] == "poem") & (base.turns["turn_index"] == 1)).to_numpy()
    other = tonight(base, np.log(9) * later)
    turns = other.turns.copy()
    turns.loc[later, "prompt_hash"] = "another"
    generated = [changed(run, history="generated") for run in (replace(other, turns=turns), *window)]

    verdict = only(gate(generated[0], generated[1:], rules(tpot_s="+5%")).verdicts)

    assert verdict.answer == "pass"
    assert "1 of 6 turns are not the same work in all nights" in verdict.reason


def test_where_little_is_the_same_work_nobody_can_tell(base: Run, window: list[Run]) -> None:
    turns = again(base, 20, 0.0).turns
    turns.loc[turns["conversation_id"] != "poem", "completion_tokens"] = 4
    verdict = only(gate(replace(again(base, 20, 0.0), turns=turns), window, rules(tpot_s="+5%")).verdicts)

    assert verdict.answer == "cannot tell"
    assert "2 of 6 turns that are the same work (4: lengths differ)" in verdict.reason


def test_a_night_with_few_turns_in_common_does_not_take_them_from_the_others(base: Run, window: list[Run]) -> None:
    turns = window[2].turns.copy()
    turns.loc[turns["conversation_id"] != "poem", "completion_tokens"] = 4
    odd = [*window[:2], replace(window[2], turns=turns), *window[3:]]

    verdict = only(gate(tonight(base, 0.0), odd, rules(tpot_s="+5%")).verdicts)

    assert (verdict.answer, verdict.nights) == ("pass", 6)
    assert "without night-03, with too few turns in common" in verdict.reason


def test_a_night_that_lacks_a_conversation_does_not_hide_what_is_worse_in_it(base: Run, window: list[Run]) -> None:
    turns = window[2].turns.copy()
    turns.loc[turns["conversation_id"] == "poem", ["state", "tpot_s"]] = ["failed", None]
    odd = [*window[:2], replace(window[2], turns=turns), *window[3:]]
    slow = np.log(1.5) * (base.turns["conversation_id"] == "poem").to_numpy()

    verdict = only(gate(tonight(base, slow), odd, rules(tpot_s="+5%")).verdicts)

    assert (verdict.answer, verdict.nights) == ("suspicion", 6)
    assert verdict.change == pytest.approx(1.5 ** (1 / 3), rel=0.01)


def test_another_dtype_is_not_comparable_field_by_field(base: Run, window: list[Run]) -> None:
    launches = [{**entry, "facts": {**entry["facts"], "dtype": "bfloat16"}} for entry in base.manifest["launches"]]
    other = again(base, 20, 0.0)
    other = replace(other, manifest={**other.manifest, "launches": launches})

    judged = gate(other, window, rules(tpot_s="+5%", checks="exact"))

    assert {verdict.answer for verdict in judged.verdicts} == {"not comparable"}
    assert judged.verdicts[0].reason == "dtype float32 → bfloat16"
    assert (judged.answer, judged.exit_code) == ("not comparable", 5)
    assert judged.ledger[["field", "baseline_value", "candidate_value", "nights"]].values.tolist() == [
        ["dtype", "float32", "bfloat16", 7]
    ]


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ({"repeats": 5}, "repeats 1 → 5"),
        ({"seed": 4}, "seed 0 → 4"),
        ({"length": "fixed"}, "length natural → fixed"),
        ({"timeout": 3.0}, "timeout none → 3"),
        ({"warmup": 2}, "warmup auto → 2"),
        ({"models": [{"model": "builtin:pico", "label": "pico", "engine": "decode", "kv_cache": "reuse"}]}, "engine"),
    ],
)
def test_a_baseline_of_another_plan_is_not_comparable(
    base: Run, window: list[Run], plan: dict[str, Any], told: str
) -> None:
    judged = gate(changed(again(base, 20, 0.0), **plan), window, rules(tpot_s="+5%"))

    assert judged.answer == "not comparable"
    assert told in only(judged.verdicts).reason


def test_what_an_older_version_did_not_know_of_is_as_it_is_by_default(base: Run, window: list[Run]) -> None:
    judged = gate(changed(again(base, 20, 0.0), warmup="auto", timeout=None), window, rules(tpot_s="+5%"))

    assert judged.answer == "pass"


def test_fewer_launches_are_no_other_plan(base: Run, window: list[Run]) -> None:
    two = again(base, 20, 0.0)
    two = changed(replace(two, turns=two.turns[two.turns["launch"] < 2].reset_index(drop=True)), launches=2)

    verdict = only(gate(two, window, rules(tpot_s="+5%")).verdicts)

    assert (verdict.answer, verdict.launches) == ("pass", 2)


def test_nights_of_another_plan_are_set_aside_and_told(base: Run, window: list[Run]) -> None:
    mixed = [changed(window[0], repeats=2), *window[1:]]

    judged = gate(tonight(base, 0.0), mixed, rules(tpot_s="+5%"))

    assert (only(judged.verdicts).answer, only(judged.verdicts).nights) == ("pass", 6)
    assert "pico, greedy: 1 of 7 nights are not comparable with tonight, and set aside." in judged.notes
    assert judged.ledger["field"].tolist() == ["repeats"]


def test_a_suspect_is_named_beside_a_change_and_strict_makes_it_a_blocker(base: Run, window: list[Run]) -> None:
    around = {**base.manifest["environment"], "libraries": {"torch": "2.12.0", "transformers": "5.17.0"}}

    def updated(run: Run) -> Run:
        return replace(run, manifest={**run.manifest, "environment": around})

    slow = updated(tonight(base, np.log(1.2)))
    more = updated(tonight(base, np.log(1.2), number=21))

    verdict = only(gate(slow, window, rules(tpot_s="+5%"), confirm=[more]).verdicts)
    strict = gate(slow, window, rules(tpot_s="+5%"), strict=True)
    fine = only(gate(updated(tonight(base, 0.0)), window, rules(tpot_s="+5%")).verdicts)

    assert verdict.answer == "regression"
    assert verdict.suspects == ("torch 2.11.0 → 2.12.0",)
    assert verdict.sentence.endswith("; also different: torch 2.11.0 → 2.12.0")
    assert (strict.answer, only(strict.verdicts).reason) == ("not comparable", "torch 2.11.0 → 2.12.0")
    assert (fine.answer, fine.suspects) == ("pass", ())


def test_the_window_is_the_newest_nights_since_the_last_new_beginning(base: Run, window: list[Run]) -> None:
    begun = replace(window[4], manifest={**window[4].manifest, "blessed": {"anew": True}})
    shuffled = [window[6], begun, *window[:4], window[5], window[6]]

    judged = gate(tonight(base, 0.0), shuffled, rules(tpot_s="+5%"))
    small = gate(tonight(base, 0.0), window[::-1], rules(tpot_s="+5%", window=3))

    assert [run.run_id for run in judged.baseline] == ["night-05", "night-06", "night-07"]
    assert [run.run_id for run in small.baseline] == ["night-05", "night-06", "night-07"]


def test_too_few_nights_cannot_tell_of_speed(base: Run, window: list[Run]) -> None:
    judged = gate(tonight(base, 0.0), window[:2], rules(tpot_s="+5%", checks="exact", failures=0))

    assert [verdict.answer for verdict in judged.verdicts] == ["cannot tell", "pass", "pass"]
    assert judged.exit_code == 4


def test_without_a_baseline_nothing_is_judged(base: Run, window: list[Run]) -> None:
    with pytest.raises(UsageError, match="has no baseline"):
        gate(base, [], rules(tpot_s="+5%"))
    with pytest.raises(UsageError, match="has no baseline to be held against but itself"):
        gate(window[0], window[:1], rules(tpot_s="+5%"))


def test_a_night_that_was_blessed_is_not_held_against_itself(base: Run, window: list[Run]) -> None:
    slow = tonight(base, np.log(1.2), number=8)

    judged = gate(slow, [*window, slow], rules(tpot_s="+5%"))

    assert [run.run_id for run in judged.baseline] == [run.run_id for run in window]
    assert only(judged.verdicts).change == pytest.approx(1.2, rel=0.01)


def test_what_confirms_must_be_of_the_same_conditions(base: Run, window: list[Run]) -> None:
    elsewhere = {**base.manifest["environment"], "cpu": "Another CPU"}
    more = tonight(base, np.log(1.2), number=21)
    more = replace(more, manifest={**more.manifest, "environment": elsewhere})

    with pytest.raises(NotComparableError, match=r"cannot confirm night-20: CPU Another CPU → An Honest CPU"):
        gate(tonight(base, np.log(1.2)), window, rules(tpot_s="+5%"), confirm=[more])


def test_a_night_cannot_confirm_itself(base: Run, window: list[Run]) -> None:
    slow = tonight(base, np.log(1.2))

    for run in (slow, window[3]):
        with pytest.raises(UsageError, match="cannot confirm what it is part of"):
            gate(slow, window, rules(tpot_s="+5%"), confirm=[run])


def test_further_launches_may_play_the_suspicious_conversations_only(base: Run, window: list[Run]) -> None:
    slow = np.log(1.3) * (base.turns["conversation_id"] == "poem").to_numpy()
    more = tonight(base, slow, number=21)
    poem = more.turns[more.turns["conversation_id"] == "poem"].reset_index(drop=True)
    more = changed(
        replace(more, turns=poem), conversations=[t for t in more.plan["conversations"] if t["id"] == "poem"]
    )

    judged = gate(tonight(base, slow), window, rules(**{"tpot_s per conversation": "+5%"}), confirm=[more])

    assert [(each.conversation_id, each.answer) for each in judged.verdicts] == [
        ("physics", "pass"), ("memory", "pass"), ("poem", "regression"),
    ]  # fmt: skip


# What is missing.


def test_a_setting_that_vanished_is_no_pass(tmp_path: Path) -> None:
    both = night(tmp_path, 1, models=("pico", "nano"))
    nights = alike(both, 4)
    alone = night(tmp_path, 20, models=("pico",))

    judged = gate(alone, nights, rules(tpot_s="+50%", checks="exact", failures=0))

    assert [(each.model, each.answer) for each in judged.verdicts] == [
        ("pico", "pass"), ("nano", "cannot tell"),
        ("pico", "pass"), ("nano", "cannot tell"),
        ("pico", "pass"), ("nano", "cannot tell"),
    ]  # fmt: skip
    assert {each.reason for each in judged.of("cannot tell")} == {
        "in the newest night of the window, and not in tonight's plan"
    }
    assert judged.exit_code == 4
    back = gate(again(both, 21, 0.0), [*nights[:3], again(alone, 5, 0.0)], rules(tpot_s="+50%"))
    assert [each.nights for each in back.of("pass")] == [4, 3], "what came back is held against the nights that had it"


def test_a_new_setting_is_no_pass(tmp_path: Path) -> None:
    nights = alike(night(tmp_path, 1), 4)

    judged = gate(night(tmp_path, 20, models=("pico", "nano")), nights, rules(tpot_s="+50%"))

    assert [(each.answer, each.reason) for each in judged.verdicts][1] == (
        "cannot tell", "no night of the window has it",
    )  # fmt: skip


def test_a_conversation_that_vanished_is_no_pass(tmp_path: Path) -> None:
    nights = alike(night(tmp_path, 1), 4)
    fewer = night(tmp_path, 20, conversations={"physics": 2, "memory": 2})

    judged = gate(fewer, nights, rules(**{"tpot_s": "+50%", "e2e_s per conversation": "+50%"}))

    assert [(each.conversation_id, each.answer) for each in judged.verdicts] == [
        (None, "not comparable"), ("physics", "not comparable"), ("memory", "not comparable"), ("poem", "cannot tell"),
    ]  # fmt: skip
    assert "conversations played poem → no other" in judged.verdicts[0].reason


def test_a_run_that_was_killed_is_no_pass(base: Run, window: list[Run]) -> None:
    """Every launch was broken off."""
    turns = again(base, 20, 0.0).turns
    turns.loc[turns["conversation_id"] == "poem", ["state", "tpot_s"]] = ["missing", None]

    judged = gate(replace(again(base, 20, 0.0), turns=turns), window, rules(tpot_s="+5%", checks="exact", failures=0))

    assert [verdict.answer for verdict in judged.verdicts] == ["not run", "not run", "cannot tell"]
    assert judged.verdicts[0].reason == "6 turns were not played: harness run --resume"
    assert judged.exit_code == 4


def test_launches_that_were_not_begun_leave_those_that_were(base: Run, window: list[Run]) -> None:
    turns = again(base, 20, 0.0).turns
    turns.loc[turns["launch"] == 2, "state"] = "missing"

    judged = gate(replace(again(base, 20, 0.0), turns=turns), window, rules(tpot_s="+5%"))

    assert (only(judged.verdicts).answer, only(judged.verdicts).launches) == ("pass", 2)
    assert "6 turns of them are missing" in " ".join(judged.notes)


def test_a_metric_that_is_absent_everywhere_is_refused(base: Run, window: list[Run]) -> None:
    with pytest.raises(UsageError, match=r"gate.rules.peak_memory_bytes: \+1GiB: peak_memory_bytes was not measured"):
        gate(tonight(base, 0.0), window, rules(peak_memory_bytes="+1GiB"))


def test_a_metric_that_is_absent_tonight_only_is_no_pass(base: Run, window: list[Run]) -> None:
    turns = again(base, 20, 0.0).turns
    turns["tpot_s"] = turns["tpot_s"].mask(turns["tpot_s"].notna())

    verdict = only(gate(replace(again(base, 20, 0.0), turns=turns), window, rules(tpot_s="+5%")).verdicts)

    assert (verdict.answer, verdict.reason) == ("cannot tell", "not measured in every launch tonight")


def test_a_name_that_no_run_knows_is_refused(base: Run, window: list[Run]) -> None:
    with pytest.raises(UsageError, match=r"there is no model pica – did you mean pico\?"):
        gate(tonight(base, 0.0), window, rules(**{"tpot_s where model=pica": "+5%"}))


# What failed.


def test_turns_that_failed_are_red_and_named(tmp_path: Path, window: list[Run]) -> None:
    judged = gate(night(tmp_path, 20, failing("poem")), window, rules(failures=0, tpot_s="+5%", checks="exact"))

    (failures, speed, said) = judged.verdicts
    assert failures.answer == "regression"
    assert failures.reason == (
        "3 of 18 turns failed: 3 × OutOfMemoryError in prefill (2 GiB more than there is); 3 were not reached because "
        "of that"
    )
    assert (failures.candidate, failures.margin) == (6, 0)
    assert speed.answer == "pass", "over what was answered in all nights"
    assert "2 of 6 turns are not the same work" in speed.reason
    assert said.answer == "regression", "a turn that failed has passed none of its checks"
    assert judged.exit_code == 3


def test_failures_that_no_rule_is_about_are_told_by_the_exit_code(tmp_path: Path, window: list[Run]) -> None:
    judged = gate(night(tmp_path, 20, failing("poem", at=1)), window, rules(tpot_s="+5%"))

    assert only(judged.verdicts).answer == "pass"
    assert (judged.failed, judged.answer, judged.exit_code) == (3, "some failed", 6)


def test_a_rule_about_failures_in_one_place_says_nothing_of_another(tmp_path: Path, window: list[Run]) -> None:
    lines = {"failures where conversation=poem": 0}

    elsewhere = gate(night(tmp_path, 20, failing("memory", at=1)), window, rules(**lines))
    there = gate(night(tmp_path, 21, failing("poem", at=1)), window, rules(**lines))

    assert (only(elsewhere.verdicts).answer, elsewhere.failed, elsewhere.answer) == ("pass", 3, "some failed")
    assert (only(there.verdicts).answer, there.failed) == ("regression", 0)


def test_as_many_may_fail_as_the_rule_says(tmp_path: Path, window: list[Run]) -> None:
    judged = gate(night(tmp_path, 20, failing("poem", at=1)), window, rules(failures=3))

    assert (only(judged.verdicts).answer, judged.exit_code) == ("pass", 0)


def test_most_turns_failing_is_red_and_says_nothing_of_speed(tmp_path: Path, window: list[Run]) -> None:
    judged = gate(night(tmp_path, 20, failing("poem", "memory")), window, rules(failures=0, tpot_s="+5%"))

    assert [verdict.answer for verdict in judged.verdicts] == ["regression", "cannot tell"]
    assert judged.exit_code == 3


def test_a_night_in_which_nothing_was_answered_has_the_right_colour(tmp_path: Path, window: list[Run]) -> None:
    everything = failing("physics", "memory", "poem")

    red = gate(night(tmp_path, 20, everything), window, rules(failures=0, tpot_s="+5%", checks="exact"))
    untold = gate(night(tmp_path, 21, everything), window, rules(tpot_s="+5%"))

    assert [verdict.answer for verdict in red.verdicts] == ["regression", "cannot tell", "regression"]
    assert (only(untold.verdicts).reason, untold.exit_code) == ("no turn was answered", 6)


# What was said.


def said(**passed: bool) -> Any:
    """Turns whose check of a conversation's turn, `poem_1`, passes or not."""

    def make(cell: Cell, index: int) -> TurnRecord:
        ok = passed.get(f"{cell.conversation_id}_{index}", True)
        return usual(cell, index, checks=checks(ok), reply="as ever" if ok else "all wrong")

    return make


def test_a_check_that_always_passed_and_fails_is_red_and_named(tmp_path: Path) -> None:
    nights = alike(night(tmp_path, 1, said()), 3)

    judged = gate(night(tmp_path, 20, said(poem_1=False)), nights, rules(checks="exact"))

    verdict = only(judged.verdicts)
    assert verdict.answer == "regression"
    assert verdict.reason == "passed in every night of the window, and not tonight: poem turn 1 contains: word0"
    assert (verdict.baseline, verdict.candidate, verdict.change) == (6, 5, -1)
    flip = judged.flips.iloc[0]
    assert (flip["change"], flip["baseline_reply"], flip["candidate_reply"]) == ("lost", "as ever", "all wrong")
    assert (flip["baseline_times"], flip["candidate_times"]) == (9, 3)


def test_a_check_that_failed_in_some_night_is_unsteady_and_not_red(tmp_path: Path) -> None:
    nights = [*alike(night(tmp_path, 1, said()), 2), night(tmp_path, 3, said(poem_1=False))]

    judged = gate(night(tmp_path, 20, said(poem_1=False)), nights, rules(checks="exact"))

    assert only(judged.verdicts).answer == "pass"
    assert "unsteady in the window already: poem turn 1 contains: word0" in only(judged.verdicts).reason
    assert judged.flips["change"].tolist() == ["unsteady"]


def test_a_check_that_is_met_at_last_is_no_regression(tmp_path: Path) -> None:
    nights = alike(night(tmp_path, 1, said(poem_1=False)), 3)

    judged = gate(night(tmp_path, 20, said()), nights, rules(checks="exact"))

    assert only(judged.verdicts).answer == "pass"
    assert judged.flips["change"].tolist() == ["gained"]


def test_one_loss_is_not_made_good_by_one_gain(tmp_path: Path) -> None:
    nights = alike(night(tmp_path, 1, said(poem_1=False)), 3)

    verdict = only(gate(night(tmp_path, 20, said(poem_0=False)), nights, rules(checks="exact")).verdicts)

    assert (verdict.answer, verdict.change) == ("regression", -1)


def test_a_greedy_reply_that_fails_in_some_launches_is_a_suspicion(tmp_path: Path) -> None:
    """All plays of a greedy turn should be one reply."""

    def shaky(cell: Cell, index: int) -> TurnRecord:
        ok = cell.conversation_id != "poem" or cell.launch != 1
        return usual(cell, index, checks=checks(ok))

    nights = alike(night(tmp_path, 1), 3)
    doubtful = night(tmp_path, 20, shaky)

    alone = only(gate(doubtful, nights, rules(checks="exact")).verdicts)
    fine = only(gate(doubtful, nights, rules(checks="exact"), confirm=[night(tmp_path, 21)]).verdicts)
    worse = only(gate(doubtful, nights, rules(checks="exact"), confirm=[night(tmp_path, 22, shaky)]).verdicts)

    assert [each.answer for each in (alone, fine, worse)] == ["suspicion", "pass", "regression"]


def test_of_repeats_that_draw_each_has_to_pass(tmp_path: Path) -> None:
    """pass^k: two of three are not three of three."""
    drawn = {"samplings": {"warm": {"do_sample": True}}, "repeats": 3}

    def make(cell: Cell, index: int) -> TurnRecord:
        return usual(cell, index, checks=checks(cell.conversation_id != "poem" or cell.repeat != 2))

    nights = alike(night(tmp_path, 1, **drawn), 3)

    verdict = only(gate(night(tmp_path, 20, make, **drawn), nights, rules(checks="exact")).verdicts)

    assert (verdict.answer, verdict.candidate) == ("regression", 4)


def test_what_is_drawn_in_a_batch_cannot_be_compared_exactly(tmp_path: Path) -> None:
    drawn = {"samplings": {"warm": {"do_sample": True}}, "concurrency": [2]}

    def free(cell: Cell, index: int, ok: bool = True) -> TurnRecord:
        return usual(cell, index, checks=checks(ok), paired=False, memory=Memory())

    def unlucky(cell: Cell, index: int) -> TurnRecord:
        return free(cell, index, ok=cell.conversation_id != "poem")

    nights = alike(night(tmp_path, 1, free, **drawn), 3)

    verdict = only(gate(night(tmp_path, 20, unlucky, **drawn), nights, rules(checks="exact")).verdicts)

    assert verdict.answer == "cannot tell"
    assert verdict.cell == "pico, warm, concurrency 2"


def test_checks_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    def forced(cell: Cell, index: int) -> TurnRecord:
        return usual(cell, index, around={"length": "fixed"})

    nights = alike(night(tmp_path, 1, forced, length="fixed"), 3)

    with pytest.raises(UsageError, match=r"gate.rules.checks: exact: there is no check whose answer means anything"):
        gate(night(tmp_path, 20, forced, length="fixed"), nights, rules(checks="exact"))


# The machine.


def test_with_an_anchor_what_slows_both_is_the_machine(tmp_path: Path) -> None:
    base = night(tmp_path, 0, models=("pico", "nano"))
    dice = np.random.default_rng(3)
    machine = [noise(base, dice, nights=0.1, launches=0.0) for _ in range(8)]
    small = [noise(base, dice, nights=0.003, launches=0.003) for _ in range(9)]
    nano = (base.turns["model"] == "nano").to_numpy()
    nights = [again(base, number + 1, machine[number] + small[number] * nano) for number in range(7)]
    hot = again(base, 20, np.log(1.3) + small[7] * nano)
    slow = again(base, 21, machine[7] + np.log(1.12) * nano)
    more = again(base, 22, machine[7] + np.log(1.12) * nano + small[8] * nano)

    told = [
        gate(run, nights, rules(tpot_s="+5%", anchor="pico"), confirm=further)
        for run, further in ((hot, []), (slow, [more]))
    ]

    assert [(only(each.verdicts).model, only(each.verdicts).answer) for each in told] == [
        ("nano", "pass"), ("nano", "regression"),
    ]  # fmt: skip
    verdict = only(told[1].verdicts)
    assert verdict.change == pytest.approx(1.12, rel=0.01)
    assert verdict.baseline == pytest.approx(0.002, rel=0.2), "in seconds, whatever the change is relative to"
    in_ms = only(gate(slow, nights, rules(tpot_s="+0.1ms", anchor="pico")).verdicts)
    assert in_ms.margin == pytest.approx(1 + 0.0001 / (verdict.baseline or 0))


def test_a_gate_without_verdicts_has_not_passed(base: Run, window: list[Run]) -> None:
    judged = gate(tonight(base, 0.0), window, rules(tpot_s="+5%"))

    assert replace(judged, verdicts=()).answer == "cannot tell"


def test_against_one_night_a_change_is_the_effect_that_compare_tells(tmp_path: Path) -> None:
    """Another way to the same number: several settings, repeats, turns that failed or had other prompts or lengths."""
    dice = np.random.default_rng(7)

    def make(cell: Cell, index: int) -> TurnRecord | None:
        if cell.conversation_id == "poem" and cell.launch == 1 and cell.model == "nano":
            return failing("poem")(cell, index)
        length = 4 if (cell.conversation_id, index) == ("memory", 1) and dice.random() < 0.2 else 5
        return usual(cell, index, ttft_ms=dice.uniform(5, 50), tpot_ms=dice.uniform(1, 9), ids=length)

    several = {"models": ("pico", "nano"), "samplings": ("greedy", "other"), "repeats": 2, "launches": 2}
    before, after = (night(tmp_path, number, make, **several) for number in (1, 2))
    lines = {"tpot_s": "+5%", "ttft_s": "+5%", "decode_tokens_per_s": "-5%", "host_rss_bytes": "+5%"}

    judged = gate(after, [before], rules(**lines))

    compared = 0
    for verdict in judged.verdicts:
        setting = (verdict.model, verdict.sampling, verdict.concurrency)
        sides = [Side(run, *setting) for run in (before, after)]
        effect = (memory_of(work(Pair(*sides)), verdict.metric) if verdict.kind == "memory"
                  else speed_effect(*sides, verdict.metric))  # fmt: skip
        compared += verdict.change is not None
        assert verdict.change == pytest.approx(effect.value)
        assert (verdict.baseline, verdict.candidate) == (
            pytest.approx(effect.baseline), pytest.approx(effect.candidate),
        )  # fmt: skip
    assert compared == 16


# How likely the blessed replies still are.


def forced_night(results: Path, number: int, replies_of: int, shift: float = 0.0, **values: Any) -> Run:
    """A night that had its own replies forced, which are those of every other, and the blessed ones: so much less
    likely, in nats per token."""
    path = stored_night(results, number, **values)
    run = load(path)
    lines = [
        {
            "cell": {"model": model, "sampling": sampling, "conversation_id": talk, "repeat": 0, "launch": 0,
                     "concurrency": 1},
            "turn_index": int(turn), "of": f"night-{of:02d}", "ids": [1, 2, 3], "prompt_hash": f"{talk}-{turn}",
            "logprobs": [-0.5 - shift] * 3, "margins": [1.0] * 3, "why_not": None,
        }
        for of in dict.fromkeys((number, replies_of))
        for model, sampling, talk, turn in run.turns[run.turns["launch"] == 0][
            ["model", "sampling", "conversation_id", "turn_index"]
        ].itertuples(index=False)
        if sampling == "greedy"
    ]  # fmt: skip
    (path / FORCED).write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return load(path)


def test_replies_that_are_less_likely_are_told_from_those_that_are_not(tmp_path: Path) -> None:
    nights = [forced_night(tmp_path, number, 3) for number in (1, 2, 3)]
    moved, more = (forced_night(tmp_path, number, 3, shift=0.2) for number in (20, 21))

    fine = gate(forced_night(tmp_path, 22, 3), nights, rules(text="divergence"))
    alone = gate(moved, nights, rules(text="divergence"))
    again = gate(moved, nights, rules(text="divergence"), confirm=[more])

    assert [only(judged.verdicts).answer for judged in (fine, alone, again)] == ["pass", "suspicion", "regression"]
    verdict = only(again.verdicts)
    assert (verdict.baseline, verdict.candidate) == (pytest.approx(-0.5), pytest.approx(-0.7))
    assert (verdict.change, verdict.unit, verdict.scale) == (pytest.approx(-0.2), "nats", "difference")
    assert "less likely by 0.2 nats per token" in verdict.reason


def test_replies_that_were_not_forced_are_no_pass(base: Run, window: list[Run]) -> None:
    verdict = only(gate(tonight(base, 0.0), window, rules(text="divergence")).verdicts)

    assert (verdict.answer, verdict.reason) == ("cannot tell", "replies were not forced, tonight or in the window")


def test_text_that_is_drawn_is_not_held_against_each_other(tmp_path: Path) -> None:
    both = {"samplings": {"greedy": {"do_sample": False}, "warm": {"do_sample": True}}}
    nights = [forced_night(tmp_path, number, 3, **both) for number in (1, 2, 3)]
    drawn = {"samplings": {"warm": {"do_sample": True}}}

    judged = gate(forced_night(tmp_path, 20, 3, **both), nights, rules(text="divergence"))

    assert [(verdict.sampling, verdict.answer) for verdict in judged.verdicts] == [("greedy", "pass")]
    with pytest.raises(UsageError, match="every sampling draws at random"):
        gate(night(tmp_path, 30, **drawn), [night(tmp_path, 31, **drawn)], rules(text="divergence"))
