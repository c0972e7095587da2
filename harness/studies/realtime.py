"""The model of known times in real time: in a worker process, through the runner, on this machine.

Two recitals are played: *spin* keeps the processor busy for its times, *sleep* sleeps through them. Both overshoot a
little with every pause, and the reciter has some work of its own. How much that is on this machine is measured in this
process, before and after the run: by bare pauses, and by the same recital without any times. So a measured time must
lie in

    planned ≤ fastest measured ≤ planned + 4 · own work + 2 · pauses · lateness of a pause + one step of the clock

where own work and lateness are medians. Own work counts four times: after a pause code runs with cold caches, on a
processor whose clock may have gone down, and was seen to take twice as long; the rest is for machines not yet seen.
Only the fastest turn is judged: a busy machine makes turns longer, never shorter, and a wrong meter is wrong in all.
Where the margin reaches planned/n for a reply of n ids – what counting one id too many or too few would change – the
machine is too busy for this part to tell anything, and the exact part has to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from harness.backends.scripted import Recital, ScriptedBackend, spin
from harness.chat import Rules
from harness.chat import replay as replay_loop
from harness.conversations.script import Conversation, Turn
from harness.meters.clock import real_clock
from harness.metrics import METRICS, itl_s
from harness.records import Cell, Circumstances
from harness.runner.drive import drive
from harness.studies.known import FACTS, NS, USERS, Deviation, compared, expected_turns, known_rows, write_scripts
from harness.studies.meter_cost import as_in_a_worker
from harness.studies.replay import replay

REPEATS = 20
_LINES = ["one two three four five six seven", "a b c d e f g", "it is all the same to me"]
_IDS = 7

IDLE = Recital(lines=_LINES)
SPIN = Recital(
    lines=_LINES,
    template_s=100e-6,
    tokenize_s=100e-6,
    prefill_s=1e-3,
    token_s=200e-6,
    detokenize_s=100e-6,
    real_time="spin",
)
"""Turns of less than 3 ms: most of them fit between two interruptions, even on a busy machine."""
SLEEP = Recital(
    lines=_LINES, template_s=1e-3, tokenize_s=1e-3, prefill_s=5e-3, token_s=2e-3, detokenize_s=1e-3, real_time=True
)
"""Times well above what a sleep overshoots."""
PAUSED: Mapping[str, Recital] = {"spin": SPIN, "sleep": SLEEP}
_PAUSES: Mapping[str, Callable[[float], None]] = {"spin": spin, "sleep": time.sleep}
_ROUNDS = 50

PAUSES_IN = {"ttft_s": 3, "itl_s": 1, "tpot_s": 1, "e2e_s": 3 + (_IDS - 1) + 1}
"""How many pauses lie in a time: template, tokenizer and prefill, one per further id, and the detokenizer."""
_RATES = {"output_tokens_per_s": ("e2e_s", _IDS), "decode_tokens_per_s": ("tpot_s", 1)}
"""Rate → the time it is a number of ids over."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric of one recital: what was planned, and what came out, in the unit of the metric."""

    recital: str
    metric: str
    planned: float
    low: float
    """What the fastest turn must not be below …"""
    high: float
    """… and not above."""
    fastest: float | None
    """Of all turns; for a rate the highest. None if nothing was measured."""
    median: float | None
    right: bool | None
    """None where the machine is too busy to tell."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Tokens of one recital, summed over all its turns."""

    recital: str
    tokens: str
    expected: int
    measured: int


@dataclass(frozen=True, slots=True)
class RealTime:
    """What came of the run in real time."""

    path: Path
    turns: int
    lateness_s: Mapping[str, float]
    """By how much a bare pause overshoots: the median, by recital."""
    own_s: Mapping[str, float]
    """What the reciter and the meter take without any pauses: the median, by metric."""
    measured: tuple[Measured, ...]
    counted: tuple[Counted, ...]
    deviations: tuple[Deviation, ...]
    """Counts and states that are not what they must be, in any turn."""


def compare_in_real_time(folder: Path, step_s: float) -> RealTime:
    """Run the recitals and hold what was measured against what was planned; `step_s` is the clock's smallest step."""
    lateness, own = _lateness(), _own_work()
    plan = write_scripts(folder / "known-scripts", PAUSED, repeats=REPEATS, warmup=1)
    run = replay(plan, results=folder, run_id="known", resume=None, retry_failed=False, watch=lambda progress: None)
    lateness_s = {name: median([*lateness[name], *again]) for name, again in _lateness().items()}
    own_s = {metric: median([*own[metric], *again]) for metric, again in _own_work().items()}
    rows = known_rows(run.turns)
    measured: list[Measured] = []
    counted: list[Counted] = []
    deviations: list[Deviation] = []
    for name, recital in PAUSED.items():
        margins = {metric: 4 * own_s[metric] + 2 * n * lateness_s[name] + step_s for metric, n in PAUSES_IN.items()}
        measured += judged(name, recital, rows, margins, step_s)
        counted += _counted(name, recital, rows)
        deviations += _miscounted(name, recital, rows)
    return RealTime(run.path, len(rows), lateness_s, own_s, tuple(measured), tuple(counted), tuple(deviations))


