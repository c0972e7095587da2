"""The two sides of a comparison: turns of one run each, and which sides are set against each other.

A side is a run, or the turns in it of one model, one sampling, one level of concurrency, or any combination of them.
What neither side pins down is matched: of `Side(run, model="a")` and `Side(run, model="b")` turns of the same sampling
and the same level belong together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from harness.analysis.arrays import SETTING, Axis, View, view
from harness.analysis.frames import Run
from harness.documents import did_you_mean
from harness.errors import UsageError

Setting = tuple[str, str, int]
"""(model, sampling, concurrency)"""


@dataclass(frozen=True, slots=True)
class Side:
    """Turns of one run. None: those of every model, sampling or level."""

    run: Run
    model: str | None = None
    sampling: str | None = None
    concurrency: int | None = None

    @property
    def label(self) -> str:
        """What is pinned down, or the run's name where nothing is."""
        named = [self.model, self.sampling, None if self.concurrency is None else f"concurrency={self.concurrency}"]
        return ", ".join(name for name in named if name is not None) or self.run.run_id

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Every (model, sampling, concurrency) of the side, in the order of the config."""
        axes = axes_of(self.run)
        return tuple(
            product(*([getattr(self, name)] if getattr(self, name) is not None else axes[name] for name in SETTING))
        )

    @property
    def turns(self) -> View:
        """The rows of `Run.turns` that belong to the side."""
        everything = view(self.run)
        mask = np.ones(len(everything), dtype=bool)
        for name in SETTING:
            wanted = getattr(self, name)
            if wanted is not None:
                mask &= (self.run.turns[name] == wanted).to_numpy(dtype=bool)
        return everything.where(mask)

    @property
    def specs(self) -> tuple[Mapping[str, Any], ...]:
        """The model specs of the side, as the plan holds them."""
        models = {model for model, _, _ in self.settings}
        return tuple(spec for spec in self.run.plan["models"] if spec["label"] in models)

    @property
    def launches(self) -> tuple[Mapping[str, Any], ...]:
        """What the manifest tells of the launches that loaded a model of the side."""
        models = {model for model, _, _ in self.settings}
        return tuple(
            entry for entry in self.run.manifest["launches"] if entry["model"] in models and not entry.get("failure")
        )


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sides, set against each other."""

    baseline: Side
    candidate: Side

    @property
    def compared(self) -> tuple[Axis, ...]:
        """On which axes the sides are different by name; on none where two runs of the same setting are compared."""
        return tuple(name for name in SETTING if getattr(self.baseline, name) != getattr(self.candidate, name))

    @property
    def matched(self) -> tuple[str, ...]:
        """The axes that neither side pins down. Raises ValueError where only one of them does."""
        ours, theirs = (tuple(name for name in SETTING if getattr(side, name) is None) for side in self)
        if ours != theirs:
            odd = ", ".join(sorted({*ours} ^ {*theirs}))
            raise ValueError(f"only one side pins down {odd}: {self.baseline.label} against {self.candidate.label}")
        return ours

    def __iter__(self) -> Iterator[Side]:
        return iter((self.baseline, self.candidate))


def axes_of(run: Run) -> dict[Axis, Sequence[Any]]:
    """What a run has on each axis of `SETTING`, in the order of its config."""
    return {
        "model": [spec["label"] for spec in run.plan["models"]],
        "sampling": [sampling["name"] for sampling in run.plan["samplings"]],
        "concurrency": list(run.plan.get("concurrency", [1])),  # format 1 knew no other
    }


def within(run: Run, axis: Axis, base: str | None = None) -> tuple[Pair, ...]:
    """Every other value of an axis against one of them – `base`, or the first of the config – for each combination of
    what the run has on the other axes.

    Raises UsageError where there is nothing to compare, or no such base.
    """
    axes = axes_of(run)
    if axis not in axes:
        raise UsageError(f"by={axis}", f"there is no such axis; there are {', '.join(axes)}", did_you_mean(axis, axes))
    values = axes[axis]
    if len(values) < 2:
        raise UsageError(run.run_id, f"has one {axis}, {values[0]}: nothing to compare it with", _by_others(axes, axis))
    named = {str(value): value for value in values}
    if base is not None and base not in named:
        raise UsageError(run.run_id, f"has no {axis} {base}", did_you_mean(base, named))
    first = values[0] if base is None else named[base]
    others = [axes[name] if name != axis else [first] for name in SETTING]
    baselines = [dict(zip(SETTING, setting, strict=True)) for setting in product(*others)]
    return tuple(
        Pair(Side(run, **setting), Side(run, **{**setting, axis: value}))
        for value in values
        if value != first
        for setting in baselines
    )


def across(baseline: Run, candidate: Run) -> tuple[tuple[Pair, ...], tuple[Side, ...]]:
    """The settings of two runs that belong together, and the sides that are left without a counterpart.

    Settings belong together by equal names; on an axis where both runs have a single value, whatever these are called.
    Raises UsageError where no two of them do.
    """
    ours, theirs = axes_of(baseline), axes_of(candidate)
    pairs: list[Pair] = []
    alone: list[Side] = []
    sole = {name for name in SETTING if len(ours[name]) == len(theirs[name]) == 1}
    counterpart = {_name(setting, sole): setting for setting in product(*(theirs[name] for name in SETTING))}
    for setting in product(*(ours[name] for name in SETTING)):
        other = counterpart.pop(_name(setting, sole), None)
        if other is None:
            alone.append(Side(baseline, *setting))
        else:
            pairs.append(Pair(Side(baseline, *setting), Side(candidate, *other)))
    if not pairs:
        raise UsageError(
            f"{baseline.run_id}, {candidate.run_id}",
            "no setting of one is a setting of the other",
            "give models and samplings the same names, or compare runs of one setting each",
        )
    return tuple(pairs), (*alone, *(Side(candidate, *setting) for setting in counterpart.values()))


def _name(setting: tuple[Any, ...], sole: set[Axis]) -> tuple[Any, ...]:
    return tuple(None if name in sole else value for name, value in zip(SETTING, setting, strict=True))


def _by_others(axes: Mapping[Axis, Sequence[Any]], axis: Axis) -> str:
    several = [name for name in SETTING if name != axis and len(axes[name]) > 1]
    return f"use --by {' or --by '.join(several)}" if several else "name a second run"
