"""Runs the cells of a plan: one worker process per model and launch, the models taking turns, one writer.

Every planned conversation ends up in the store: played, or failed with a reason. A run that is killed at any moment
loses the conversation in flight; running it again plays what is missing and nothing else.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.chat import Rules
from harness.config.plan import Plan
from harness.config.schema import ModelSpec
from harness.conversations.script import Conversation
from harness.errors import DocumentError
from harness.forced import Known
from harness.records import Cell, Circumstances, Failure, TurnRecord
from harness.runner.deaths import Death, Stage, failed_turn, in_flight
from harness.runner.forcing import Forcings
from harness.runner.interpreters import ask
from harness.runner.messages import (
    CellDone,
    Job,
    Loaded,
    LoadFailed,
    Pinned,
    Play,
    Refused,
    RunStarted,
    Sampled,
    TurnDone,
    Warmed,
    Watch,
    WorkerDied,
    WorkerStarted,
    at_commit,
)
from harness.runner.opening import open_run, run_to_go_on_with
from harness.runner.process import WorkerProcess
from harness.store import WORKERS_LOG, RunWriter, next_attempts, settled

Wanted = Callable[[Cell], bool]
_LOAD_COSTS = ("load_s", "import_s", "weights_s", "first_forward_s", "compile_s", "download_s", "download_bytes")
_FRUITLESS_DEATHS = 2
"""After so many worker deaths in a row without one finished conversation, the rest of the launch is given up."""


def execute(
    plan: Plan,
    *,
    results: Path,
    run_id: str | None = None,
    resume: Path | None = None,
    retry_failed: bool = False,
    watch: Watch = lambda progress: None,
    force: Sequence[Known] | None = None,
    wanted: Wanted = lambda cell: True,
    notes: Mapping[str, Any] | None = None,
) -> Path:
    """Run every cell of the plan that has no complete attempt yet; return the run's directory.

    `resume` names a run to go on with. Without it, a run named `run_id` is gone on with if it exists, and without a
    `run_id` the latest unfinished run of the very same config. `retry_failed` plays failed conversations again.
    `wanted` is asked, when a launch is about to be made, for each of its cells; the others are never played. `notes`
    are more entries of the manifest of a run that is begun.

    With `force`, or where a rule of the config's gate is about text, launch 0 of every model tells afterwards, untimed,
    how likely it finds its own greedy replies, and those of other runs that `force` hands in (`forced.known`); and
    every launch is probed for whether it computes alike every time.

    Raises UsageError where the run to resume belongs to another config, StoreError where results cannot be written,
    and DocumentError where models cannot be used.
    """
    path = resume or run_to_go_on_with(plan, results, run_id)
    writer, records = open_run(plan, results, run_id, path, notes or {})
    with writer:
        _Execution(plan, writer, list(records), retry_failed, watch, force, wanted, resumed=path is not None).run()
    return writer.path


class _Execution:
    """One run in progress."""

    def __init__(
        self,
        plan: Plan,
        writer: RunWriter,
        records: list[TurnRecord],
        retry_failed: bool,
        watch: Watch,
        force: Sequence[Known] | None,
        wanted: Wanted,
        *,
        resumed: bool,
    ) -> None:
        self._plan = plan
        self._writer = writer
        self._watch = watch
        self._wanted = wanted
        self._conversations = {conversation.id: conversation for conversation in plan.conversations}
        self._samplings = {sampling.name: sampling.parameters for sampling in plan.samplings}
        self._attempts = next_attempts(records)
        done = settled(records, self._planned_turns(), plan.config.on_overflow)
        if retry_failed:
            done = {cell: turns for cell, turns in done.items() if turns[-1].failure is None}
        self._done = set(done)
        self._forcings = Forcings(plan, writer, force, done)
        self._fresh = not resumed
        self._check_first = () if resumed else plan.models
        watch(
            RunStarted(
                path=writer.path,
                cells=plan.n_cells,
                turns=plan.n_turns,
                cells_done=len(done),
                turns_done=sum(len(turns) for turns in done.values()),
                resumed=resumed,
            )
        )

    def _planned_turns(self) -> dict[str, Sequence[int]]:
        return {id_: self._plan.turns_of(conversation) for id_, conversation in self._conversations.items()}

    def run(self) -> None:
        self._ask_interpreters()
        for launch in range(self._plan.launches):
            for spec in self._plan.launch_order(launch):
                self._launch(spec, launch)
        self._writer.manifest["finished_at"] = datetime.now(UTC).isoformat()
        self._writer.save_manifest()

    def _ask_interpreters(self) -> None:
        if all(spec.python is None for spec in self._plan.models):
            return
        jobs = [self._job(spec, 0, self._plan.cell_order(label_of(spec), 0)) for spec in self._plan.models]
        try:
            commits = ask(jobs, self._check_first, self._writer.path / WORKERS_LOG)
        except DocumentError:
            self._discard_if_empty()
            raise
        self._check_first = ()
        if commits:
            self._note(Pinned(commits))

    def _launch(self, spec: ModelSpec, launch: int) -> None:
        """Play all pending conversations of one model and launch, with more than one worker if one dies."""
        fruitless = 0
        cells = [cell for cell in self._plan.cell_order(label_of(spec), launch) if self._wanted(cell)]
        while pending := [cell for cell in cells if cell not in self._done]:
            death = self._work_on(spec, launch, pending)
            if death is None:
                return
            fruitless = 0 if death.finished else fruitless + 1
            if fruitless >= _FRUITLESS_DEATHS:
                self._give_up(spec, [cell for cell in pending if cell not in self._done], death.failure)
        if cells and self._forcings.missing(label_of(spec), launch):
            self._work_on(spec, launch, ())

    def _work_on(self, spec: ModelSpec, launch: int, pending: Sequence[Cell]) -> Death | None:
        """Let one worker play the pending cells; returns how it died, or None if it finished (or could not load)."""
        label = label_of(spec)
        self._watch(WorkerStarted(label, launch, self._plan.launches))
        told: dict[Cell, list[TurnRecord]] = {}
        job = self._job(spec, launch, pending)
        stage, together, finished = Stage(job), True, 0
        with WorkerProcess(job, self._writer.path / WORKERS_LOG, self._plan.config.timeout) as worker:
            for event in worker.events():
                stage.heard(event)
                match event:
                    case Refused(mistakes):
                        self._discard_if_empty()
                        raise DocumentError(mistakes)
                    case Pinned() | Sampled():
                        self._note(event)
                    case Loaded():
                        self._fresh, self._check_first = False, ()
                        together = event.why_not_together is None
                        self._note_launch(label, launch, event)
                    case LoadFailed(failure):
                        self._note_launch(label, launch, event)
                        self._give_up(spec, pending, failure)
                    case TurnDone(record):
                        self._writer.append(record)
                        if record.circumstances.phase == "measure":
                            told.setdefault(record.circumstances.cell, []).append(record)
                    case Warmed():
                        self._note_warmup(event)
                    case CellDone(cell):
                        self._writer.sync()
                        self._done.add(cell)
                        self._forcings.played(cell, told.pop(cell, []))
                        finished += 1
                self._forcings.heard(label, event)
                self._watch(event)
            playing = in_flight([cell for cell in pending if cell not in self._done], together=together)
            if not playing:
                self._forcings.ended(label, launch, worker)
                return None
            failure = worker.failure("decode" if stage.measures else stage.phase)
        self._watch(WorkerDied(label, launch, failure))
        if stage.measures:  # before that no conversation is to blame
            for cell in playing:
                self._record_failure(spec, cell, told.get(cell, []), failure)
            self._writer.sync()
        return Death(failure, finished)

    def _job(self, spec: ModelSpec, launch: int, pending: Sequence[Cell]) -> Job:
        config = self._plan.config
        commits = self._writer.manifest.get("commits", {})  # none in a run that is older than they are
        longest = max(self._plan.conversations, key=self._characters_sent)
        warmups = [
            self._play(spec, Cell(label_of(spec), name, longest.id, 0, launch, concurrency), warm=True)
            for name in self._samplings
            for concurrency in config.concurrency
            if config.warmup != 0
        ]
        return Job(
            spec=at_commit(spec, commits),
            chat_format=config.chat_format,
            template_now=config.template_now,
            samplings=self._samplings,
            check_first=tuple(at_commit(one, commits) for one in self._check_first),
            warmups=tuple(warmups),
            plays=tuple(self._play(spec, cell) for cell in pending),
            warmup_passes=None if config.warmup == "auto" else config.warmup,
            sequential_if_unbatchable=config.on_unbatchable == "sequential",
            threads=config.threads,
            cpu_affinity=None if config.cpu_affinity is None else tuple(config.cpu_affinity),
            sample_devices_s=config.sample_devices_s,
            probe=self._forcings.probe(spec, launch, self._play),
            force=self._forcings.of(spec, launch, pending, self._play),
        )

    def _characters_sent(self, conversation: Conversation) -> int:
        """How long the last prompt of a conversation is, as far as the script tells."""
        gold = [turn.assistant or "" for turn in conversation.turns if self._plan.config.history != "generated"]
        return sum(map(len, [*(turn.user for turn in conversation.turns), *gold]))

    def _play(self, spec: ModelSpec, cell: Cell, *, warm: bool = False) -> Play:
        config = self._plan.config
        return Play(
            conversation=self._conversations[cell.conversation_id],
            circumstances=Circumstances(
                cell=cell,
                history=config.history,
                length=config.length,
                engine=spec.engine,
                kv_cache=spec.kv_cache,
                phase="warmup" if warm else "measure",
                attempt=0 if warm else self._attempts.get(cell, 0),
            ),
            rules=Rules(
                sampling=self._samplings[cell.sampling],
                seed=config.seed,
                on_overflow=config.on_overflow,
                timeout_s=config.timeout,
            ),
        )

    def _give_up(self, spec: ModelSpec, cells: Sequence[Cell], failure: Failure) -> None:
        """Record the same failure for every one of these cells: the model could not be brought to play them."""
        for cell in cells:
            self._record_failure(spec, cell, [], failure)
        self._writer.sync()

    def _record_failure(self, spec: ModelSpec, cell: Cell, told: Sequence[TurnRecord], failure: Failure) -> None:
        record = failed_turn(self._play(spec, cell), told, failure)
        if record is not None:
            self._writer.append(record)
            self._watch(TurnDone(record))
        self._done.add(cell)
        self._watch(CellDone(cell))

    def _note_launch(self, model: str, launch: int, event: Loaded | LoadFailed) -> None:
        """Keep in the manifest what this process loaded, and every warning once."""
        manifest = self._writer.manifest
        entry: dict[str, Any] = {"model": model, "launch": launch, "warmups": []}
        warnings: list[str] = list(manifest["warnings"])
        if isinstance(event, Loaded):
            entry |= {
                **{name: getattr(event.report, name) for name in _LOAD_COSTS},
                "facts": dict(event.report.facts),
                "roofline": event.report.roofline,
                "notices": event.report.notices,
                "threads": event.threads,
                "cpu_affinity": event.cpu_affinity,
                "effective": event.effective,
                "environment": event.environment,
            }
            warnings += [f"{model}: {notice}" for notice in event.report.notices]
            warnings += [
                f"{model}, {name}: {text}" for name, settings in event.effective.items() for text in settings.warnings
            ]
            if event.why_not_together is not None and max(self._plan.config.concurrency) > 1:
                warnings.append(f"{model}: played one conversation at a time: {event.why_not_together}")
        else:
            entry |= {"failure": event.failure}
            warnings.append(f"{model}: {event.failure.message}")
        manifest["launches"] = [*manifest["launches"], entry]
        manifest["warnings"] = list(dict.fromkeys(warnings))
        self._writer.save_manifest()

    def _note_warmup(self, warmed: Warmed) -> None:
        """Keep with the launch that is under way how it was warmed up."""
        self._writer.manifest["launches"][-1]["warmups"].append(warmed)
        self._writer.save_manifest()

    def _note(self, event: Pinned | Sampled) -> None:
        """Keep the commits of the run; or what the sampler saw, and with the launch what it cost. That there are
        commits, or that a sampler runs, is saved at once."""
        if isinstance(event, Pinned):
            self._writer.manifest["commits"] = dict(event.commits)
            self._writer.save_manifest()
            return
        self._writer.append_samples(event.samples)
        entry = self._writer.manifest["launches"][-1]
        first = "sampler" not in entry
        entry["sampler"] = event.cost
        if first:
            self._writer.save_manifest()

    def _discard_if_empty(self) -> None:
        """A new run whose models turned out to be unusable leaves nothing behind."""
        if self._fresh:
            shutil.rmtree(self._writer.path)


def label_of(spec: ModelSpec) -> str:
    """The label a planned model spec carries."""
    assert spec.label is not None, "the plan gives every model a label"
    return spec.label
