"""Models that were found, as a table, JSON or CSV. Names and cards are untrusted: a table shows them printable."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any, Literal

from harness.report.units import printable

Layout = Literal["table", "json", "csv"]
_COLUMNS = ("model", "parameters", "downloads", "likes", "updated", "licence", "languages", "chat", "gated", "library")
_LANGUAGES = 4
_LONGEST = 60


def laid_out(rows: Sequence[dict[str, Any]], layout: Layout) -> str:
    """The rows of `hub.search.rows` as text that ends without a newline."""
    match layout:
        case "json":
            return json.dumps(list(rows), indent=2, ensure_ascii=False)
        case "csv":
            return _csv(rows)
        case _:
            return _table(rows)


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    stream = io.StringIO()
    names = ["model", *(name for name in (rows[0] if rows else {}) if name != "model")]
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({**row, "languages": " ".join(row["languages"])})
    return stream.getvalue().rstrip("\n")


def _table(rows: Sequence[dict[str, Any]]) -> str:
    cells = [_COLUMNS, *(_shown(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_COLUMNS))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)
    return "\n".join(line.rstrip() for line in lines)


def _shown(row: dict[str, Any]) -> tuple[str, ...]:
    languages = row["languages"]
    more = f" +{len(languages) - _LANGUAGES}" if len(languages) > _LANGUAGES else ""
    shown = (
        row["model"],
        _large(row["parameters"]),
        _large(row["downloads"]),
        _large(row["likes"]),
        None if row["updated"] is None else row["updated"][:10],
        row["licence"],
        " ".join(languages[:_LANGUAGES]) + more,
        _yes(row["chat_template"]),
        _yes(row["gated"]),
        row["library"],
    )
    return tuple(printable(str(cell or "–")).replace("\n", " ").replace("\t", " ")[:_LONGEST] for cell in shown)


def _yes(value: bool | None) -> str | None:
    return None if value is None else ("yes" if value else "no")


def _large(value: int | None) -> str | None:
    """A count with three digits and the letter of its thousands: 8.03B."""
    if value is None:
        return None
    for letter, step in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= step:
            return f"{value / step:.3g}{letter}"
    return str(value)
