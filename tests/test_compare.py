"""Whole comparisons: what they answer, how often they are wrong, and what they look like."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from harness.analysis.compare import Comparison, compare
from harness.analysis.effects import Effect
from harness.analysis.frames import Run
from harness.analysis.inference import adjusted, launches_needed, over_conversations, over_launches
from harness.analysis.sides import Side
from harness.errors import UsageError
from harness.records import Cell, TurnRecord
from tests.builders import checks
from tests.sides_and_runs import SCRIPT, stored, timed

Command = Callable[..., tuple[int, str, str]]
TWO = {"models": ("pico", "nano")}


def row(found: Comparison, metric: str) -> pd.Series:
    return found.rows[found.rows["metric"] == metric].iloc[0]


def noisy(seed: int, factor: float = 1.0, launch_sd: float = 0.01, from_turn: int = 0, turn_sd: float = 0.05):
    """Turns with noise of the launch, of the conversation in that launch, and of the turn; nano takes `factor` as long
    from turn `from_turn` on. Checks pass at random, four of five."""

    def make(cell: Cell, index: int) -> TurnRecord:
        dice = np.random.default_rng([seed, cell.launch, len(cell.model), ord(cell.model[0])])
        of_launch = dice.normal(0, launch_sd)
        dice = np.random.default_rng([seed, cell.launch, ord(cell.model[0]), *cell.conversation_id.encode()])
        of_talk = dice.normal(0, 0.02)
        of_turn, luck = dice.normal(0, turn_sd, 8)[index], dice.random(8)[index]
        slow = factor if cell.model == "nano" and index >= from_turn else 1.0
        times = math.exp(of_launch + of_talk + of_turn) * slow
        return timed(cell, index, 10 * times, 2 * times, checks=checks(bool(luck < 0.8)))

    return make


def test_a_planted_slowdown_is_different_and_its_memory_equivalent(tmp_path: Path) -> None:
    found = compare(stored(tmp_path, noisy(1, 1.2), launches=4, **TWO), by="model")

    assert row(found, "ttft_s")["answer"] == "different"
    assert row(found, "ttft_s")["better"] == "pico"
    assert row(found, "output_tokens_per_s")["better"] == "pico"
    assert row(found, "host_rss_bytes")["answer"] == "equivalent"
    assert (found.compared, len(found.ledger)) == ("model", 0)


def test_a_slowdown_of_the_last_quarter_is_found_and_where_it_is(tmp_path: Path) -> None:
    found = compare(stored(tmp_path, noisy(2, 1.3, from_turn=3, turn_sd=0.01), launches=5, **TWO), by="model")
    slow = found.by_turn[(found.by_turn["answer"] == "different") & (found.by_turn["metric"] == "ttft_s")]

    assert row(found, "ttft_s")["answer"] == "different"
    assert slow["turn_index"].tolist() == [3]
    assert slow["effect"].iloc[0] == pytest.approx(1.3, rel=0.05)
    assert set(found.by_conversation["conversation_id"]) == set(SCRIPT)


def test_one_launch_cannot_tell_however_large_the_effect(tmp_path: Path) -> None:
    found = compare(stored(tmp_path, noisy(1, 3.0), **TWO), by="model")

    assert row(found, "ttft_s")["answer"] == "cannot tell"
    assert row(found, "ttft_s")["effect"] == pytest.approx(3, rel=0.1)
    assert pd.isna(row(found, "ttft_s")["needed"])


def test_what_the_tests_of_a_table_need_is_more_than_one_test_needs(tmp_path: Path) -> None:
    found = compare(stored(tmp_path, noisy(3, launch_sd=0.1), launches=3, **TWO), by="model")
    alone = compare(found.pairs[0].baseline, found.pairs[0].candidate, lane="speed").rows

    assert row(found, "tpot_s")["needed"] > 3
    assert alone["metric"].tolist()[:4] == ["ttft_s", "tpot_s", "e2e_s", "output_tokens_per_s"]
    assert alone.set_index("metric")["needed"]["tpot_s"] < row(found, "tpot_s")["needed"]


def test_lanes_keep_what_belongs_to_them(tmp_path: Path) -> None:
    run = stored(tmp_path, noisy(1), **TWO)

    assert set(compare(run, by="model", lane="speed").rows["estimand"]) == {"speed", "memory", "loading"}
    assert set(compare(run, by="model", lane="behaviour").rows["estimand"]) == {"behaviour"}
    assert len(compare(run, by="model", lane="behaviour").by_turn) == 0


def test_processes_that_loaded_once_are_compared_once(tmp_path: Path) -> None:
    found = compare(stored(tmp_path, launches=2, samplings=("greedy", "cool"), **TWO), by="model").rows

    assert (found["metric"] == "load_s").sum() == 1
    assert (found["metric"] == "ttft_s").sum() == 2
    by_sampling = compare(stored(tmp_path / "b", samplings=("greedy", "cool")), by="sampling").rows
    assert "load_s" not in set(by_sampling["metric"])


def test_tokens_per_second_have_a_neutral_figure_beside_them_where_tokenizers_differ(tmp_path: Path) -> None:
    def make(cell: Cell, index: int) -> TurnRecord:
        around = {"history": "scripted", "length": "fixed"}
        return timed(cell, index, prompt_hash=cell.model, around=around, gold="So it is.", gold_tokens=4)

    found = compare(stored(tmp_path, make, history="scripted", length="fixed", **TWO), by="model")

    assert row(found, "s_per_1k_gold_chars")["effect"] == pytest.approx(1)
    assert found.ledger["field"].tolist() == ["prompt ids"]
    assert found.ledger["remark"][0].endswith("24 of these turns are paired by their script")


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 10**6))
def test_swapping_sides_turns_a_comparison_round(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    run = stored(tmp_path_factory.mktemp("run"), noisy(seed, 1.1), launches=3, **TWO)
    there = compare(run, by="model", base="pico").rows.set_index("metric")
    back = compare(run, by="model", base="nano").rows.set_index("metric")
    ratios = there["scale"] == "ratio"

    assert back.loc[ratios, "effect"].to_numpy(float) == pytest.approx(1 / there.loc[ratios, "effect"].to_numpy(float))
    assert back.loc[~ratios, "effect"].to_numpy(float) == pytest.approx(-there.loc[~ratios, "effect"].to_numpy(float))
    assert back["answer"].tolist() == there["answer"].tolist()
    assert back["better"].fillna("").tolist() == there["better"].fillna("").tolist()
    assert back["q"].fillna(2).to_numpy(float) == pytest.approx(there["q"].fillna(2).to_numpy(float))


def drawn(dice: np.random.Generator, launches: int, talks: int, paired: bool, slower: float = 0.0) -> list[Effect]:
    """The effects of one table, made as those of a run are: speed from the turns of launches, with noise of launch,
    conversation and turn; behaviour from the checks of conversations. `slower` is added to what the candidate takes."""
    speed = []
    shape = (2, launches, talks, 5)
    of_launch = dice.normal(0, 0.03, shape[:2])
    for metric in ("ttft_s", "tpot_s", "e2e_s", "load_s", "first_turn_s"):
        logs = of_launch + dice.normal(0, 0.01, shape[:2])
        logs = logs + (dice.normal(0, 0.02, shape[:3])[..., None] + dice.normal(0, 0.05, shape)).mean(axis=(2, 3))
        found = over_launches(logs[0], logs[1] + slower, paired)
        speed.append(Effect(metric, "ratio", 1, 1, found, "launches" if launches > 1 else "one launch", paired))
    hard = dice.beta(4, 1, talks)
    replies = []
    for metric in ("check_pass_rate", "truncation_rate", "failure_rate", "repetition"):
        rates = dice.binomial(5, hard if metric == "check_pass_rate" else 0.05, (2, talks)) / 5
        found = over_conversations(rates[1] - rates[0], 1)
        replies.append(Effect(metric, "difference", 0, 0, found, "conversations", relative=False))
    return [*speed, *replies]


def answers(effects: list[Effect]) -> list[str]:
    return [effect.answer(q) for effect, q in zip(effects, adjusted([effect.p for effect in effects]), strict=True)]


def test_equal_sides_are_called_different_no_more_often_than_stated() -> None:
    """500 tables in which nothing differs, of one to five launches and three to twenty conversations: 5 % of them may
    have a row that says different. 7 % is what luck may make of that (99 % of the time)."""
    dice = np.random.default_rng(0)
    shapes = [(1 + k % 5, (3, 6, 9, 20)[k % 4], k % 2 == 0) for k in range(500)]
    tables = [answers(drawn(dice, *shape)) for shape in shapes]

    assert np.mean(["different" in table for table in tables]) <= 0.07
    assert not any("different" in table for table, shape in zip(tables, shapes, strict=True) if shape[:2] == (1, 3))


def test_equal_runs_are_called_different_no_more_often_than_stated(tmp_path: Path) -> None:
    """Two models of one run, and two runs of one model, by turns."""
    wrong = 0
    for seed in range(12):
        here, launches = tmp_path / str(seed), 2 + seed % 3
        if seed % 2:
            found = compare(stored(here, noisy(seed, launch_sd=0.03), launches=launches, **TWO), by="model")
        else:
            runs = [
                stored(here, noisy(seed + more, launch_sd=0.03), f"run-{more}", launches=launches) for more in (0, 99)
            ]
            found = compare(*runs)
        wrong += "different" in set(found.rows["answer"])

    assert wrong <= 2  # of 12 tables at 5 %: more than two in 2 % of all cases


def test_a_slowdown_is_found_in_a_table_by_as_many_launches_as_it_says_are_needed() -> None:
    """A pilot of four launches says how many find 5 %, at a level that leaves room for the other rows."""
    dice = np.random.default_rng(1)
    level, shift, found = 0.05 / 9, math.log(1.05), []
    for _ in range(40):
        n = launches_needed(drawn(dice, 4, 6, True)[0].inference, shift, True, level)
        found += [answers(drawn(dice, n, 6, True, shift))[0] == "different" for _ in range(4)]

    assert np.mean(found) >= 0.8


def test_runs_of_the_same_replies_are_not_called_equivalent_by_too_few_conversations(tmp_path: Path) -> None:
    ours, theirs = (stored(tmp_path, noisy(7), run_id) for run_id in ("old", "new"))
    found = row(compare(ours, theirs), "check_pass_rate")

    assert (found["effect"], found["answer"], found["needed"]) == (0, "cannot tell", 59)


def test_candidates_may_be_paths_runs_or_sides(tmp_path: Path) -> None:
    ours, theirs = (stored(tmp_path, noisy(7), run_id) for run_id in ("old", "new"))

    assert [run.run_id for run in harness.compare(ours.path, str(theirs.path)).runs] == ["old", "new"]
    assert harness.compare(Side(ours), Side(theirs)).rows["baseline"].unique().tolist() == ["old"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "a-run: is one run: nothing to compare it with – use --by model, or name a second run"),
        ({"base": "pico"}, "--base: is a value of the axis that --by names"),
        ({"by": "model", "margin": 0}, "margin: should be above 0 and below 1, not 0"),
        ({"by": "model", "margin": 5}, "margin: should be above 0 and below 1, not 5"),
        ({"by": "modl"}, "by=modl: there is no such axis"),
    ],
)
def test_what_cannot_be_asked_is_said(tmp_path: Path, arguments: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        compare(stored(tmp_path, **TWO), **arguments)


def test_several_runs_cannot_be_compared_by_an_axis(tmp_path: Path) -> None:
    ours, theirs = (stored(tmp_path, run_id=run_id) for run_id in ("old", "new"))

    with pytest.raises(UsageError, match="--by: compares within one run"):
        compare(ours, theirs, by="model")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """pico and nano; nano is slower, fails a check of each conversation's last turn, and speaks to your terminal."""

    def make(cell: Cell, index: int) -> TurnRecord:
        lost = cell.model == "nano" and index == 3
        made = noisy(1, 1.2)(cell, index)
        around = {"checks": checks(not lost), "reply": "\x1b[2J| evil `` ` <b>" if lost else "The study of motion."}
        return timed(cell, index, made.stamps.tick_ns[0] / 1e6, 2, **around)

    return stored(tmp_path_factory.mktemp("shown"), make, launches=3, **TWO)


