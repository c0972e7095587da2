"""Runs at a concurrency above 1, and what a worker's death or a machine's limits mean for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import harness
from harness.chat import Rules
from harness.config.plan import Plan
from harness.config.schema import ModelSpec
from harness.errors import DocumentError
from harness.records import Cell, TurnRecord
from harness.runner.messages import Event, Job, LoadFailed, Play, Progress, TurnDone, Warmed
from harness.runner.run import execute
from harness.runner.worker import work
from harness.store import read, settled
from harness.studies.replay import resolve
from tests.builders import circumstances

RECITAL = "lines: [Motion is all., Energy it is.]\nprefill_s: 0.05\nreal_time: true\n"
PROMPTS = "conversations:\n" + "".join(
    f"  - {{id: {name}, turns: [{{user: What is motion?}}, {{user: And energy?}}]}}\n" for name in "abcde"
)
CONFIG = """
models: ['scripted:recital.yaml']
sampling: {max_new_tokens: 4}
conversations: [prompts.yaml]
concurrency: 2
warmup: 1
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "recital.yaml").write_text(RECITAL)
    (tmp_path / "prompts.yaml").write_text(PROMPTS)
    (tmp_path / "config.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cells(path: Path, plan: Plan) -> dict[Cell, list[TurnRecord]]:
    planned = {conversation.id: plan.turns_of(conversation) for conversation in plan.conversations}
    return settled(read(path).records, planned, plan.config.on_overflow)


def kill_when(wanted: Callable[[Progress], bool], times: int = 1) -> Callable[[Progress], None]:
    """Kills the worker whenever it says what is wanted, so many times."""
    kills: list[int] = []

    def watch(event: Progress) -> None:
        if wanted(event) and len(kills) < times:
            worker = psutil.Process().children()[0]
            kills.append(worker.pid)
            worker.kill()

    return watch


def measured(event: Progress) -> bool:
    """A worker tells of a measured turn."""
    if not isinstance(event, TurnDone) or event.record.circumstances.phase == "warmup":
        return False
    return event.record.failure is None


def died(path: Path, plan: Plan) -> list[str]:
    """The conversations that a death cost."""
    failed = [turns[-1] for turns in cells(path, plan).values() if turns[-1].failure is not None]
    assert {turn.failure.kind for turn in failed if turn.failure} <= {"WorkerDied"}
    return [turn.circumstances.cell.conversation_id for turn in failed]


def test_every_turn_says_how_many_conversations_were_replayed_at_a_time(here: Path) -> None:
    plan = resolve("config.yaml", ["concurrency=[1,2]", "repeats=2"])

    run = harness.load(execute(plan, results=here / "results"))

    assert set(run.turns["state"]) == {"done"}
    assert run.turns.groupby("concurrency").size().to_dict() == {1: 20, 2: 20}
    by_level = read(run.path).records
    assert {r.batch_size for r in by_level if r.circumstances.cell.concurrency == 1} == {1}
    assert {r.batch_size for r in by_level if r.circumstances.cell.concurrency == 2} == {1, 2}  # five is odd


def test_a_worker_killed_in_a_batch_costs_the_conversations_in_it_and_no_other(here: Path) -> None:
    plan = resolve("config.yaml")

    path = execute(plan, results=here / "results", watch=kill_when(measured))

    assert set(cells(path, plan)) == set(plan.cells())
    assert died(path, plan) == [cell.conversation_id for cell in list(plan.cells())[:2]]


def test_a_worker_killed_in_the_first_turn_after_warming_up_costs_that_conversation_only(here: Path) -> None:
    plan = resolve("config.yaml", ["concurrency=1"])

    path = execute(plan, results=here / "results", watch=kill_when(lambda event: isinstance(event, Warmed)))

    assert died(path, plan) == [next(iter(plan.cells())).conversation_id]


def test_a_worker_killed_while_it_warms_up_costs_no_conversation(here: Path) -> None:
    plan = resolve("config.yaml", ["concurrency=[1,2]"])
    seen: list[Warmed] = []

    def first_of_two(event: Progress) -> bool:
        seen.extend([event] if isinstance(event, Warmed) else [])
        return isinstance(event, Warmed) and len(seen) == 1

    path = execute(plan, results=here / "results", watch=kill_when(first_of_two))

    assert set(cells(path, plan)) == set(plan.cells())
    assert died(path, plan) == []


def test_a_model_that_loses_a_batch_now_and_then_is_not_given_up(here: Path) -> None:
    short, long = "turns: [{user: Hello}]", "turns: [{user: Hello}, {user: Again}, {user: Bye}]"
    (here / "prompts.yaml").write_text(f"conversations: [{{id: short, {short}}}, {{id: long, {long}}}]\n")
    plan = resolve("config.yaml", ["repeats=4"])

    def short_has_ended(event: Progress) -> bool:
        return measured(event) and event.record.turn_index == 1  # type: ignore[union-attr]

    path = execute(plan, results=here / "results", watch=kill_when(short_has_ended, times=2))

    assert set(cells(path, plan)) == set(plan.cells())
    assert died(path, plan) == ["long", "long"]


def test_a_run_at_a_concurrency_is_gone_on_with_where_it_stopped(here: Path) -> None:
    plan = resolve("config.yaml", ["concurrency=[1,2]"])

    def stop_early(event: Progress) -> None:
        if measured(event) and event.record.circumstances.cell.concurrency == 2:  # type: ignore[union-attr]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(plan, results=here / "results", run_id="x", watch=stop_early)
    execute(plan, results=here / "results", run_id="x")

    run = harness.load(here / "results" / "x")
    assert set(run.turns["state"]) == {"done"}
    assert len(run.turns) == 20
    assert set(run.turns["attempt"]) == {0, 1}


def test_a_model_that_cannot_be_batched_is_refused_before_it_is_loaded(here: Path) -> None:
    plan = resolve("config.yaml", ["models=['builtin:pico']"])

    with pytest.raises(DocumentError, match="cannot be replayed at concurrency 2") as caught:
        execute(plan, results=here / "results")

    assert "engine: batched" in str(caught.value)
    assert list((here / "results").iterdir()) == []


def test_a_model_that_is_played_in_turn_says_so_and_a_death_costs_one_conversation(here: Path) -> None:
    plan = resolve("config.yaml", ["models=['builtin:pico']", "on_unbatchable=sequential", "warmup=0"])

    path = execute(plan, results=here / "results", watch=kill_when(measured))

    stored = read(path)
    assert len(died(path, plan)) == 1  # whichever it was by the time the signal came
    assert {record.batch_size for record in stored.records} == {1}
    assert [text for text in stored.manifest["warnings"] if "one conversation at a time" in text]


def test_no_worker_plays_in_turn_what_was_to_be_played_together(here: Path) -> None:
    """A resumed run looks at no model beforehand, and a library may have changed since."""
    conversation = resolve("config.yaml").conversations[0]
    at_two = circumstances(Cell("pico", "default", conversation.id, 0, 0, concurrency=2))
    play = Play(conversation, at_two, Rules(sampling={"max_new_tokens": 2}))
    job = Job(
        spec=ModelSpec(model="builtin:pico", label="pico"),
        chat_format="auto",
        template_now="2026-01-01T00:00:00",
        samplings={"default": {"max_new_tokens": 2}},
        check_first=(),
        warmups=(),
        plays=(play,),
    )
    said: list[Event] = []

    work(job, said.append)

    assert [type(event) for event in said] == [LoadFailed]
    assert "cannot be replayed at concurrency 2" in said[0].failure.message  # type: ignore[union-attr]


def test_the_longest_conversation_is_the_one_with_most_to_send(here: Path) -> None:
    (here / "prompts.yaml").write_text(
        "conversations:\n"
        "  - {id: talkative, turns: [{user: A question of some length?, assistant: Yes.}, {user: Bye}]}\n"
        "  - {id: answered, turns: [{user: What?, assistant: A reply that is a good deal longer.}, {user: Bye}]}\n"
    )

    def warmed_with(history: str) -> set[str]:
        path = execute(resolve("config.yaml", [f"history={history}"]), results=here / history)
        warm = [record for record in read(path).records if record.circumstances.phase == "warmup"]
        return {record.circumstances.cell.conversation_id for record in warm}

    assert warmed_with("generated") == {"talkative"}
    assert warmed_with("scripted") == {"answered"}
