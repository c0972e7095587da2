"""Progress on stderr: a live line on a terminal, plain lines elsewhere.

The display is drawn when an event arrives, never by a clock of its own: while a turn is being measured this process
sleeps on the worker's pipe.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from harness.config.plan import Plan
from harness.metrics import METRICS
from harness.records import Cell, TurnRecord
from harness.runner import messages
from harness.runner.messages import CellDone, Loaded, LoadFailed, RunStarted, TurnDone, WorkerDied, WorkerStarted


class ProgressDisplay:
    """Shows what the runner tells. `path` is the run's directory once it exists."""

    def __init__(self, plan: Plan, *, quiet: bool) -> None:
        self.path: Path | None = None
        self._plan = plan
        self._quiet = quiet
        self._console = Console(stderr=True)
        self._live = self._console.is_terminal and not quiet
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[cells]} conversations, {task.completed}/{task.total} turns"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[speed]}"),
            console=self._console,
            auto_refresh=False,
            disable=not self._live,
        )
        self._task: TaskID | None = None
        self._launch = ""
        self._cells = 0
        self._cells_done = 0
        self._turns: dict[Cell, list[TurnRecord]] = {}
        """What was told of each conversation that has not ended yet: several are played at a time."""

    def __enter__(self) -> ProgressDisplay:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def show(self, event: messages.Progress) -> None:
        match event:
            case RunStarted():
                self._begin(event)
            case WorkerStarted(model, launch, launches):
                self._launch = f"launch {launch + 1}/{launches} " if launches > 1 else ""
                self._say(f"{model}: {self._launch}loading …", lasting=False)
            case Loaded(report):
                for notice in report.notices:
                    self._say(f"note: {notice}")
            case LoadFailed(failure):
                self._say(f"could not be loaded: {failure.message}")
            case WorkerDied(model, _, failure):
                self._say(f"{model}: worker ended: {failure.kind}: {failure.message}")
            case TurnDone(record):
                self._turn(record)
            case CellDone(cell):
                self._cell(cell)

    def _begin(self, event: RunStarted) -> None:
        self.path = event.path
        self._cells, self._cells_done = event.cells, event.cells_done
        if event.resumed:
            self._say(f"going on with {event.path}: {event.cells_done} of {event.cells} conversations are there")
        else:
            self._say(f"{event.path}: {event.cells} conversations, {event.turns} turns")
        self._task = self._progress.add_task(
            "loading", total=event.turns, completed=event.turns_done, cells=self._of_cells(), speed=""
        )
        self._progress.refresh()

    def _turn(self, record: TurnRecord) -> None:
        cell = record.circumstances.cell
        if record.failure is not None:
            where = f"{cell.model} {cell.sampling} {cell.conversation_id} turn {record.turn_index}"
            self._say(f"failed: {where}: {record.failure.kind}: {record.failure.message}")
        warm = record.circumstances.phase == "warmup"
        if not warm:
            self._turns.setdefault(cell, []).append(record)
        if self._live and self._task is not None:
            what = self._launch + ("warm-up" if warm else f"{cell.sampling} {_who(cell)}")
            self._progress.update(
                self._task,
                advance=0 if warm else 1,
                description=escape(f"{cell.model} {what}"),
                speed=_speed([record]),
            )
            self._progress.refresh()

    def _cell(self, cell: Cell) -> None:
        self._cells_done += 1
        turns = self._turns.pop(cell, [])
        if self._live and self._task is not None:
            self._progress.update(self._task, cells=self._of_cells())
        if turns and not self._live:
            at_a_time = f", {cell.concurrency} at a time" if cell.concurrency > 1 else ""
            name = f"{cell.model} {cell.sampling} {cell.conversation_id} repeat {cell.repeat}{at_a_time}"
            self._say(f"[{self._cells_done}/{self._cells}] {name}: {len(turns)} turns {_speed(turns)}")

    def _of_cells(self) -> str:
        return f"{self._cells_done}/{self._cells}"

    def _say(self, text: str, *, lasting: bool = True) -> None:
        if self._quiet:
            return
        if self._live and not lasting and self._task is not None:
            self._progress.update(self._task, description=escape(text))
            self._progress.refresh()
        else:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _who(cell: Cell) -> str:
    return cell.conversation_id if cell.concurrency == 1 else f"{cell.concurrency} conversations at a time"


def _speed(records: list[TurnRecord]) -> str:
    speeds = [speed for record in records if (speed := METRICS["decode_tokens_per_s"].formula(record)) is not None]
    return f"{sum(speeds) / len(speeds):.1f} tok/s" if speeds else ""
