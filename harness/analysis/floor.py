"""What a machine's numbers differ by though nothing changed: measured once, and stored beside the window.

Runs of identical work (`harness calibrate`) are taken as nights. Every cell that a rule judges has its own noise – the
first token of one model is not the last of another – so that each has its own `Floor`, made of the very numbers the
gate would judge (`gating.measured`), relative to the anchor where the rules name one.

A floor of runs in a row does not know what differs from one day to the next: runs of one sitting are one night of more
launches (`gating.window.by_sitting`), and tell what launches vary by. Of nights the window's tell, and where they
differ more than the calibration's, they are believed alone (`decide`). What a rule may ask (`Resolution`) takes each
run as a night: it is what can be held from day to day only as far as days do not differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from harness.analysis.baselines import device_of
from harness.analysis.decide import Floor, components, launches_needed, resolvable
from harness.analysis.frames import Run
from harness.analysis.gating.cells import Cell, assigned
from harness.analysis.gating.measured import MOST_BY_AUTO, Floors, Measured
from harness.analysis.gating.window import against
from harness.config.rules import Gating, Rule
from harness.errors import StoreError, UsageError
from harness.store import replace_file

FLOOR = "floor.json"
FLOOR_FORMAT = 2
FEWEST_RUNS = 3
_BROKEN = (OSError, KeyError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The noise of one cell, as one rule sees it."""

    metric: str
    statistic: str | None
    cell: Cell
    ratio: bool
    """Whether the numbers are logarithms, so that differences are ratios; else they are in the metric's unit."""
    floor: Floor


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was found out about a config on a device."""

    runs: tuple[str, ...]
    """Names, the oldest first."""
    device: str
    """As in `baselines.device_of`."""
    config: str
    """Name of the config."""
    launches: int
    """Of each run and model."""
    anchor: str | None
    cells: tuple[Calibrated, ...]

    def of(self, rule: Rule, cell: Cell, anchor: str | None) -> Floor | None:
        """The noise of a cell; None where it was not calibrated, or against another anchor."""
        speed = rule.kind == "speed"
        wanted = (rule.subject, rule.statistic, cell, _is_ratio(rule))
        return next(
            (
                each.floor
                for each in self.cells
                if (each.metric, each.statistic, each.cell, each.ratio) == wanted
                and (not speed or anchor == self.anchor)
            ),
            None,
        )

    def must_be_of(self, run: Run) -> None:
        """Raises UsageError where a run is of another device or config."""
        own = (device_of(run.manifest["environment"]), str(run.manifest["config_name"]))
        if own != (self.device, self.config):
            fact = f"is of {own[1]} on {own[0]}, and the calibration of {self.config} on {self.device}"
            raise UsageError(run.run_id, fact, "calibrate here: harness calibrate")

    def floors(self, gating: Gating) -> Floors:
        """As `gate` takes them."""
        return lambda rule, cell: self.of(rule, cell, gating.anchor)


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a rule may ask of one cell. Numbers are of the scale of `Calibrated`: of logarithms, or in the unit."""

    rule: Rule
    calibrated: Calibrated
    margin: float | None
    """None: `auto`."""
    resolvable: float
    """The smallest margin that the config's launches, with the confirming ones, can hold."""
    needed: int | None
    """Launches a night that would make the margin resolvable; None where it is, or no number would."""

    @property
    def holds(self) -> bool:
        """Whether the margin can be held, or, of `auto`, one that is not too large to be of use."""
        auto = MOST_BY_AUTO if self.calibrated.ratio else math.inf
        return self.resolvable <= (auto if self.margin is None else self.margin)


def calibrate(runs: Sequence[Run], gating: Gating) -> tuple[Calibration, list[Resolution]]:
    """The noise of every cell of speed and memory that the rules judge, from runs of identical work, oldest first, and
    what the rules may ask of it.

    Raises ValueError where there are fewer than `FEWEST_RUNS`, UsageError where a rule is about what no run has.
    """
    if len(runs) < FEWEST_RUNS:
        raise ValueError(f"{len(runs)} runs do not tell how much runs differ")
    *earlier, last = runs
    held = against(last, earlier)
    measured = Measured(gating, held, {}, lambda rule, cell: None)
    found, kept = [], []
    for rule, cells in assigned(gating.parsed, (last, earlier[-1])):
        for cell in cells if rule.metric is not None else ():
            if rule.kind == "speed" and cell.model == gating.anchor:
                continue  # it would be relative to itself
            told = measured.values(rule, cell)
            if told is not None:
                apart, nights, margin = told
                about = Calibrated(rule.subject, rule.statistic, cell, _is_ratio(rule), components(apart))
                found.append((rule, about, margin))
                kept.append(replace(about, floor=components(nights)))
    launches = int(last.plan["launches"])
    together = launches + gating.confirm_launches
    resolutions = []
    for rule, about, margin in found:
        smallest = resolvable(about.floor, together, len(found))
        needed, wanted = None, (MOST_BY_AUTO if about.ratio else math.inf) if margin is None else margin
        if wanted < smallest:
            needed = launches_needed(about.floor, wanted, len(found), gating.confirm_launches)
        resolutions.append(Resolution(rule, about, margin, smallest, needed))
    calibration = Calibration(
        tuple(run.run_id for run in runs),
        device_of(last.manifest["environment"]),
        str(last.manifest["config_name"]),
        launches,
        gating.anchor,
        tuple(kept),
    )
    return calibration, resolutions


def _is_ratio(rule: Rule) -> bool:
    return rule.kind != "memory" or rule.margin is None or rule.margin.relative


def write_floor(path: Path, calibration: Calibration) -> None:
    """Raises StoreError where it cannot be written."""
    text = orjson.dumps({"format": FLOOR_FORMAT, **asdict(calibration)}, option=orjson.OPT_INDENT_2)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text + b"\n")
    except OSError as error:
        raise StoreError(str(path), f"cannot be written: {error.strerror or error}", "choose another place") from error


def _must_be_noise(floor: Floor) -> None:
    """Raises ValueError, or TypeError where something is no number."""
    known = (floor.launch, floor.launch_freedom, floor.between, floor.nights, floor.launches)
    told = [each for each in (floor.autocorrelation, floor.drift) if each is not None]
    if not all(math.isfinite(each) for each in (*known, *told)) or min(known) < 0:
        raise ValueError("a variance is no number from 0 up")
    if floor.nights < 1 or floor.launches < 1:
        raise ValueError("noise of no runs, or of no launches")


def read_floor(path: Path) -> Calibration | None:
    """None where there is no calibration. Raises StoreError where the file is none, or of another format."""
    try:
        told: dict[str, Any] = orjson.loads(path.read_bytes())
        number = told["format"]
        if number == FLOOR_FORMAT:
            cells = tuple(
                Calibrated(**{**each, "cell": Cell(**each["cell"]), "floor": Floor(**each["floor"])})
                for each in told["cells"]
            )
            for each in cells:
                _must_be_noise(each.floor)
            device, config, launches = str(told["device"]), str(told["config"]), int(told["launches"])
            return Calibration(tuple(told["runs"]), device, config, launches, told["anchor"], cells)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except _BROKEN as error:
        raise StoreError(str(path), f"cannot be read: {error}", "calibrate again: harness calibrate") from error
    raise StoreError(str(path), f"format {number}, this version reads {FLOOR_FORMAT}", "use a matching version")
