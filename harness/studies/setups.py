"""A scorer as it is about to be used, and whether it is the one whose scores count."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from harness.analysis.scores import Given
from harness.analysis.scoring.table import SCORERS
from harness.records import ScorerSetup, short_hash


def setup_of(
    scorer: str, config: Mapping[str, Any], by: str = "", facts: Mapping[str, Any] | None = None
) -> ScorerSetup:
    """The scorer of a name as this version of the harness has it, with everything that decides what it says."""
    version = SCORERS[scorer].version
    decides = json.dumps([scorer, version, by, config], sort_keys=True, default=str)
    return ScorerSetup(
        scorer=scorer,
        version=version,
        by=by,
        config=config,
        facts=facts or {},
        at=datetime.now(UTC).isoformat(),
        config_hash=short_hash(decides.encode()),
    )


def counts(found: Given, setup: ScorerSetup) -> bool:
    """Whether it is this configuration of the scorer that was used last."""
    return any(each.config_hash == setup.config_hash for each in found.latest)
