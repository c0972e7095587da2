"""How often the gate is wrong, and what others do on the same nights: `python -m benchmarks.gate_power`.

Simulated nights have what real ones have: nights whose effects are alike from one to the next and partly shared by all
cells, slow drift, single launches that something disturbed, a clock of two speeds. How large all this is, `NOISE`, was
fixed before the nights of `SEED` were drawn; docs/gate.md tells what came before. Each *site* is calibrated once
(`CALIBRATION` nights), has a window of `WINDOW` nights that moves with it, and is judged for `JUDGED` nights in a row:
once as they are (a red cell is a false alarm), and once with a slowdown in one cell of each night, chosen at random.
Recorded nights are runs of the built-in models in
a row on a shared machine, in data/recorded_nights.csv (`--record RUN …`); each is judged by the others.

Side by side, on the same nights and launches: what is usual. Each of these is given the threshold at which one in a
hundred of these very nights alarms without a change, which nobody knows beforehand; the gate is given nothing:

    mean, median   pytest-benchmark's `--benchmark-compare-fail`: all timings of a benchmark, against the last night's
    ratio          to the last point: one value a night (the median of its launches), as charts of benchmarks compare
    Mann–Whitney   one-sided, the timings of a benchmark against the last night's

Prints the tables as Markdown, with `--write` also into docs/gate.md; exit code 1 where the claims of `holds` fail.
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import mannwhitneyu

import harness
from harness.analysis.decide import FALSE_ALARMS, Decision, Floor, components, decide

MODELS, METRICS = 4, 3
CELLS = MODELS * METRICS
SCALES = (1.25, 0.6, 0.8)
"""How noisy each metric is: the time to the first token, per token, end to end."""
TURNS = 12
LAUNCHES = 8
CONFIRMING = 8
CALIBRATION = 20
WINDOW = 20
JUDGED = 10
SITES = 240
SEED = 20261124
"""Of a day: chosen when everything else here was fixed, and before anything was drawn with it."""
SLOWDOWNS = (0.05, 0.03)
DATA = Path(__file__).parent / "data" / "recorded_nights.csv"
PAGE = Path(__file__).parent.parent / "docs" / "gate.md"
MARKS = ("<!-- gate_power: made by python -m benchmarks.gate_power --write -->\n", "<!-- /gate_power -->")


@dataclass(frozen=True)
class Noise:
    """Standard deviations of logarithms: 0.01 is 1 %. Metrics are not equally noisy: `SCALES`."""

    night: float = 0.005
    shared: float = 0.5
    """Share of these variances that all cells of the machine, or of a launch, have in common."""
    alike: float = 0.6
    """Autocorrelation of nights."""
    launch: float = 0.01
    turn: float = 0.03
    drift: float = 0.0
    """Per night: 0.0002 is 6 % in a year of nights."""
    disturbed: float = 0.0
    """Share of launches that are slower by 5 to 25 %."""
    slow_clock: float = 0.0
    """Share of launches that run at a clock 2 % lower."""
    neighbours: float = 0.0
    """Of the night's effect that others on a shared machine have on everything."""


NOISE = {
    "nights that are alike": Noise(),
    "and slow drift": Noise(drift=0.0002),
    "and disturbed launches": Noise(disturbed=0.02),
    "and two clocks": Noise(slow_clock=0.2),
    "all of it": Noise(drift=0.0002, disturbed=0.02, slow_clock=0.2),
}
SHARED = replace(NOISE["all of it"], neighbours=0.03)
TWICE = replace(NOISE["all of it"], night=0.01, launch=0.02, turn=0.06)


@dataclass(frozen=True)
class Design:
    """How nights are measured and judged."""

    sites: int = SITES
    launches: int = LAUNCHES
    confirming: int = CONFIRMING
    calibration: int = CALIBRATION
    window: int = WINDOW
    judged: int = JUDGED
    margin: float | None = None
    anchor: bool = False

    @property
    def nights(self) -> int:
        return self.sites * self.judged


@dataclass
class Found:
    """Shares of nights."""

    nights: int
    red: float
    cannot_tell: float
    suspicious: float
    """Nights that took further launches."""
    seen: tuple[float, ...]
    """Of `SLOWDOWNS` each."""
    resolvable: float
    """Median, as a ratio − 1."""
    others: dict[str, tuple[float, ...]]
    """What others see of them at equal false alarms."""
    nightly: dict[str, np.ndarray]
    """Without a change, the largest value of a night that others hold against their threshold."""
    thresholds: dict[str, float]


