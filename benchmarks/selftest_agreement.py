"""Whether the selftest's resolution is that of ten repeated launches: `python -m benchmarks.selftest_agreement`.

The same work is launched on two sides that take turns, A B B A: `printed` stands for the selftest, which judges by the
few launches it makes by default, `repeated` for the ten launches that come out as they may. Turns are taken because a
machine whose load changes from minute to minute has another spread each time. Exit code 1 where they are further apart
than a factor of two.
"""

import math
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from harness.analysis.resolution import spread
from harness.runner.messages import Progress, WorkerStarted
from harness.studies.replay import replay
from harness.studies.selftest import LAUNCHES, METRICS, MODEL, noise_plan, resolution

REPEATED = 10
PRINTED, SEEN = "printed", "repeated"


def main() -> int:
    def watch(progress: Progress) -> None:
        if isinstance(progress, WorkerStarted):
            print(f"{progress.model}: launch {progress.launch + 1} of {progress.launches}", file=sys.stderr)

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        sides = [{"model": MODEL, "label": label} for label in (PRINTED, SEEN)]
        plan = noise_plan(folder, sides, REPEATED)
        run = replay(plan, results=folder, run_id="aa", resume=None, retry_failed=False, watch=watch)
    # The few launches of the selftest, spread evenly over the time the ten take.
    few = {round(number * (REPEATED - 1) / (LAUNCHES - 1)) for number in range(LAUNCHES)}
    agree = True
    for metric in METRICS:
        printed = spread(replace(run, turns=run.turns[run.turns["launch"].isin(few)]), PRINTED, metric)
        seen = spread(run, SEEN, metric)
        said, found = resolution(printed, REPEATED), resolution(seen, REPEATED)
        factor = math.log1p(said.difference) / math.log1p(found.difference)
        apart = math.expm1(abs(fmean(seen.launch_means) - fmean(spread(run, PRINTED, metric).launch_means)))
        print(
            f"{metric}: sd of launches {printed.between:.4f} by {LAUNCHES}, {seen.between:.4f} by {REPEATED} others; "
            f"resolution with {REPEATED} per side {said.difference:.1%} against {found.difference:.1%}, factor "
            f"{factor:.2f}; the two sides, which are the same, differ by {apart:.1%}"
        )
        agree = agree and 0.5 <= factor <= 2
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
