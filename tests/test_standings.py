"""Which setting is best at what: against runs whose answer is known, and what the sentences claim of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import harness
from harness.analysis.frames import Run
from harness.analysis.standings import Standing, standings
from harness.records import Cell, Memory, TurnRecord
from harness.report.verdicts import headline, sentence
from tests.builders import checks, every_turn, failed, launch, plan, store, turn

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
    assert found.tied == found.others
    assert "on turns of the very same work nano did better" in sentence(found)


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
    assert sentence(found).endswith("; 1 more came out worse still and were not compared.")


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
