"""Nights of unchanged code: how many are red, and how much of them is decided.

    python benchmarks/ten_nights.py [CONFIG] [--nights 10] [--window 20] [--results DIR] [--set KEY=VALUE]…

Plays `--window` nights and blesses them, then `--nights` more that are judged, each by the command `harness nightly` in
a process of its own, as cron would. What is there already is not played again, so the same command goes on. Prints a
line per night and, last, what came of all; ends with 1 if one was red, or less than four fifths of the rules decided.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

DECIDED = ("pass", "regression")
LEAST_DECIDED = 0.8


def night(config: str, results: Path, name: str, sets: list[str], environment: dict[str, str] | None = None) -> int:
    """Play a night; its exit code."""
    overrides = [word for each in sets for word in ("--set", each)]
    command = [sys.executable, "-m", "harness", "nightly", config, "--results", str(results), "--run-id", name, "-q"]
    return subprocess.run([*command, *overrides], check=False, env=environment, stdout=sys.stderr).returncode


def verdict(results: Path, name: str) -> dict:
    return json.loads((results / name / "verdict.json").read_text())


def make_window(config: str, results: Path, nights: int, sets: list[str]) -> None:
    """Play and bless so many nights, whatever the first of them say of the others: nothing has changed in between."""
    for number in range(nights):
        name = f"blessed-{number}"
        if list(results.glob(f"baselines/*/*/{name}.parquet")):
            continue
        began = time.monotonic()
        code = night(config, results, name, sets)
        bless = [sys.executable, "-m", "harness", "bless", name, "--results", str(results), "--force"]
        subprocess.run([*bless, "--reason", "unchanged code"], check=True, stdout=sys.stderr)
        print(f"{name}: exit code {code}, {time.monotonic() - began:.0f} s", flush=True)


def line(told: dict, seconds: float) -> str:
    answers = Counter(each["answer"] for each in told["verdicts"])
    share = sum(answers[answer] for answer in DECIDED) / len(told["verdicts"])
    bad = [each["name"] + " of " + each["cell"] for each in told["verdicts"] if each["answer"] != "pass"]
    counted = ", ".join(f"{count} {answer}" for answer, count in answers.items())
    confirmed = ", confirmed" if told["confirmed_by"] else ""
    return f"{told['run_id']}: {told['answer']}{confirmed} ({counted}; {share:.0%} decided; {seconds:.0f} s) {bad}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default="configs/nightly.yaml")
    parser.add_argument("--nights", type=int, default=10)
    parser.add_argument("--window", type=int, default=20)
    parser.add_argument("--results", type=Path, default=Path("results/ten-nights"))
    parser.add_argument("--set", dest="sets", action="append", default=[])
    given = parser.parse_args()
    make_window(given.config, given.results, given.window, given.sets)
    all_told = []
    for number in range(given.nights):
        name, began = f"night-{number}", time.monotonic()
        if not (given.results / name / "verdict.json").exists():
            night(given.config, given.results, name, given.sets)
        told = verdict(given.results, name)
        print(line(told, time.monotonic() - began), flush=True)
        all_told.append(told)
    answers = Counter(told["answer"] for told in all_told)
    rules = Counter(each["answer"] for told in all_told for each in told["verdicts"])
    decided = sum(rules[answer] for answer in DECIDED) / rules.total()
    print(f"{given.nights} nights: {dict(answers)}; rules: {dict(rules)}, {decided:.0%} decided")
    return int(answers["regression"] > 0 or decided < LEAST_DECIDED)


if __name__ == "__main__":
    sys.exit(main())
