"""The largest context that fits, and what ends it; running out of memory is a finding in a row."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

import harness
from harness.analysis.context_limit import context_limits, limits_met
from harness.analysis.frames import Run
from harness.conversations.load import load_conversations
from harness.records import Memory
from harness.report.markdown import markdown
from harness.report.terminal import show
from harness.runner.run import execute
from harness.studies.replay import resolve
from tests.builders import cell, failed, launch, plan, store, turn
from tests.commands import ENVIRONMENT

ROOT = Path(__file__).parent.parent


def only(frame: pd.DataFrame) -> dict[str, Any]:
    (row,) = frame.to_dict("records")
    return {str(name): None if pd.isna(value) else value for name, value in row.items()}


def unspoken(index: int, **values: Any) -> Any:
    """A prompt at the context's end, to which there is no reply."""
    return turn(index=index, ids=0, finish_reason="context", tokens_left=0, **values)


OF = plan(conversations={"physics": 4})


def test_the_models_own_limit_is_bracketed(tmp_path: Path) -> None:
    """20 + 5 and 40 + 5 tokens were answered, a prompt of 60 was not; the model says it holds 50."""
    records = [turn(memory=Memory(1, 2, 3, 4)), turn(index=1, kv_cache_bytes=9, memory=Memory(5, 6, 7, 8)), unspoken(2)]
    entries = [launch("pico", 0, facts={"context_tokens": 50})]
    row = only(context_limits(harness.load(store(tmp_path, records, OF, launches=entries))))

    assert (row["answered_tokens"], row["unanswered_tokens"], row["context_tokens"]) == (45, 60, 50)
    assert row["ended_by"] == "context"
    assert (row["peak_memory_bytes"], row["device_used_bytes"], row["host_rss_bytes"]) == (5, 7, 8)
    assert row["kv_cache_bytes"] == 9


def test_running_out_of_memory_ends_a_context_too(tmp_path: Path) -> None:
    run = harness.load(store(tmp_path, [turn(), turn(index=1), failed(index=2)], OF))
    row = only(limits_met(run))

    assert (row["answered_tokens"], row["unanswered_tokens"]) == (45, 60)
    assert row["ended_by"] == "OutOfMemoryError"


def test_a_worker_that_was_killed_tells_no_size(tmp_path: Path) -> None:
    records = [turn(), failed(index=1, prompt_tokens=None)]
    row = only(context_limits(harness.load(store(tmp_path, records, OF))))

    assert (row["answered_tokens"], row["unanswered_tokens"]) == (25, None)


def test_a_reply_that_fills_the_context_has_no_next_size(tmp_path: Path) -> None:
    records = [turn(), turn(index=1, ids=3, finish_reason="context")]
    row = only(context_limits(harness.load(store(tmp_path, records, OF))))

    assert (row["answered_tokens"], row["unanswered_tokens"], row["ended_by"]) == (43, None, "context")


def test_a_model_that_never_answered_has_no_largest_context(tmp_path: Path) -> None:
    row = only(context_limits(harness.load(store(tmp_path, [failed()], OF))))

    assert (row["answered_tokens"], row["unanswered_tokens"], row["host_rss_bytes"]) == (None, 20, None)


def test_the_ends_of_several_conversations_are_told_by_their_number(tmp_path: Path) -> None:
    of = plan(conversations={"physics": 1}, repeats=3)
    records = [turn(cell(repeat=0)), failed(cell(repeat=1)), turn(cell(repeat=2))]

    assert only(context_limits(harness.load(store(tmp_path, records, of))))["ended_by"] == (
        "end of script, OutOfMemoryError"
    )


def test_ordinary_ends_are_no_finding(tmp_path: Path) -> None:
    of = plan(["pico", "nano"], conversations={"physics": 1})
    run = harness.load(store(tmp_path, [turn(), failed(cell("nano"))], of))

    assert limits_met(run)["model"].tolist() == ["nano"]
    assert len(limits_met(harness.load(store(tmp_path, [turn()], plan(conversations={"physics": 1}), "calm")))) == 0


