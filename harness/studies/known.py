"""A model whose every time is known before it speaks: what each of its turns must measure, worked out from its script
alone, and whether the chat loop, the store, the metrics and the report say so.

The model recites (`backends.scripted`). On the hand-cranked clock every number is known to the nanosecond. In real time
it can only be late: by its own work, and by as much as its pauses overshoot. Noise adds to a time and never takes away
from it, so a right meter shows no turn shorter than planned, and its *fastest* turn is late by no more than these two.
"""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

from harness.backends.scripted import Breakdown, Recital, ScriptedBackend
from harness.chat import Rules, replay
from harness.config.plan import Plan
from harness.meters.clock import HandCrankedClock
from harness.meters.environment import environment
from harness.records import Circumstances
from harness.runner.drive import drive
from harness.runner.messages import TurnDone
from harness.runner.run import label_of
from harness.store import create
from harness.studies.replay import resolve

USERS = ("Say a few words.", "Some more of them, please.", "And once more.")
GOLD = ("Gold words are these.", "There are more of those than before.", "The last ones.")
CONVERSATION = "known"
NS = 10**9

_TIMES = {
    "template_s": 0.001_000_003,
    "tokenize_s": 0.002_000_017,
    "prefill_s": 0.040_000_101,
    "token_s": 0.007_000_907,
    "detokenize_s": 0.003_000_041,
}
"""Odd to the last nanosecond and all different, so that no sum of some of them looks like one of others."""
_LINES = ["one two three four five six seven", "a b c d", "first second third fourth fifth sixth seventh eighth ninth"]
"""Turns of different lengths: what one turn leaves behind for the next shows."""
_UPTIME_NS = 30 * 24 * 3600 * NS + 1
"""The hand-cranked clock starts where the real one of a machine does that has been up for a month: floating point has
no digits left for nanoseconds there."""


def _recital(lines: Sequence[str], **more: Any) -> Recital:
    return Recital.model_validate({"lines": list(lines), **_TIMES, **more})


SHAPES: Mapping[str, Recital] = {
    "one id at a time": _recital(_LINES),
    "several ids per arrival": _recital(_LINES, ids_per_tick=[1, 3, 2]),
    "several ids in the first arrival": _recital(_LINES, ids_per_tick=[3, 1]),
    "a single id": _recital(["Motion."]),
    "a failed turn": _recital(_LINES, breakdown=Breakdown(turn=1)),
}

FACTS = ("state", "finish_reason", "prompt_tokens", "cached_tokens", "completion_tokens")
_SUMMARISED = ("ttft_s", "tpot_s", "output_tokens_per_s", "e2e_s")


@dataclass(frozen=True, slots=True)
class Deviation:
    """One value that is not what it must be; None stands for absent."""

    where: str
    quantity: str
    expected: str | float | None
    measured: str | float | None


@dataclass(frozen=True, slots=True)
class Exact:
    """What came of the hand-cranked clock."""

    turns: int
    values: int
    """How many were compared."""
    deviations: tuple[Deviation, ...]


@dataclass(frozen=True, slots=True)
class Expected:
    """What one turn of a recital must measure: facts as they stand, seconds and rates as exact fractions."""

    facts: Mapping[str, Any]
    metrics: Mapping[str, Fraction | None]
    gaps: tuple[Fraction, ...] | None

    def values(self) -> dict[str, Any]:
        """By column of `Run.turns`."""
        seconds = None if self.gaps is None else [float(gap) for gap in self.gaps]
        metrics = {name: None if value is None else float(value) for name, value in self.metrics.items()}
        return {**self.facts, **metrics, "itl_s": seconds}


