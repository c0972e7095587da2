"""Whether the meter is right on this machine, what it costs, and how small a difference can be told here.

Four parts: what measuring costs; a model of known times on the hand-cranked clock, exact to the nanosecond; the same in
real time, in worker processes; and the spread of launches that do the very same work, from which follows what size of
difference so many launches can tell. A meter that is wrong resolves nothing, so the last part is then left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.config.plan import Plan
from harness.errors import ModelError
from harness.runner.messages import Progress, WorkerStarted
from harness.studies.known import Exact, compare_exactly, write_scripts
from harness.studies.meter_cost import ClockFacts, Cost, clock_facts, meter_costs
from harness.studies.realtime import RealTime, compare_in_real_time
from harness.studies.replay import replay

if TYPE_CHECKING:
    from harness.analysis.resolution import Spread

MODEL = "builtin:pico"
THREADS = 1
"""On a processor that others use too, threads that wait for each other multiply the noise of a model this small."""
METRICS = ("ttft_s", "tpot_s")
LAUNCHES = 6
"""By default: a minute on two processors, and in nine of ten cases (F-distribution) a spread within a factor of two of
that of ten more."""
LAUNCHES_SHOWN = (2, 3, 5, 10, 20)
REPEATS = 10
NEW_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Resolution:
    """The smallest difference between two sides that so many launches on each of them tell from nothing, as a share:
    0.04 is four per cent."""

    metric: str
    launches: int
    difference: float
    low: float
    high: float
    """The same at either end of the interval of the spread: a few launches know their own spread only roughly."""


@dataclass(frozen=True, slots=True)
class Noise:
    """How much identical work differs, and what that leaves to be told."""

    path: Path
    spreads: tuple[Spread, ...]
    resolutions: tuple[Resolution, ...]


@dataclass(frozen=True, slots=True)
class Selftest:
    """Everything that was found out."""

    clock: ClockFacts
    costs: tuple[Cost, ...]
    exact: Exact
    real_time: RealTime
    noise: Noise | None
    """None where the meter is wrong."""

    @property
    def right(self) -> bool:
        return meter_is_right(self.exact, self.real_time)

    @property
    def too_busy(self) -> bool:
        """Whether the machine was too busy for some of what was to be seen in real time."""
        return any(row.right is None for row in self.real_time.measured)


def meter_is_right(exact: Exact, real_time: RealTime) -> bool:
    """No value deviates, and no time is one that a busy machine could not explain."""
    wrong = any(row.right is False for row in real_time.measured)
    return not (exact.deviations or real_time.deviations or wrong)


def selftest(folder: Path, launches: int, say: Callable[[str], None] = lambda line: None) -> Selftest:
    """Run all parts; the runs they make, and the scripts these play, are left in `folder`, which is made.

    `launches` (two at least) is how often the same work is launched; `say` is told what is going on, a line at a time.
    """
    say("what measuring costs …")
    clock = clock_facts()
    costs = meter_costs(folder)
    # pandas is imported only now: in the exact part no time passes, and all later times are those of workers.
    say("known times on the hand-cranked clock …")
    exact = compare_exactly(folder)
    say("known times in real time …")
    real_time = compare_in_real_time(folder, clock.smallest_step_s)
    noise = measure_noise(folder, launches, say) if meter_is_right(exact, real_time) else None
    return Selftest(clock, costs, exact, real_time, noise)


def measure_noise(folder: Path, launches: int, say: Callable[[str], None] = lambda line: None) -> Noise:
    """Launch the same work so many times, and see how much the launches differ.

    Raises ModelError where the model, which comes with the package, cannot be played on this machine.
    """

    def watch(progress: Progress) -> None:
        if isinstance(progress, WorkerStarted):
            say(f"identical work, launch {progress.launch + 1} of {progress.launches} …")

    plan = noise_plan(folder, [MODEL], launches)
    run = replay(plan, results=folder, run_id="noise", resume=None, retry_failed=False, watch=watch)
    from harness.analysis.resolution import spread

    broken = run.turns[run.turns["state"] != "done"]
    if len(broken):
        raise ModelError(
            MODEL, f"{len(broken)} turns failed: {broken['error_message'].iloc[0]}", f"look into {run.path}"
        )
    spreads = tuple(spread(run, str(plan.models[0].label), metric) for metric in METRICS)
    sizes = sorted({*LAUNCHES_SHOWN, launches})
    return Noise(run.path, spreads, tuple(resolution(one, n) for one in spreads for n in sizes))


def noise_plan(folder: Path, models: Sequence[str | Mapping[str, str]], launches: int) -> Plan:
    """The work whose launches are compared, in the speed lane: equal prompts and lengths. Scripts go to `folder`."""
    return write_scripts(
        folder / "noise-scripts",
        {},
        models=list(models),
        lane="speed",
        sampling={"max_new_tokens": NEW_TOKENS},
        repeats=REPEATS,
        launches=launches,
        threads=THREADS,
    )


def resolution(spread: Spread, launches: int) -> Resolution:
    """What so many launches per side can tell, where launches of the same work have this spread."""
    from harness.analysis.resolution import smallest_ratio

    sds = (spread.between, spread.between_low, spread.between_high)
    difference, low, high = (smallest_ratio(sd, launches) - 1 for sd in sds)
    return Resolution(spread.metric, launches, difference, low, high)
