"""A night: look at the machine, play, keep, judge, play again what is suspicious, judge anew, and tell.

    results/<run_id>/             an ordinary run, with verdict.json, junit.xml, nightly.md and .html beside its reports
    results/<run_id>-confirm/     further launches of what was suspicious, where anything was
    results/history/              the night file, written before there is a verdict: publishing depends on none
    results/trend.html            all nights that were kept

Every step can be done again. A night that was ended – by a signal, a full disk, a lost machine – is gone on with by the
same command, which finds what is there: the run under its name, or else the last night of the very same config that has
no verdict yet and was begun at most half a day ago. An older one stays as it is: it was another night.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from harness.analysis.baselines import device_of, history_file, history_folder, other_devices, window, window_folder
from harness.analysis.decide import FEWEST_NIGHTS
from harness.analysis.floor import FLOOR, read_floor
from harness.analysis.forced import known
from harness.analysis.frames import Run, load
from harness.analysis.gate import gate
from harness.analysis.gating.measured import Floors
from harness.analysis.history import read_history
from harness.analysis.nights import keep
from harness.analysis.trend import trend
from harness.analysis.verdict import Gate
from harness.config.plan import Plan
from harness.config.rules import Gating
from harness.errors import Mistake, NotComparableError, NotReadyError, StoreError, UsageError
from harness.exchange.publish import publish
from harness.forced import Known
from harness.meters.accelerators import open_nvml
from harness.meters.environment import environment
from harness.meters.readiness import readiness
from harness.report.files import write_reports
from harness.report.gate_markdown import gate_markdown
from harness.report.page.night import NIGHT_PAGE, write_night_page
from harness.report.page.trend import write_trend_page
from harness.runner.messages import Progress, Watch
from harness.runner.run import Wanted, execute
from harness.store import RunWriter, read_manifest, replace_file, runs
from harness.studies.bless import VERDICT, verdict_of
from harness.studies.budget import Budget, BudgetSpentError, by_information, setting_of
from harness.studies.confirming import narrowed, suspicious
from harness.studies.preflight import Finding, preflight, stops
from harness.studies.unheld import unheld

PAGE = "nightly.md"
TREND = "trend.html"
_SAME_NIGHT = timedelta(hours=12)
_PLAYED = 0.8
"""Of a budget, what the night itself may take; the rest is for launches that confirm."""

Playing = Callable[[Plan], AbstractContextManager[Watch]]
"""What is told of a run that begins, as long as it lasts."""


@dataclass(frozen=True, slots=True)
class Night:
    """What came of a night."""

    path: Path
    """The run's directory."""
    kept: Path
    """Its night file."""
    findings: tuple[Finding, ...]
    gate: Gate
    cut: bool
    """Whether the budget left something out."""
    annotations: tuple[str, ...]
    """Lines for the log of GitHub Actions; none elsewhere."""
    problems: tuple[StoreError, ...]
    """Files that could not be written after the night was kept. The verdict stays what it is."""

    def exit_code(self, *, strict: bool) -> int:
        """That of the gate; a night that cannot tell ends with 0 unless `strict`."""
        return 0 if self.gate.answer == "cannot tell" and not strict else self.gate.exit_code


def nightly(
    plan: Plan,
    *,
    results: Path,
    run_id: str | None = None,
    budget_s: float | None = None,
    anyway: bool = False,
    playing: Playing = lambda plan: nullcontext(lambda progress: None),
    found: Callable[[Sequence[Finding]], None] = lambda findings: None,
) -> Night:
    """Carry a night out, or go on with it. `budget_s` replaces the budget of the config; `anyway` plays in spite of
    what the look at the machine found; `found` is told of that.

    Raises UsageError where the config has no gate, NotReadyError where nothing could be measured now, StoreError where
    another night is under way, a baseline cannot be read, or the run or its night file cannot be written, and what a
    run or a gate raises.
    """
    gating = plan.config.gate
    if gating is None:
        raise UsageError(plan.config.source, "has no gate section", "write rules into it: docs/gate.md")
    with _alone(results):
        return _Night(plan, gating, results, run_id, budget_s or gating.budget_s, playing).run(found, anyway=anyway)


