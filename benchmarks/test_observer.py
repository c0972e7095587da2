"""The observer effect: the same turns alone in a process, and inside a full `harness run`.

While a turn is measured nothing of ours may spin or poll: the parent sleeps on a pipe, the display draws only when
news arrive. Processes alternate, A B B A; each gives the median over its turns; the ratio of neighbours is one pair.
The display is a live one: the run's stderr is a terminal.
"""

import json
import math
import os
import pty
import statistics
import subprocess
import sys
import threading
from pathlib import Path

from scipy.stats import t

import harness

ROOT = Path(__file__).parent.parent
PAIRS = int(os.environ.get("HARNESS_BENCH_OBSERVER_PAIRS", "12"))
SETTINGS = (
    "models=[builtin:pico]",
    "conversations=[prompts/physics-professor.yaml]",
    "launches=1",
    "repeats=60",
    "warmup=2",
    "threads=2",
    "sampling.max_new_tokens=32",
)
CONFIG = "configs/speed.yaml"


def alone() -> list[float]:
    """End-to-end seconds of every turn, played by a process that does nothing else."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.alone", CONFIG, *SETTINGS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def inside(results: Path, name: str) -> list[float]:
    """The same of a `harness run` with its parent, its writer and its live display."""
    master, slave = pty.openpty()
    # Somebody has to read a terminal, or it fills up; a read that blocks takes no processor time.
    reader = threading.Thread(target=_drain, args=(master,), daemon=True)
    reader.start()
    sets = [word for setting in SETTINGS for word in ("--set", setting)]
    try:
        subprocess.run(
            [sys.executable, "-m", "harness", "run", CONFIG, *sets, "--results", results, "--run-id", name],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=slave,
            env={**os.environ, "TERM": "xterm-256color"},
            check=True,
        )
    finally:
        os.close(slave)
        reader.join(timeout=10)
        os.close(master)
    return harness.load(results / name).turns["e2e_s"].tolist()


def _drain(terminal: int) -> None:
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:  # the other end is closed: how a terminal says so
        return


def test_inside_a_run_over_alone(benchmark, report, tmp_path: Path) -> None:
    ratios = []
    for pair in range(PAIRS):
        order = (True, False) if pair % 2 else (False, True)
        medians = {
            within: statistics.median(inside(tmp_path, f"pair-{pair}") if within else alone()) for within in order
        }
        ratios.append(medians[True] / medians[False])
    benchmark.pedantic(lambda: None, rounds=1)
    report("inside over alone", ratios)
    logs = [math.log(ratio) for ratio in ratios]
    reach = t.ppf(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    centre = statistics.fmean(logs)
    interval = [math.exp(centre - reach), math.exp(centre + reach)]
    benchmark.extra_info["interval"] = interval
    print(f"geometric mean {math.exp(centre):.4f}, 95 % interval {interval[0]:.4f}–{interval[1]:.4f}")