def simulate(noise: Noise, design: Design, seed: int) -> np.ndarray:
    """Logarithms of times: (sites, cells, nights, launches, turns)."""
    draw = np.random.default_rng(seed)
    nights = design.calibration + design.window + design.judged
    count = design.launches + design.confirming
    cells = (design.sites, MODELS, METRICS)

    def correlated(*shape: int) -> np.ndarray:
        """Along nights, with variance 1."""
        steps = draw.standard_normal((nights, *shape))
        for night in range(1, nights):
            steps[night] = noise.alike * steps[night - 1] + np.sqrt(1 - noise.alike**2) * steps[night]
        return np.moveaxis(steps, 0, -1)

    def mixed(common: np.ndarray, own: np.ndarray) -> np.ndarray:
        return np.sqrt(noise.shared) * common + np.sqrt(1 - noise.shared) * own

    night = noise.night * mixed(correlated(design.sites, 1, 1), correlated(*cells))
    night = night + noise.neighbours * correlated(design.sites, 1, 1) + noise.drift * np.arange(nights)
    process = (design.sites, MODELS, 1, nights, count)
    launch = noise.launch * mixed(draw.standard_normal(process), draw.standard_normal((*cells, nights, count)))
    launch = launch + np.where(draw.random(process) < noise.disturbed, draw.uniform(0.05, 0.25, process), 0)
    launch = launch + np.where(draw.random(process) < noise.slow_clock, 0.02, 0)
    times = (night[..., None] + launch)[..., None] + noise.turn * draw.standard_normal((*launch.shape, TURNS))
    times *= np.array(SCALES)[:, None, None, None]
    return times.astype(np.float32).reshape(design.sites, CELLS, nights, count, TURNS)


def relative(values: np.ndarray) -> np.ndarray:
    """Launch values (sites, cells, nights, launches) of all models but the first, to the first's in the same launch."""
    by_model = values.reshape(len(values), MODELS, METRICS, *values.shape[2:])
    return (by_model[:, 1:] - by_model[:, :1]).reshape(len(values), -1, *values.shape[2:])


def study(noise: Noise, design: Design, seed: int = SEED) -> Found:
    times = simulate(noise, design, seed)
    values = times.mean(axis=-1, dtype=np.float64)
    values = relative(values) if design.anchor else values
    cells, first = values.shape[1], design.calibration + design.window
    chosen = np.random.default_rng(seed + 1).integers(cells, size=(design.sites, design.judged))
    answers, seen, resolvable = [], [], []
    for site, of_site in enumerate(values):
        floors = [components(list(cell[: design.calibration, : design.launches])) for cell in of_site]
        for number, night in enumerate(range(first, first + design.judged)):

            def judged(cell: int, slower: float = 0.0) -> tuple[Decision, bool]:
                history = of_site[cell, night - design.window : night, : design.launches]  # noqa: B023 – used at once
                tonight = of_site[cell, night] + slower  # noqa: B023
                return _judged(tonight, history, floors[cell], design, cells)  # noqa: B023

            decisions = [judged(cell) for cell in range(cells)]
            answers.append(
                [decision.answer for decision, _ in decisions] + ["suspicion"] * any(a for _, a in decisions)
            )
            resolvable += [decision.resolvable for decision, _ in decisions]
            slowed = [judged(int(chosen[site, number]), float(np.log1p(slower)))[0] for slower in SLOWDOWNS]
            seen.append([decision.answer == "regression" for decision in slowed])
    red = [("regression" in night) for night in answers]
    others, nightly, thresholds = ({}, {}, {}) if design.anchor else _others(times, design, chosen)
    return Found(
        nights=len(answers),
        red=float(np.mean(red)),
        cannot_tell=float(np.mean([("cannot tell" in night and "regression" not in night) for night in answers])),
        suspicious=float(np.mean(["suspicion" in night for night in answers])),
        seen=tuple(np.mean(seen, axis=0).tolist()),
        resolvable=float(np.expm1(np.median(resolvable))),
        others=others,
        nightly=nightly,
        thresholds=thresholds,
    )


def _judged(
    tonight: np.ndarray, history: np.ndarray, floor: Floor | None, design: Design, family: int
) -> tuple[Decision, bool]:
    """The last word on a cell, and whether it took further launches."""
    window, own, fresh = list(history), tonight[: design.launches], tonight[design.launches :]
    margin = None if design.margin is None else float(np.log1p(design.margin))
    found = decide(own, window, margin=margin, family=family, floor=floor, confirm_launches=design.confirming)
    if found.answer != "suspicion":
        return found, False
    return decide(own, window, margin=margin, family=family, floor=floor, confirm=fresh), True


