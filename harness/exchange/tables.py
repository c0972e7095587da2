"""The tables that can be exported, and each as plain columns: text, numbers, flags and times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import orjson
import pandas as pd
import pyarrow as pa

from harness.analysis.frames import Run
from harness.analysis.summary import by_conversation, by_setting, by_turn
from harness.documents import did_you_mean
from harness.errors import UsageError

TableName = Literal["turns", "by_setting", "by_turn", "by_conversation", "launches"]
TABLES: tuple[TableName, ...] = get_args(TableName)

_MADE: Mapping[TableName, Callable[[Run], pd.DataFrame]] = {
    "turns": lambda run: run.turns,
    "by_setting": by_setting,
    "by_turn": by_turn,
    "by_conversation": by_conversation,
    "launches": lambda run: run.launches,
}


def table_of(run: Run, name: TableName, columns: Sequence[str] = ()) -> pd.DataFrame:
    """The table of that name, with the names and units it has everywhere; only these columns, if any are named.

    Raises UsageError for a column that it does not have.
    """
    frame = _MADE[name](run)
    for column in columns:
        if column not in frame.columns:
            raise UsageError(f"--columns {column}", f"{name} has no such column", did_you_mean(column, frame.columns))
    return frame[list(columns)] if columns else frame


def nested(frame: pd.DataFrame) -> tuple[str, ...]:
    """The columns whose values are lists or mappings."""
    return tuple(name for name in frame.columns if _is_nested(frame[name]))


def arrow(frame: pd.DataFrame, *, lists: bool = False) -> pa.Table:
    """The rows as an Arrow table. What is absent is null; lists and mappings are written as JSON, unless `lists` keeps
    the lists that have a type of their own."""
    columns = {}
    for name in frame.columns:
        column = frame[name]
        as_json = _is_nested(column) and not (lists and isinstance(column.dtype, pd.ArrowDtype))
        columns[name] = _json(column) if as_json else pa.array(column, from_pandas=True)
    return pa.table(columns)


def _is_nested(column: pd.Series[Any]) -> bool:
    kind = column.dtype
    return pd.api.types.is_object_dtype(kind) or (
        isinstance(kind, pd.ArrowDtype) and pa.types.is_nested(kind.pyarrow_dtype)
    )


def _json(column: pd.Series[Any]) -> pa.Array:
    texts = [None if _is_absent(value) else orjson.dumps(value).decode() for value in column.tolist()]
    return pa.array(texts, pa.large_string())


def _is_absent(value: Any) -> bool:
    return not isinstance(value, (list, dict, tuple)) and bool(pd.isna(value))
