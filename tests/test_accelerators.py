"""What is read from NVML, against cards of our own making."""

from __future__ import annotations

import uuid
from types import SimpleNamespace

import pynvml
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.meters import accelerators
from harness.meters.accelerators import (
    THROTTLE_REASONS,
    Board,
    Device,
    as_torch_knows,
    installed,
    open_nvml,
    throttle_reasons,
)
from harness.records import DeviceState
from tests.fake_nvml import Card, FakeNvml

UUID = "b4dc0ffe-0000-1111-2222-333344445555"
OTHER = "0badcafe-0000-1111-2222-333344445555"


@pytest.mark.parametrize("told", [UUID, f"GPU-{UUID}"])
def test_a_device_is_looked_up_by_its_uuid_with_or_without_the_kind_in_front(told: str) -> None:
    nvml = FakeNvml(Card(f"GPU-{OTHER}", used=1), Card(f"GPU-{UUID}", used=2))

    assert Board(nvml, told).used_bytes() == 2


def test_torch_tells_name_index_and_uuid_and_other_makers_no_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=uuid.UUID(UUID)))

    assert as_torch_knows(torch.device("cuda", 1)) == Device("cuda:1", 1, UUID)
    assert as_torch_knows(torch.device("mps", 0)) == Device("mps:0", 0, None)


def test_the_state_of_a_device_is_read_in_the_units_of_its_names() -> None:
    nvml = FakeNvml(Card(f"GPU-{UUID}", milliwatts=612_250, temperature=67, reasons=0x4, processes=3))

    assert Board(nvml, UUID).state() == DeviceState(
        sm_clock_mhz=1980,
        memory_clock_mhz=2619,
        temperature_c=67,
        power_w=612.25,
        throttle=("sw_power_cap",),
        processes=3,
    )


def test_memory_in_use_does_not_count_what_the_driver_keeps_for_itself() -> None:
    assert Board(FakeNvml(Card(f"GPU-{UUID}", used=5)), UUID).used_bytes() == 5


@pytest.mark.parametrize("nvml", [None, FakeNvml(Card(f"GPU-{OTHER}"))])
@pytest.mark.parametrize("told", [None, UUID])
def test_without_nvml_or_a_card_of_that_uuid_nothing_is_known(nvml: FakeNvml | None, told: str | None) -> None:
    board = Board(nvml, told)

    assert (board.state(), board.energy_mj(), board.used_bytes()) == (DeviceState(), None, None)


def test_a_question_that_is_not_answered_is_none_and_is_not_asked_again() -> None:
    nvml = FakeNvml(Card(f"GPU-{UUID}", broken={"power", "clock 2", "memory"}))
    board = Board(nvml, UUID)

    for _ in range(3):
        state = board.state()
        assert (state.power_w, state.memory_clock_mhz, board.used_bytes()) == (None, None, None)
        assert (state.sm_clock_mhz, state.temperature_c) == (1980, 41)

    assert (nvml.asked["power"], nvml.asked["clock 2"], nvml.asked["memory"]) == (1, 1, 1)
    assert nvml.asked["clock 1"] == 3


def test_a_card_that_falls_off_the_bus_in_a_run_goes_silent_and_raises_nothing() -> None:
    card = Card(f"GPU-{UUID}")
    board = Board(FakeNvml(card), UUID)
    assert board.state() != DeviceState()

    card.broken |= {"power", "clock 1", "clock 2", "temperature", "reasons", "processes", "energy", "memory"}

    assert (board.state(), board.energy_mj(), board.used_bytes()) == (DeviceState(), None, None)


def test_a_question_the_binding_does_not_know_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(FakeNvml, "nvmlDeviceGetTemperature")

    assert Board(FakeNvml(Card(f"GPU-{UUID}")), UUID).state().temperature_c is None


def test_a_slice_has_its_own_memory_the_clocks_of_its_card_and_no_energy() -> None:
    card = Card(f"GPU-{OTHER}", temperature=80, used=7, reasons=0x20)
    nvml = FakeNvml(card, Card(f"MIG-{UUID}", temperature=-1, used=2, processes=1, card=card))
    board = Board(nvml, UUID)

    assert board.used_bytes() == 2
    assert board.energy_mj() is None
    state = board.state()
    assert (state.temperature_c, state.throttle, state.processes) == (80, ("sw_thermal_slowdown",), 1)
    assert state.power_w is None


def test_a_slice_told_by_the_uuid_of_its_card_does_not_claim_the_memory_of_the_whole_card() -> None:
    board = Board(FakeNvml(Card(f"GPU-{UUID}", mig=1)), UUID)

    assert (board.used_bytes(), board.energy_mj(), board.state().processes) == (None, None, None)
    assert board.state().sm_clock_mhz == 1980


def test_the_names_of_the_reasons_are_those_of_nvml() -> None:
    def snake(name: str) -> str:
        return "".join("_" + letter.lower() if letter.isupper() else letter for letter in name).lstrip("_")

    prefix = "nvmlClocksEventReason"
    known = {
        getattr(pynvml, name): snake(name.removeprefix(prefix))
        for name in dir(pynvml)
        if name.startswith(prefix) and not name.endswith(("All", "None", "UserDefinedClocks", "GpuIdle"))
    }
    assert known == THROTTLE_REASONS


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_every_bit_but_that_of_an_idle_device_is_told_once(bits: int) -> None:
    assert len(set(throttle_reasons(bits))) == (bits & ~1).bit_count()


def test_an_idle_device_is_not_held_down_and_an_unknown_reason_shows_as_its_bit() -> None:
    assert throttle_reasons(0x001) == ()
    assert throttle_reasons(0x060 | 0x400) == ("sw_thermal_slowdown", "hw_thermal_slowdown", "0x400")


def test_the_gpus_of_a_machine_are_listed_with_what_they_tell() -> None:
    nvml = FakeNvml(Card("GPU-a"), Card("GPU-b", broken={"name", "memory"}))

    assert installed(nvml) == (
        [
            {"name": "NVIDIA H100", "uuid": "GPU-a", "memory_bytes": 80 * 2**30},
            {"name": None, "uuid": "GPU-b", "memory_bytes": None},
        ],
        "580.00",
    )
    assert installed(None) == ([], None)


def test_nvml_is_initialised_once_and_its_absence_is_found_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def fail() -> None:
        calls.append("init")
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    open_nvml.cache_clear()
    try:
        assert [accelerators.open_nvml() for _ in range(3)] == [None] * 3
        monkeypatch.setattr(pynvml, "nvmlInit", lambda: calls.append("init"))
        open_nvml.cache_clear()
        assert [accelerators.open_nvml() for _ in range(3)] == [pynvml] * 3
    finally:
        open_nvml.cache_clear()
    assert calls == ["init", "init"]
    assert capfd.readouterr() == ("", "")
