"""The background sampler: what it sees, what it costs, and that it stays away unless it is asked for."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest

import harness
from harness.analysis.notes import notes
from harness.analysis.samples import sampler_note
from harness.errors import StoreError
from harness.meters.accelerators import Device
from harness.meters.sampler import Sampler
from harness.records import DeviceSample, DeviceState, HostLoad, Sample
from harness.runner.run import execute
from harness.store import SAMPLES, read_manifest, read_samples, reopen
from harness.studies.replay import resolve
from tests.builders import store, turn
from tests.fake_nvml import Card, FakeNvml

SAMPLE = Sample(
    model="pico",
    launch=1,
    at=1_760_000_000.5,
    host_rss_bytes=2**20,
    host_load=HostLoad(wall_s=0.5, own_s=0.75, busy_s=1.0),
    devices=(
        DeviceSample("cuda:0", 7, DeviceState(1980, 2619, 41, 350.5, ("sw_power_cap",), 2)),
        DeviceSample("cuda:1", None, DeviceState()),
    ),
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "recital.yaml").write_text("lines: [Motion is all there is.]\ntoken_s: 0.03\nreal_time: true\n")
    (tmp_path / "prompts.yaml").write_text("conversations: [{id: a, turns: [{user: Hello}, {user: Bye}]}]\n")
    (tmp_path / "config.yaml").write_text(
        "models: ['scripted:recital.yaml']\nconversations: [prompts.yaml]\nwarmup: 1\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def wait_for(sampler: Sampler, looks: int) -> list[Sample]:
    samples: list[Sample] = []
    deadline = time.monotonic() + 20
    while len(samples) < looks and time.monotonic() < deadline:
        samples += sampler.drain()[0]
        time.sleep(0.001)
    return samples


def test_it_looks_at_every_device_and_the_host_and_counts_what_that_takes() -> None:
    nvml = FakeNvml(Card("GPU-aaaa", used=70), Card("GPU-bbbb", used=40, temperature=55))
    with Sampler(0.001, "pico", 1, [Device("cuda:0", 0, "bbbb"), Device("cuda:1", 1, "aaaa")], nvml) as sampler:
        samples = wait_for(sampler, 5)
    _, cost = sampler.drain()

    assert {(sample.model, sample.launch) for sample in samples} == {("pico", 1)}
    assert [(device.device, device.device_used_bytes) for device in samples[0].devices] == [
        ("cuda:0", 40),
        ("cuda:1", 70),
    ]
    assert samples[0].devices[0].state.temperature_c == 55
    assert samples[0].host_rss_bytes > 2**20
    assert [sample.at for sample in samples] == sorted(sample.at for sample in samples)
    assert cost.samples >= 5
    assert cost.reached_s is not None
    assert cost.reached_s >= 0.001  # never more often than it was asked to
    assert cost.cpu_s > 0


def test_every_sample_is_told_once() -> None:
    with Sampler(0.001, "pico", 0) as sampler:
        samples = wait_for(sampler, 10)
    rest, cost = sampler.drain()

    assert len(samples) + len(rest) == cost.samples
    assert sampler.drain() == ((), cost)


def test_what_it_missed_is_not_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.meters.sampler.host_rss_bytes", lambda: time.sleep(0.02) or 1)
    with Sampler(0.001, "pico", 0) as sampler:
        wait_for(sampler, 3)
    cost = sampler.drain()[1]

    assert cost.every_s == 0.001
    assert cost.reached_s is not None
    assert cost.reached_s >= 0.02


def test_one_that_is_stopped_leaves_no_thread() -> None:
    with Sampler(60, "pico", 0):
        assert "sampler" in {thread.name for thread in threading.enumerate()}
    assert "sampler" not in {thread.name for thread in threading.enumerate()}


def test_a_run_with_a_sampler_keeps_what_it_saw_and_says_that_it_ran(here: Path) -> None:
    run = harness.load(execute(resolve("config.yaml", ["sample_devices_s=0.01"]), results=here / "results"))

    (launch,) = run.manifest["launches"]
    assert launch["sampler"]["every_s"] == 0.01
    assert launch["sampler"]["samples"] == len(run.samples) >= 4
    assert launch["sampler"]["reached_s"] >= 0.01
    assert run.launches["sampler"][0] == launch["sampler"]
    assert set(run.samples["model"]) == {"recital"}
    assert run.samples["at"].is_monotonic_increasing
    assert run.samples["device"].isna().all()
    assert (run.samples["host_rss_bytes"] > 0).all()
    assert any("A sampler looked" in note for note in notes(run))


def test_without_the_option_nothing_runs_and_nothing_is_said(here: Path) -> None:
    run = harness.load(execute(resolve("config.yaml"), results=here / "results"))

    assert not (run.path / SAMPLES).exists()
    assert run.samples.empty
    assert "sampler" not in run.manifest["launches"][0]
    assert not any("sampler" in note for note in notes(run))


def test_samples_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    path = store(tmp_path, [turn()])
    writer, _ = reopen(path)
    with writer:
        writer.append_samples([SAMPLE])
        writer.append_samples([replace(SAMPLE, launch=2, devices=())])

    assert read_samples(path) == (SAMPLE, replace(SAMPLE, launch=2, devices=()))


def test_a_torn_sample_is_left_out_and_cut_when_the_run_goes_on(tmp_path: Path) -> None:
    path = store(tmp_path, [turn()])
    writer, _ = reopen(path)
    with writer:
        writer.append_samples([SAMPLE])
    with (path / SAMPLES).open("ab") as file:
        file.write(b'{"model": "pi')
    assert read_samples(path) == (SAMPLE,)

    writer, _ = reopen(path)
    with writer:
        writer.append_samples([SAMPLE])

    assert read_samples(path) == (SAMPLE, SAMPLE)
    assert "torn_lines" not in read_manifest(path)


@pytest.mark.parametrize("line", [b"{}", b"[]", b"null", b'{"model": 1}', b"{"])
def test_a_line_that_is_no_sample_is_an_error_with_a_remedy(tmp_path: Path, line: bytes) -> None:
    path = store(tmp_path, [turn()])
    (path / SAMPLES).write_bytes(line + b"\n")

    with pytest.raises(StoreError, match="no sample"):
        read_samples(path)


def test_the_frame_has_a_row_per_look_and_device_with_loads_in_processors(tmp_path: Path) -> None:
    path = store(tmp_path, [turn()])
    writer, _ = reopen(path)
    with writer:
        writer.append_samples([SAMPLE])
    frame = harness.load(path).samples

    assert list(frame["device"]) == ["cuda:0", "cuda:1"]
    assert list(frame["own_load"]) == [1.5, 1.5]  # 0.75 s of processor time in half a second
    assert list(frame["foreign_load"]) == [0.5, 0.5]
    first = frame.iloc[0]
    assert (first["sm_clock_mhz"], first["temperature_c"], first["power_w"]) == (1980, 41, 350.5)
    assert first["throttle"] == ["sw_power_cap"]
    assert frame["device_used_bytes"].isna().tolist() == [False, True]
    assert frame["throttle"][1] is None


def test_every_column_of_samples_is_documented(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "file-formats.md").read_text(encoding="utf-8")
    section = page.split("## samples.jsonl")[1].split("\n## ")[0]

    documented = set(re.findall(r"`(\w+)`", section.split(".samples`")[1]))
    assert documented == set(harness.load(store(tmp_path, [turn()])).samples.columns)
    assert {field.name for field in fields(Sample)} <= set(re.findall(r"`(\w+)`", section))


def test_the_note_names_rate_and_cost() -> None:
    launches = [
        {"sampler": {"every_s": 0.5, "samples": 3, "reached_s": 0.5123, "cpu_s": 0.003}},
        {"sampler": {"every_s": 0.5, "samples": 1, "reached_s": None, "cpu_s": 0.005}},
        {"failure": {}},
    ]

    note = sampler_note(launches)

    assert note is not None
    assert "every 0.5 s (0.512 s reached) while turns were timed" in note
    assert "4 times, for 2 ms of processor time each" in note
    assert sampler_note([{}]) is None
