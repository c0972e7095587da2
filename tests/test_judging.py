"""A judge is asked about stored transcripts: strictly read, in both orders, and never a low score for want of one."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import orjson
import pytest
import yaml

import harness
from harness.analysis.preferences import by_pair
from harness.analysis.score_summary import by_setting
from harness.analysis.scores import given, scores
from harness.analysis.sides import within
from harness.cli import main
from harness.errors import DocumentError, HarnessError, UsageError
from harness.store import SCORES
from harness.studies.judging.ask import GREEDY, Judge, ask, judge_of
from harness.studies.judging.questions import about_pairs, about_replies, rubrics_of
from harness.studies.judging.verdicts import read_verdict
from tests.builders import every_turn, plan, store, turn
from tests.commands import harness as command
from tests.commands import start_harness


def reciting(folder: Path, *lines: str, **values) -> str:
    """The name of a judge that recites these lines."""
    file = folder / "judge.yaml"
    file.write_text(yaml.safe_dump({"lines": list(lines), **values}))
    return f"scripted:{file}"


def verdict(**said) -> str:
    return json.dumps({"reason": "because", **said})


def stored(folder: Path, samplings=("greedy",), replies=None, **values) -> Path:
    """A run in which every setting says something different."""
    of = plan(samplings=samplings, **values)
    say = replies or (lambda cell, index: f"{cell.sampling} says {index}")
    return store(folder, every_turn(of, lambda cell, index: turn(cell, index, reply=say(cell, index))), of)


def judged(path: Path, judge: Judge, **values):
    run = harness.load(path)
    rubrics = rubrics_of(run)
    return ask(run, judge, rubrics, about_replies(run, rubrics), **values)


def judged_pairs(path: Path, judge: Judge, axis="sampling"):
    run = harness.load(path)
    rubrics = rubrics_of(run)
    return ask(run, judge, rubrics, about_pairs(run, rubrics, within(run, axis)))


# Who judges


def test_a_judge_is_greedy_unless_told_otherwise():
    judge = judge_of("builtin:pico", ["dtype=float32", "sampling.max_new_tokens=64"])

    assert judge.spec.dtype == "float32"
    assert judge.sampling == {**GREEDY, "max_new_tokens": 64}


@pytest.mark.parametrize(
    ("assignments", "trials", "fact"),
    [
        (["dtyp=float32"], 1, "--judge-set dtyp=float32: unknown key – did you mean dtype?"),
        (["sampling.temperature=[0.5, 1]", "sampling.do_sample=true"], 1, "should be one sampling"),
        (["sampling.tok_k=3"], 1, "did you mean top_k?"),
        (["sampling=3"], 1, "is no mapping"),
        ([], 3, "--trials 3: a greedy judge says the same every time"),
    ],
)
def test_what_cannot_be_set_is_said_before_anything_is_loaded(assignments, trials, fact):
    with pytest.raises(UsageError) as caught:
        judge_of("builtin:pico", assignments, trials)
    assert fact in str(caught.value)


# Judging


def test_every_reply_gets_the_verdict_and_the_second_time_nobody_is_asked(tmp_path):
    path = stored(tmp_path)
    judge = judge_of(reciting(tmp_path, verdict(score=7)))
    first = judged(path, judge)
    text = (path / SCORES).read_bytes()
    second = judged(path, judge)
    found = scores(harness.load(path))

    assert (first.asked, first.answered, first.no_verdict) == (2, 2, 0)
    assert (second.asked, (path / SCORES).read_bytes()) == (0, text)
    assert found["value"].tolist() == [7, 7]
    assert found["by"].tolist() == [judge.name] * 2
    assert found["detail"].tolist() == ["because"] * 2


def test_the_judge_and_all_that_decides_its_verdicts_is_recorded(tmp_path):
    path = stored(tmp_path)
    judged(path, judge_of(reciting(tmp_path, verdict(score=7)), ["sampling.max_new_tokens=99"]))
    setup, first, *_ = map(orjson.loads, (path / SCORES).read_bytes().splitlines())

    assert (setup["scorer"], setup["version"]) == ("judge_score", 1)
    assert set(setup["config"]) == {"model", "sampling", "seed", "prompt", "rubrics"}
    assert setup["config"]["sampling"] == {"do_sample": False, "max_new_tokens": 99}
    assert setup["facts"] == {"class": "ScriptedBackend"}
    assert len(first["asked"]) == 16
    assert first["config_hash"] == setup["config_hash"]


def test_malformed_verdicts_are_counted_and_never_zero(tmp_path):
    path = stored(tmp_path)
    done = judged(path, judge_of(reciting(tmp_path, "Ten out of ten!")))
    run = harness.load(path)
    found = scores(run)
    (row,) = by_setting(run, given(run)).to_dict("records")

    assert (done.answered, done.no_verdict) == (2, 2)
    assert found["value"].isna().all()
    assert found["no_verdict"].tolist() == [1, 1]
    assert "Ten out of ten!" in found["detail"][0]
    assert (row["replies"], row["undecided"]) == (0, 2)
    assert judged(path, judge_of(reciting(tmp_path, "Ten out of ten!"))).asked == 0  # a greedy judge would say it again


def test_a_question_the_judge_fails_at_is_no_verdict(tmp_path):
    path = stored(tmp_path)
    done = judged(path, judge_of(reciting(tmp_path, verdict(score=7), context_tokens=5)))

    assert (done.answered, done.no_verdict) == (2, 2)
    assert scores(harness.load(path))["detail"].str.contains("no verdict: ").all()


def test_equal_transcripts_are_asked_about_once_and_all_of_them_scored(tmp_path):
    path = stored(tmp_path, replies=lambda cell, index: "the same", repeats=3)
    done = judged(path, judge_of(reciting(tmp_path, verdict(score=7))))

    assert done.asked == 2  # one per turn
    assert scores(harness.load(path))["value"].tolist() == [7] * 6


def test_the_median_of_several_trials_counts(tmp_path):
    run = harness.load(stored(tmp_path, conversations={"physics": 1}))
    path, rubrics = run.path, rubrics_of(run)
    (question,) = about_replies(run, rubrics)
    # The scripted backend does not draw: three trials are three runs of it, each with a line of its own.
    spoken = [verdict(score=2), verdict(score=9), verdict(score=3)]
    from harness.records import Score
    from harness.store import ScoreWriter
    from harness.studies.setups import setup_of

    setup = setup_of("judge_score", {}, by="x")
    with ScoreWriter(path) as writer:
        writer.append([setup])
        for trial, line in enumerate([*spoken, "no verdict"]):
            told = read_verdict(line, "score")
            writer.append([Score(setup.config_hash, question.reply, told.value, told.detail, trial=trial)])
    (row,) = scores(harness.load(path)).to_dict("records")

    assert (row["value"], row["trials"], row["no_verdict"]) == (3, 4, 1)


def test_a_sampling_judge_is_asked_as_often_as_is_said_with_a_seed_of_its_own_each_time(tmp_path):
    path = stored(tmp_path, conversations={"physics": 1})
    judge = judge_of(reciting(tmp_path, verdict(score=7)), ["sampling.do_sample=true"], trials=3)

    assert judged(path, judge).asked == 3
    assert scores(harness.load(path))["trials"].tolist() == [3]
    more = judge_of(reciting(tmp_path, verdict(score=7)), ["sampling.do_sample=true"], trials=5)
    assert judged(path, more).asked == 2


def test_pass_or_fail_is_a_scorer_of_its_own(tmp_path):
    of = plan()
    of["conversations"][0]["rubrics"] = [{"text": "x", "verdict": "pass"}, None]
    path = store(tmp_path, every_turn(of), of)
    done = judged(path, judge_of(reciting(tmp_path, verdict(**{"pass": True}))))
    found = scores(harness.load(path)).set_index("scorer")["value"]

    assert done.no_verdict == 1  # the other turn wants a score
    assert found["judge_pass"] == 1
    assert found.isna()["judge_score"]


def test_a_judge_that_looks_at_the_replies_is_followed_in_both_orders(tmp_path):
    path = stored(tmp_path, samplings=("cold", "hot"))
    run = harness.load(path)
    questions = list(about_pairs(run, rubrics_of(run), within(run, "sampling")))
    # It prefers what the first setting said, wherever that stands.
    spoken = {one.asked: [verdict(better="B" if one.swapped else "A")] for one in questions}
    judged_pairs(path, judge_of(reciting(tmp_path, "?", conversations=spoken)))
    run = harness.load(path)
    (row,) = by_pair(run, given(run)).to_dict("records")

    assert len(questions) == 4
    assert (row["sampling"], row["against_sampling"], row["scorer"]) == ("cold", "hot", "judge_pair")
    assert (row["wins"], row["ties"], row["losses"], row["inconsistent"], row["win_rate"]) == (2, 0, 0, 0, 1)


def test_a_judge_that_prefers_a_place_prefers_no_reply(tmp_path):
    path = stored(tmp_path, samplings=("cold", "hot"))
    judged_pairs(path, judge_of(reciting(tmp_path, verdict(better="A"))))
    run = harness.load(path)
    (row,) = by_pair(run, given(run)).to_dict("records")

    assert (row["wins"], row["ties"], row["losses"], row["inconsistent"]) == (0, 2, 0, 2)
    assert row["win_rate"] == 0.5


def test_a_pair_without_both_verdicts_has_no_preference(tmp_path):
    path = stored(tmp_path, samplings=("cold", "hot"))
    run = harness.load(path)
    questions = about_pairs(run, rubrics_of(run), within(run, "sampling"))
    spoken = {one.asked: ["mumble"] for one in questions if one.swapped}
    judged_pairs(path, judge_of(reciting(tmp_path, verdict(better="A"), conversations=spoken)))
    run = harness.load(path)
    (row,) = by_pair(run, given(run)).to_dict("records")

    assert (row["pairs"], row["no_verdict"]) == (0, 2)
    assert scores(run)["value"].isna().all()


def test_equal_replies_are_a_tie_without_a_question(tmp_path):
    path = stored(tmp_path, samplings=("cold", "hot"), replies=lambda cell, index: "the same")
    done = judged_pairs(path, judge_of("scripted:does-not-exist.yaml"))
    run = harness.load(path)
    (row,) = by_pair(run, given(run)).to_dict("records")

    assert done.asked == 0
    assert (row["ties"], row["inconsistent"], row["no_verdict"]) == (2, 0, 0)


def test_a_judge_that_cannot_be_loaded_is_said_in_a_line_and_leaves_nothing(tmp_path):
    path = stored(tmp_path)
    with pytest.raises(HarnessError, match="builtin:femto"):
        judged(path, judge_of("builtin:femto"))
    with pytest.raises(DocumentError, match="nowhere"):
        judged(path, judge_of("scripted:nowhere.yaml"))
    assert scores(harness.load(path)).empty


def test_filled_histories_are_not_judged(tmp_path):
    with pytest.raises(UsageError, match="history: fill"):
        judged(stored(tmp_path, history="fill"), judge_of("builtin:pico"))


def test_a_judge_that_is_killed_goes_on_where_it_was(tmp_path):
    path = stored(
        tmp_path, conversations={"a": 4, "b": 4}, replies=lambda cell, index: f"{cell.conversation_id} {index}"
    )
    judge = reciting(tmp_path, verdict(score=7), token_s=0.1, real_time=True)
    started = start_harness("score", path, "--scorer", "role_markers", "--judge", judge, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while (path / SCORES).read_bytes().count(b"because") < 2 if (path / SCORES).exists() else True:
        assert started.poll() is None, started.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(started.pid, signal.SIGKILL)
    started.communicate()
    there = (path / SCORES).read_bytes().count(b"because")
    time.sleep(0.5)  # the worker ends with its parent
    reciting(tmp_path, verdict(score=7))  # in no time now
    done = judged(path, judge_of(judge))

    assert 2 <= there < 8
    assert done.asked == 8 - there
    assert scores(harness.load(path)).query("scorer == 'judge_score'")["value"].tolist() == [7] * 8


def test_a_judge_whose_process_dies_is_said_and_what_it_said_is_kept(tmp_path, monkeypatch):
    path = stored(tmp_path, conversations={"a": 3})

    def kill(so_far):
        os.kill(worker["pid"], signal.SIGKILL)

    from harness.runner.process import WorkerProcess

    worker = {}
    begin = WorkerProcess.__init__

    def spy(self, *arguments, **values):
        begin(self, *arguments, **values)
        worker["pid"] = self._process.pid

    monkeypatch.setattr(WorkerProcess, "__init__", spy)
    judge = judge_of(reciting(tmp_path, verdict(score=7), token_s=0.2, real_time=True))
    with pytest.raises(HarnessError, match=r"2 questions left: WorkerDied: killed by SIGKILL.*the same command again"):
        judged(path, judge, watch=kill)
    assert len(scores(harness.load(path))) == 1


def test_pico_can_be_asked_but_is_too_small_to_judge(tmp_path):
    path = stored(tmp_path)
    told = command("score", path, "--scorer", "role_markers", "--judge", "builtin:pico", "--judge-set",
                   "sampling.max_new_tokens=8")  # fmt: skip
    found = scores(harness.load(path)).query("scorer == 'judge_score'")

    assert told.returncode == 0, told.stderr
    assert "2 questions answered by builtin:pico, 2 without a verdict" in told.stderr
    assert "its verdicts are opinions" in told.stdout
    assert found["value"].isna().all()


def test_options_of_a_judge_need_a_judge(capsys):
    for options in (["--pairs", "model"], ["--trials", "3"], ["--judge-set", "dtype=float32"]):
        with pytest.raises(SystemExit) as ended:
            main(["score", "a-run", *options])
        told = capsys.readouterr().err
        assert (ended.value.code, told.count("\n")) == (2, 1)
        assert "name a judge: --judge MODEL" in told
    with pytest.raises(SystemExit):
        main(["score", "a-run", "--judge", "builtin:pico", "--base", "x"])
    assert "add --pairs" in capsys.readouterr().err
