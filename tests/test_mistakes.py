"""Mistakes that others made and that no other file is the place to look for; docs/mistakes.md lists all of them."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.backends.seam import Backend, Reply, TurnRequest
from harness.chat import Rules, replay
from harness.conversations.script import Conversation, Turn
from harness.meters.clock import HandCrankedClock, Stopwatch
from harness.metrics import METRICS, itl_s
from harness.records import CheckResult, Persona, TurnRecord
from harness.runner.messages import Progress, TurnDone
from harness.runner.run import execute
from harness.store import read
from harness.studies.replay import resolve
from tests.asking import ask, dialog
from tests.builders import MS, circumstances, turn
from tests.commands import ENVIRONMENT, harness

RECITAL = "lines: [Motion is all there is., Energy it is.]\ntoken_s: 0.001\nreal_time: true\n"
PROMPTS = """
conversations:
  - id: long
    turns: [{user: What is Newtonian mechanics?}, {user: How about Lagrange?}, {user: And energy?}]
  - id: short
    turns: [{user: Hello}, {user: Bye}]
"""
CONFIG = """
models: ['scripted:recital.yaml']
sampling: {do_sample: true, top_k: [1, 10, 50], max_new_tokens: 20}
conversations: [prompts.yaml]
repeats: 2
warmup: 1
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "recital.yaml").write_text(RECITAL)
    (tmp_path / "prompts.yaml").write_text(PROMPTS)
    (tmp_path / "config.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- a real model on a hand-cranked clock -------------------------------------------------------------------------


@pytest.fixture(params=["generate", "decode", "batched"])
def slow(request: pytest.FixtureRequest, open_model: Callable[..., Backend]) -> tuple[Any, HandCrankedClock]:
    """A real model whose templating takes 5 ms, tokenising 7 ms, forward 11 ms and decoding of text 13 ms."""
    backend: Any = open_model(spec={"engine": request.param})
    clock = HandCrankedClock()
    clock.advance(10**18)  # a machine that has been up for thirty years

    def slowed(work: Callable[..., Any], ms: int) -> Callable[..., Any]:
        def slower(*arguments: Any, **named: Any) -> Any:
            clock.advance(ms * MS)
            return work(*arguments, **named)

        slower.__signature__ = inspect.signature(work)  # type: ignore[attr-defined]  # generate looks at forward's
        return slower

    backend.format.render = slowed(backend.format.render, 5)
    backend.format.encode = slowed(backend.format.encode, 7)
    backend.model.forward = slowed(backend.model.forward, 11)
    backend.tokenizer.decode = slowed(backend.tokenizer.decode, 13)
    return backend, clock


def test_every_stamp_of_a_real_model_is_taken_where_its_work_is_done(slow: tuple[Any, HandCrankedClock]) -> None:
    backend, clock = slow
    asked = ask(backend.open_session(), sampling={"max_new_tokens": 6}, length="fixed", clock=clock)
    record = turn(stamps=asked.stamps, completion_tokens=asked.reply.completion_tokens)

    measured = {name: METRICS[name].formula(record) for name in ("template_s", "tokenize_s", "prefill_s", "ttft_s")}
    assert measured == {"template_s": 0.005, "tokenize_s": 0.007, "prefill_s": 0.011, "ttft_s": 0.023}
    assert itl_s(record) == [0.011] * 5, "no text is made between ids, and the first id is none of the gaps"
    assert METRICS["tpot_s"].formula(record) == 0.011
    assert METRICS["decode_s"].formula(record) == pytest.approx(0.055)
    text_s = METRICS["detokenize_s"].formula(record)
    assert text_s is not None
    assert text_s >= 0.013, "the text is ready when it has been made, after the last id"
    assert METRICS["e2e_s"].formula(record) == pytest.approx(0.023 + 0.055 + text_s)


def test_showing_a_reply_is_not_in_the_time_to_its_first_id(slow: tuple[Any, HandCrankedClock]) -> None:
    backend, clock = slow
    watch = Stopwatch(clock)
    sampling = {"max_new_tokens": 3}
    request = TurnRequest("talk", 0, dialog("What?"), Persona(), sampling, 1, "fixed", "stop", watch)
    backend.open_session().reply(request, lambda ids: clock.advance(100 * MS))

    assert watch.stamps().tick_ns[0] == 23 * MS


def test_the_device_is_waited_for_between_turns_and_not_at_every_id(
    open_model: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    session = open_model().open_session()
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda *_: order.append("wait"))
    original = type(session).finish  # type: ignore[attr-defined]

    def finish(self: Any, *arguments: Any) -> Reply:
        order.append("last id")
        reply: Reply = original(self, *arguments)
        order.append("text ready")
        return reply

    monkeypatch.setattr(type(session), "finish", finish)
    ask(session, sampling={"max_new_tokens": 6}, length="fixed")

    assert order == ["last id", "text ready", "wait"]


def test_what_was_produced_is_counted_and_not_what_was_allowed(open_model: Callable[..., Backend]) -> None:
    session = open_model().open_session()
    ids = ask(session, sampling={"max_new_tokens": 40}, length="fixed").reply.completion_ids
    end = next(index for index in range(2, 40) if ids[index] not in ids[:index])

    asked = ask(session, sampling={"max_new_tokens": 40, "eos_token_id": ids[end]})

    assert asked.reply.finish_reason == "eos"
    assert asked.reply.completion_ids == ids[: end + 1], "the end of text is generated like any other id"
    assert asked.reply.completion_tokens == len(asked.stamps.tick_ns) == end + 1


@given(st.integers(2**59, 2**62), st.lists(st.integers(0, 10**12), min_size=1, max_size=9))
def test_no_nanosecond_is_lost_however_long_the_machine_has_been_up(start: int, gaps: list[int]) -> None:
    clock = HandCrankedClock()
    clock.advance(start)
    watch = Stopwatch(clock)
    for gap in gaps:
        clock.advance(gap)
        watch.tick(1)

    assert watch.stamps().tick_ns == tuple(accumulate(gaps))


# --- one run ------------------------------------------------------------------------------------------------------


def test_no_setting_finds_a_cache_that_another_one_warmed(here: Path) -> None:
    records = read(execute(resolve("config.yaml"), results=here / "results")).records

    first = [record.cached_tokens for record in records if record.turn_index == 0]
    later = [record.cached_tokens for record in records if record.turn_index > 0]
    assert len(first) == 3 * (2 * 2 + 1)  # samplings × (conversations × repeats + warm-up)
    assert set(first) == {0}
    assert min(cached or 0 for cached in later) > 0


def test_what_is_warmed_up_is_what_is_measured(here: Path) -> None:
    """The same prompts at the same length, turn by turn: other shapes would be compiled and paged in later."""
    records = read(execute(resolve("config.yaml"), results=here / "results")).records

    def shapes(phase: str) -> set[tuple[Any, ...]]:
        return {
            (record.circumstances.cell.sampling, record.turn_index, record.prompt_hash, record.completion_tokens)
            for record in records
            if record.circumstances.phase == phase and record.circumstances.cell.conversation_id == "long"
        }

    assert shapes("warmup") == shapes("measure")
    assert len(shapes("measure")) == 3 * 3


def test_a_turn_is_in_the_file_when_it_is_told(here: Path) -> None:
    plan = resolve("config.yaml", ["repeats=1", "sampling.top_k=1"])
    path = here / "results" / "x"
    told: list[TurnRecord] = []

    def look(event: Progress) -> None:
        if isinstance(event, TurnDone):
            told.append(event.record)
            assert read(path).records == tuple(told)

    execute(plan, results=here / "results", run_id="x", watch=look)

    assert len(told) == 5 + 3


@dataclass(frozen=True)
class Says:
    word: str

    @property
    def name(self) -> str:
        return self.word

    def judge(self, reply: str, completion_tokens: int | None) -> CheckResult:
        return CheckResult(self.word, self.word in reply)


def test_the_models_own_reply_is_scored_by_the_checks_of_its_own_turn_and_the_gold_is_kept() -> None:
    script = Conversation(
        "physics",
        (
            Turn("one?", "gold of the first", (Says("own"), Says("gold"))),
            Turn("two?", "gold of the second", (Says("second"),)),
        ),
    )
    talk = replay(script, circumstances(history="scripted"), Rules(sampling={}))
    records: list[Any] = [talk.send(Reply("own words", "eos", completion_tokens=2)) for _ in talk]

    assert [record.gold for record in records] == ["gold of the first", "gold of the second"]
    assert [record.reply for record in records] == ["own words", "own words"]
    assert [[(c.check, c.passed) for c in record.checks] for record in records] == [
        [("own", True), ("gold", False)],
        [("second", False)],
    ]


def test_a_run_waits_for_no_person(here: Path) -> None:
    """Its standard input is a pipe that stays open and silent, as in many a batch system."""
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", "run", "config.yaml", "--set", "repeats=1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.wait(timeout=120) == 0
        assert process.stdout.read().startswith("results")
    finally:
        process.kill()
        process.stdin.close()
        process.stdout.close()
        process.wait()


def test_a_key_that_is_not_known_is_never_passed_over(here: Path) -> None:
    """A misspelt check, sampling or section would make a run that looks fine and measures something else."""
    (here / "prompts.yaml").write_text("conversations: [{id: a, turns: [{user: Hello, expects: [{contains: x}]}]}]\n")
    (here / "config.yaml").write_text(CONFIG + "warmups: 3\n")
    done = harness("run", "config.yaml", "--set", "sampling.tok_k=3", cwd=here)

    assert done.returncode == 2
    for key, meant in (("expects", "expect"), ("warmups", "warmup"), ("tok_k=3", "top_k")):
        assert f"{key}: unknown key – did you mean {meant}?" in done.stderr
    assert not (here / "results").exists()
