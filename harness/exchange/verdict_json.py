"""verdict.json: a gate's verdicts for programs. docs/file-formats.md describes every key.

Format history
    1   first format
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson

from harness.analysis.verdict import Gate, Verdict
from harness.exchange.tables import arrow
from harness.report.judged import counts

FORMAT = 1


def verdict_json(gate: Gate) -> bytes:
    """The content of verdict.json. What is absent is null, as are values that are no number."""
    manifest = gate.candidate.manifest
    return orjson.dumps(
        {
            "format": FORMAT,
            "run_id": gate.candidate.run_id,
            "created_at": manifest["created_at"],
            "harness_version": manifest["harness_version"],
            "answer": gate.answer,
            "exit_code": gate.exit_code,
            "counts": counts(gate),
            "failed_turns": gate.failed,
            "baseline": [run.run_id for run in gate.baseline],
            "confirmed_by": [run.run_id for run in gate.confirmed_by],
            "verdicts": [_verdict(verdict) for verdict in gate.verdicts],
            "differences": arrow(gate.ledger).to_pylist(),
            "flips": arrow(gate.flips).to_pylist(),
            "notes": gate.notes,
        },
        option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE,
        default=str,
    )


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {"name": verdict.name, "cell": verdict.cell, **asdict(verdict), "sentence": verdict.sentence}
