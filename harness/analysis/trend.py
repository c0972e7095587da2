"""Trends: a line per setting and watched figure over the nights, its change points, and what else changed then.

A change point names the first bad night – or the first better one – and everything that is known to differ between that
night and the last before it: what `fairness` finds between the two night files, and the git commits in between. That
something changed on the same night is no proof that it did it; and which night was the first is itself only known
within some nights (`changepoints`), so what changed on those is told too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from harness.analysis import frames
from harness.analysis.arrays import SETTING
from harness.analysis.changepoints import FEWEST, Change, Detector, change_points, detector
from harness.analysis.fairness import Difference, fairness
from harness.analysis.frames import Run
from harness.analysis.history import History
from harness.analysis.nightly_values import Watched
from harness.analysis.pairing import work
from harness.analysis.sides import Pair, Setting, Side
from harness.errors import StoreError
from harness.meters.commits import commits_between


@dataclass(frozen=True, slots=True)
class Changed:
    """What differs between two nights that follow each other on a line."""

    before: str
    """The run_id of either night."""
    after: str
    differences: tuple[Difference, ...]
    commits: tuple[str, ...] | None
    """None where nobody knows."""
    reason: str = ""
    """Why nothing can be said."""

    @property
    def told(self) -> tuple[str, ...]:
        """A line for each thing: `GPU driver: 575.1 → 580.2`."""
        lines = [f"{each.field}: {each.baseline} → {each.candidate}" for each in self.differences]
        return (*lines, *([self.reason] if self.reason else []))


@dataclass(frozen=True, slots=True)
class Turning:
    """A change point of a line."""

    change: Change
    """In logarithms where values are compared by their ratio."""
    scale: str
    better: bool | None
    """Whether the change is one for the better; None where nobody can say."""
    first: str
    """The run_id of the first night that lies elsewhere."""
    among: tuple[str, ...]
    """The nights of which it surely is one (95 %)."""
    changed: Changed
    """On the first night."""
    near: tuple[Changed, ...]
    """On the others of `among`, as far as anything did."""

    @property
    def effect(self) -> float:
        """After / before, or after − before."""
        return self._shown(self.change.shift)

    @property
    def low(self) -> float:
        return self._shown(self.change.low)

    @property
    def high(self) -> float:
        return self._shown(self.change.high)

    @property
    def before(self) -> float:
        """The mean of the nights up to the change, and of those from it on, in the figure's unit."""
        return self._shown(self.change.before)

    @property
    def after(self) -> float:
        return self._shown(self.change.after)

    def _shown(self, value: float) -> float:
        return math.exp(value) if self.scale == "ratio" else value


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """A figure of one setting over the nights of one config on one device."""

    device: str
    config: str
    setting: Setting
    figure: Watched
    values: pd.DataFrame
    """The rows of `History.values`, oldest night first."""
    ended: bool
    """Whether the newest night of its config and device has no such value."""
    turnings: tuple[Turning, ...] = ()

    @property
    def note(self) -> str:
        """Why there can be no change points, and when the line came to an end."""
        few = f"{len(self.values)} nights: change points take {FEWEST}" if len(self.values) < FEWEST else ""
        return "; ".join(filter(None, [few, f"none since {self.values['run_id'].iloc[-1]}" if self.ended else ""]))

    @property
    def name(self) -> str:
        """`nano, greedy, concurrency 4`: the level where it is not 1."""
        model, sampling, level = self.setting
        return ", ".join([model, sampling, *([f"concurrency {level}"] if level != 1 else [])])


@dataclass(frozen=True, slots=True, eq=False)
class Trend:
    """All lines of a history."""

    history: History
    lines: tuple[Line, ...]
    detector: Detector
    """Who proposed the change points."""

    @property
    def turnings(self) -> tuple[tuple[Line, Turning], ...]:
        """Every change point with its line, the newest first; of one night those for the worse first."""
        found = [(line, turning) for line in self.lines for turning in line.turnings]
        order = {str(run_id): number for number, run_id in enumerate(self.history.nights["run_id"])}
        return tuple(sorted(found, key=lambda each: (-order[each[1].first], each[1].better is not False)))


def trend(history: History, repository: Path = Path(), by: Detector | None = None) -> Trend:
    """The trends of a history; commits are looked up in the git repository that `repository` lies in."""
    lines = tuple(_lines(history))
    paths = dict(zip(history.nights["run_id"], history.nights["path"], strict=True))
    ledger = _Ledger(paths, dict(zip(history.nights["run_id"], history.nights["commit"], strict=True)), repository)
    judged = tuple(replace(line, turnings=tuple(_turnings(line, len(lines), ledger, by))) for line in lines)
    return Trend(history, judged, by or detector())


def _lines(history: History) -> Iterator[Line]:
    keys = ["device", "config", *SETTING, "figure"]
    figures = {line: {each.name: each for each in watched} for line, watched in history.watched.items()}
    newest = history.nights.groupby(["device", "config"])["night"].max().to_dict()
    for _, rows in history.values.groupby(keys, sort=False):
        known = rows.head(1).to_dict("records")[0]
        device, config = known["device"], known["config"]
        setting = known["model"], known["sampling"], known["concurrency"]
        ordered = rows.sort_values("night").reset_index(drop=True)
        ended = newest[device, config] > ordered["night"].iloc[-1]
        yield Line(device, config, setting, figures[device, config][known["figure"]], ordered, bool(ended))


def _turnings(line: Line, series: int, ledger: _Ledger, by: Detector | None) -> Iterator[Turning]:
    values = line.values["value"].to_numpy(dtype=np.float64)
    scale = line.figure.scale
    if scale == "ratio":
        if not (values > 0).all():
            return
        values = np.log(values)
    nights = [str(run_id) for run_id in line.values["run_id"]]
    for change in change_points(values, series, by):
        among = range(change.earliest, change.latest + 1)
        near = (
            ledger.between(nights[night - 1], nights[night], line.setting) for night in among if night != change.first
        )
        better = None if line.figure.better == "neither" else (change.shift < 0) == (line.figure.better == "lower")
        yield Turning(
            change,
            scale,
            better,
            nights[change.first],
            tuple(nights[night] for night in among),
            ledger.between(nights[change.first - 1], nights[change.first], line.setting),
            tuple(each for each in near if each.told),
        )


class _Ledger:
    """What changed between nights, each pair of them looked at once."""

    def __init__(self, paths: dict[str, str], commits: dict[str, str | None], repository: Path) -> None:
        self._paths, self._commits = paths, commits
        self._load = cache(frames.load)
        self._log = cache(lambda earlier, later: commits_between(earlier, later, repository))
        self.between = cache(self._between)

    def _between(self, before: str, after: str, setting: Setting) -> Changed:
        try:
            runs: list[Run] = [self._load(self._paths[name]) for name in (before, after)]
            pair = Pair(*(Side(run, *setting) for run in runs))
            found = fairness(pair, work(pair))
        except StoreError as error:
            return Changed(before, after, (), None, str(error))
        commits = [None if pd.isna(self._commits[name]) else self._commits[name] for name in (before, after)]
        return Changed(before, after, found, self._log(*commits) if commits[0] != commits[1] else ())