def expected_turns(recital: Recital) -> list[Expected]:
    """Every turn of the conversation `USERS` with this recital, by arithmetic on the script."""
    turns: list[Expected] = []
    prompt, held = 0, 0
    for index, user in enumerate(USERS):
        if turns and turns[-1].facts["state"] != "done":
            turns.append(_silent("not_reached", None, None))
            continue
        line = recital.lines[index % len(recital.lines)].split()
        # A message is its speaker's name and its words; the prompt ends with the name of the one who is to speak.
        prompt += 1 + len(user.split()) + 1
        if recital.breakdown is not None and recital.breakdown.turn == index:
            turns.append(_silent("failed", "error", prompt))
            continue
        turns.append(_spoken(recital, index, len(line), prompt, cached=held))
        prompt, held = prompt + len(line), prompt + len(line) - 1  # the last id was generated, and never read
    return turns


def _silent(state: str, finish_reason: str | None, prompt: int | None) -> Expected:
    facts = {**dict.fromkeys(FACTS), "state": state, "finish_reason": finish_reason, "prompt_tokens": prompt}
    return Expected(facts, dict.fromkeys(_NAMES), None)


def _spoken(recital: Recital, index: int, ids: int, prompt: int, cached: int) -> Expected:
    template, tokenize, prefill, token, detokenize = (_seconds(getattr(recital, name)) for name in _TIMES)
    arrivals = list(_arrivals(recital.ids_per_tick, ids))
    alone = arrivals[0] == 1 and len(arrivals) > 1
    first = template + tokenize + prefill + (arrivals[0] - 1) * token
    last = template + tokenize + prefill + (ids - 1) * token
    end = last + detokenize
    gold = GOLD[index]
    metrics: dict[str, Fraction | None] = {
        "ttft_s": first,
        "ttft_visible_s": first,
        "ttft_answer_s": first,
        "template_s": template,
        "tokenize_s": tokenize,
        "prefill_s": first - template - tokenize,
        "decode_s": last - first,
        "detokenize_s": detokenize,
        "e2e_s": end,
        "tpot_s": token if alone else None,
        "output_tokens_per_s": ids / end,
        "decode_tokens_per_s": 1 / token if alone else None,
        "prefill_tokens_per_s": (prompt - cached) / (first - template - tokenize),
        "s_per_1k_gold_chars": 1000 * token * len(gold.split()) / len(gold) if alone else None,
    }
    facts = {
        "state": "done",
        "finish_reason": "eos",
        "prompt_tokens": prompt,
        "cached_tokens": cached,
        "completion_tokens": ids,
    }
    one_by_one = set(arrivals) == {1} and ids > 1
    return Expected(facts, metrics, (token,) * (ids - 1) if one_by_one else None)


def _seconds(planned: float) -> Fraction:
    """The seconds the hand-cranked clock is moved by: whole nanoseconds."""
    return Fraction(round(planned * NS), NS)


def _arrivals(sizes: Sequence[int], ids: int) -> Iterator[int]:
    for size in cycle(sizes):
        if ids <= 0:
            return
        yield min(size, ids)
        ids -= size


_NAMES = tuple(_spoken(SHAPES["one id at a time"], 0, 2, 1, 0).metrics)
"""The metrics that time decides: all but memory, energy and what is held against the ceiling of a machine."""


def write_scripts(folder: Path, recitals: Mapping[str, Recital], **config: Any) -> Plan:
    """Write the recitals and the conversation into a folder; the plan of a run of them, labels as given.

    JSON is YAML, so the files are read as any others are.
    """
    folder.mkdir(parents=True)
    talk = {"id": CONVERSATION, "turns": [{"user": u, "assistant": g} for u, g in zip(USERS, GOLD, strict=True)]}
    (folder / "prompts.yaml").write_text(json.dumps({"conversations": [talk]}))
    models = []
    for number, (label, recital) in enumerate(recitals.items()):
        script = folder / f"recital-{number}.yaml"
        script.write_text(recital.model_dump_json())
        models.append({"model": f"scripted:{script}", "label": label})
    return resolve({"models": models, "conversations": [str(folder / "prompts.yaml")], **config})


