"""Votes become scores once, bad files are told by place, and judges are held against votes by formulas."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml

import harness
from harness.analysis.preferences import agreements, by_pair, kappa
from harness.analysis.score_summary import by_setting
from harness.analysis.scores import given, scores
from harness.cli import main
from harness.errors import DocumentError
from harness.records import ReplyId, Score
from harness.report.scores import agreement_line
from harness.store import ScoreWriter
from harness.studies.judging.ask import ask, judge_of
from harness.studies.judging.questions import about_votes, rubrics_of
from harness.studies.setups import setup_of
from harness.studies.votes import read_votes, take_votes
from tests.builders import cell, every_turn, plan, store, turn
from tests.commands import harness as command

CONVERSATIONS = {"a": 2, "b": 2, "c": 2}


def side(sampling: str, run_id="a-run", **values) -> dict:
    return {
        "run_id": run_id, "model": "pico", "sampling": sampling, "concurrency": 1, "launch": 0, "repeat": 0, **values,
    }  # fmt: skip


def vote(preferred: str, conversation="a", index=0, left="cold", right="hot", **values) -> dict:
    sides = {"left": side(left), "right": side(right)}
    return {"conversation_id": conversation, "turn_index": index, **sides, "preferred": preferred, **values}


def file_of(folder: Path, *votes: dict, name="votes.json", **values) -> Path:
    path = folder / name
    path.write_text(json.dumps({"format": 1, "votes": list(votes), **values}, indent=1))
    return path


@pytest.fixture
def run(tmp_path) -> harness.analysis.frames.Run:
    of = plan(samplings=("cold", "hot"), conversations=CONVERSATIONS)
    say = lambda of_cell, index: turn(of_cell, index, reply=f"{of_cell.sampling}, {of_cell.conversation_id} {index}")  # noqa: E731
    return harness.load(store(tmp_path, every_turn(of, say), of))


def again(run):
    return harness.load(run.path)


def test_a_vote_is_a_score_of_the_earlier_setting_whichever_side_it_stood_on(run, tmp_path):
    votes = [vote("left"), vote("left", index=1, left="hot", right="cold"), vote("tie", "b")]
    taken = take_votes(run, read_votes(file_of(tmp_path, *votes)), "eve")
    found = scores(again(run))

    assert (taken.new, taken.replaced, taken.there, taken.of_other_runs) == (3, 0, 0, 0)
    assert found["sampling"].tolist() == ["cold"] * 3
    assert found["against_sampling"].tolist() == ["hot"] * 3
    assert found["value"].tolist() == [1, 0, 0.5]
    assert set(found["by"]) == {"eve"}
    assert by_setting(run, given(again(run))).empty  # a preference is of two, and has a table of its own


def test_the_same_file_twice_is_one_file_and_a_later_vote_replaces_an_earlier_one(run, tmp_path):
    first = read_votes(file_of(tmp_path, vote("left"), vote("tie", "b")))
    longer = read_votes(file_of(tmp_path, vote("right"), vote("tie", "b"), vote("left", "c")))
    take_votes(run, first, "eve")
    text = (run.path / "scores.jsonl").read_bytes()
    same = take_votes(again(run), first, "eve")
    unchanged = (run.path / "scores.jsonl").read_bytes()
    more = take_votes(again(run), longer, "eve")

    assert (same.new, same.there, unchanged) == (0, 2, text)
    assert (more.new, more.replaced, more.there) == (2, 1, 1)
    assert scores(again(run))["value"].tolist() == [0, 0.5, 1]


def test_votes_of_two_people_are_kept_apart(run, tmp_path):
    ballot = read_votes(file_of(tmp_path, vote("left")))
    take_votes(run, ballot, "eve")
    take_votes(again(run), ballot, "adam")
    table = by_pair(run, given(again(run)))

    assert table["by"].tolist() == ["adam", "eve"]
    assert table["wins"].tolist() == [1, 1]


def test_votes_against_another_run_name_it_and_votes_on_other_runs_are_counted(run, tmp_path):
    elsewhere = [vote("left", right="hot") | {"left": side("x", run_id="other")}, vote("left") | {
        "left": side("x", run_id="other"), "right": side("y", run_id="third")}]  # fmt: skip
    taken = take_votes(run, read_votes(file_of(tmp_path, *elsewhere)), "eve")
    (row,) = by_pair(run, given(again(run))).to_dict("records")

    assert (taken.new, taken.of_other_runs) == (1, 1)
    assert (row["sampling"], row["against_run_id"], row["against_sampling"]) == ("hot", "other", "x")
    assert row["losses"] == 1


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda v: v | {"turn_index": 7}, "votes.0.left: a-run has no such reply: model pico, sampling cold"),
        (lambda v: v | {"right": side("lukewarm")}, "votes.0.right: a-run has no such reply"),
        (lambda v: v | {"right": side("cold")}, "votes.0: both sides are the same reply"),
        (lambda v: v | {"preferred": "both"}, "votes.0.preferred: should be one of left, right, tie, not 'both'"),
        (lambda v: v | {"turn_index": -1}, "votes.0.turn_index: should be greater than or equal to 0"),
        (lambda v: v | {"left": side("cold", repeat="0")}, "votes.0.left.repeat: should be a whole number, not '0'"),
        (lambda v: {k: v[k] for k in v if k != "left"}, "votes.0.left: is missing"),
        (lambda v: v | {"winner": "left"}, "votes.0.winner: unknown key"),
    ],
)
def test_bad_votes_are_told_by_place_and_none_is_taken(run, tmp_path, change, fact):
    file = file_of(tmp_path, change(vote("left")), vote("left", "b"))
    with pytest.raises(DocumentError) as caught:
        take_votes(run, read_votes(file), "eve")

    for line in str(caught.value).splitlines():
        assert line.startswith(f"{file}:")
        assert line.removeprefix(f"{file}:").split(":")[0].isdecimal()
    assert fact in str(caught.value)
    assert scores(again(run)).empty


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("", ":1:1: is empty"),
        ("{", ":"),
        ('{"format": 2, "votes": []}', ":1:2: format: should be one of 1, not 2"),
        ('{"votes": []}', "format: is missing"),
        ("[]", "should be a mapping"),
        ('{"format": 1, "votes": 3}', "votes: should be a list"),
    ],
)
def test_files_that_are_no_votes_are_told_in_a_line(tmp_path, text, fact):
    file = tmp_path / "votes.json"
    file.write_text(text)
    with pytest.raises(DocumentError) as caught:
        read_votes(file)
    assert fact in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


# Agreement


def test_kappa_is_that_worked_by_hand():
    # Cohen's own kind of example: 20 and 15 of 50 agree, p_o = 0.7; marginals 25/25 and 30/20 give p_e = 0.5·0.6 +
    # 0.5·0.4 = 0.5, so κ = 0.2 / 0.5.
    assert kappa([[20, 5], [10, 15]]) == pytest.approx(0.4)
    # Three answers: p_o = 7/10; rows 5, 2, 3, columns 4, 3, 3: p_e = (20 + 6 + 9)/100 = 0.35; κ = 0.35/0.65.
    assert kappa([[4, 1, 0], [0, 1, 1], [0, 1, 2]]) == pytest.approx((0.7 - 0.35) / 0.65)
    assert kappa([[5, 0], [0, 5]]) == 1
    assert kappa([[0, 5], [5, 0]]) == -1
    assert kappa([[25, 25], [25, 25]]) == 0


def test_kappa_is_undefined_where_chance_alone_always_agrees():
    assert kappa([[10, 0, 0], [0, 0, 0], [0, 0, 0]]) is None
    assert kappa([[0, 0], [0, 0]]) is None


def held(run, judge: dict[tuple[str, int], float], people: dict[tuple[str, int], float], scorer="judge_pair"):
    """The agreement of a judge that was never asked, and its line."""
    setups = {"judge": setup_of(scorer, {}, by="nano"), "people": setup_of("human", {}, by="eve")}

    def said(who: str, place, value, sampling="cold", **more) -> Score:
        reply = ReplyId(cell(sampling=sampling, conversation_id=place[0]), place[1], 0)
        other = None if "alone" in more else ReplyId(cell(sampling="hot", conversation_id=place[0]), place[1], 0)
        return Score(setups[who].config_hash, reply, value, against=other, swapped=more.get("swapped", False))

    with ScoreWriter(run.path) as writer:
        writer.append(setups.values())
        writer.append(said("people", place, value) for place, value in people.items())
        if scorer == "judge_pair":
            writer.append(
                said("judge", place, value, swapped=swapped)
                for place, value in judge.items()
                for swapped in (0 > 1, 1 > 0)
            )
        else:
            writer.append(said("judge", (*place,), value[0], alone=True) for place, value in judge.items())
            writer.append(said("judge", place, value[1], "hot", alone=True) for place, value in judge.items())
    return agreements(given(again(run)))


PLACES = [(name, index) for name in CONVERSATIONS for index in (0, 1)]


def test_agreement_counts_ties_as_an_answer_and_says_what_is_left_without_them(run):
    judge = dict(zip(PLACES, [1, 1, 0, 0.5, 0.5, 1], strict=True))
    people = dict(zip(PLACES, [1, 0, 0, 0.5, 1, 1], strict=True))
    (found,) = held(run, judge, people)

    # Equal: the first, third, fourth and sixth. z² = 3.8415, p = 4/6, n = 6: Wilson's (0.3000, 0.9032).
    assert (found.votes, found.agreed, found.decided, found.decided_agreed) == (6, 4, 4, 3)
    assert (found.low, found.high) == (pytest.approx(0.3000, abs=1e-4), pytest.approx(0.9032, abs=1e-4))
    # judge: 3 first, 2 ties, 1 second; people: 3, 1, 2. p_e = (9 + 2 + 2)/36, p_o = 24/36; κ = 11/23.
    assert found.kappa == pytest.approx(11 / 23)
    assert agreement_line(found) == (
        "Judge prefers (nano) agrees with 4 of 6 votes: 67 % (29–91 %), Cohen's kappa 0.48; where neither calls it a "
        "tie, with 3 of 4."
    )


def test_a_judge_that_scores_prefers_what_it_scores_higher(run):
    judge = dict(zip(PLACES[:3], [(8, 3), (3, 8), (5, 5)], strict=True))
    people = dict(zip(PLACES[:3], [1, 0, 1], strict=True))
    (found,) = held(run, judge, people, scorer="judge_score")

    assert (found.scorer, found.votes, found.agreed, found.decided, found.decided_agreed) == ("judge_score", 3, 2, 2, 2)


def test_votes_on_what_no_judge_saw_are_in_no_agreement(run, tmp_path):
    take_votes(run, read_votes(file_of(tmp_path, vote("left"))), "adam")

    assert agreements(given(again(run))) == []
    (found,) = held(again(run), {("a", 0): 1.0}, {("b", 0): 1.0, ("a", 0): 1.0})
    assert found.votes == 2  # of both voters on the one pair that was judged


def test_the_wilson_interval_of_few_votes_is_wide():
    from harness.analysis.preferences import NORMAL_QUANTILE
    from harness.analysis.stats import wilson

    # n = 1, p = 1: low = (1 + z²/2 − z·√(z²/4)) / (1 + z²) = 1 / (1 + z²)
    low, high = wilson(1.0, 1, NORMAL_QUANTILE)
    assert low == pytest.approx(1 / (1 + NORMAL_QUANTILE**2))
    assert high == 1
    assert math.isclose(NORMAL_QUANTILE**2, 3.8414588, rel_tol=1e-7)


def test_a_judge_can_be_asked_about_what_was_voted_on(run, tmp_path):
    take_votes(run, read_votes(file_of(tmp_path, vote("left"), vote("right", "b"))), "eve")
    judge = tmp_path / "judge.yaml"
    judge.write_text(yaml.safe_dump({"lines": ['{"reason": "so", "better": "tie"}']}))
    run = again(run)
    rubrics = rubrics_of(run)
    done = ask(run, judge_of(f"scripted:{judge}"), rubrics, about_votes(run, rubrics))
    (found,) = agreements(given(again(run)))

    assert done.asked == 4  # two pairs in two orders
    assert (found.votes, found.agreed, found.decided) == (2, 0, 0)


def test_the_command_takes_votes_and_says_what_became_of_them(run, tmp_path, capsys):
    file = file_of(tmp_path, vote("left"), vote("tie", "b"))
    told = command("score", run.path, "--scorer", "role_markers", "--votes", file, "--voter", "eve")
    with pytest.raises(SystemExit) as ended:
        main(["score", str(run.path), "--votes", str(file_of(tmp_path, {}, name="bad.json"))])

    assert told.returncode == 0, told.stderr
    assert "a-run: 2 new votes of eve, 0 known already" in told.stderr
    assert "Votes (eve)" in told.stdout
    assert "| Votes (eve) | pico | cold | pico · hot | 75 %" in (run.path / "report.md").read_text()
    assert ended.value.code == 2
    assert all(line.startswith(f"{tmp_path}/bad.json:") for line in capsys.readouterr().err.splitlines())


def test_a_pair_that_was_judged_from_either_side_agrees_with_one_vote_once(run):
    """The judge prefers cold to hot asked about cold, and cold to hot asked about hot: one vote, and not two."""
    judge, people = setup_of("judge_pair", {}, by="nano"), setup_of("human", {}, by="eve")
    cold, hot = (ReplyId(cell(sampling=name, conversation_id="a"), 0, 0) for name in ("cold", "hot"))
    with ScoreWriter(run.path) as writer:
        writer.append([judge, people])
        writer.append([Score(people.config_hash, cold, 1.0, against=hot)])
        for swapped in (False, True):
            writer.append([Score(judge.config_hash, cold, 1.0, against=hot, swapped=swapped)])
            writer.append([Score(judge.config_hash, hot, 0.0, against=cold, swapped=swapped)])
    (found,) = agreements(given(again(run)))

    assert (found.votes, found.agreed, found.decided, found.decided_agreed) == (1, 1, 1, 1)
