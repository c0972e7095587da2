"""The page of a night: the answer, every verdict with what got worse first, what else differs, what the night went
through, and what was said otherwise than before, side by side. It stands for itself and needs no script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from harness.analysis.changed import changed_replies, turned_checks
from harness.analysis.frames import Run
from harness.analysis.verdict import Gate, Verdict
from harness.errors import StoreError
from harness.report.gate import CAPTION, against_what, plays, why_of
from harness.report.judged import between, change, value, worst_first
from harness.report.page.shell import ANSWER_CLASSES, ENVIRONMENT, asset, link, policy
from harness.report.page.write import REPORT
from harness.report.units import ABSENT, number
from harness.report.words import machine, matrix, several
from harness.store import replace_file

NIGHT_PAGE = "nightly.html"
TREND_PAGE = "trend.html"
_MOST = 200
"""Replies, and checks, that are shown in full: more are not read."""
_BEFORE, _AFTER = 600, 6000
"""Characters of a reply that are shown before and after the place where it parts from the other."""
_SECTIONS = (
    ("worse", "What got worse", ("regression",)),
    ("open", "What is not decided", ("not comparable", "suspicion", "cannot tell", "not run")),
    ("passed", "What passed", ("pass",)),
)
_LEDGER = ("where", "differs", "window", "tonight", "speed", "behaviour", "nights", "remark")
_KINDS = {
    "change": ("a change", "bad"),
    "open": ("differs", "doubt"),
    "near tie": ("near tie", "good"),
    "another prompt": ("another prompt", ""),
}
_FLIPS = {"lost": "bad", "doubtful": "doubt", "gained": "good"}
_LEVELS = {"stop": "bad", "warning": "doubt", "ok": "good"}


def write_night_page(gate: Gate, path: Path, *, trend: Path | None = None) -> Path:
    """Write the page, and return its path. It links to what is beside the run: its report, and the page of the history,
    which `trend` names where it is still to be written.

    Raises StoreError where it cannot be written, or what was forced cannot be read.
    """
    try:
        replace_file(path, night_page(gate, path.parent, trend=trend).encode())
    except OSError as error:
        fact = f"cannot be written: {error.strerror or error}"
        raise StoreError(str(path), fact, "name another file, or make room for it") from error
    return path


def night_page(gate: Gate, folder: Path, *, trend: Path | None = None) -> str:
    """The page, with links as they are from this folder."""
    run = gate.candidate
    style = Markup("\n").join([asset("page.css"), asset("night.css")])
    theme, script = asset("theme.js"), asset("still.js")
    night: Mapping[str, Any] = run.manifest.get("night") or {}
    page: str = ENVIRONMENT.from_string(asset("night.html.j2")).render(
        policy=policy(style, [theme, script]),
        style=style,
        theme=theme,
        script=script,
        run_id=run.run_id,
        answer_word=gate.answer.capitalize(),
        answer_class=ANSWER_CLASSES[gate.answer],
        sentence=f"{gate.answer.capitalize()} {against_what(gate)}.",
        matrix=matrix(run),
        machine=machine(run),
        links=list(_links(run, folder, trend)),
        sections=[
            {"name": name, "title": title, "rows": [_verdict(verdict) for verdict in worst_first(found)]}
            for name, title, answers in _SECTIONS
            if (found := gate.of(*answers))
        ],
        caption=CAPTION,
        ledger_headers=_LEDGER,
        ledger=_ledger(gate.ledger),
        notes=gate.notes,
        preflight=[
            {
                "cells": [finding["level"], finding["about"], finding["line"]],
                "class": _LEVELS.get(finding["level"], ""),
                "marked": [0],
            }
            for finding in night.get("preflight") or ()
        ],
        facts=list(_facts(gate, night)),
        replies=_some(changed_replies(gate), _reply),
        checks=_some(turned_checks(gate), _check),
    )
    return page


def _links(run: Run, folder: Path, trend: Path | None) -> Iterator[tuple[str, str]]:
    """The pages that are there: of the run, also where only its night file was read, and of the history."""
    place = run.path.parent.parent / run.run_id if run.kept else run.path
    if (place / REPORT).exists():
        yield "The run, in full", link(place / REPORT, folder)
    history = place.parent / TREND_PAGE if trend is None else trend
    if trend is not None or history.exists():
        yield "All nights", link(history, folder)


def _verdict(verdict: Verdict) -> dict[str, str]:
    basis = [
        *([several(verdict.launches, "launch")] if verdict.launches else []),
        *([several(verdict.nights, "night")] if verdict.nights else []),
        *([f"at most {change(verdict, verdict.at_most)} (95 %)"] if verdict.at_most is not None else []),
        *([f"{verdict.needed} launches a night would decide"] if verdict.needed is not None else []),
    ]
    return {
        "rule": verdict.rule,
        "cell": verdict.cell,
        "answer": verdict.answer,
        "class": ANSWER_CLASSES[verdict.answer],
        "baseline": value(verdict, verdict.baseline),
        "candidate": value(verdict, verdict.candidate),
        "change": change(verdict, verdict.change),
        "interval": between(verdict) or ABSENT,
        "margin": change(verdict, verdict.margin),
        "resolvable": change(verdict, verdict.resolvable),
        "why": why_of(verdict),
        "basis": f"({'; '.join(basis)})" if basis else "",
    }


def _ledger(frame: pd.DataFrame) -> list[dict[str, Any]]:
    names = ["setting", "field", "baseline_value", "candidate_value", "speed", "behaviour", "nights", "remark"]
    rows = []
    for row in frame[names].astype(object).where(frame[names].notna(), ABSENT).itertuples(index=False):
        cells = [str(cell) for cell in row]
        blocks = "blocker" in cells[4:6]
        marked = [place for place in (4, 5) if cells[place] != ABSENT]
        rows.append({"cells": cells, "class": "bad" if blocks else "doubt", "marked": marked})
    return rows


def _facts(gate: Gate, night: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    run = gate.candidate
    yield "Begun", str(run.manifest["created_at"])
    yield "Finished", str(run.manifest.get("finished_at") or "no")
    if night.get("budget_s") is not None:
        cut = "it did not suffice, and something was not played" if night.get("cut") else "it sufficed"
        yield "Budget", f"{number(night['budget_s'] / 60)} min: {cut}"
    yield "Held against", ", ".join(each.run_id for each in gate.baseline) or "no night"
    yield "Played again", ", ".join(each.run_id for each in gate.confirmed_by) or "nothing"


def _some(frame: pd.DataFrame, told: Any) -> dict[str, Any]:
    """The first rows, and how many more there are."""
    rows = frame.head(_MOST).astype(object)
    return {
        "rows": [told(row) for row in rows.where(rows.notna(), None).to_dict("records")],
        "more": max(0, len(frame) - _MOST),
    }


def _reply(row: Mapping[str, Any]) -> dict[str, Any]:
    kind, colour = _KINDS[row["kind"]]
    return {
        "where": _where(row),
        "kind": kind,
        "class": colour,
        "told": _parting(row),
        "user": row["user"],
        "before": row["baseline_run"],
        **{side: _said(row, side) for side in ("baseline", "candidate")},
    }


def _parting(row: Mapping[str, Any]) -> str:
    """Where it parts, and how sure either side was, in nats."""
    if row["kind"] == "another prompt":
        return "It answers another prompt than before, as after an earlier reply that differs."
    if row["token"] is None:
        return "Shown by text: how likely either reply is was not looked at."
    margins = [
        f"{side} preferred {'its own' if row[name] >= 0 else 'another'} by {number(abs(row[name]))} nats"
        for side, name in (("before", "baseline_margin"), ("tonight", "candidate_margin"))
        if row[name] is not None
    ]
    return f"They part at token {row['token']}{': ' if margins else ''}{', '.join(margins)}."


def _check(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "check": row["check"],
        "where": _where(row),
        "kind": row["change"],
        "class": _FLIPS.get(row["change"], ""),
        "told": plays(row),
        "user": row["user"],
        "before": "before",
        **{side: _said(row, side) for side in ("baseline", "candidate")},
    }


def _where(row: Mapping[str, Any]) -> str:
    level = f", concurrency {row['concurrency']}" if row["concurrency"] != 1 else ""
    return f"{row['model']}, {row['sampling']}{level}, {row['conversation_id']} turn {row['turn_index']}"


def _said(row: Mapping[str, Any], side: str) -> dict[str, Any]:
    """A reply around the place where it parts, whose word is marked; or why there is none."""
    reply, common = row[f"{side}_reply"], row["common"] or 0
    if reply is None:
        return {"error": f"no reply: {row.get(f'{side}_detail') or 'not answered'}"}
    before, rest = reply[:common], reply[common:]
    words: Sequence[str] = rest.split(maxsplit=1)
    end = rest.index(words[0]) + len(words[0]) if words else len(rest)
    end = min(end, _AFTER)
    parts = row["baseline_reply"] is not None and row["candidate_reply"] is not None
    differs = parts and row["baseline_reply"] != row["candidate_reply"]
    return {
        "error": None,
        "before": before[-_BEFORE:],
        "elided_before": max(0, len(before) - _BEFORE),
        "fork": rest[:end] if differs else "",
        "after": rest[end if differs else 0 : _AFTER],
        "elided_after": max(0, len(rest) - _AFTER),
    }