def judged(
    name: str, recital: Recital, rows: Sequence[Mapping[str, Any]], margins: Mapping[str, float], step_s: float
) -> list[Measured]:
    """Every time and rate of a recital against its plan; `margins` says by how much the fastest turn may be late."""
    expected = expected_turns(recital)[0]
    assert expected.gaps is not None, "the recital tells its ids one at a time"
    planned = {metric: expected.gaps[0] if metric == "itl_s" else expected.metrics[metric] for metric in PAUSES_IN}
    ranges = {}
    for metric, value in planned.items():
        assert value is not None, "a reply of several ids has every time"
        ranges[metric] = (float(value), float(value) - step_s, float(value) + margins[metric])
    found = []
    for metric, (plan, low, high) in ranges.items():
        values = _values(rows, name, metric)
        fastest = min(values, default=None)
        found.append(_row(name, metric, (plan, low, high), fastest, values, busy=high - plan > plan / _IDS))
    for metric, (time_, ids) in _RATES.items():
        plan, low, high = ranges[time_]
        values = _values(rows, name, metric)
        fastest = max(values, default=None)
        bounds = (ids / plan, ids / high, ids / low)
        found.append(_row(name, metric, bounds, fastest, values, busy=high - plan > plan / _IDS))
    return found


def _row(
    name: str,
    metric: str,
    bounds: tuple[float, float, float],
    fastest: float | None,
    values: Sequence[float],
    *,
    busy: bool,
) -> Measured:
    planned, low, high = bounds
    # What is too fast is wrong on any machine; what is too slow may be, on one that is too busy, for another reason.
    too_fast = fastest is not None and (fastest > high if metric in _RATES else fastest < low)
    right: bool | None = fastest is not None and low <= fastest <= high
    if busy and fastest is not None and not too_fast:
        right = None
    return Measured(name, metric, planned, low, high, fastest, median(values) if values else None, right)


def _values(rows: Sequence[Mapping[str, Any]], name: str, metric: str) -> list[float]:
    """The values of a metric over all turns of a recital; the gaps of all turns together."""
    told = [row[metric] for row in rows if row["model"] == name and row[metric] is not None]
    return [gap for gaps in told for gap in gaps] if metric == "itl_s" else told


def _counted(name: str, recital: Recital, rows: Sequence[Mapping[str, Any]]) -> Iterator[Counted]:
    for tokens in ("prompt_tokens", "cached_tokens", "completion_tokens"):
        expected = REPEATS * sum(turn.facts[tokens] for turn in expected_turns(recital))
        yield Counted(name, tokens, expected, sum(row[tokens] or 0 for row in rows if row["model"] == name))


def _miscounted(name: str, recital: Recital, rows: Sequence[Mapping[str, Any]]) -> list[Deviation]:
    expected = expected_turns(recital)
    found = []
    for row in rows:
        if row["model"] == name:
            wanted = {**expected[row["turn_index"]].facts, "gaps": _IDS - 1}
            told = {**{fact: row[fact] for fact in FACTS}, "gaps": len(row["itl_s"] or ())}
            found += compared(f"{name}, repeat {row['repeat']}, turn {row['turn_index']}", wanted, told)
    return [deviation for deviation, equal in found if not equal]


def _lateness() -> dict[str, list[float]]:
    """By how many seconds bare pauses, each as long as one id of its recital, end late."""
    late: dict[str, list[float]] = {name: [] for name in PAUSED}
    for _ in range(_ROUNDS):
        for name, recital in PAUSED.items():
            start = real_clock()
            _PAUSES[name](recital.token_s)
            late[name].append((real_clock() - start) / NS - recital.token_s)
    return late


def _own_work() -> dict[str, list[float]]:
    """How long turns of the recital take that has no times at all."""
    backend, talk = ScriptedBackend(IDLE), Conversation("idle", tuple(Turn(user) for user in USERS))
    circumstances = Circumstances(Cell("idle", "default", talk.id, 0, 0), "generated", "natural", "generate", "reuse")
    own: dict[str, list[float]] = {metric: [] for metric in PAUSES_IN}
    with as_in_a_worker():
        for _ in range(_ROUNDS):
            dialog = replay_loop(talk, circumstances, Rules(sampling={}))
            for record in drive(dialog, backend.open_session(), backend.gauges):
                own["itl_s"] += itl_s(record) or []
                for metric in own.keys() - {"itl_s"}:
                    own[metric] += [value for value in [METRICS[metric].formula(record)] if value is not None]
    return own
