"""A run of very many turns: how fast the store takes them, and what it takes to read them and to report on them.

A million turns of 64 tokens and 200 characters are 2.3 GB of turns.jsonl, written once by the real store.
HARNESS_BENCH_TURNS sets another number. The report is made by a fresh process, three times; of each stage the best
time is kept, and the processor time beside it, because another process that works at the same time halves the speed.
"""

import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import orjson
import pytest

from benchmarks import synthetic
from harness.store import TURNS, create

ROOT = Path(__file__).parent.parent
TOTAL = int(os.environ.get("HARNESS_BENCH_TURNS", "1_000_000"))
APPENDED = 2000
ROUNDS = 3


def test_appending_over_bare_writes(paired, benchmark, capsys, tmp_path: Path) -> None:
    told = list(islice(synthetic.records(100, 1), APPENDED))

    def ours() -> None:
        run = tmp_path / "run"
        with create(tmp_path, run.name, {}) as writer:
            for record in told:
                writer.append(record)
                if record.turn_index == synthetic.TURNS - 1:
                    writer.sync()
        for file in run.iterdir():
            file.unlink()
        run.rmdir()

    def theirs() -> None:
        with (tmp_path / TURNS).open("wb", buffering=0) as file:
            for record in told:
                file.write(orjson.dumps(record) + b"\n")
                if record.turn_index == synthetic.TURNS - 1:
                    os.fsync(file.fileno())
        (tmp_path / TURNS).unlink()

    paired(ours, theirs, rounds=10, name="append over write")
    rate = APPENDED / benchmark.stats.stats.median
    benchmark.extra_info["turns_per_s"] = rate
    with capsys.disabled():
        print(f"{benchmark.name}: {rate:.0f} turns/s, a sync every {synthetic.TURNS}")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.write(tmp_path_factory.mktemp("results"), TOTAL)


def test_a_report_of_very_many_turns(benchmark, capsys, run: Path) -> None:
    found = []

    def once() -> None:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.reading", run], cwd=ROOT, capture_output=True, text=True, check=True
        )
        found.append(json.loads(done.stdout))

    benchmark.pedantic(once, rounds=ROUNDS)
    stages = {
        stage: {figure: min(each["took"][stage][figure] for each in found) for figure in figures}
        for stage, figures in found[0]["took"].items()
    }
    benchmark.extra_info |= {
        "turns": found[0]["turns"],
        "page_bytes": found[0]["page_bytes"],
        "html_bytes": found[0]["html_bytes"],
        "stages": stages,
    }
    with capsys.disabled():
        print(f"\n{benchmark.name}: {found[0]['turns']} turns, page of {found[0]['page_bytes'] / 2**20:.2f} MiB")
        for stage, took in stages.items():
            peak = took["peak_rss_bytes"] / 2**30
            print(f"  {stage}: {took['s']:.2f} s ({took['cpu_s']:.2f} s of processor time), peak {peak:.2f} GiB")
