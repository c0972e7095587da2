"""Where max_length and the context begin to bite: by hand, and by the scripted backend."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

import harness
from harness.analysis.length_limit import bitten, length_limits, length_notes, tokens_left
from harness.analysis.notes import notes
from harness.report.markdown import markdown
from harness.report.terminal import show
from harness.runner.run import execute
from harness.studies.replay import resolve
from tests.builders import cell, launch, only, plan, run_of, turn

SHORT: dict[str, Any] = {"short": {"max_length": 40}, "long": {"max_length": 400}}
RECITAL = "lines: ['one two three four five six seven eight']\n"
PROMPTS = "conversations: [{id: talk, turns: [{user: a b}, {user: c d}, {user: e f}, {user: g h}]}]\n"


def test_the_first_turn_that_is_cut_off_and_what_was_left_at_its_start(tmp_path: Path) -> None:
    """Of 40 ids 20 are asked; 5 are said and 15 left; then 32 are asked, and the 8 that were left are not enough."""
    of = plan(samplings=SHORT, conversations={"physics": 3}, repeats=2)
    records = [
        *(turn(cell(sampling="short", repeat=repeat), tokens_left=15) for repeat in range(2)),
        turn(cell(sampling="short"), 1, ids=8, prompt_tokens=32, tokens_left=0, finish_reason="max_length"),
        turn(cell(sampling="short", repeat=1), 1, ids=4, prompt_tokens=30, tokens_left=6),
        turn(cell(sampling="short", repeat=1), 2, ids=1, prompt_tokens=39, tokens_left=0, finish_reason="max_length"),
        *(turn(cell(sampling="long", repeat=r), i, tokens_left=300 - i) for r in range(2) for i in range(3)),
    ]
    run = run_of(tmp_path, records, of)
    short, long = length_limits(run).to_dict("records")

    assert (short["limited_by"], short["limit_tokens"], short["on_overflow"]) == ("max_length", 40, "stop")
    assert (short["turn_index"], short["tokens_left_at_start"]) == (1, 8)
    assert (short["plays"], short["bitten"], short["cut_off"], short["refused"]) == (2, 1, 1, 0)
    assert short["not_reached"] == 1
    assert (long["limit_tokens"], long["plays"], long["not_reached"]) == (400, 2, 0)
    assert pd.isna(long["turn_index"])
    assert bitten(run)["sampling"].tolist() == ["short"]
    assert bitten(run)["tokens_left_by_turn"].tolist() == [[20, 9]], "medians over both plays"
    of_short = tokens_left(run)[lambda rows: rows["sampling"] == "short"]
    assert of_short[["turn_index", "turns", "tokens_left_at_start"]].to_numpy().tolist() == [
        [0, 2, 20],
        [1, 2, 9],
        [2, 1, 1],
    ]
    assert length_notes(run) == (
        "pico: max_length=40 cuts off turn 1 of physics (8 tokens left at its start) in 1 of 2 plays; "
        "later turns that were never reached: 1.",
    )
    assert set(length_notes(run)) < set(notes(run))


def test_a_reply_that_ends_by_max_new_tokens_is_bitten_by_no_limit(tmp_path: Path) -> None:
    of = plan(samplings={"short": {"max_new_tokens": 5}}, conversations={"physics": 1})
    run = run_of(tmp_path, [turn(cell(sampling="short"), finish_reason="max_new_tokens", tokens_left=9)], of)

    assert length_notes(run) == ()
    assert pd.isna(only(length_limits(run))["turn_index"])


def test_max_new_tokens_wins_so_that_the_context_is_the_limit(tmp_path: Path) -> None:
    of = plan(samplings={"both": {"max_new_tokens": 5, "max_length": 50}}, conversations={"physics": 1})
    facts = [launch("pico", 0, facts={"context_tokens": 64})]
    record = turn(cell(sampling="both"), ids=2, prompt_tokens=62, tokens_left=0, finish_reason="context")
    run = run_of(tmp_path, [record], of, launches=facts)

    assert only(length_limits(run))["limit_tokens"] == 64
    assert length_notes(run) == ("pico: context=64 cuts off turn 0 of physics (2 tokens left at its start).",)


def test_one_sentence_for_a_limit_that_many_settings_and_conversations_share(tmp_path: Path) -> None:
    samplings = {f"t={t}": {"do_sample": True, "temperature": t, "max_length": 40} for t in (0.5, 1.0)}
    of = plan(samplings=samplings, conversations={"a": 2, "b": 2})
    cut: dict[str, Any] = {"tokens_left": 0, "finish_reason": "max_length"}
    records = [
        record
        for name in samplings
        for record in (
            turn(cell(sampling=name, conversation_id="a"), tokens_left=15),
            turn(cell(sampling=name, conversation_id="a"), 1, **cut),
            turn(cell(sampling=name, conversation_id="b"), ids=3, **cut),
        )
    ]

    assert length_notes(run_of(tmp_path, records, of)) == (
        "pico: max_length=40 cuts off turn 0 of b (3 tokens left at its start); it bites in 1 more conversation; "
        "later turns that were never reached: 2.",
    )


def test_nothing_played_is_an_empty_table(tmp_path: Path) -> None:
    run = run_of(tmp_path, [], plan())

    assert len(length_limits(run)) == 0
    assert length_notes(run) == ()


@pytest.mark.parametrize(
    ("policy", "what", "sentence"),
    [
        ("stop", "cut off", "cuts off turn 2 of talk (4 tokens left at its start); later turns"),
        ("drop_oldest", "2 messages dropped", "drops the oldest 2 messages before turn 2 of talk"),
        ("error", "cut off", "cuts off turn 2 of talk (4 tokens left at its start)."),
    ],
)
def test_every_policy_told_by_the_scripted_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str, what: str, sentence: str
) -> None:
    """Every turn adds two words and the name of who says them to the prompt, and eight of the reply: 4, 16, 28 …"""
    (tmp_path / "recital.yaml").write_text(RECITAL)
    (tmp_path / "prompts.yaml").write_text(PROMPTS)
    (tmp_path / "config.yaml").write_text(
        f"models: ['scripted:recital.yaml']\nconversations: [prompts.yaml]\nsampling: {{max_length: 32}}\n"
        f"on_overflow: {policy}\nwarmup: 0\n"
    )
    monkeypatch.chdir(tmp_path)
    run = harness.load(execute(resolve("config.yaml", []), results=tmp_path / "results"))
    row = only(bitten(run))
    prompt = run.turns.loc[run.turns["turn_index"] == 2, "prompt_tokens"].iloc[0]

    assert (row["turn_index"], row["limit_tokens"], row["on_overflow"]) == (2, 32, policy)
    assert row["tokens_left_at_start"] == 32 - prompt
    assert sentence in length_notes(run)[0]
    console = Console(file=StringIO(), width=200)
    show(run, console)
    assert isinstance(console.file, StringIO)
    for page in (markdown(run), console.file.getvalue()):
        assert "Where the length runs out" in page
        assert what in page


def test_a_prompt_that_is_refused_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recital.yaml").write_text(RECITAL)
    (tmp_path / "prompts.yaml").write_text(PROMPTS)
    (tmp_path / "config.yaml").write_text(
        "models: ['scripted:recital.yaml']\nconversations: [prompts.yaml]\nsampling: {max_length: 28}\n"
        "on_overflow: error\nwarmup: 0\n"
    )
    monkeypatch.chdir(tmp_path)
    run = harness.load(execute(resolve("config.yaml", []), results=tmp_path / "results"))

    assert (only(bitten(run))["refused"], only(bitten(run))["tokens_left_at_start"]) == (1, 0)
    assert length_notes(run) == (
        "recital: max_length=28 refuses turn 2 of talk (on_overflow: error); later turns that were never reached: 1.",
    )
    assert "| refused |" in markdown(run)
