"""Several conversations at a time: who is asked when, what a record says of it, and what a kill costs."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

import harness as package
from harness.backends.scripted import Recital, ScriptedBackend
from harness.chat import Rules, replay
from harness.config.plan import Plan
from harness.conversations.script import Conversation, Turn
from harness.errors import DocumentError
from harness.meters.clock import HandCrankedClock
from harness.records import Cell, Circumstances, Memory, TurnRecord
from harness.runner.drive import Told, drive_together
from harness.runner.messages import Progress
from harness.runner.order import lanes
from harness.runner.run import execute
from harness.store import TURNS, read
from harness.studies.replay import resolve
from tests.builders import MS
from tests.commands import harness, start_harness
from tests.test_runner import assert_complete, complete_attempts, settled_turns

RECITAL = "lines: [Motion is all., Energy it is.]\nprefill_s: 0.004\ntoken_s: 0.001\nreal_time: true\n"
TALKS = {"a": 2, "b": 3, "c": 1, "d": 2, "e": 4, "f": 1}
PROMPTS = "conversations:\n" + "".join(
    f"  - id: {name}\n    turns: [{', '.join('{user: Hello}' for _ in range(turns))}]\n"
    for name, turns in TALKS.items()
)
CONFIG = """
models: [{model: "scripted:recital.yaml", label: one}]
sampling: {do_sample: true, top_k: [1, 10], max_new_tokens: 20}
conversations: [prompts.yaml]
concurrency: [1, 4]
warmup: 1
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "recital.yaml").write_text(RECITAL)
    (tmp_path / "prompts.yaml").write_text(PROMPTS)
    (tmp_path / "config.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def drive_scripted(turns: dict[str, int], at_a_time: int, **recital: Any) -> tuple[list[Told], list[str]]:
    """News of conversations with so many turns each, on a clock that only the recital moves; and who was asked when."""
    clock = HandCrankedClock()
    backend = ScriptedBackend(Recital(lines=["one two"], prefill_s=0.05, token_s=0.01, **recital), clock=clock)
    asked: list[str] = []
    reply_many = backend.reply_many

    def noting(requests: Any) -> Any:
        asked.append(" ".join(f"{one.conversation_id}{one.turn_index}" for _, one in requests))
        return reply_many(requests)

    backend.reply_many = noting  # type: ignore[method-assign]
    dialogs = [
        replay(
            Conversation(name, tuple(Turn("Hello") for _ in range(count))),
            Circumstances(Cell("m", "s", name, 0, 0, at_a_time), "generated", "natural", "batched", "reuse"),
            Rules({}),
            clock=clock,
        )
        for name, count in turns.items()
    ]
    return list(drive_together(dialogs, backend, at_a_time)), asked


def test_a_conversation_that_ends_makes_room_for_the_next_in_the_same_step() -> None:
    news, asked = drive_scripted({"a": 2, "b": 1, "c": 3, "d": 1}, 2)
    assert asked == ["a0 b0", "a1 c0", "c1 d0", "c2"]
    told = [(one.index, None if one.record is None else one.record.turn_index) for one in news]
    # An end is told with the step after it: only then does the loop say that it has no more to ask.
    assert told == [(0, 0), (1, 0), (1, None), (0, 1), (2, 0), (0, None), (2, 1), (3, 0), (3, None), (2, 2), (2, None)]


def test_turns_of_a_step_have_the_times_of_the_step() -> None:
    news, _ = drive_scripted({"a": 2, "b": 1}, 2)
    records = [one.record for one in news if one.record is not None]
    assert [record.stamps.tick_ns for record in records] == [(50 * MS, 60 * MS)] * 3
    assert [record.batch_size for record in records] == [2, 2, 1]


def test_conversations_of_any_number_are_all_played_to_their_ends() -> None:
    chance = random.Random(0)
    for _ in range(30):
        turns = {str(index): chance.randint(1, 4) for index in range(chance.randint(1, 9))}
        at_a_time = chance.randint(1, 5)
        news, asked = drive_scripted(turns, at_a_time)
        counted = Counter(one.index for one in news if one.record is not None)
        assert [counted[index] for index in range(len(turns))] == list(turns.values())
        assert sorted(one.index for one in news if one.record is None) == list(range(len(turns)))
        assert max(len(step.split()) for step in asked) <= at_a_time


def test_a_lane_is_of_one_sampling_repeat_and_level(here: Path) -> None:
    plan = resolve("config.yaml", ["repeats=2"])
    order = plan.cell_order("one", 0)
    plays: Any = [type("P", (), {"circumstances": type("C", (), {"cell": cell})}) for cell in order]
    played = [[play.circumstances.cell for play in lane] for lane in lanes(plays)]
    together = [lane for lane in played if lane[0].concurrency > 1]
    assert [len(lane) for lane in together] == [6] * 4  # 2 samplings × 2 repeats, all conversations in each
    for lane in together:
        assert len({(cell.sampling, cell.repeat, cell.concurrency) for cell in lane}) == 1
    assert all(len(lane) == 1 for lane in played if lane[0].concurrency == 1)


def measured(path: Path) -> list[TurnRecord]:
    return [record for record in read(path).records if record.circumstances.phase == "measure"]


def test_every_level_is_played_and_every_record_says_at_which(here: Path) -> None:
    plan = resolve("config.yaml")
    path = execute(plan, results=here / "results")
    assert_complete(path, plan)
    for record in measured(path):
        level = record.circumstances.cell.concurrency
        assert 1 <= record.batch_size <= level
        if level > 1:  # what a process does in a step is no single turn's
            assert (record.memory, record.devices, record.host_load) == (Memory(), (), None)
    assert max(record.batch_size for record in measured(path)) == 4
    assert Counter(warm["concurrency"] for warm in read(path).manifest["launches"][0]["warmups"]) == {1: 2, 4: 2}


def test_a_turn_has_the_same_seed_at_every_level(here: Path) -> None:
    seeds: dict[tuple[str, int], set[int]] = {}
    for record in measured(execute(resolve("config.yaml"), results=here / "results")):
        seeds.setdefault((record.circumstances.cell.conversation_id, record.turn_index), set()).add(record.seed)
    assert {len(of_one_turn) for of_one_turn in seeds.values()} == {1}


def test_a_killed_worker_costs_the_conversations_in_flight_and_no_other(here: Path) -> None:
    # So slow that the worker is still in the step after the news that it is killed upon.
    (here / "recital.yaml").write_text(RECITAL.replace("prefill_s: 0.004", "prefill_s: 0.5"))
    plan = resolve("config.yaml", ["sampling.top_k=1", "concurrency=4"])
    victims: list[int] = []
    told: Counter[str] = Counter()

    def kill_once(event: Progress) -> None:
        if type(event).__name__ == "TurnDone" and event.record.circumstances.phase == "measure" and not victims:  # type: ignore[union-attr]
            told[event.record.circumstances.cell.conversation_id] += 1  # type: ignore[union-attr]
            if told.total() == 5:  # in the second step
                victims.append(psutil.Process().children()[0].pid)
                psutil.Process(victims[0]).kill()

    path = execute(plan, results=here / "results", watch=kill_once)

    cells = settled_turns(path, plan)
    assert set(cells) == set(plan.cells())
    failures = [turns[-1].failure for turns in cells.values() if turns[-1].failure is not None]
    assert 1 <= len(failures) <= 4
    assert {failure.kind for failure in failures} == {"WorkerDied"}
    assert {failure.phase for failure in failures} == {"decode"}
    assert "SIGKILL" in failures[0].message


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_killed_at_random_moments_is_completed_by_the_same_command(here: Path, how: signal.Signals) -> None:
    plan = resolve("config.yaml")
    chance, path, kills = random.Random(how.value), here / "results" / "k", 0
    while kills < 3:
        process = start_harness("run", "config.yaml", "--run-id", "k", "-q", cwd=here)
        deadline, lines = time.monotonic() + chance.uniform(0.2, 0.9), _lines(path)
        while process.poll() is None and (time.monotonic() < deadline or _lines(path) == lines):
            time.sleep(0.005)  # it dies only after it has got on a little, so that the test ends
        if process.poll() is not None:
            process.communicate()
            break
        process.send_signal(how)
        process.communicate()
        kills += 1

    done = harness("run", "config.yaml", "--run-id", "k", "-q", cwd=here)

    assert kills > 0
    assert done.returncode == 0, done.stderr
    assert_complete(path, plan)
    assert set(complete_attempts(path, plan).values()) == {1}


def _lines(path: Path) -> int:
    try:
        return (path / TURNS).read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def pico(here: Path, *overrides: str, engine: str = "batched") -> Plan:
    (here / "talks.yaml").write_text(
        "conversations:\n"
        + "".join(
            f"  - {{id: {name}, turns: [{{user: {first}}}, {{user: And why?}}, {{user: {last}}}]}}\n"
            for name, first, last in (
                ("sky", "Why is the sky blue?", "Who are you?"),
                ("force", "What is a force?", "How about energy?"),
                ("hello", "Hello", "What is light made of?"),
                ("bow", "What is a rainbow?", "Bye"),
                ("atom", "Tell me about atoms.", "What is heat?"),
            )
        )
    )
    given = {
        "models": [{"model": "builtin:pico", "engine": engine, "dtype": "float32"}],
        "sampling": {"max_new_tokens": 16},
        "conversations": ["talks.yaml"],
        "concurrency": [1, 4],
        "warmup": 0,
        "threads": 1,
    }
    return resolve(given, overrides)


def test_greedy_replies_at_four_at_a_time_are_those_of_one_at_a_time(here: Path) -> None:
    path = execute(pico(here), results=here / "results")
    replies: dict[tuple[str, int], list[Any]] = {}
    for record in measured(path):
        where = (record.circumstances.cell.conversation_id, record.turn_index)
        said = (record.completion_ids, record.prompt_hash, record.cached_tokens, record.paired)
        replies.setdefault(where, []).append(said)
    assert {len(said) for said in replies.values()} == {2}
    assert all(alone == together for alone, together in replies.values())
    assert len(replies) == 15
    assert max(record.batch_size for record in measured(path)) == 4


def test_an_engine_that_cannot_is_refused_before_anything_is_loaded_and_one_that_can_is_named(here: Path) -> None:
    with pytest.raises(DocumentError) as caught:
        execute(pico(here, engine="generate"), results=here / "results")
    assert str(caught.value) == (
        "builtin:pico: cannot be replayed at concurrency 4: the engine generate answers one conversation at a time – "
        "use engine: batched for it, or on_unbatchable: sequential"
    )
    assert list((here / "results").iterdir()) == []


def test_an_engine_that_cannot_plays_in_turn_where_that_is_allowed_and_says_so(here: Path) -> None:
    path = execute(pico(here, "on_unbatchable=sequential", engine="generate"), results=here / "results")
    records = measured(path)
    assert {record.batch_size for record in records} == {1}
    assert Counter(record.circumstances.cell.concurrency for record in records) == {1: 15, 4: 15}
    assert any("one conversation at a time" in warning for warning in read(path).manifest["warnings"])


def test_levels_are_an_option_of_plan_and_run(here: Path) -> None:
    one_liner = ("-m", "scripted:recital.yaml", "-p", "prompts.yaml", "--concurrency", "1,4")
    planned = harness("plan", *one_liner, cwd=here)
    assert planned.returncode == 0, planned.stderr
    assert "concurrency         1, 4" in planned.stdout
    played = harness("run", *one_liner, "--run-id", "x", cwd=here)
    assert played.returncode == 0, played.stderr
    run = package.load(here / "results" / "x")
    assert set(run.turns["concurrency"]) == {1, 4}
    # Each conversation has a line of its own, with its own number of turns, though four are played at a time.
    for name, turns in TALKS.items():
        assert f"default {name} repeat 0, 4 at a time: {turns} turns" in played.stderr


def test_plan_tells_of_a_model_that_cannot_be_batched(here: Path) -> None:
    one_liner = ("-m", "builtin:pico", "-p", "prompts.yaml", "--concurrency", "4")
    refused = harness("plan", *one_liner, cwd=here)
    assert refused.returncode == 2
    assert "cannot be replayed at concurrency 4" in refused.stderr
    told = harness("plan", *one_liner, "--set", "on_unbatchable=sequential", cwd=here)
    assert told.returncode == 0, told.stderr
    assert "played one conversation at a time" in told.stdout
