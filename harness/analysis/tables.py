"""Rows of a summary as a frame: every column has the type that its name has in all summaries, absent values are NA."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from harness.analysis.arrays import SETTING, STATES

Row = dict[str, Any]

_DTYPES = {
    **dict.fromkeys(("run_id", "model", "sampling", "conversation_id"), "string"),
    **dict.fromkeys(("parameter", "over", "greedy"), "string"),
    **dict.fromkeys(("metric", "basis", "stability", "ended_by"), "string"),
    **dict.fromkeys(("concurrency", "turn_index", "samplings", "launches", "conversations", "turns", *STATES), "Int64"),
    **dict.fromkeys(("scorer", "by", "against_run_id", "against_model", "against_sampling"), "string"),
    **dict.fromkeys(("replies", "undecided", "pairs", "wins", "ties", "losses", "inconsistent", "no_verdict"), "Int64"),
    "against_concurrency": "Int64",
    **dict.fromkeys(("answered_tokens", "unanswered_tokens", "context_tokens"), "Int64"),
    **dict.fromkeys(("peak_memory_bytes", "device_used_bytes", "host_rss_bytes", "kv_cache_bytes"), "Int64"),
}
"""Everything else is a real number, or, where it ends in `_basis`, what an interval is over."""


def table(rows: Sequence[Mapping[str, Any]], names: Iterable[str], **dtypes: str) -> pd.DataFrame:
    """The named columns of some rows; what a row does not have is absent. `dtypes` are those of columns whose names
    mean something else in other tables."""
    return pd.DataFrame(
        {name: pd.Series([row.get(name) for row in rows], dtype=dtypes.get(name) or _dtype(name)) for name in names}
    )


def of_several(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """The same table of several runs, one after the other; `run_id` tells them apart."""
    return pd.concat(tables, ignore_index=True)


def _dtype(name: str) -> str:
    return _DTYPES.get(name, "string" if name.endswith("_basis") else "Float64")


def setting_of(run_id: str, values: Sequence[Any]) -> Row:
    """The columns that say which setting of which run a row is of, from the values of `SETTING`."""
    return {"run_id": run_id, **dict(zip(SETTING, values, strict=True))}
