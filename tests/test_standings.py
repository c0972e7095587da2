"""Which setting is best at what: against runs whose answer is known, and what the sentences claim of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import false_discovery_control

import harness
from harness.analysis.effects import Effect
from harness.analysis.frames import Run
from harness.analysis.inference import over_launches
from harness.analysis.standings import Against, Contender, Standing, standings
from harness.analysis.stats import Estimate
from harness.records import Cell, Memory, TurnRecord
from harness.report.page.best import best
from harness.report.verdicts import headline, sentence
from tests.builders import checks, every_turn, failed, launch, plan, store, turn
from tests.sides_and_runs import timed

SAME_WORK = {"history": "scripted", "length": "fixed"}
TOP_K = {f"top_k={k}": {"do_sample": True, "top_k": k} for k in (1, 10, 50)}


def played(tmp_path: Path, make: Callable[[Cell, int], TurnRecord], of: dict[str, Any], **values: Any) -> Run:
    return harness.load(store(tmp_path, every_turn(of, make), of, **values))


def answer(answers: tuple[Standing, ...], name: str) -> Standing:
    (found,) = [each for each in answers if each.question.name == name]
    return found


def outcomes(standing: Standing) -> dict[str, str]:
    return {each.contender.name: each.outcome(standing.question.direction) for each in standing.others}


@pytest.fixture
def speeds(tmp_path: Path) -> Callable[..., Run]:
    def run(launches: int, models=("pico", "nano")) -> Run:
        of = plan(models, conversations={"a": 2, "b": 2}, launches=launches, **SAME_WORK)

        def made(each: Cell, index: int) -> TurnRecord:
            slow = 1 + 4 * (each.model == models[1])
            return turn(each, index, tpot_ms=10 * slow + each.launch, ttft_ms=20 * slow, around=SAME_WORK)

        loads = [
            launch(model, number, load_s=1.0 + number / 100) for number in range(launches) for model in reversed(models)
        ]
        return played(tmp_path, made, of, launches=loads)

    return run


def test_over_several_launches_the_faster_model_is_told_apart(speeds: Callable[..., Run]) -> None:
    found = answer(standings(speeds(4)).by_model, "tpot_s")

    assert found.best.name == "pico"
    assert outcomes(found) == {"nano": "worse"}
    assert found.tied == ()
    assert sentence(found).startswith(
        "pico is faster per token (11.4 ms against 51.5 ms, 4.50 times with 95 % interval "
    )
    assert sentence(found).endswith(").")


def test_one_launch_tells_nobody_apart_and_says_so(speeds: Callable[..., Run]) -> None:
    run = speeds(1)
    found = standings(run)

    assert [outcomes(answer(found.by_model, name)) for name in ("ttft_s", "tpot_s", "e2e_s", "load_s")] == [
        {"nano": "cannot tell"}
    ] * 4
    assert sentence(answer(found.by_model, "tpot_s")) == (
        "pico was faster per token (10.0 ms against 50.0 ms); "
        "one launch says nothing about the next (4 launches begin to tell)."
    )
    ((asked, (told,)),) = headline(run)
    assert asked == "pico or nano?"
    assert told.count("one launch says nothing about the next") == 1
    assert "nano and pico do not differ in loading" not in told  # names are in the order of the config
    assert "pico and nano do not differ in loading: 1.00 s" in told


def judged(tmp_path: Path, conversations: int, good: float) -> Run:
    """pico passes all its checks, nano those of a share of the conversations; no work is alike."""
    of = plan(("pico", "nano"), TOP_K, {f"c{n}": 1 for n in range(conversations)})

    def made(each: Cell, index: int) -> TurnRecord:
        passed = each.model == "pico" or int(each.conversation_id[1:]) < good * conversations
        return turn(each, index, checks=checks(passed), reply=f"{each}")

    return played(tmp_path, made, of)


def test_three_conversations_say_nothing_of_others(tmp_path: Path) -> None:
    found = standings(judged(tmp_path, 3, 0.5))

    assert outcomes(answer(found.by_model, "checks")) == {"nano": "cannot tell"}
    assert sentence(answer(found.by_model, "checks")).startswith(
        "pico passed more checks (100 % against 67 %); 3 conversations say nothing about others ("
    )


def test_many_conversations_tell_models_apart_and_not_what_does_not_matter(tmp_path: Path) -> None:
    run = judged(tmp_path, 12, 0.25)
    found = standings(run)
    of_models, of_top_k = answer(found.by_model, "checks"), answer(found.by_parameter, "checks")

    assert outcomes(of_models) == {"nano": "worse"}
    assert sentence(of_models).startswith("pico passes more checks (100 % against 25 %, difference ")
    assert (of_top_k.by, of_top_k.names) == ("top_k", ("1", "10", "50"))
    assert set(outcomes(of_top_k).values()) == {"cannot tell"}  # twelve conversations without a difference
    asked = dict(headline(run))
    assert list(asked) == ["pico or nano?", "Which top_k?"]
    assert asked["pico or nano?"][0] == sentence(of_models)
    assert any(
        said.startswith("1, 10 and 50 cannot be told apart in checks passed, ") for said in asked["Which top_k?"]
    )


def test_settings_are_ranked_and_the_equally_good_are_named(tmp_path: Path) -> None:
    found = answer(standings(judged(tmp_path, 16, 0.25)).by_setting, "checks")

    assert found.best.name == "pico · top_k=1"
    assert [each.contender.name for each in found.others][:2] == ["pico · top_k=10", "pico · top_k=50"]
    assert set(list(outcomes(found).values())[2:]) == {"worse"}
    assert "as did pico · top_k=10 and pico · top_k=50" in sentence(found)
    assert "nano · top_k=1, nano · top_k=10 and nano · top_k=50 are worse" in sentence(found)
    estimate = found.best.estimate
    assert (estimate.value, estimate.basis, estimate.n) == (1, "conversations", 16)


def test_what_came_out_best_for_having_had_less_to_do_is_found_out(tmp_path: Path) -> None:
    of = plan(("pico", "nano"), conversations={"short": 1, "long": 1}, launches=4, **SAME_WORK)

    def made(each: Cell, index: int) -> TurnRecord:
        if each.conversation_id == "long" and each.model == "pico":
            return failed(each, index, around=SAME_WORK)
        ms = {("pico", "short"): 20, ("nano", "short"): 10, ("nano", "long"): 90}[each.model, each.conversation_id]
        return turn(each, index, tpot_ms=ms + each.launch % 2, around=SAME_WORK)

    found = answer(standings(played(tmp_path, made, of)).by_model, "tpot_s")

    assert found.best.name == "pico"
    assert outcomes(found) == {"nano": "better"}
    assert (found.better, found.tied, found.worse) == (found.others, (), ())
    assert "on turns of the very same work nano did better" in sentence(found)


def uneven(run_id: str, tmp_path: Path, pico: list[float], nano: list[float]) -> Run:
    """Two models, one conversation, four launches of much the same speed; times to the first token by turn, in ms."""
    of = plan(("pico", "nano"), conversations={"a": 4}, launches=4, **SAME_WORK)

    def made(each: Cell, index: int) -> TurnRecord:
        ms = (pico if each.model == "pico" else nano)[index] + each.launch % 2 / 1000 * (each.model == "nano")
        return timed(each, index, ms, around=SAME_WORK)

    return played(tmp_path, made, of, run_id=run_id)


def test_nobody_is_called_faster_who_lost_on_the_very_same_work(tmp_path: Path) -> None:
    """Medians of 10.0 and 10.5 ms; mean log ratio log(10.5/10)·3/4 + log(20/100)/4, a ratio of 0.694."""
    run = uneven("v", tmp_path, [10, 10, 10, 100], [10.5, 10.5, 10.5, 20])
    found = answer(standings(run).by_model, "ttft_s")
    ((_, told),) = headline(run)
    (said,) = [each for each in told if "first token" in each]
    (row,) = [each for each in best(run).table.rows if "first token" in each.cells[0].value]

    assert outcomes(found) == {"nano": "better"}
    assert not any("pico was faster" in each for each in told)
    assert said.startswith(
        "pico came out better in time to the first token (10.0 ms against 10.5 ms), but on turns of the very same work "
        "nano did better (0.694 times with 95 % interval "
    )
    assert [cell.value for cell in row.cells[1:]] == ["pico", "10.0 ms", "–", "–"]
    assert row.cells[1].beside == "but on turns of the very same work nano did better"


def test_nobody_is_called_faster_whose_turns_take_as_long(tmp_path: Path) -> None:
    """Medians of 15 and 20 ms, and the same times in another order: the mean log ratio is 0."""
    run = uneven("v", tmp_path, [10, 10, 40, 20], [20, 20, 20, 10])
    ((_, told),) = headline(run)

    assert not any("was faster to the first token" in each for each in told)
    assert (
        "pico came out better in time to the first token (15.0 ms against 20.0 ms; on turns of the very same work: "
        "1.00 times with 95 % interval " in " ".join(told)
    )


def test_the_lead_of_a_rate_keeps_its_sign(tmp_path: Path) -> None:
    """pico passes the 30 turns of one conversation, nano all of the nine others: 30/39 against 9/39 of the checks, and
    1/10 against 9/10 of the conversations."""
    of = plan(("pico", "nano"), conversations={"long": 30} | {f"c{n}": 1 for n in range(9)}, checks=[1] * 30)

    def made(each: Cell, index: int) -> TurnRecord:
        return turn(each, index, checks=checks((each.model == "pico") == (each.conversation_id == "long")))

    run = played(tmp_path, made, of)
    found = answer(standings(run).by_model, "checks")

    assert found.best.name == "pico"
    assert (found.others[0].effect.value, found.others[0].contrary("higher")) == (pytest.approx(0.8), True)
    assert sentence(found).startswith(
        "pico came out better in checks passed (77 % against 23 %; with every conversation counting the same: "
        "a lead of -100 to -26.1 points with 95 % confidence)"
    )
    assert "passed more checks" not in str(headline(run))


def test_equal_values_do_not_hide_who_did_better(tmp_path: Path) -> None:
    """Medians of 10 ms both; three turns take 10 ms on either side, one of them 20 and 15."""
    run = uneven("v", tmp_path, [10, 10, 10, 20], [10, 10, 10, 15])
    run = replace(run, turns=run.turns.assign(ttft_s=run.turns["ttft_s"].round(3)))
    found = answer(standings(run).by_model, "ttft_s")

    assert outcomes(found) == {"nano": "better"}
    assert sentence(found) == (
        "pico and nano do not differ in time to the first token: 10.0 ms, "
        "but on turns of the very same work nano did better."
    )


def test_memory_of_the_host_and_loading_are_of_models_and_that_of_an_accelerator_of_settings(tmp_path: Path) -> None:
    of = plan(("pico", "nano"), TOP_K, {"a": 1})
    on_host = standings(played(tmp_path / "host", turn, of))
    memory = Memory(peak_memory_bytes=2**30, host_rss_bytes=2**31)
    on_device = standings(played(tmp_path / "device", lambda each, index: turn(each, index, memory=memory), of))

    assert {"memory", "host_memory", "load_s"} & {each.question.name for each in on_host.by_setting} == set()
    assert {"host_memory", "load_s"} <= {each.question.name for each in on_host.by_model}
    assert "memory" in {each.question.name for each in on_device.by_setting}
    assert "host_memory" not in {each.question.name for each in on_device.by_model}


def test_what_means_nothing_is_not_asked(tmp_path: Path) -> None:
    of = plan(("pico", "nano"), conversations={"a": 1}, **SAME_WORK)
    run = played(tmp_path, lambda each, index: turn(each, index, around=SAME_WORK, checks=checks(True)), of)

    assert {"checks", "repetition", "truncated"} & {each.question.name for each in standings(run).by_model} == set()


def test_a_run_of_one_setting_has_nothing_to_rank(tmp_path: Path) -> None:
    run = harness.load(store(tmp_path, [turn(), turn(index=1)]))

    assert standings(run) == standings(run)
    assert (standings(run).by_setting, standings(run).by_model, standings(run).by_parameter) == ((), (), ())
    assert headline(run) == []


def test_unrelated_settings_are_asked_for_as_such(tmp_path: Path) -> None:
    of = plan(samplings={"greedy": {"do_sample": False}, "warm": {"do_sample": True, "top_p": 0.9}})
    ((asked, told),) = headline(played(tmp_path, turn, of))

    assert asked == "Which setting?"
    assert any("greedy and warm do not differ in time to the first token" in said for said in told)


def test_named_settings_are_asked_for_over_all_models(tmp_path: Path) -> None:
    settings = {"greedy": {"do_sample": False}, "warm": {"do_sample": True, "top_p": 0.9}}
    of = plan(("pico", "nano"), settings, {"a": 1})
    run = played(tmp_path, turn, of, config={"sampling": {"settings": settings}})

    assert [asked for asked, _ in headline(run)] == ["pico or nano?", "Which setting?"]
    assert {each.names for each in standings(run).by_parameter} == {("greedy", "warm")}


def test_of_very_many_settings_the_next_best_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.analysis.standings.MOST_COMPARED", 2)
    samplings = {f"s{n}": {"do_sample": True, "top_k": n + 1} for n in range(4)}
    of = plan(samplings=samplings, conversations={"a": 1})
    run = played(tmp_path, lambda each, index: turn(each, index, tpot_ms=9 - int(each.sampling[1])), of)
    found = answer(standings(run).by_setting, "tpot_s")

    assert (found.best.name, list(outcomes(found)), found.further) == ("s3", ["s2", "s1"], 1)
    assert sentence(found).endswith("; 1 more came out no better and was not compared.")
    ((_, told),) = [each for each in headline(run) if each[0] == "Which top_k?"]
    assert not any("1, 2, 3 and 4 cannot be told apart in time per token" in each for each in told)


@pytest.mark.parametrize("worst", [0, 2])
def test_equals_are_counted_beyond_those_that_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worst: int
) -> None:
    monkeypatch.setattr("harness.analysis.standings.MOST_COMPARED", 3)
    samplings = {f"s{n}": {"do_sample": True, "top_k": n + 1} for n in range(6)}
    of = plan(samplings=samplings, conversations={"a": 1})
    run = played(tmp_path, lambda each, index: turn(each, index, tpot_ms=2 + (int(each.sampling[1]) >= 6 - worst)), of)
    found = answer(standings(run).by_setting, "tpot_s")
    said = sentence(found)

    assert (len(found.others), found.further, len(found.equal)) == (3, 2, 5 - worst)
    if worst:
        assert said.startswith("s0 was fastest per token (2.00 ms), as did s1, s2 and s3; ")
        assert said.endswith("; 2 more came out no better and were not compared.")
    else:
        assert said.startswith("s0, s1, s2 and 3 others do not differ in time per token: 2.00 ms; ")
        assert said.endswith("; 2 of them were not compared.")


def test_more_is_planned_for_where_more_is_looked_at(tmp_path: Path) -> None:
    """Of models one pair, of settings fifteen, by three questions that conversations tell: level 0.05/3 and 0.05/45."""
    found = standings(judged(tmp_path, 3, 0.5))
    of_models, of_settings = answer(found.by_model, "checks"), answer(found.by_setting, "checks")

    assert {each.family for each in of_models.others} == {3}
    assert {each.family for each in of_settings.others} == {45}
    (nano,) = of_models.others
    assert nano.needed() == nano.effect.needed(level=0.05 / 3)
    assert f"({nano.needed()} would show a difference of 5 points)" in sentence(of_models)


def test_as_many_launches_as_are_said_to_be_needed_find_the_difference_among_nine() -> None:
    dice, found, rounds = np.random.default_rng(5), 0, 300
    for _ in range(rounds):
        pilot = over_launches(dice.normal(0, 0.02, 10), dice.normal(0.05, 0.02, 10), paired=True)
        effect = Effect("ttft_s", "ratio", 1, 1, pilot, "launches", paired=True)
        needed = Against(Contender("nano", None, Estimate(1.0)), effect, family=9).needed()  # type: ignore[arg-type]
        assert needed is not None
        p = over_launches(dice.normal(0, 0.02, needed), dice.normal(np.log(1.05), 0.02, needed), paired=True).p
        found += false_discovery_control([p] + [1.0] * 8)[0] <= 0.05

    assert found / rounds >= 0.8 - 2 * np.sqrt(0.16 / rounds)


def test_a_grid_is_asked_at_each_value_of_the_other_parameter(tmp_path: Path) -> None:
    grid = {f"{k},{t}": {"do_sample": True, "top_k": k, "temperature": t} for k in (1, 5) for t in (0.5, 1.0)}
    run = played(tmp_path, turn, plan(samplings=grid, conversations={"a": 1}))

    assert [asked for asked, _ in headline(run)] == [
        "Which top_k at temperature=0.5?",
        "Which top_k at temperature=1.0?",
        "Which temperature at top_k=1?",
        "Which temperature at top_k=5?",
    ]


def test_who_has_no_value_is_said(tmp_path: Path) -> None:
    of = plan(("pico", "nano", "mute"), conversations={"a": 1})
    run = played(tmp_path, lambda each, index: (failed if each.model == "mute" else turn)(each, index), of)
    found = answer(standings(run).by_model, "tpot_s")

    assert (found.names, found.without) == (("pico", "nano"), ("mute",))
    assert "mute has no such value" in sentence(found)
    assert "mute" in answer(standings(run).by_model, "checks").names  # what fails has failed its checks


def test_a_hostile_label_does_not_act_in_a_sentence(tmp_path: Path) -> None:
    run = played(tmp_path, turn, plan(("\x1b[2J\nnano", "\u202epico"), conversations={"a": 1}))
    text = str([*map(sentence, standings(run).by_model), *headline(run)])

    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\\x1b[2J nano" in " ".join(sentence(each) for each in standings(run).by_model)


def test_settings_that_do_not_differ_are_seldom_told_apart(tmp_path: Path) -> None:
    samplings = {f"s{n}": {"do_sample": True, "top_k": n + 1} for n in range(4)}
    run = played(tmp_path, turn, plan(samplings=samplings, conversations={"a": 1}, launches=4))
    place = run.turns["launch"].to_numpy(dtype=int)
    dice, wrong = np.random.default_rng(5), 0
    for _ in range(20):
        noise = dice.normal(0, 0.02, 4)[place] + dice.normal(0, 0.02, len(place))
        times = {name: np.exp(noise) * 0.01 for name in ("ttft_s", "tpot_s", "e2e_s")}
        found = standings(replace(run, turns=run.turns.assign(**times))).by_setting
        wrong += any("worse" in outcomes(each).values() for each in found)

    assert wrong <= 4  # one is expected of twenty, and more than four have a chance of 0.3 %


def test_settings_of_one_model_have_the_cells_of_the_config_in_their_names(tmp_path: Path) -> None:
    run = played(tmp_path, turn, plan(samplings=TOP_K, conversations={"a": 1}, concurrency=[1, 4]))

    assert standings(run).by_setting[0].names[:2] == ("top_k=1 · 1 at a time", "top_k=1 · 4 at a time")