@contextmanager
def _alone(results: Path) -> Iterator[None]:
    """Two nights at a time would measure each other."""
    try:
        results.mkdir(parents=True, exist_ok=True)
        lock = FileLock(results / ".nightly.lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise StoreError(str(results), "another night is under way", "wait for it, or stop it") from None
    except OSError as error:
        fact = f"cannot be written: {error.strerror or error}"
        raise StoreError(str(results), fact, "choose another --results") from error
    with lock:
        yield


class _Night:
    """One night in progress."""

    def __init__(
        self, plan: Plan, gating: Gating, results: Path, run_id: str | None, budget_s: float | None, playing: Playing
    ) -> None:
        self._plan = plan
        self._gating = gating
        self._results = results
        self._playing = playing
        self._budget_s = budget_s
        self._began = time.monotonic()
        self._run_id = run_id or _unfinished(results, plan.config_hash) or _new(results, plan.config_hash)
        self._device = device_of(environment())
        blessed = window(results, self._device, plan.config.name, gating.window)
        self._window = tuple(night for night in blessed if night.run_id != self._run_id)
        self._floors = self._calibrated()
        self._budget = self._dealt()

    def run(self, found: Callable[[Sequence[Finding]], None], *, anyway: bool) -> Night:
        before = self._window[-1].manifest["environment"] if self._window else None
        findings = preflight(readiness(self._results, open_nvml()), before)
        found(findings)
        if (against := stops(findings)) and not anyway:
            raise NotReadyError([Mistake(each.about, each.line, "nothing was played") for each in against])
        notes = {"night": self._notes(findings)}
        path = self._execute(self._plan, self._run_id, self._budget, notes, force=self._blessed_replies())
        _annotate(path, night=self._notes(findings))
        run = load(path)
        kept = keep(run, history_file(self._results, run.run_id))
        judged = self._judged(run)
        if confirm := self._confirm(judged, run):
            judged = self._confirmed(judged, run, confirm)
        show = partial(write_night_page, judged, path / NIGHT_PAGE, trend=self._results / TREND)
        problems = [
            problem
            for write in (lambda: write_reports(run), lambda: _write_page(judged, path), show, self._write_trend)
            for problem in _written(write)
        ]
        told = publish(judged, path)  # verdict.json comes last: with it the night is over
        return Night(
            path=path,
            kept=kept,
            findings=findings,
            gate=judged,
            cut=self._cut,
            annotations=told.annotations,
            problems=(*problems, *told.problems),
        )

    def _write_trend(self) -> None:
        write_trend_page(trend(read_history(history_folder(self._results))), self._results / TREND)

    def _blessed_replies(self) -> list[Known] | None:
        """What the nights of the window said, to be asked of tonight's models how likely it is; None where no rule is
        about that."""
        if all(rule.kind != "text" for rule in self._gating.parsed):
            return None
        return [reply for night in self._window for reply in known(night)]

    @property
    def _cut(self) -> bool:
        return self._budget is not None and self._budget.cut

    def _notes(self, findings: Sequence[Finding]) -> dict[str, Any]:
        return {
            "preflight": [asdict(finding) for finding in findings],
            "budget_s": self._budget_s,
            "cut": self._cut,
            "confirmed_by": None,
        }

    def _calibrated(self) -> Floors:
        """What a calibration knows of the noise. Where its runs were blessed and make up the window, the window knows
        it already: counted twice, they would seem to be twice as many."""
        found = read_floor(window_folder(self._results, self._device, self._plan.config.name) / FLOOR)
        if found is None or sum(night.run_id in found.runs for night in self._window) >= FEWEST_NIGHTS:
            return lambda rule, cell: None
        return found.floors(self._gating)

    def _dealt(self) -> Budget | None:
        """The budget of the night itself."""
        if self._budget_s is None:
            return None
        order = by_information(self._plan, self._gating, self._last_verdict())
        return Budget(self._plan, self._budget_s * _PLAYED, order)

    def _last_verdict(self) -> dict[str, Any] | None:
        """What was said of the night before this one."""
        for path, manifest in _newest_first(self._results):
            with suppress(StoreError):  # what another version wrote is no business of this night
                verdict = verdict_of(path.name, self._results)
                if verdict is not None and manifest.get("config_name") == self._plan.config.name:
                    return verdict
        return None

    def _execute(
        self,
        plan: Plan,
        run_id: str,
        budget: Budget | None,
        notes: dict[str, Any],
        wanted: Wanted = lambda cell: True,
        force: Sequence[Known] | None = None,
    ) -> Path:
        """Play what is missing of a run, as far as the budget goes."""
        with self._playing(plan) as watch:

            def both(event: Progress) -> None:
                watch(event)
                if budget is not None:
                    budget.watch(event)

            def asked(cell: Any) -> bool:
                return wanted(cell) and (budget is None or budget.wanted(cell))

            try:
                return execute(
                    plan, results=self._results, run_id=run_id, watch=both, wanted=asked, notes=notes, force=force
                )
            except BudgetSpentError:  # what was played is there; the run comes to its end without the rest
                return execute(plan, results=self._results, run_id=run_id, wanted=lambda cell: False)

    def _judged(self, run: Run, confirm: Sequence[Run] = ()) -> Gate:
        if self._window:
            return gate(run, self._window, self._gating, self._floors, confirm=confirm)
        others = other_devices(self._results, self._device, self._plan.config.name)
        return unheld(run, self._gating, self._device, others)

    def _confirm(self, judged: Gate, run: Run) -> Run | None:
        """Further launches of the settings that are suspicious, and of the anchor they are relative to."""
        again = suspicious(judged, self._gating)
        left_s = None if self._budget_s is None else self._began + self._budget_s - time.monotonic()
        if not again or (left_s is not None and left_s <= 0):
            return None
        plan = narrowed(self._plan, again, self._gating.confirm_launches)
        budget = None if left_s is None else Budget(plan, left_s, again)
        name = next(each for each in _names(f"{run.run_id}-confirm") if self._may_be(each, plan))
        path = self._execute(
            plan,
            name,
            budget,
            {"confirms": run.run_id},
            lambda cell: setting_of(cell) in again,
            force=self._blessed_replies(),
        )
        _annotate(run.path, night={**run.manifest["night"], "confirmed_by": name})
        return load(path)

    def _may_be(self, name: str, plan: Plan) -> bool:
        """Whether a run of this name is to be made, or gone on with: a night whose rules were changed has another."""
        path = self._results / name
        return not path.exists() or read_manifest(path)["config_hash"] == plan.config_hash

    def _confirmed(self, judged: Gate, run: Run, confirm: Run) -> Gate:
        """The judgement with the further launches; without them where something was changed in between, or where the
        budget has not left a whole one."""
        try:
            return self._judged(run, [confirm])
        except (NotComparableError, UsageError) as error:
            return replace(judged, notes=(*judged.notes, *str(error).splitlines()))


def _unfinished(results: Path, config_hash: str) -> str | None:
    """The night to go on with: the last one of this config, if it has no verdict and was begun a few hours ago."""
    now = datetime.now(UTC)
    for path, manifest in _newest_first(results):
        lately = abs(now - datetime.fromisoformat(manifest["created_at"])) < _SAME_NIGHT
        if lately and "night" in manifest and manifest["config_hash"] == config_hash:
            return None if (path / VERDICT).exists() else path.name
    return None


def _newest_first(results: Path) -> list[tuple[Path, Mapping[str, Any]]]:
    """The runs that this version reads, with their manifests."""
    found = []
    for path in runs(results):
        with suppress(StoreError, KeyError, ValueError):
            manifest = read_manifest(path)
            found.append((datetime.fromisoformat(manifest["created_at"]), path, manifest))
    return [(path, manifest) for _, path, manifest in sorted(found, key=lambda each: each[0], reverse=True)]


def _new(results: Path, config_hash: str) -> str:
    """A name that no run has, also where the clock was set back."""
    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{config_hash[:6]}"
    return next(each for each in _names(name) if not (results / each).exists())


def _names(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}-{number}" for number in count(2))


def _annotate(path: Path, **values: Any) -> None:
    """Put values into the manifest of a run that nobody writes to."""
    with RunWriter(path, {**read_manifest(path), **values}) as writer:
        writer.save_manifest()


def _written(write: Callable[[], object]) -> list[StoreError]:
    """What kept files from being written."""
    try:
        write()
    except StoreError as error:
        return [error]
    return []


def _write_page(judged: Gate, folder: Path) -> None:
    try:
        replace_file(folder / PAGE, gate_markdown(judged).encode())
    except OSError as error:
        raise StoreError(str(folder / PAGE), f"cannot be written: {error.strerror or error}") from error