@pytest.mark.parametrize("width", [80, 130])
def test_the_command_prints_fairness_then_answers_then_flips(
    pair: Run, width: int, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))

    code, out, _ = command("compare", pair.path, "--by", "model")

    places = [out.index(part) for part in ("Fairness", "pico → nano", "different: pico better", "lost 3/3 → 0/3")]
    assert code == 0
    assert places == sorted(places)
    assert max(map(len, out.splitlines())) <= width
    assert "\x1b" not in out
    assert r"\x1b[2J" in out


def test_the_markdown_page_has_every_flip_with_both_replies(pair: Run, command: Command) -> None:
    _, page, _ = command("compare", pair.path, "--by", "model", "--format", "markdown")

    assert page.count("### ") == 1 + 6
    assert "```text\n\\x1b[2J| evil `` ` <b>\n```" in page
    assert "| TTFT ms |" in page
    assert "\x1b" not in page


def test_json_and_csv_hold_the_same_rows(pair: Run, command: Command) -> None:
    told = json.loads(command("compare", pair.path, "--by", "model", "--format", "json")[1])
    table = command("compare", pair.path, "--by", "model", "--format", "csv")[1].splitlines()

    assert len(told["rows"]) == len(table) - 1
    assert {"metric", "answer", "q", "needed"} <= told["rows"][0].keys()
    assert len(told["flips"]) == 6
    assert told["ledger"] == []


def test_strict_refuses_what_is_not_comparable(tmp_path: Path, command: Command) -> None:
    runs = [
        stored(tmp_path, run_id=name, length=length).path for name, length in (("old", "natural"), ("new", "fixed"))
    ]

    assert command("compare", *runs, "--strict") == (5, "", "old, new: not comparable: length is natural and fixed\n")
    code, out, _ = command("compare", *runs)
    assert code == 0
    assert "not comparable: length differs" in " ".join(out.split())


def test_names_are_shown_as_they_are(tmp_path: Path, command: Command) -> None:
    run = stored(tmp_path, models=("[bold]a", "b|*c*"))

    assert "[bold]a → b|*c*" in command("compare", run.path, "--by", "model")[1]
    assert command("compare", run.path, "--by", "model")[1].count("[bold]a") >= 2
    assert r"b\|\*c\*" in command("compare", run.path, "--by", "model", "--format", "markdown")[1]


def test_mistakes_are_one_line(tmp_path: Path, command: Command) -> None:
    code, out, err = command("compare", tmp_path / "nothing", "--by", "model")

    assert (code, out) == (2, "")
    assert err.count("\n") == 1
