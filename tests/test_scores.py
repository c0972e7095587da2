"""Scores are stored once, count as long as the reply and the scorer are the same, and are summarised with intervals."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pandas as pd
import pytest
from scipy.stats import t

import harness
from harness.analysis.score_summary import by_setting, mean_over_conversations
from harness.analysis.scores import COLUMNS, given, scores
from harness.analysis.scoring.table import FORMULAS, SCORERS, Found
from harness.cli import main
from harness.errors import StoreError, UsageError
from harness.records import ReplyId, Score
from harness.report.files import write_reports
from harness.store import SCORES, ScoreWriter
from harness.studies.score import score, scorers_named
from harness.studies.setups import setup_of
from tests.builders import cell, every_turn, failed, plan, store, turn
from tests.commands import harness as command

MARKERS = (SCORERS["role_markers"],)


def lines(path: Path) -> list[dict]:
    return [orjson.loads(line) for line in (path / SCORES).read_bytes().splitlines()]


def test_every_reply_is_scored_and_the_second_time_nothing_is_done(tmp_path):
    path = store(tmp_path, [turn(reply="Hi<|im_end|>"), turn(index=1)])
    first = score(harness.load(path), MARKERS)
    before = (path / SCORES).read_bytes()
    second = score(harness.load(path), MARKERS)

    assert (first.replies, first.scores, second.scores) == (2, 2, 0)
    assert (path / SCORES).read_bytes() == before
    assert scores(harness.load(path))["value"].tolist() == [1.0, 0.0]


def test_a_scorer_of_another_version_scores_anew_and_its_earlier_scores_count_no_more(tmp_path):
    path = store(tmp_path, [turn(reply="one"), turn(index=1, reply="two")])
    score(harness.load(path), MARKERS)
    changed = replace(MARKERS[0], formula=lambda said: Found(0.5), config=lambda: {"other": 1})
    done = score(harness.load(path), (changed,))
    found = scores(harness.load(path))

    assert done.scores == 2
    assert found["value"].tolist() == [0.5, 0.5]
    assert len(lines(path)) == 6  # nothing is lost


def test_going_back_to_a_configuration_gives_its_scores_back(tmp_path):
    path = store(tmp_path, [turn(), turn(index=1)])
    other = replace(MARKERS[0], formula=lambda said: Found(0.5), config=lambda: {"other": 1})
    for scorers in (MARKERS, (other,)):
        score(harness.load(path), scorers)
    done = score(harness.load(path), MARKERS)

    assert done.scores == 0
    assert scores(harness.load(path))["value"].tolist() == [0.0, 0.0]


def test_a_scorer_that_has_nothing_to_say_any_more_ends_its_earlier_scores(tmp_path):
    path = store(tmp_path, [turn(), turn(index=1)])
    score(harness.load(path), MARKERS)
    score(harness.load(path), (replace(MARKERS[0], formula=lambda said: None, config=lambda: {"other": 1}),))

    assert scores(harness.load(path)).empty


def test_a_reply_that_was_played_again_is_scored_again(tmp_path):
    first = [turn(reply="<|im_end|>"), turn(index=1)]
    again = [turn(reply="clean", around={"attempt": 1}), turn(index=1, around={"attempt": 1})]
    path = store(tmp_path, first)
    score(harness.load(path), MARKERS)
    with (path / "turns.jsonl").open("ab") as file:
        file.write(b"".join(orjson.dumps(record) + b"\n" for record in again))

    assert scores(harness.load(path)).empty
    assert score(harness.load(path), MARKERS).scores == 2
    assert scores(harness.load(path))["value"].tolist() == [0.0, 0.0]


def test_a_torn_last_line_is_cut_and_its_score_given_again(tmp_path):
    path = store(tmp_path, [turn(), turn(index=1)])
    score(harness.load(path), MARKERS)
    text = (path / SCORES).read_bytes()
    (path / SCORES).write_bytes(text[:-20])

    assert len(scores(harness.load(path))) == 1  # readers leave it out
    assert score(harness.load(path), MARKERS).scores == 1
    assert (path / SCORES).read_bytes() == text


def test_a_run_that_is_being_written_to_is_not_scored(tmp_path):
    path = store(tmp_path, [turn(), turn(index=1)])
    run = harness.load(path)
    with ScoreWriter(path), pytest.raises(StoreError, match="another process is writing"):
        score(run, MARKERS)


def test_a_file_that_holds_something_else_is_named(tmp_path):
    path = store(tmp_path, [turn(), turn(index=1)])
    (path / SCORES).write_text('{"config_hash": 3}\n')
    with pytest.raises(StoreError, match=r"scores\.jsonl: holds a line that is no score"):
        scores(harness.load(path))
    (path / SCORES).write_text('{"scorer": "role_markers"}\n')
    with pytest.raises(StoreError, match=r"scores\.jsonl: holds a line that is no score"):
        scores(harness.load(path))


def test_a_run_without_scores_has_an_empty_frame_with_all_columns(tmp_path):
    found = scores(harness.load(store(tmp_path, [turn(), turn(index=1)])))

    assert found.empty
    assert list(found.columns) == list(COLUMNS)


def test_undecided_is_absent_and_never_zero(tmp_path):
    path = store(tmp_path, [turn(), turn(index=1)])
    unsure = replace(MARKERS[0], formula=lambda said: Found(None, "cannot tell"))
    score(harness.load(path), (unsure,))
    run = harness.load(path)
    (row,) = by_setting(run, given(run)).to_dict("records")

    assert scores(run)["value"].isna().all()
    assert (row["replies"], row["undecided"]) == (0, 2)
    assert pd.isna(row["mean"])


def test_of_several_lines_about_the_same_the_last_counts_and_strangers_do_not(tmp_path):
    path = store(tmp_path, [turn(), turn(index=1)])
    setup = setup_of("role_markers", {})
    reply, stranger = ReplyId(cell(), 0, 0), ReplyId(cell(model="else"), 0, 0)
    with ScoreWriter(path) as writer:
        told = [(reply, 0.0), (reply, 1.0), (stranger, 1.0), (replace(reply, turn_index=7), 1.0)]
        writer.append([setup, *(Score(setup.config_hash, each, value) for each, value in told)])
    found = given(harness.load(path)).lines

    assert found["value"].tolist() == [1.0]


def test_names_of_scorers_are_looked_up_before_anything_is_read():
    assert scorers_named(["role_markers"]) == MARKERS
    assert scorers_named([]) == FORMULAS
    with pytest.raises(UsageError, match="did you mean role_markers"):
        scorers_named(["role_marker"])
    with pytest.raises(UsageError, match="options of their own"):
        scorers_named(["human"])


def test_a_scorer_whose_package_is_missing_is_left_out_and_said(tmp_path):
    lacking = replace(SCORERS["gold_chrf"], package="no_such_package")
    done = score(harness.load(store(tmp_path, [turn(), turn(index=1)])), (lacking, *MARKERS))

    assert done.left_out == ("gold_chrf: needs the package no_such_package – pip install instruct-harness[score]",)
    assert done.scores == 2


def test_the_mean_of_shares_has_a_t_interval_over_conversations():
    # Three conversations of two replies: sums 1.0, 0.6, 0.2, so the mean is 1.8 / 6 = 0.3, and
    # v = 3/2 · ((1.0 − 0.6)² + 0² + (0.2 − 0.6)²) / 36 = 0.48 / 36
    found = mean_over_conversations(np.array([1.0, 0.6, 0.2]), np.array([2.0, 2.0, 2.0]), (0.0, 1.0))
    reach = t.ppf(0.975, 2) * math.sqrt(0.48 / 36)

    assert found.value == pytest.approx(0.3)
    assert found.low == 0.0  # 0.3 − 0.497 is no share
    assert found.high == pytest.approx(0.3 + reach)
    assert (found.basis, found.n) == ("few conversations", 3)


def test_conversations_of_unequal_length_weigh_by_their_replies():
    # One reply of 1 and three of 0: the mean is 1/4; v = 2/1 · ((1 − 1/4)² + (0 − 3/4)²) / 16 = 2.25 / 16
    found = mean_over_conversations(np.array([1.0, 0.0]), np.array([1.0, 3.0]), (0.0, 10.0))

    assert found.value == pytest.approx(0.25)
    assert found.high == pytest.approx(0.25 + t.ppf(0.975, 1) * math.sqrt(2.25 / 16))


def test_equal_conversations_and_a_single_one_have_no_interval():
    for sums, weights in (([0.0, 0.0], [2.0, 2.0]), ([0.6], [2.0]), ([0.3, 0.6], [1.0, 2.0])):
        found = mean_over_conversations(np.array(sums), np.array(weights), (0.0, 1.0))
        assert (found.low, found.high, found.basis) == (None, None, None)
    assert mean_over_conversations(np.array([]), np.array([]), (0.0, 1.0)).value is None


def test_greedy_repeats_are_one_observation_and_settings_are_kept_apart(tmp_path):
    samplings = {"greedy": {"do_sample": False}, "hot": {"do_sample": True}}
    of = plan(samplings=samplings, conversations={"a": 1, "b": 1}, repeats=3)

    def said(of_cell, index):
        marked = of_cell.conversation_id == "a"
        return turn(of_cell, index, reply="</s>" if marked else "clean")

    path = store(tmp_path, every_turn(of, said), of)
    score(harness.load(path), MARKERS)
    run = harness.load(path)
    table = by_setting(run, given(run)).set_index("sampling")

    assert table["mean"].tolist() == [0.5, 0.5]
    assert table["replies"].tolist() == [6, 6]
    # Two clusters that disagree are worth two observations either way (stats.pass_rate).
    assert table.loc["greedy", "low"] == table.loc["hot", "low"]


def test_scores_of_launches_that_draw_with_the_same_seeds_are_one_observation(tmp_path):
    tables = []
    for launches in (1, 4):
        samplings = {"hot": {"do_sample": True}}
        of = plan(samplings=samplings, conversations={"a": 2, "b": 2, "c": 2}, launches=launches)
        said = lambda of_cell, index: turn(of_cell, index, reply="</s>" if index else "clean")  # noqa: E731
        path = store(tmp_path / str(launches), every_turn(of, said), of)
        score(harness.load(path), MARKERS)
        run = harness.load(path)
        tables.append(by_setting(run, given(run)))
    once, again = tables

    assert again["replies"].tolist() == [24]
    # Six observations of three conversations at the very same rate, and not 24.
    assert again[["mean", "low", "high"]].to_numpy().tolist() == once[["mean", "low", "high"]].to_numpy().tolist()


def test_the_command_scores_prints_and_puts_a_section_into_the_report(tmp_path, capsys):
    path = store(tmp_path, [turn(reply="x</s>", gold="x"), failed(index=1)])
    told = command("score", path, "--scorer", "role_markers", "--scorer", "gold_exact")

    assert told.returncode == 0
    assert "1 replies, 2 new scores" in told.stderr
    assert "Role markers ↓" in told.stdout
    assert "| Role markers ↓ | pico | greedy | 100 % | 1 | 1 |" in (path / "report.md").read_text()
    with suppress(SystemExit):
        main(["score", str(path), "--scorer", "role_markers", "--format", "json", "-q"])
    again = capsys.readouterr()
    assert [row["value"] for row in orjson.loads(again.out)] == [0.0, 1.0]
    assert again.err == ""
    with pytest.raises(SystemExit) as ended:
        main(["score", str(path), "--scorer", "rol_markers"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "--scorer rol_markers: is no scorer of texts – did you mean role_markers?\n"


def test_a_report_without_scores_says_nothing_of_them(tmp_path):
    path = store(tmp_path, [turn(), turn(index=1)])
    write_reports(harness.load(path))

    assert "## Scores" not in (path / "report.md").read_text()


def test_the_docs_have_every_scorer_and_every_key_and_column():
    from dataclasses import fields

    from harness.records import ScorerSetup
    from tests.test_reference_docs import FORMATS_PAGE, ROOT, named, rows

    page = (ROOT / "docs" / "scoring.md").read_text(encoding="utf-8")
    formats = FORMATS_PAGE.split("## scores.jsonl")[1]

    assert rows(page, "| scorer | title | kind | better | definition |") == [
        [f"`{one.name}`", one.title, one.kind, one.direction, one.definition] for one in SCORERS.values()
    ]
    assert named(rows(formats, "| key of a scorer | what it holds |")) == {each.name for each in fields(ScorerSetup)}
    assert named(rows(formats, "| key of a score | what it holds |")) == {each.name for each in fields(Score)}
    assert named(rows(formats, "| column of scores | meaning |")) == set(COLUMNS)
