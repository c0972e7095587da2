"""What accelerators tell of themselves through NVML, the only door to it. Other makers' devices tell nothing here.

torch counts the devices that CUDA_VISIBLE_DEVICES leaves, in the order it names them; NVML counts all devices of the
machine, in the order of the bus. So a device is looked up by its UUID, never by its number.

A slice of a card (MIG) shares clocks, heat and power with the other slices: its state is the card's, and energy and
power, which nobody can divide, are not told.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from harness.records import DeviceState

if TYPE_CHECKING:
    import torch

THROTTLE_REASONS = {
    0x002: "applications_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}
"""Bits of nvmlDeviceGetCurrentClocksEventReasons (nvml.h, nvmlClocksEventReasons). Bit 0, an idle device, is left out:
before and after a turn every device is idle, and nothing holds it down."""
_IDLE = 0x001


@dataclass(frozen=True, slots=True)
class Device:
    """An accelerator as torch knows it."""

    name: str
    """cuda:0"""
    index: int
    uuid: str | None = None
    """None where the maker has no such thing."""


def as_torch_knows(device: torch.device) -> Device:
    """The name, index and UUID of a device; opens a context there if there is none yet."""
    import torch

    properties = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    uuid = getattr(properties, "uuid", None)
    return Device(str(device), device.index or 0, None if uuid is None else str(uuid))


@cache
def open_nvml() -> Any:
    """The module pynvml, initialised once per process; None where there is no driver of NVIDIA."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # a machine without such a GPU is a machine like any other
        return None
    return pynvml


class Board:
    """One device of NVIDIA. A question it does not answer is None, and is not asked again.

    `nvml` is the module (None: nothing is answered), `uuid` the device's, with or without the GPU- in front.
    """

    def __init__(self, nvml: Any, uuid: str | None) -> None:
        self._nvml = nvml
        self._silent: set[tuple[Any, ...]] = set()
        self._card = self._own = None if nvml is None or uuid is None else self._handle(uuid)
        self._whole = True
        if self._ask("nvmlDeviceIsMigDeviceHandle", self._own):
            self._card, self._whole = self._ask("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", self._own), False
        elif (self._ask("nvmlDeviceGetMigMode", self._own) or [False])[0]:
            self._own, self._whole = None, False  # a slice, told by the UUID of its card: which one is not known

    def state(self) -> DeviceState:
        """Clocks, temperature, power and company at this moment."""
        nvml, card = self._nvml, self._card
        if card is None:
            return DeviceState()
        milliwatts = self._ask("nvmlDeviceGetPowerUsage", card if self._whole else None)
        reasons = self._ask("nvmlDeviceGetCurrentClocksEventReasons", card)
        processes = self._ask("nvmlDeviceGetComputeRunningProcesses", self._own)
        return DeviceState(
            sm_clock_mhz=self._ask("nvmlDeviceGetClockInfo", card, nvml.NVML_CLOCK_SM),
            memory_clock_mhz=self._ask("nvmlDeviceGetClockInfo", card, nvml.NVML_CLOCK_MEM),
            temperature_c=self._ask("nvmlDeviceGetTemperature", card, nvml.NVML_TEMPERATURE_GPU),
            power_w=None if milliwatts is None else milliwatts / 1000,
            throttle=None if reasons is None else throttle_reasons(reasons),
            processes=None if processes is None else len(processes),
        )

    def energy_mj(self) -> int | None:
        """The device's energy counter, in millijoules since its driver was loaded."""
        energy: int | None = self._ask("nvmlDeviceGetTotalEnergyConsumption", self._card if self._whole else None)
        return energy

    def used_bytes(self) -> int | None:
        """Memory in use on the device, whoever uses it, without what the driver keeps for itself."""
        version = getattr(self._nvml, "nvmlMemory_v2", None)  # the first version counts the driver's share as used
        memory = self._ask("nvmlDeviceGetMemoryInfo", self._own, version)
        return None if memory is None else int(memory.used)

    def _handle(self, uuid: str) -> Any:
        plain = uuid.removeprefix("GPU-").removeprefix("MIG-")  # torch leaves the kind of device out
        for kind in ("GPU-", "MIG-"):
            try:
                return self._nvml.nvmlDeviceGetHandleByUUID(kind + plain)
            except self._nvml.NVMLError:  # not of this kind, or of another maker
                continue
        return None

    def _ask(self, question: str, handle: Any, *about: Any) -> Any:
        """What NVML's function of this name says; None where there is nobody to ask or no answer."""
        if handle is None or (question, *about) in self._silent:
            return None
        try:
            return getattr(self._nvml, question)(handle, *about)
        except (AttributeError, self._nvml.NVMLError):  # the binding, the driver or the device does not know
            self._silent.add((question, *about))
            return None


def throttle_reasons(bits: int) -> tuple[str, ...]:
    """The names of the reasons in a bit mask; a bit without a name shows as its number."""
    return tuple(
        THROTTLE_REASONS.get(1 << place, hex(1 << place))
        for place in range(bits.bit_length())
        if bits & ~_IDLE & (1 << place)
    )


def installed(nvml: Any) -> tuple[list[dict[str, Any]], str | None]:
    """Name, UUID and memory of every GPU of the machine, and the driver's version; nothing where `nvml` is None."""
    if nvml is None:
        return [], None

    def ask(question: str, *about: Any) -> Any:
        try:
            return getattr(nvml, question)(*about)
        except nvml.NVMLError:  # not every GPU answers every question
            return None

    gpus = []
    for index in range(ask("nvmlDeviceGetCount") or 0):
        handle = ask("nvmlDeviceGetHandleByIndex", index)
        memory = None if handle is None else ask("nvmlDeviceGetMemoryInfo", handle)
        gpus.append(
            {
                "name": None if handle is None else ask("nvmlDeviceGetName", handle),
                "uuid": None if handle is None else ask("nvmlDeviceGetUUID", handle),
                "memory_bytes": None if memory is None else int(memory.total),
            }
        )
    return gpus, ask("nvmlSystemGetDriverVersion")
