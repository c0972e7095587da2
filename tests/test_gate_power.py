"""The claims about how often the gate is wrong, on few nights: benchmarks/gate_power.py makes the real table.

Few nights cannot show one per cent. What they can show is that the claims are not far off, and that the study would see
it if they were.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import gate_power
from benchmarks.gate_power import CELLS, LAUNCHES, MODELS, NOISE, SCALES, Design, Noise, relative, simulate, study

FEW = Design(sites=12, judged=8)


@pytest.fixture(scope="module")
def found() -> gate_power.Found:
    return study(NOISE["all of it"], FEW, seed=3)


def test_nights_without_a_change_are_hardly_ever_red_and_always_told(found: gate_power.Found) -> None:
    assert found.nights == 96
    assert found.red <= 3 / 96, "four red nights of 96 happen at one per cent once in fifty times"
    assert found.cannot_tell == 0


def test_a_slowdown_of_five_per_cent_is_seen(found: gate_power.Found) -> None:
    assert found.seen[0] >= 0.88, "fewer of 96 happen at 95 % once in two hundred times"
    assert found.seen[0] > found.seen[1]


def test_others_at_equal_false_alarms_see_less_where_launches_are_disturbed(found: gate_power.Found) -> None:
    assert set(found.others) == set(gate_power.STATISTICS)
    assert found.seen[0] > found.others["mean"][0]


def test_the_claims_can_fail() -> None:
    """A floor that knows nothing of nights: what the study is there to find."""
    calm = Noise(night=0.0, drift=0.0)
    wild = replace(NOISE["all of it"], night=0.02)
    times = simulate(wild, FEW, seed=4).mean(axis=-1, dtype=np.float64)
    still = simulate(calm, FEW, seed=5).mean(axis=-1, dtype=np.float64)
    alarms = 0
    for of_site, of_calm in zip(times, still, strict=True):
        floor = gate_power.components(list(of_calm[0, :, :LAUNCHES]))
        window = [night - night.mean() for night in of_calm[0, :20, :LAUNCHES]]
        alarms += any(
            gate_power.decide(night - of_site[0].mean(), window, margin=None, floor=floor).answer != "pass"
            for night in of_site[0]
        )
    assert alarms > len(times) / 2


def test_simulated_nights_vary_as_they_should() -> None:
    noise = Noise(night=0.01, shared=0.0, launch=0.02, turn=0.0)
    values = simulate(noise, Design(sites=40), seed=1)[..., 0].reshape(40, MODELS, len(SCALES), 50, -1)
    for metric, scale in enumerate(SCALES):
        nights = values[:, :, metric].mean(axis=-1)
        assert values[:, :, metric].std(axis=-1, ddof=1).mean() == pytest.approx(0.02 * scale, rel=0.05)
        assert nights.std() == pytest.approx(scale * (0.01**2 + 0.02**2 / 16) ** 0.5, rel=0.1)
        alike = np.mean([np.corrcoef(each[:-1], each[1:])[0, 1] for each in nights.reshape(-1, 50)])
        assert alike == pytest.approx(0.6 * 0.01**2 / (0.01**2 + 0.02**2 / 16), abs=0.08)


def test_an_anchor_takes_away_what_all_share_and_adds_its_own() -> None:
    shared = simulate(Noise(night=0.0, launch=0.01, shared=0.0, turn=0.0, neighbours=0.05), Design(sites=10), seed=2)
    absolute = shared.mean(axis=-1, dtype=np.float64)
    anchored = relative(absolute)
    by_metric = absolute.reshape(10, MODELS, len(SCALES), *absolute.shape[2:])[:, 1:]
    assert anchored.shape[1] == CELLS - len(SCALES)
    assert anchored.mean(axis=-1).std() < absolute.mean(axis=-1).std() / 4
    ratio = anchored.std(axis=-1, ddof=1).mean() / by_metric.std(axis=-1, ddof=1).mean()
    assert ratio == pytest.approx(2**0.5, rel=0.05), "the price: launches vary by those of the anchor, too"
