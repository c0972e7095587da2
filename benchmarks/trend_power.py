"""How often a trend table cries wolf, and what it finds: change points of simulated nights, told in docs/trend.md.

    python benchmarks/trend_power.py                  the tables of the page, in some minutes
    python benchmarks/trend_power.py --tables 10      a smaller study of the same
    python benchmarks/trend_power.py --part found     one of the tables: false, found or looks
    python benchmarks/trend_power.py --by 'running medians'    as it is without the extra

Noise of a night is 3 % wherever nothing else is said. A table has 30 lines; a false point is one where nothing changed,
or more than five nights from where something did.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from harness.analysis.changepoints import change_points, detector

LINES = 30
CV = 0.03
NEAR = 5
"""Nights that a change may be off and still be the one that was made."""


def alike(rho: float, cv: float = CV) -> Callable[[np.random.Generator, int], np.ndarray]:
    """Noise in which every night takes after the night before."""

    def draw(random: np.random.Generator, nights: int) -> np.ndarray:
        new = random.normal(0, 1, nights)
        found = np.empty(nights)
        found[0] = new[0]
        for night in range(1, nights):
            found[night] = rho * found[night - 1] + np.sqrt(1 - rho**2) * new[night]
        return cv * found

    return draw


def wild(random: np.random.Generator, nights: int) -> np.ndarray:
    there = random.random(nights) < 0.03
    return random.normal(0, CV, nights) + there * random.choice([-0.2, 0.2], nights)


def two_clocks(random: np.random.Generator, nights: int) -> np.ndarray:
    return random.normal(0, 0.01, nights) + 0.06 * (random.random(nights) < 0.3)


NOISES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "independent": alike(0.0),
    "each like the night before, ρ = 0.3": alike(0.3),
    "ρ = 0.6": alike(0.6),
    "3 % of nights wild by 20 %": wild,
    "two clocks, 30 % of nights 6 % slower": two_clocks,
    "heavy tails (t, 3 degrees)": lambda random, nights: 0.02 * random.standard_t(3, nights),
    "shares: 50 checks passed at 98 %": lambda random, nights: random.binomial(50, 0.98, nights) / 50,
    "weekdays ±1 %, ρ = 0.3": lambda random, nights: (
        alike(0.3, 0.02)(random, nights) + 0.01 * np.sin(np.arange(nights) * 2 * np.pi / 7)
    ),
}
SHIFTS = [(0.03, 60), (0.05, 30), (0.05, 14), (0.05, 10), (0.10, 7), (0.10, 5)]


def false_points(tables: int, by: str) -> None:
    print("| noise | nights | false points per table | tables with any |\n| --- | --- | --- | --- |")
    for place, (name, draw) in enumerate(NOISES.items()):
        for nights in (90, 365):
            random = np.random.default_rng((nights, place))
            counts = [
                sum(len(change_points(draw(random, nights), LINES, by)) for _ in range(LINES)) for _ in range(tables)
            ]
            print(f"| {name} | {nights} | {np.mean(counts):.3f} | {np.mean(np.array(counts) > 0):.1%} |", flush=True)


def found_points(series: int, by: str) -> None:
    print("| change | nights since | found | exactly the night | within the nights named | true size in the interval |")
    print("| --- | --- | --- | --- | --- | --- |")
    for shift, since in SHIFTS:
        random = np.random.default_rng(since)
        hits = []
        for _ in range(series):
            values = random.normal(0, CV, 90)
            values[random.choice(90, 2, replace=False)] += 0.2
            values[90 - since :] += shift
            near = [each for each in change_points(values, LINES, by) if abs(each.first - (90 - since)) <= NEAR]
            for each in near[:1]:
                within = each.earliest <= 90 - since <= each.latest
                hits.append((each.first == 90 - since, within, each.low <= shift <= each.high))
        told = " | ".join(f"{share:.0%}" for share in np.mean(hits, axis=0)) if hits else "– | – | –"
        print(f"| {shift:.0%} | {since} | {len(hits) / series:.0%} | {told} |", flush=True)


def a_year_of_looks(years: int, by: str) -> None:
    print("| noise | years with any false point on any Monday | Mondays with one |\n| --- | --- | --- |")
    for place, name in enumerate(("independent", "each like the night before, ρ = 0.3")):
        random = np.random.default_rng((years, place))
        looks = []
        for _ in range(years):
            table = [NOISES[name](random, 365) for _ in range(LINES)]
            looks.append([any(change_points(line[:n], LINES, by) for line in table) for n in range(14, 366, 7)])
        seen = np.array(looks)
        print(f"| {name} | {seen.any(axis=1).mean():.0%} | {seen.mean():.2%} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=40)
    parser.add_argument("--by", default=detector())
    parts: dict[str, Callable[[int, str], None]] = {
        "false": false_points,
        "found": lambda tables, by: found_points(10 * tables, by),
        "looks": lambda tables, by: a_year_of_looks(max(tables // 4, 1), by),
    }
    parser.add_argument("--part", choices=parts)
    asked = parser.parse_args()
    print(f"Proposed by {asked.by}.")
    for part in [asked.part] if asked.part else parts:
        print()
        parts[part](asked.tables, asked.by)
