"""A night in which the decode loop is slower by a tenth: red, and the metric is named.

    python benchmarks/slow_night.py [CONFIG] [--slower 0.1] [--window 8] [--results DIR] [--set KEY=VALUE]…

Every step of the engine `decode` is followed by a delay of that share of itself (`benchmarks/slowed/`); prefill and the
other engines are as they were. It is held against the window of `benchmarks/ten_nights.py`, which is
played first where it is not there. Ends with 0 if the night was red, because of `tpot_s`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.ten_nights import line, make_window, night, verdict

SLOWED = Path(__file__).parent / "slowed"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default="configs/nightly.yaml")
    parser.add_argument("--slower", type=float, default=0.1)
    parser.add_argument("--window", type=int, default=8)
    parser.add_argument("--results", type=Path, default=Path("results/ten-nights"))
    parser.add_argument("--set", dest="sets", action="append", default=[])
    given = parser.parse_args()
    make_window(given.config, given.results, given.window, given.sets)
    path = os.pathsep.join([str(SLOWED), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "HARNESS_SLOWED_BY": str(given.slower)}
    name, began = f"slow-{time.strftime('%Y%m%d-%H%M%S')}", time.monotonic()
    code = night(given.config, given.results, name, given.sets, environment)
    told = verdict(given.results, name)
    print(line(told, time.monotonic() - began))
    red = [each for each in told["verdicts"] if each["answer"] == "regression"]
    for each in red:
        print(each["sentence"])
    named = {each["metric"] for each in red}
    print(f"exit code {code}; red because of {', '.join(sorted(named)) or 'nothing'}")
    return 0 if code == 3 and "tpot_s" in named else 1


if __name__ == "__main__":
    sys.exit(main())
