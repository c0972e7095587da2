"""How a study gets on, on stderr: a live table of how the settings stand on a terminal, plain lines elsewhere.

As with a run, it is drawn when something has happened, never by a clock of its own.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness.analysis.tuned import Rung
from harness.analysis.tuning import Goals
from harness.report.tuning import headers, rows
from harness.report.units import printable
from harness.report.words import several
from harness.runner.messages import CellDone, LoadFailed, Progress, RunStarted, TurnDone, WorkerDied, WorkerStarted
from harness.studies.tune import PartStarted, RungDone, StudyStarted

_ROWS = 20
"""Settings that the live table shows; those on the front come first."""


class TuneDisplay:
    """Shows what a study tells. `path` is its directory once it exists."""

    def __init__(self, goals: Goals, default: str, *, quiet: bool) -> None:
        self.path: Path | None = None
        self._goals = goals
        self._default = default
        self._console = Console(stderr=True, quiet=quiet)
        self._live = Live(console=self._console, auto_refresh=False)
        self._animated = self._console.is_terminal and not quiet
        self._standing: Table | None = None
        self._part = ""
        self._cells = (0, 0)
        self._doing = ""

    def __enter__(self) -> TuneDisplay:
        if self._animated:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def tell(self, event: StudyStarted | PartStarted | RungDone) -> None:
        match event:
            case StudyStarted(path, resumed):
                self.path = path
                self._say(f"going on with {path}" if resumed else f"study {path}")
            case PartStarted(name, plan):
                self._part = name
                sizes = [
                    (len(plan.samplings), "setting"),
                    (len(plan.conversations), "conversation"),
                    (plan.repeats, "repeat"),
                    (plan.launches, "launch"),
                ]
                self._say(f"{name}: {' × '.join(several(n, what) for n, what in sizes)} = {plan.n_turns} turns")
            case RungDone(rung, goes_on):
                self._rung(rung, goes_on=goes_on)

    def show(self, event: Progress) -> None:
        """What the runner tells of the run that is under way."""
        match event:
            case RunStarted():
                self._cells, self._doing = (event.cells_done, event.cells), "loading"
            case WorkerStarted(_, launch, launches):
                self._doing = f"launch {launch + 1}/{launches}: loading" if launches > 1 else "loading"
            case LoadFailed(failure):
                self._say(f"could not be loaded: {failure.message}")
            case WorkerDied(_, _, failure):
                self._say(f"worker ended: {failure.kind}: {failure.message}")
            case TurnDone(record):
                cell = record.circumstances.cell
                self._doing = f"{cell.sampling}, {cell.conversation_id}"
                if record.failure is not None:
                    what = f"{record.failure.kind}: {record.failure.message}"
                    self._say(f"failed: {self._doing} turn {record.turn_index}: {what}")
            case CellDone():
                self._cells = (self._cells[0] + 1, self._cells[1])
        self._draw()

    def _rung(self, rung: Rung, *, goes_on: bool) -> None:
        listed = rows(self._goals, rung.standings, rung.stopped, self._default)
        if self._animated:
            self._standing = _table(headers(self._goals), listed[:_ROWS])
            self._draw()
            return
        names = [figure.name for figure in self._goals.figures]
        for setting, *figures, _, state in listed:
            if state:
                told = ", ".join(f"{name} {value}" for name, value in zip(names, figures, strict=True))
                self._say(f"  {setting}: {told}: {state}")
        if goes_on:
            going = len(rung.standings) - len(rung.stopped)
            self._say(f"after {rung.runs[-1]}: {going} of {len(rung.standings)} settings go on")

    def _draw(self) -> None:
        if self._animated:
            status = Text(printable(f"{self._part}: {self._cells[0]}/{self._cells[1]} conversations, {self._doing}"))
            self._live.update(Group(*([self._standing] if self._standing else []), status), refresh=True)

    def _say(self, text: str) -> None:
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def _table(header: list[str], body: list[list[str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, name in enumerate(header):
        table.add_column(name, justify="left" if place in (0, len(header) - 1) else "right", overflow="fold")
    for cells in body:
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table