def _others(
    times: np.ndarray, design: Design, chosen: np.ndarray
) -> tuple[dict[str, tuple[float, ...]], dict[str, np.ndarray], dict[str, float]]:
    """What each sees where one night in a hundred alarms for nothing, with its nightly values and its threshold."""
    nights = times[:, :, -design.judged - 1 :, : design.launches]
    nights = nights.reshape(design.sites, CELLS, design.judged + 1, -1)
    last, tonight = nights[:, :, :-1], nights[:, :, 1:]
    picked = np.arange(CELLS)[None, :, None] == chosen[:, None, :]
    seen, nightly, thresholds = {}, {}, {}
    for name, how in STATISTICS.items():
        nightly[name] = np.sort(how(last, tonight).max(axis=1).ravel())
        thresholds[name] = float(nightly[name][-1 - int(FALSE_ALARMS * nightly[name].size)])
        seen[name] = tuple(
            float((how(last[picked], tonight[picked] + np.float32(np.log1p(slower))) > thresholds[name]).mean())
            for slower in SLOWDOWNS
        )
    return seen, nightly, thresholds


def _mean(last: np.ndarray, tonight: np.ndarray) -> np.ndarray:
    return np.exp(tonight).mean(axis=-1) / np.exp(last).mean(axis=-1) - 1


def _median(last: np.ndarray, tonight: np.ndarray) -> np.ndarray:
    return np.exp(np.median(tonight, axis=-1) - np.median(last, axis=-1)) - 1


def _ratio(last: np.ndarray, tonight: np.ndarray) -> np.ndarray:
    """Of one value a night: the median over launches of each one's mean."""
    one, other = (np.median(each.reshape(*each.shape[:-1], -1, TURNS).mean(-1), axis=-1) for each in (last, tonight))
    return np.exp(other - one) - 1


def _mann_whitney(last: np.ndarray, tonight: np.ndarray) -> np.ndarray:
    """−log p."""
    found = mannwhitneyu(tonight, last, alternative="greater", axis=-1, method="asymptotic")
    return -np.log(np.maximum(found.pvalue, 1e-300))


STATISTICS = {"mean": _mean, "median": _median, "ratio": _ratio, "Mann–Whitney": _mann_whitney}


def record(runs: list[Path]) -> None:
    """Keep what the launches of runs measured, of each model the mean logarithm over its turns, in `DATA`."""
    DATA.parent.mkdir(exist_ok=True)
    with DATA.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["run", "metric", "model", "launch", "value"])
        for number, run in enumerate(map(harness.load, runs)):
            for (model, launch), turns in run.turns.groupby(["model", "launch"]):
                for metric in ("ttft_s", "tpot_s", "e2e_s"):
                    value = np.exp(np.log(turns[metric].to_numpy(dtype=float)).mean())
                    lines.writerow([f"{number:02}", metric, model, launch, f"{value:.6g}"])


def recorded() -> dict[str, dict[str, list[np.ndarray]]]:
    """metric → model → nights of launch values (logarithms), as they were recorded."""
    found: dict[str, dict[str, dict[str, dict[int, float]]]] = {}
    with DATA.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            launches = found.setdefault(row["metric"], {}).setdefault(row["model"], {}).setdefault(row["run"], {})
            launches[int(row["launch"])] = float(np.log(float(row["value"])))
    return {
        metric: {
            model: [np.array([launches[each] for each in sorted(launches)]) for _, launches in sorted(nights.items())]
            for model, nights in models.items()
        }
        for metric, models in found.items()
    }


@dataclass
class Recorded:
    """One cell of the recorded nights."""

    cell: str
    nights: int
    launch: float
    night: float
    resolvable: float
    red: int
    seen: int
    """Of a slowdown as large as resolvable and half as much again."""


def on_recorded(anchored: bool = False) -> Iterator[Recorded]:
    """Each night judged by all others; half its launches are the confirming ones. `anchored`: nano relative to pico."""
    cells = {f"{metric}, {model}": nights for metric, models in recorded().items() for model, nights in models.items()}
    if anchored:
        cells = {
            f"{metric}, nano / pico": [ours - base for ours, base in zip(of["nano"], of["pico"], strict=True)]
            for metric, of in recorded().items()
        }
    for name, nights in cells.items():
        red = seen = 0
        told = []
        for number, night in enumerate(nights):
            window = nights[:number] + nights[number + 1 :]
            half = (len(night) + 1) // 2

            def answer(slower: float) -> Decision:
                own, fresh = night[:half] + slower, night[half:] + slower  # noqa: B023 – used at once
                return decide(own, window, margin=None, family=len(cells), confirm=fresh)  # noqa: B023

            found = answer(0.0)
            told.append(found.resolvable)
            red += found.answer == "regression"
            seen += answer(1.5 * found.resolvable).answer == "regression"
        noise = components(nights)
        yield Recorded(
            name,
            len(nights),
            noise.launch**0.5,
            max(noise.night, 0.0) ** 0.5,
            float(np.expm1(np.median(told))),
            red,
            seen,
        )