def test_a_search_whose_script_ends_first_says_so(tmp_path: Path) -> None:
    of = plan(conversations={"physics": 1})
    of["conversations"][0]["tags"] = ["context-limit"]

    assert only(limits_met(harness.load(store(tmp_path, [turn()], of))))["ended_by"] == "end of script"


def played(tmp_path: Path, config: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(ROOT)
    return harness.load(execute(resolve(config, []), results=tmp_path))


def test_the_shipped_search_finds_the_end_of_the_built_in_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = played(tmp_path, "configs/context-limit.yaml", monkeypatch)
    row = only(limits_met(run))

    assert row["context_tokens"] == 2048
    assert row["answered_tokens"] <= 2048 <= row["unanswered_tokens"]
    assert row["unanswered_tokens"] < 1.4 * row["answered_tokens"]
    assert row["ended_by"] == "context"
    console = Console(file=StringIO(), width=100)
    show(run, console)
    assert isinstance(console.file, StringIO)
    for page in (markdown(run), console.file.getvalue()):
        assert str(row["answered_tokens"]) in page
        assert str(row["unanswered_tokens"]) in page
        assert "Largest context" in page


def test_the_shipped_script_grows_by_a_quarter_beyond_any_common_context() -> None:
    (conversation,) = load_conversations([ROOT / "prompts/context-limit.yaml"])
    words = [len(one.user.split()) for one in conversation.turns]
    sums = [sum(words[: n + 1]) for n in range(len(words))]

    # The sentence has 16 words and 17 tokens or more in the vocabularies of instruct models.
    assert sums[-1] > 131_072
    assert all(1.2 < after / before < 1.3 for before, after in pairwise(sums))


def test_a_breakdown_out_of_memory_is_a_row_and_a_failed_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recital.yaml").write_text(
        "lines: [all of it]\nbreakdown: {turn: 1, kind: OutOfMemory, message: tried to allocate 20 GiB}\n"
    )
    (tmp_path / "prompts.yaml").write_text(
        "conversations: [{id: a, turns: [{user: x, times: 9}, {user: y, times: 90}]}]\n"
    )
    (tmp_path / "config.yaml").write_text(
        "models: ['scripted:recital.yaml']\nconversations: [prompts.yaml]\nwarmup: 0\n"
    )
    run = harness.load(execute(resolve("config.yaml", []), results=tmp_path / "results"))
    row = only(limits_met(run))

    assert row["ended_by"] == "OutOfMemory"
    assert row["answered_tokens"] < 90 < row["unanswered_tokens"]
    assert "| OutOfMemory |" in markdown(run)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ulimit -v is enforced by Linux")
def test_a_model_that_really_runs_out_of_memory_is_a_finding(saved_model: Callable[..., Path], tmp_path: Path) -> None:
    """The scores of eager attention take 4 bytes · 4 heads · tokens²: some 20 GB for the last prompt, of 8 GB."""
    (tmp_path / "prompts.yaml").write_text(
        "conversations:\n  - id: grow\n    turns:\n"
        "      - {user: &filler 'The water of the river runs down from the hills to the sea.', times: 16}\n"
        "      - {user: *filler, times: 60}\n      - {user: *filler, times: 1500}\n      - {user: *filler}\n"
    )
    model = saved_model("llama", max_position_embeddings=100_000)
    (tmp_path / "config.yaml").write_text(
        f"models: [{{model: '{model}', label: tiny, attn_implementation: eager}}]\n"
        "sampling: {max_new_tokens: 2}\nlength: fixed\nconversations: [prompts.yaml]\nwarmup: 0\nthreads: 1\n"
    )
    command = [sys.executable, "-m", "harness", "run", "config.yaml", "--run-id", "x", "--quiet"]
    limited = f"ulimit -v {8 * 2**20}; exec {shlex.join(command)}"
    done = subprocess.run(
        ["bash", "-c", limited],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert done.returncode == 6, done.stderr  # a turn failed, whatever for
    run = harness.load(tmp_path / "results" / "x")
    assert run.turns["state"].tolist() == ["done", "done", "failed", "not_reached"]
    row = only(limits_met(run))
    assert row["ended_by"] == "OutOfMemory"
    assert 1_000 < row["answered_tokens"] < 30_000 < row["unanswered_tokens"]
    assert row["host_rss_bytes"] > 0
