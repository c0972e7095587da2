"""How long a user waits before anything happens: `harness --help` and `harness plan`, alternated with a bare Python.

Beside wall time the processor time of the command is kept: on a machine that is not idle only that is its own.
"""

import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMMANDS = {"--help": (["--help"], 20), "plan": (["plan", "configs/quickstart.yaml"], 5)}
"""Name → words of the command, and how many pairs."""


def run(*words: str) -> float:
    """Start Python with these words; the processor seconds it used."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("command", COMMANDS)
def test_starting_over_a_bare_python(paired, benchmark, capsys, command: str) -> None:
    words, pairs = COMMANDS[command]
    processor: list[float] = []
    paired(
        lambda: processor.append(run("-m", "harness", *words)),
        lambda: run("-c", "pass"),
        rounds=pairs,
        name="over python -c pass",
    )
    ours = benchmark.stats.stats
    took = {"median_s": ours.median, "best_s": ours.min, "processor_s": statistics.median(processor)}
    benchmark.extra_info |= took
    with capsys.disabled():
        print(f"{benchmark.name}: {', '.join(f'{name} {value:.3f}' for name, value in took.items())}")
