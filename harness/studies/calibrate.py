"""How much a machine's numbers differ though nothing changes: a config played again and again.

The runs are ordinary ones, `<config name>-calibration-01` and on, and are kept: the same command again goes on where it
was stopped, and with a larger number of runs adds to those there are. What they tell of the noise is written beside the
window that later nights are held against.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.config.plan import Plan
from harness.config.rules import Gating
from harness.errors import UsageError
from harness.runner.messages import Watch
from harness.runner.run import execute
from harness.store import MANIFEST, read_manifest

if TYPE_CHECKING:
    from harness.analysis.floor import Calibration, Resolution

WITHOUT_RULES = Gating(rules={"ttft_s": "auto", "tpot_s": "auto", "e2e_s": "auto"})
"""What is looked at where a config has no gate."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a calibration found, and where it lies."""

    path: Path
    calibration: Calibration
    resolutions: list[Resolution]
    confirm_launches: int


def calibrate(
    plan: Plan,
    results: Path,
    runs: int,
    watch: Callable[[int], Watch] = lambda number: lambda progress: None,
) -> Found:
    """Play what is missing of so many runs, and store what they tell; `watch` is made for each run, numbered from 1.

    Raises UsageError where a run of that name is of another config, or the runs are too few.
    """
    from harness.analysis.baselines import device_of, slug, window_folder
    from harness.analysis.floor import FEWEST_RUNS, FLOOR, write_floor
    from harness.analysis.floor import calibrate as found_by
    from harness.analysis.frames import load_many

    if runs < FEWEST_RUNS:
        raise UsageError(
            "--runs", f"{runs} runs do not tell how much runs differ", f"{FEWEST_RUNS} do, 20 tell it well"
        )
    name = plan.config.name
    paths = []
    for number in range(1, runs + 1):
        run_id = f"{slug(name)}-calibration-{number:02}"
        path = results / run_id
        manifest = read_manifest(path) if (path / MANIFEST).exists() else None
        if manifest is not None and manifest["config_hash"] != plan.config_hash:
            fact = "is a run of another config than the one to be calibrated"
            raise UsageError(str(path), fact, "move it away, or choose another --results")
        if manifest is None or manifest["finished_at"] is None:
            execute(plan, results=results, run_id=run_id, watch=watch(number))
        paths.append(path)
    played = load_many(paths)
    gating = plan.config.gate or WITHOUT_RULES
    calibration, resolutions = found_by(played, gating)
    folder = window_folder(results, device_of(played[-1].manifest["environment"]), name)
    write_floor(folder / FLOOR, calibration)
    return Found(folder / FLOOR, calibration, resolutions, gating.confirm_launches)
