"""An NVML with cards of our own making: a module object that answers as pynvml does, and fails as it does."""

# ruff: noqa: N802, N815 – the names are NVML's
from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


class NVMLError(Exception):
    """As pynvml's: the base of everything NVML complains of."""


@dataclass
class Card:
    """A GPU, or a slice of one (`card` is then the GPU)."""

    uuid: str
    clocks: dict[int, int] = field(default_factory=lambda: {1: 1980, 2: 2619})
    temperature: int = 41
    milliwatts: int = 350_500
    reasons: int = 0
    processes: int = 1
    used: int = 2**30
    energy: list[int] = field(default_factory=lambda: [1000, 3500])
    """What the counter shows, one reading after the other; the last one for ever."""
    mig: int | None = None
    card: Card | None = None
    broken: set[str] = field(default_factory=set)
    """Questions it does not answer."""


class FakeNvml:
    """Cards in the order of the bus; `asked` counts the questions by name."""

    NVMLError = NVMLError
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU, nvmlMemory_v2 = 1, 2, 0, 33554472

    def __init__(self, *cards: Card) -> None:
        self.cards = cards
        self.asked: dict[str, int] = {}

    def _answer(self, question: str, card: Card, answer: Any) -> Any:
        self.asked[question] = self.asked.get(question, 0) + 1
        if answer is None or question in card.broken:
            raise NVMLError(question)
        return answer

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Card:
        for card in self.cards:
            if card.uuid == uuid:
                return card
        raise NVMLError("not found")

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Card:
        return self.cards[index]

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.00"

    def nvmlDeviceGetName(self, card: Card) -> str:
        return self._answer("name", card, "NVIDIA H100")

    def nvmlDeviceGetUUID(self, card: Card) -> str:
        return card.uuid

    def nvmlDeviceIsMigDeviceHandle(self, card: Card) -> int:
        return int(card.card is not None)

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, card: Card) -> Card:
        return self._answer("parent", card, card.card)

    def nvmlDeviceGetMigMode(self, card: Card) -> list[int]:
        return [self._answer("mig", card, card.mig), 0]

    def nvmlDeviceGetClockInfo(self, card: Card, kind: int) -> int:
        return self._answer(f"clock {kind}", card, card.clocks.get(kind))

    def nvmlDeviceGetTemperature(self, card: Card, sensor: int) -> int:
        return self._answer("temperature", card, card.temperature)

    def nvmlDeviceGetPowerUsage(self, card: Card) -> int:
        return self._answer("power", card, card.milliwatts)

    def nvmlDeviceGetCurrentClocksEventReasons(self, card: Card) -> int:
        return self._answer("reasons", card, card.reasons)

    def nvmlDeviceGetComputeRunningProcesses(self, card: Card) -> list[object]:
        return self._answer("processes", card, [object()] * card.processes)

    def nvmlDeviceGetTotalEnergyConsumption(self, card: Card) -> int:
        return self._answer("energy", card, card.energy[0] if len(card.energy) == 1 else card.energy.pop(0))

    def nvmlDeviceGetMemoryInfo(self, card: Card, version: int | None = None) -> Any:
        own_share = 0 if version == self.nvmlMemory_v2 else 600 * 2**20  # the first version counts the driver's too
        return self._answer("memory", card, SimpleNamespace(used=card.used + own_share, total=80 * 2**30))
