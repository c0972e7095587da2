"""What is gauged round a turn: peaks, energy, state, processor time."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.chat import Rules, replay
from harness.conversations.script import Conversation, Turn
from harness.meters import memory, processors
from harness.meters.accelerators import Device
from harness.meters.gauges import Gauges
from harness.meters.memory import HostPeak, host_rss_bytes, total
from harness.meters.processors import LoadGauge
from harness.records import DeviceState, Memory
from harness.runner.drive import drive
from tests.builders import circumstances
from tests.fake_nvml import Card, FakeNvml

LINUX = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux keeps a resettable peak")
TWO = (Device("cuda:0", 0, "bbbb"), Device("cuda:1", 1, "aaaa"))


class FakeAccelerator:
    """torch.accelerator with numbers of our own; `broken` are the functions that raise."""

    def __init__(self, allocated: dict[int, int], broken: tuple[str, ...] = ()) -> None:
        self.allocated = allocated
        self.broken = set(broken)
        self.calls: list[tuple[str, int]] = []

    def _call(self, name: str, index: int, answer: Any) -> Any:
        self.calls.append((name, index))
        if name in self.broken:
            raise RuntimeError(f"{name} is not implemented")
        return answer

    def reset_peak_memory_stats(self, index: int) -> None:
        self._call("reset", index, None)

    def max_memory_allocated(self, index: int) -> int:
        return self._call("allocated", index, self.allocated[index])

    def max_memory_reserved(self, index: int) -> int:
        return self._call("reserved", index, self.allocated[index] + 100)

    def get_memory_info(self, index: int) -> tuple[int, int]:
        return self._call("info", index, (1000, 1000 + self.allocated[index] + 500))


def test_peaks_are_told_per_device_and_summed() -> None:
    cards = (Card("GPU-aaaa", used=70), Card("GPU-bbbb", used=40))  # NVML's order is the other one
    seen = Gauges(TWO, FakeAccelerator({0: 10, 1: 20}), FakeNvml(*cards)).read()

    assert [
        (device.device, device.peak_memory_bytes, device.reserved_memory_bytes, device.device_used_bytes)
        for device in seen.devices
    ] == [("cuda:0", 10, 110, 40), ("cuda:1", 20, 120, 70)]
    assert (seen.memory.peak_memory_bytes, seen.memory.reserved_memory_bytes) == (30, 230)
    assert seen.memory.device_used_bytes == 110


def test_energy_and_state_are_those_of_each_device_before_and_after() -> None:
    cards = (Card("GPU-aaaa", energy=[5, 50, 80]), Card("GPU-bbbb", energy=[7, 100, 1100], temperature=40))
    gauges = Gauges(TWO, FakeAccelerator({0: 1, 1: 1}), FakeNvml(*cards))  # takes the first reading
    gauges.reset()
    cards[1].temperature = 55
    seen = gauges.read()

    assert [device.energy_mj for device in seen.devices] == [1000, 30]
    assert (seen.devices[0].before.temperature_c, seen.devices[0].after.temperature_c) == (40, 55)


@given(st.lists(st.integers(min_value=0, max_value=2**64 - 1), min_size=3, max_size=3))
def test_a_counter_that_stood_still_or_went_backwards_says_nothing(readings: list[int]) -> None:
    gauges = Gauges(TWO[:1], FakeAccelerator({0: 1}), FakeNvml(Card("GPU-bbbb", energy=list(readings))))
    gauges.reset()
    _, before, after = readings

    assert gauges.read().devices[0].energy_mj == (after - before if after > before else None)


def test_energy_is_read_next_to_the_turn_and_peaks_are_reset_before_it() -> None:
    nvml, accelerator = FakeNvml(Card("GPU-bbbb")), FakeAccelerator({0: 1})
    gauges = Gauges(TWO[:1], accelerator, nvml)
    nvml.asked.clear()
    accelerator.calls.clear()

    gauges.reset()
    assert list(nvml.asked)[-1] == "energy"
    assert accelerator.calls == [("reset", 0)]
    nvml.asked.clear()
    gauges.read()
    assert next(iter(nvml.asked)) == "energy"


def test_without_nvml_the_memory_in_use_is_what_the_runtime_tells_torch() -> None:
    seen = Gauges(TWO, FakeAccelerator({0: 10, 1: 20})).read()

    assert [device.device_used_bytes for device in seen.devices] == [510, 520]
    assert seen.devices[0].before == seen.devices[0].after == DeviceState()
    assert seen.devices[0].energy_mj is None


def test_an_allocator_that_keeps_no_peaks_tells_none_and_is_asked_once() -> None:
    accelerator = FakeAccelerator({0: 10}, broken=("reset", "info"))
    gauges = Gauges([Device("mps:0", 0)], accelerator)
    for _ in range(3):
        gauges.reset()
        seen = gauges.read()

    assert seen.devices[0].device == "mps:0"
    assert (seen.memory.peak_memory_bytes, seen.memory.device_used_bytes) == (None, None)
    assert [call for call in accelerator.calls if call[0] in ("reset", "info")] == [("reset", 0), ("info", 0)]


def test_a_device_that_breaks_down_in_a_run_does_not_take_the_record_of_its_turn_with_it() -> None:
    accelerator = FakeAccelerator({0: 10})
    gauges = Gauges(TWO[:1], accelerator)
    assert gauges.read().memory.peak_memory_bytes == 10

    accelerator.broken |= {"allocated", "info"}

    assert gauges.read().memory.peak_memory_bytes is None
    accelerator.broken.clear()
    assert gauges.read().devices[0].device_used_bytes is None


def test_a_sum_with_an_unknown_part_is_unknown() -> None:
    assert total([1, 2]) == 3
    assert total([1, None]) is None
    assert total([]) is None
    cards = FakeNvml(Card("GPU-aaaa", used=70), Card("GPU-bbbb", broken={"memory"}))
    seen = Gauges(TWO, FakeAccelerator({0: 1, 1: 1}, broken=("info",)), cards).read()
    assert [device.device_used_bytes for device in seen.devices] == [None, 70]
    assert seen.memory.device_used_bytes is None


def test_without_devices_only_the_host_is_gauged() -> None:
    seen = Gauges().read()

    assert seen.devices == ()
    assert seen.memory == Memory(host_rss_bytes=seen.memory.host_rss_bytes)
    assert seen.host_load is not None


@LINUX
def test_a_peak_of_the_host_belongs_to_the_turn_it_was_reached_in() -> None:
    gauges = Gauges()
    block = bytearray(64 * 2**20)
    block[:: 2**10] = b"x" * len(block[:: 2**10])
    during = gauges.read().memory.host_rss_bytes
    del block
    gauges.reset()
    after = gauges.read().memory.host_rss_bytes

    assert during is not None
    assert after is not None
    assert during - after > 48 * 2**20
    assert abs(after - host_rss_bytes()) < 16 * 2**20


def test_where_the_peak_cannot_be_reset_there_is_no_figure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_CLEAR_REFS", tmp_path / "forbidden" / "clear_refs")

    assert HostPeak().read() is None
    assert host_rss_bytes() > 2**20


def test_processor_time_of_all_threads_is_our_own() -> None:
    gauge = LoadGauge()

    def work() -> None:
        until = time.thread_time() + 0.1
        while time.thread_time() < until:
            pass

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load = gauge.read()

    assert load.own_s >= 0.2
    assert load.wall_s > 0


def test_processor_time_of_another_process_is_the_machines_and_not_ours() -> None:
    gauge = LoadGauge()
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", busy], check=True)
    load = gauge.read()

    assert load.busy_s > 0.2
    assert load.own_s < 0.2


def test_waiting_for_the_disk_and_the_time_of_guests_are_not_counted_as_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"user": 5.0, "nice": 1.0, "system": 2.0, "idle": 100.0, "iowait": 50.0, "irq": 0.5, "softirq": 0.25}
    more = {"steal": 0.125, "guest": 4.0, "guest_nice": 1.0}
    monkeypatch.setattr(psutil, "cpu_times", lambda: SimpleNamespace(_asdict=lambda: times | more))

    assert processors._busy_s() == 5 + 1 + 2 + 0.5 + 0.25 + 0.125


def test_gauges_are_reset_and_read_round_every_turn_while_the_collector_waits() -> None:
    told: list[tuple[str, bool]] = []

    class Watched(Gauges):
        def reset(self) -> None:
            told.append(("reset", gc.isenabled()))
            super().reset()

        def read(self) -> Any:
            told.append(("read", gc.isenabled()))
            return super().read()

    from harness.backends.scripted import Recital, ScriptedBackend

    gauges = Watched()
    told.clear()
    talk = Conversation(id="a", turns=(Turn("Hello"), Turn("Bye")))
    session = ScriptedBackend(Recital(lines=["Hi."])).open_session()
    records = list(drive(replay(talk, circumstances(), Rules({})), session, gauges))

    assert [name for name, _ in told] == ["reset", "read", "reset", "read", "reset"]  # after the last there is no turn
    assert not any(enabled for _, enabled in told)
    assert gc.isenabled()
    assert all(record.host_load is not None for record in records)
