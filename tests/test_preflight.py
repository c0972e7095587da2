"""The look at the machine before a night: each finding is ok, a warning or a stop, in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.meters.readiness import Readiness, readiness
from harness.studies.preflight import Finding, preflight, stops
from tests.fake_nvml import Card, FakeNvml

GIB = 2**30
BEFORE = {"gpus": [{"name": "NVIDIA H100"}], "gpu_driver": "580.00"}


def look(*cards: Card, tmp_path: Path = Path("/tmp"), **values: Any) -> Readiness:
    quiet = {"processors": 4, "busy_processors": 0.1, "free_bytes": 50 * GIB}
    return replace(readiness(tmp_path, FakeNvml(*cards) if cards else None, look_s=0.001), **{**quiet, **values})


def idle(**values: Any) -> Card:
    return Card(**{"uuid": "GPU-a", "processes": 0, "used": 300 * 2**20, **values})


def told(findings: tuple[Finding, ...], level: str) -> list[str]:
    return [f"{finding.about}: {finding.line}" for finding in findings if finding.level == level]


def test_an_idle_gpu_of_the_baselines_driver_has_nothing_against_it() -> None:
    findings = preflight(look(idle()), BEFORE)

    assert {finding.level for finding in findings} == {"ok"}
    assert told(findings, "ok") == [
        "GPU: NVIDIA H100", "GPU processes: none, 0.3 GiB in use", "clocks: 1980 MHz",
        "temperature: 41 °C before it begins", "driver: 580.00", "disk: 50.0 GiB free",
        "host load: others keep 0.1 of 4 processors busy",
    ]  # fmt: skip
    assert all("\n" not in str(finding) for finding in findings)


@pytest.mark.parametrize(
    ("card", "level", "line"),
    [
        (idle(processes=2, used=30 * GIB), "stop", "GPU processes: 2 compute on it, 30.0 GiB in use"),
        (idle(processes=1, used=GIB), "stop", "GPU processes: 1 computes on it, 1.0 GiB in use"),
        (idle(used=3 * GIB), "warning", "GPU processes: none is seen, but 3.0 GiB in use"),
        (idle(temperature=78), "warning", "temperature: 78 °C before it begins"),
        (idle(reasons=0x20 | 0x4), "warning", "clocks: held down by sw_power_cap, sw_thermal_slowdown: 1980 MHz"),
    ],
)
def test_what_makes_a_gpus_numbers_worthless_stops_and_what_explains_them_warns(
    card: Card, level: str, line: str
) -> None:
    assert told(preflight(look(card), BEFORE), level) == [line]


def test_clocks_that_somebody_set_are_what_a_machine_that_measures_wants() -> None:
    assert "clocks: 1980 MHz, set by applications_clocks_setting" in told(preflight(look(idle(reasons=0x2))), "ok")


def test_a_gpu_that_tells_nothing_is_not_held_against_the_night() -> None:
    card = idle(broken={"processes", "clock 1", "temperature", "reasons", "memory"})

    findings = preflight(look(card))

    assert {finding.level for finding in findings} == {"ok"}
    assert "GPU processes: it does not tell" in told(findings, "ok")


def test_a_gpu_that_is_gone_stops_the_night_where_the_baseline_had_one() -> None:
    assert told(preflight(look(), BEFORE), "stop") == ["GPU: none is seen, and the baseline is of NVIDIA H100"]
    assert stops(preflight(look(), {"gpus": [], "gpu_driver": None})) == ()
    assert stops(preflight(look())) == ()


def test_another_driver_than_the_baselines_is_named() -> None:
    findings = preflight(look(idle()), {**BEFORE, "gpu_driver": "570.1"})

    assert told(findings, "warning") == ["driver: 580.00, the baseline's was 570.1"]


@pytest.mark.parametrize(("free", "level"), [(GIB // 2, "warning"), (2**20, "stop")])
def test_a_disk_that_is_nearly_full_is_said_before_anything_is_measured(free: int, level: str) -> None:
    assert [line.partition(":")[0] for line in told(preflight(look(free_bytes=free)), level)] == ["disk"]


def test_a_host_that_others_keep_busy_is_a_warning() -> None:
    findings = preflight(look(busy_processors=1.5))

    assert told(findings, "warning") == ["host load: others keep 1.5 of 4 processors busy"]


@pytest.mark.parametrize(
    ("variable", "seen"),
    [("1", ["GPU-b"]), ("GPU-b,0", ["GPU-b", "GPU-a"]), ("", []), ("0,7,1", ["GPU-a"]), (None, ["GPU-a", "GPU-b"])],
)
def test_only_gpus_that_a_model_may_be_put_on_are_looked_at(
    variable: str | None, seen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)

    assert [gpu.uuid for gpu in look(idle(), idle(uuid="GPU-b")).gpus] == seen


def test_of_several_gpus_the_one_that_is_busy_is_named() -> None:
    (line,) = told(preflight(look(idle(), idle(uuid="GPU-b", processes=1))), "stop")

    assert line == "GPU processes: 1 computes on it (1), 0.3 GiB in use"


def test_the_look_itself_is_real(tmp_path: Path) -> None:
    seen = readiness(tmp_path / "not" / "there" / "yet", None, look_s=0.05)

    assert seen.gpus == ()
    assert seen.driver is None
    assert isinstance(seen.busy_processors, float)
    assert seen.free_bytes > 0
