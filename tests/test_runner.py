"""The runner: every planned turn is there in the end, whatever is killed when, and none is played twice."""

import os
import random
import resource
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from harness.config.plan import Plan
from harness.errors import DocumentError, StoreError, UsageError
from harness.records import Cell, TurnRecord
from harness.runner.messages import Job, Progress, RunStarted, TurnDone, WorkerStarted
from harness.runner.process import WorkerProcess
from harness.runner.run import execute
from harness.store import TURNS, read, settled
from harness.studies.replay import resolve
from tests.commands import harness, start_harness

RECITAL = """
lines: [Motion is all., Energy it is. my friend.]
prefill_s: 0.004
token_s: 0.001
real_time: true
"""
PROMPTS = """
conversations:
  - id: a
    turns: [{user: What is Newtonian mechanics?}, {user: How about Lagrange?}]
  - id: b
    turns: [{user: Hello}, {user: Bye}, {user: Again}]
"""
CONFIG = """
models:
  - {model: "scripted:recital.yaml", label: one}
  - {model: "scripted:recital.yaml", label: two}
sampling: {do_sample: true, top_k: [1, 10], max_new_tokens: 20}
conversations: [prompts.yaml]
repeats: 3
launches: 2
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "recital.yaml").write_text(RECITAL)
    (tmp_path / "prompts.yaml").write_text(PROMPTS)
    (tmp_path / "config.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settled_turns(path: Path, plan: Plan) -> dict[Cell, list[TurnRecord]]:
    planned = {conversation.id: plan.turns_of(conversation) for conversation in plan.conversations}
    return settled(read(path).records, planned, plan.config.on_overflow)


def assert_complete(path: Path, plan: Plan) -> None:
    cells = settled_turns(path, plan)
    assert set(cells) == set(plan.cells())
    for cell, turns in cells.items():
        assert [turn.turn_index for turn in turns] == list(plan.turns_of(plan.conversation(cell.conversation_id)))


def complete_attempts(path: Path, plan: Plan) -> Counter[Cell]:
    """How many complete attempts each cell has: one, if nothing was played twice."""
    last_turns = {conversation.id: plan.turns_of(conversation)[-1] for conversation in plan.conversations}
    return Counter(
        record.circumstances.cell
        for record in read(path).records
        if record.circumstances.phase == "measure"
        and record.turn_index == last_turns[record.circumstances.cell.conversation_id]
    )


def test_every_cell_is_played_once_and_the_models_take_turns(here: Path) -> None:
    plan = resolve("config.yaml")
    seen: list[Progress] = []

    path = execute(plan, results=here / "results", watch=seen.append)

    assert_complete(path, plan)
    assert set(complete_attempts(path, plan).values()) == {1}
    started = [(event.model, event.launch) for event in seen if isinstance(event, WorkerStarted)]
    assert started == [("one", 0), ("two", 0), ("two", 1), ("one", 1)]
    assert read(path).manifest["finished_at"] is not None


def test_warm_up_has_the_shape_of_the_longest_conversation_and_is_kept_apart(here: Path) -> None:
    path = execute(resolve("config.yaml", ["warmup=1"]), results=here / "results")

    warm = [record for record in read(path).records if record.circumstances.phase == "warmup"]

    # 2 models × 2 launches × 2 samplings, conversation a is the longest in characters and has two turns.
    assert Counter(record.circumstances.cell.conversation_id for record in warm) == {"a": 16}


def test_samplings_of_a_model_are_played_on_paired_seeds(here: Path) -> None:
    path = execute(resolve("config.yaml"), results=here / "results")

    seeds: dict[tuple[str, int, int], set[int]] = {}
    for record in read(path).records:
        cell = record.circumstances.cell
        seeds.setdefault((cell.conversation_id, record.turn_index, cell.repeat), set()).add(record.seed)

    assert all(len(of_one_turn) == 1 for of_one_turn in seeds.values())
    assert len({seed for of_one_turn in seeds.values() for seed in of_one_turn}) == len(seeds)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_killed_at_random_moments_is_completed_by_the_same_command(here: Path, how: signal.Signals) -> None:
    plan = resolve("config.yaml")
    chance = random.Random(how.value)
    path = here / "results" / "k"
    kills = 0
    while kills < 5:
        process = start_harness("run", "config.yaml", "--run-id", "k", "-q", cwd=here)
        deadline = time.monotonic() + chance.uniform(0.2, 0.9)
        lines = _lines(path)
        while process.poll() is None and (time.monotonic() < deadline or _lines(path) == lines):
            time.sleep(0.005)  # it dies only after it has got on a little, so that the test ends
        if process.poll() is not None:
            process.communicate()
            break
        process.send_signal(how)
        process.communicate()
        kills += 1

    assert kills > 0
    done = harness("run", "config.yaml", "--run-id", "k", "-q", cwd=here)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "results/k"
    assert_complete(path, plan)
    assert set(complete_attempts(path, plan).values()) == {1}


def test_a_worker_killed_in_a_conversation_costs_that_conversation_only(here: Path) -> None:
    plan = resolve("config.yaml", ["launches=1", "repeats=2"])
    victims: list[int] = []

    def kill_once(event: Progress) -> None:
        if type(event).__name__ == "TurnDone" and not victims and event.record.circumstances.phase == "measure":  # type: ignore[union-attr]
            worker = psutil.Process().children()[0]
            victims.append(worker.pid)
            worker.kill()

    path = execute(plan, results=here / "results", watch=kill_once)

    cells = settled_turns(path, plan)
    failed = {cell: turns[-1].failure for cell, turns in cells.items() if turns[-1].failure is not None}
    assert set(cells) == set(plan.cells())
    assert [failure.kind for failure in failed.values() if failure] == ["WorkerDied"]
    assert "SIGKILL" in next(failure.message for failure in failed.values() if failure)


def test_failed_conversations_are_played_again_when_asked(here: Path) -> None:
    (here / "recital.yaml").write_text(RECITAL + "breakdown: {turn: 1, conversation: b}\n")
    plan = resolve("config.yaml", ["launches=1", "repeats=1"])
    path = execute(plan, results=here / "results", run_id="x")
    assert sum(turns[-1].failure is not None for turns in settled_turns(path, plan).values()) == 4
    (here / "recital.yaml").write_text(RECITAL)

    execute(plan, results=here / "results", run_id="x")
    still = sum(turns[-1].failure is not None for turns in settled_turns(path, plan).values())
    execute(plan, results=here / "results", run_id="x", retry_failed=True)

    assert still == 4  # resuming alone repeats nothing that came to an end
    assert_complete(path, plan)
    assert {turns[0].circumstances.attempt for cell, turns in settled_turns(path, plan).items()
            if cell.conversation_id == "b"} == {1}  # fmt: skip


def test_the_same_command_goes_on_with_an_unfinished_run_and_starts_anew_after_a_finished_one(here: Path) -> None:
    plan = resolve("config.yaml", ["launches=1", "repeats=1"])

    def stop_early(event: Progress) -> None:
        if type(event).__name__ == "CellDone":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(plan, results=here / "results", watch=stop_early)
    resumed: list[RunStarted] = []
    first = execute(
        plan, results=here / "results", watch=lambda e: resumed.append(e) if isinstance(e, RunStarted) else None
    )
    time.sleep(1.1)  # run ids are made of seconds
    second = execute(plan, results=here / "results")

    assert [(event.resumed, event.cells_done) for event in resumed] == [(True, 1)]
    assert first != second
    assert_complete(first, plan)


def test_a_run_of_another_config_is_not_resumed(here: Path) -> None:
    execute(resolve("config.yaml", ["launches=1", "repeats=1"]), results=here / "results", run_id="x")

    with pytest.raises(UsageError, match="another config"):
        execute(resolve("config.yaml", ["launches=1", "repeats=2"]), results=here / "results", run_id="x")


def test_a_faulty_model_is_found_before_any_model_is_loaded_and_leaves_no_run(here: Path) -> None:
    (here / "broken.yaml").write_text("lines: []\ncolour: red\n")
    plan = resolve("config.yaml", ['models.1.model="scripted:broken.yaml"'])

    with pytest.raises(DocumentError) as caught:
        execute(plan, results=here / "results")

    assert [mistake.subject for mistake in caught.value.mistakes] == [
        "broken.yaml:1:1: lines",
        "broken.yaml:2:1: colour",
    ]
    assert list((here / "results").iterdir()) == []


def test_two_processes_cannot_write_to_one_run(here: Path) -> None:
    plan = resolve("config.yaml", ["launches=1", "repeats=1"])

    def intrude(event: Progress) -> None:
        if isinstance(event, WorkerStarted) and event.model == "one":
            with pytest.raises(StoreError, match="another process"):
                execute(plan, results=here / "results", run_id="x")

    assert_complete(execute(plan, results=here / "results", run_id="x", watch=intrude), plan)


def test_a_worker_ends_when_its_parent_is_killed(here: Path) -> None:
    (here / "recital.yaml").write_text(RECITAL.replace("0.004", "30"))
    process = start_harness("run", "config.yaml", "-q", cwd=here)
    while not (children := psutil.Process(process.pid).children()):
        time.sleep(0.01)
    process.kill()
    process.communicate()

    _, alive = psutil.wait_procs(children, timeout=20)

    assert alive == []


def test_a_silent_worker_is_killed_after_its_time_out(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "recital.yaml").write_text(RECITAL.replace("0.004", "60"))
    plan = resolve(
        "config.yaml",
        ["timeout=0.1", "warmup=0", "launches=1", "repeats=1", "models=[{model: 'scripted:recital.yaml'}]"],
    )
    patient = WorkerProcess.__init__

    def impatient(self: WorkerProcess, job: Job, log: Path, timeout_s: float | None) -> None:
        patient(self, job, log, timeout_s)
        self._silence_limit_s = 0.3

    monkeypatch.setattr(WorkerProcess, "__init__", impatient)

    path = execute(plan, results=here / "results")

    assert {turns[0].failure.kind for turns in settled_turns(path, plan).values() if turns[0].failure} == {"Timeout"}


def test_the_parent_takes_no_processor_time_while_a_turn_is_measured(here: Path) -> None:
    (here / "recital.yaml").write_text(RECITAL.replace("0.004", "0.4"))
    plan = resolve("config.yaml", ["launches=1", "repeats=1", "warmup=0", "models=[{model: 'scripted:recital.yaml'}]"])
    used: list[float] = []

    def note(event: Progress) -> None:
        used.append(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))

    execute(plan, results=here / "results", watch=note)

    # Ten turns of 0.4 s: a parent that polls or spins would use a sizeable part of them.
    assert used[-1] - used[2] < 0.4


def test_no_turn_is_timed_before_the_parent_has_done_with_the_last_one(here: Path) -> None:
    plan = resolve("config.yaml", ["launches=1", "repeats=1", "warmup=0", "models=[{model: 'scripted:recital.yaml'}]"])
    done_with: list[float] = []
    began: list[float] = []

    def dawdle(event: Progress) -> None:
        if isinstance(event, TurnDone):
            began.append(event.record.started_at)
            time.sleep(0.05)
            done_with.append(time.time())

    execute(plan, results=here / "results", watch=dawdle)

    assert len(began) == 10
    assert all(start >= done for start, done in zip(began[1:], done_with, strict=False))


def test_an_unwritable_directory_is_found_before_a_worker_starts(here: Path) -> None:
    (here / "results").write_text("a file, not a directory")
    seen: list[Progress] = []

    with pytest.raises(StoreError, match="cannot be written"):
        execute(resolve("config.yaml"), results=here / "results", watch=seen.append)

    assert seen == []


def test_a_run_of_another_version_in_the_results_does_not_stop_a_new_one(here: Path) -> None:
    for name, manifest in (("old", '{"format": 99}'), ("odd", '{"format": 1}'), ("torn", "{")):
        (here / "results" / name).mkdir(parents=True)
        (here / "results" / name / "manifest.json").write_text(manifest)
    plan = resolve("config.yaml", ["launches=1", "repeats=1"])

    assert_complete(execute(plan, results=here / "results"), plan)


def test_a_worker_killed_while_it_loads_costs_no_conversation(here: Path) -> None:
    plan = resolve("config.yaml", ["launches=1", "repeats=1"])
    victims: list[int] = []

    def kill_once(event: Progress) -> None:
        if type(event).__name__ == "Loaded" and not victims:
            victims.append(psutil.Process().children()[0].pid)
            psutil.Process(victims[0]).kill()

    path = execute(plan, results=here / "results", watch=kill_once)

    assert victims
    assert_complete(path, plan)


def test_a_model_whose_workers_always_die_fails_in_all_its_cells(here: Path) -> None:
    plan = resolve("config.yaml", ["launches=1", "repeats=1"])

    def kill_always(event: Progress) -> None:
        if type(event).__name__ == "Loaded":
            for worker in psutil.Process().children():
                worker.kill()

    cells = settled_turns(execute(plan, results=here / "results", watch=kill_always), plan)

    assert set(cells) == set(plan.cells())
    assert {turns[0].failure.phase for turns in cells.values() if turns[0].failure} == {"warmup"}


def test_files_in_the_working_directory_do_not_shadow_what_a_worker_imports(here: Path) -> None:
    (here / "random.py").write_text("raise SystemExit('this is not the random module')\n")
    plan = resolve("config.yaml", ["launches=1", "repeats=1"])

    assert_complete(execute(plan, results=here / "results"), plan)


def _lines(path: Path) -> int:
    try:
        return (path / TURNS).read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def test_the_process_that_ran_leaves_no_children(here: Path) -> None:
    execute(resolve("config.yaml", ["launches=1", "repeats=1"]), results=here / "results")

    assert psutil.Process(os.getpid()).children() == []
