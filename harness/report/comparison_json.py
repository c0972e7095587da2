"""A comparison as JSON: everything it holds, for programs."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from harness.analysis.compare import Comparison

_FRAMES = ("ledger", "rows", "by_turn", "by_conversation", "flips")


def comparison_json(comparison: Comparison) -> str:
    """What is compared, the notes, and each frame as a list of objects; absent values are null."""
    told = {
        "compared": comparison.compared,
        "runs": [run.run_id for run in comparison.runs],
        "margin": comparison.margin,
        "lane": comparison.lane,
        "notes": list(comparison.notes),
        **{name: _records(getattr(comparison, name)) for name in _FRAMES},
    }
    return json.dumps(told, indent=2, ensure_ascii=False)


def _records(frame: pd.DataFrame) -> Any:
    return json.loads(frame.to_json(orient="records", double_precision=15))