def compare_exactly(folder: Path) -> Exact:
    """Play every shape on the hand-cranked clock and compare the run it leaves, read back, with what it must be.

    The way is that of any run – chat loop, driver, the worker's pickles, store, frames, reports – but for the process,
    since a clock cranked by hand is not seen in another one.
    """
    plan = write_scripts(folder / "exact-scripts", SHAPES)
    path = _play_exactly(plan, folder)
    from harness.analysis.frames import load
    from harness.report.files import write_reports

    run = load(path)
    write_reports(run)
    found: list[tuple[Deviation, bool]] = []
    told = known_rows(run.turns)
    for label, recital in SHAPES.items():
        wanted = expected_turns(recital)
        rows = [row for row in told if row["model"] == label]
        for index, (expected, row) in enumerate(zip(wanted, rows, strict=True)):
            found += compared(f"{label}, turn {index}", expected.values(), row)
    with (path / "summary.csv").open(newline="") as file:
        summary = {row["model"]: row for row in csv.DictReader(file)}
    for label, recital in SHAPES.items():
        row = {name: float(value) if value else None for name, value in summary[label].items() if name in _of_setting()}
        found += compared(f"{label}, summary", _summary(expected_turns(recital)), row)
    return Exact(len(told), len(found), tuple(deviation for deviation, equal in found if not equal))


def known_rows(turns: Any) -> list[dict[str, Any]]:
    """The rows of `Run.turns` as they would be written by hand: plain values and lists, what is absent is None."""
    return [
        {name: value.tolist() if hasattr(value, "tolist") else value for name, value in row.items()}
        for row in turns.astype(object).where(turns.notna(), None).to_dict("records")
    ]


def _play_exactly(plan: Plan, folder: Path) -> Path:
    manifest: dict[str, Any] = {
        "plan": plan.resolved(),
        "environment": environment(),
        "launches": [
            {"model": label_of(spec), "launch": 0, "load_s": 0.0, "facts": {}, "notices": []} for spec in plan.models
        ],
        "warnings": [],
    }
    rules = Rules(sampling={})
    with create(folder, "exact", manifest) as writer:
        for cell in plan.cells():
            clock = HandCrankedClock()
            clock.advance(_UPTIME_NS)
            backend = ScriptedBackend(SHAPES[cell.model], clock=clock)
            circumstances = Circumstances(cell, "generated", "natural", "generate", "reuse")
            dialog = replay(plan.conversation(cell.conversation_id), circumstances, rules, clock=clock)
            for record in drive(dialog, backend.open_session(), backend.gauges):
                told: TurnDone = pickle.loads(pickle.dumps(TurnDone(record)))  # noqa: S301 – as a worker tells it
                writer.append(told.record)
    return writer.path


def _of_setting() -> tuple[str, ...]:
    return ("turns", "done", "failed", "not_reached", *(f"{name}_p50" for name in _SUMMARISED))


def _summary(turns: Sequence[Expected]) -> dict[str, Any]:
    """What `summary.csv` must say of one launch: counts, and medians over the turns that have a value."""
    states = [turn.facts["state"] for turn in turns]
    medians: dict[str, float | None] = {}
    for name in _SUMMARISED:
        known = [value for turn in turns if (value := turn.metrics[name]) is not None]
        medians[f"{name}_p50"] = float(median(known)) if known else None
    return {
        "turns": len(turns),
        **{state: states.count(state) for state in ("done", "failed", "not_reached")},
        **medians,
    }


def compared(where: str, expected: Mapping[str, Any], row: Mapping[str, Any]) -> list[tuple[Deviation, bool]]:
    return [
        (Deviation(where, name, _shown(value), _shown(row[name])), _equal(value, row[name]))
        for name, value in expected.items()
    ]


def _shown(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, list) else value


def _equal(expected: Any, measured: Any) -> bool:
    """Equal but for the rounding of a division, which is a thousandth of a nanosecond for times below a minute."""
    if isinstance(expected, list) and isinstance(measured, list):
        return len(expected) == len(measured) and all(map(_equal, expected, measured))
    if isinstance(expected, float) and isinstance(measured, float):
        return abs(measured - expected) <= 1e-14 * abs(expected)
    return bool(expected == measured)