_TWICE = "twice the noise"


def tables(sites: int = SITES) -> tuple[str, bool]:
    """Both tables as Markdown, and whether the claims hold."""
    design = Design(sites=sites)
    rows = [(name, noise, design) for name, noise in NOISE.items()]
    everything = NOISE["all of it"]
    rows += [
        ("all of it, margin +4 %", everything, replace(design, margin=0.04)),
        ("all of it, 5 + 5 launches", everything, replace(design, launches=5, confirming=5)),
        ("all of it, against an anchor", everything, replace(design, anchor=True)),
        (_TWICE, TWICE, design),
        ("neighbours, 3 % a night", SHARED, design),
        ("neighbours, against an anchor", SHARED, replace(design, anchor=True)),
    ]
    found = []
    for name, noise, how in rows:
        print(name, file=sys.stderr)
        found.append((name, study(noise, how)))
    of = dict(found)
    usual = {"mean": 0.05, "median": 0.05, "ratio": 0.05, "Mann–Whitney": -np.log(0.002)}
    told = [
        f"{design.nights} nights a row, {CELLS} cells (with an anchor {CELLS - METRICS}), {LAUNCHES} launches a night "
        f"and {CONFIRMING} confirming ones, {WINDOW} nights in the window, {CALIBRATION} in the calibration; margins "
        "`auto` if not said otherwise. *Seen*: a slowdown of 5 % / 3 %, in one cell, in its first night.",
        "",
        "| nights | red without a change | cannot tell | took further launches | resolvable | seen | by mean "
        "| by median | by ratio | by Mann–Whitney |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        *(_row(name, each) for name, each in found),
        "",
        f"Red without a change in *all of it*: the gate {of['all of it'].red:.2%}; others at thresholds that are usual "
        f"(5 %, p < 0.002) {_reds(of['all of it'], usual)}. In *twice the noise*: the gate {of[_TWICE].red:.2%}; "
        f"others at the thresholds that are right for *all of it* {_reds(of[_TWICE], of['all of it'].thresholds)}.",
        "",
        "| recorded nights | nights | launches vary by | nights vary by | resolvable | red | 1.5 × resolvable seen |",
        "|---|--:|--:|--:|--:|--:|--:|",
        *(
            f"| {each.cell} | {each.nights} | {each.launch:.1%} | {each.night:.1%} "
            f"| {f'{each.resolvable:.0%}' if each.resolvable < 10 else 'above 1000%'} "
            f"| {each.red} | {each.seen} |"
            for each in (*on_recorded(), *on_recorded(anchored=True))
        ),
    ]
    return "\n".join(told) + "\n", all(holds(each) for name, each in found if name in NOISE)


def holds(found: Found) -> bool:
    """What the documentation claims of nights without neighbours."""
    return found.red <= FALSE_ALARMS and found.cannot_tell <= 0.10 and found.seen[0] >= 0.95


def _row(name: str, found: Found) -> str:
    def shares(seen: tuple[float, ...]) -> str:
        return " / ".join(f"{share:.1%}" for share in seen)

    others = " | ".join(shares(found.others[other]) if found.others else "–" for other in STATISTICS)
    return (
        f"| {name} | {found.red:.2%} | {found.cannot_tell:.1%} | {found.suspicious:.1%} | {found.resolvable:.1%} "
        f"| {shares(found.seen)} | {others} |"
    )


def _reds(found: Found, thresholds: dict[str, float]) -> str:
    """Nights without a change on which others alarm at these thresholds."""
    return ", ".join(f"{name} {(found.nightly[name] > thresholds[name]).mean():.1%}" for name in STATISTICS)


def main() -> int:
    parser = argparse.ArgumentParser(description="How often the gate is wrong, on simulated and on recorded nights.")
    parser.add_argument("--write", action="store_true", help="also write the tables into docs/gate.md")
    parser.add_argument("--sites", type=int, default=SITES, help=f"{JUDGED} nights each (default: {SITES})")
    parser.add_argument("--record", nargs="+", type=Path, help="first keep these runs, of harness calibrate, as nights")
    arguments = parser.parse_args()
    if arguments.record:
        record(arguments.record)
    text, held = tables(arguments.sites)
    print(text)
    if arguments.write:
        page = PAGE.read_text(encoding="utf-8")
        before, _, rest = page.partition(MARKS[0])
        PAGE.write_text(before + MARKS[0] + text + MARKS[1] + rest.partition(MARKS[1])[2], encoding="utf-8")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
