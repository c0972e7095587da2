"""A table → bytes of a format. CSV, JSON, JSON Lines and Parquet hold exact values; Markdown and LaTeX are for people.

Names of columns are the same in all of them, units included; what is absent is an empty cell or null. Tables are
written some rows at a time. Lists – checks, notices, gaps between ids – stay lists in JSON and Parquet and are JSON
within a cell elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, Literal

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq

from harness.exchange.escapes import latex, no_formula
from harness.exchange.tables import arrow, nested
from harness.report.markdown_tables import escaped
from harness.report.units import number

Format = Literal["csv", "json", "jsonl", "markdown", "latex", "parquet"]
_ROWS = 20_000
"""Rows that are converted at a time."""


def write(frame: pd.DataFrame, format: Format, stream: BinaryIO, *, raw: bool = False) -> None:  # noqa: A002
    """Write a table. `raw` leaves texts in CSV alone that a spreadsheet would take for formulas."""
    if format == "csv":
        _csv(frame, stream, raw=raw)
    else:
        _WRITERS[format](frame, stream)


def _parts(frame: pd.DataFrame) -> Iterator[pa.Table]:
    for start in range(0, max(len(frame), 1), _ROWS):
        yield arrow(frame.iloc[start : start + _ROWS])


def _csv(frame: pd.DataFrame, stream: BinaryIO, *, raw: bool) -> None:
    for index, part in enumerate(_parts(frame)):
        table = part if raw else _without_formulas(part)
        pc_csv.write_csv(table, stream, pc_csv.WriteOptions(include_header=index == 0))


def _without_formulas(table: pa.Table) -> pa.Table:
    return pa.table({name: no_formula(column) if _is_text(column) else column for name, column in _columns(table)})


def _columns(table: pa.Table) -> Iterator[tuple[str, pa.ChunkedArray]]:
    return zip(table.column_names, table.columns, strict=True)


def _is_text(column: pa.ChunkedArray) -> bool:
    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def _rows(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The rows as JSON has them: lists and mappings as such."""
    structured = nested(frame)
    for part in _parts(frame):
        for row in part.to_pylist():
            for name in structured:
                if row[name] is not None:
                    row[name] = orjson.Fragment(row[name])
            yield row


def _json(frame: pd.DataFrame, stream: BinaryIO) -> None:
    between = b"[\n"
    for row in _rows(frame):
        stream.write(between + orjson.dumps(row))
        between = b",\n"
    stream.write(b"\n]\n" if len(frame) else b"[]\n")


def _jsonl(frame: pd.DataFrame, stream: BinaryIO) -> None:
    stream.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in _rows(frame))


def _parquet(frame: pd.DataFrame, stream: BinaryIO) -> None:
    pq.write_table(arrow(frame, lists=True), stream, compression="zstd")


def _cells(frame: pd.DataFrame, text: Callable[[str], str]) -> Iterator[list[str]]:
    """The cells of each row as people read them: numbers with three digits, texts made harmless by `text`."""
    for part in _parts(frame):
        shown = [_shown(column, text) for column in part.columns]
        for row in zip(*shown, strict=True):
            yield list(row)


def _shown(column: pa.ChunkedArray, text: Callable[[str], str]) -> list[str]:
    def one(value: Any) -> str:
        if value is None:
            return ""
        if isinstance(value, bool):
            return str(value).lower()
        return number(value) if isinstance(value, float) else str(value) if isinstance(value, int) else text(str(value))

    return [one(value) for value in column.to_pylist()]


def _right(frame: pd.DataFrame) -> list[bool]:
    """Which columns hold numbers, and stand right."""
    types = arrow(frame.head(0)).schema.types
    return [bool(pa.types.is_integer(kind) or pa.types.is_floating(kind)) for kind in types]


def _markdown(frame: pd.DataFrame, stream: BinaryIO) -> None:
    def line(cells: list[str]) -> bytes:
        return ("| " + " | ".join(cells) + " |\n").encode()

    stream.write(line([escaped(name) for name in frame.columns]))
    stream.write(line(["---:" if right else "---" for right in _right(frame)]))
    stream.writelines(line(cells) for cells in _cells(frame, escaped))


def _latex(frame: pd.DataFrame, stream: BinaryIO) -> None:
    def line(cells: list[str]) -> bytes:
        return (" & ".join(cells) + r" \\" + "\n").encode()

    places = "".join("r" if right else "l" for right in _right(frame))
    stream.write(rf"\begin{{tabular}}{{{places}}}".encode() + b"\n\\hline\n")
    stream.write(line([latex(name) for name in frame.columns]) + b"\\hline\n")
    stream.writelines(line(cells) for cells in _cells(frame, latex))
    stream.write(b"\\hline\n\\end{tabular}\n")


_WRITERS: Mapping[Format, Callable[[pd.DataFrame, BinaryIO], None]] = {
    "json": _json,
    "jsonl": _jsonl,
    "markdown": _markdown,
    "latex": _latex,
    "parquet": _parquet,
}
