"""How long a user waits before anything happens: `harness --help` and `harness plan`, alternated with a bare Python."""

import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import pytest

ROOT = Path(__file__).parent.parent
COMMANDS = {"--help": (["--help"], 20), "plan": (["plan", "configs/quickstart.yaml"], 5)}
"""Name → words of the command, and how many pairs."""


def seconds(*words: str) -> float:
    start = perf_counter()
    subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return perf_counter() - start


@pytest.mark.parametrize("command", COMMANDS)
def test_starting_over_a_bare_python(benchmark, report, capsys, command: str) -> None:
    words, pairs = COMMANDS[command]
    bare: list[float] = []
    cpu: list[float] = []

    def start() -> None:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds("-m", "harness", *words)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    benchmark.pedantic(
        start,
        setup=lambda: bare.append(seconds("-c", "pass")),
        rounds=pairs,
        warmup_rounds=1,
    )
    ours = list(benchmark.stats.stats.data)
    report("over python -c pass", [own / python for own, python in zip(ours, bare[-pairs:], strict=True)])
    benchmark.extra_info |= {
        "median_s": statistics.median(ours),
        "best_s": min(ours),
        "bare_s": statistics.median(bare),
    }
    with capsys.disabled():
        print(
            f"{benchmark.name}: median {statistics.median(ours):.3f} s, best {min(ours):.3f} s; "
            f"a bare Python {statistics.median(bare):.3f} s"
        )
