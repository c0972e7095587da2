"""The ceilings of this machine: measured, remembered, and sensible."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.meters import machine
from harness.meters.machine import Ceilings, ceilings, copy_bytes_per_s, matrix_flops_per_s

CPU = torch.device("cpu")


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache directory, quick probes, and the place of the file."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(machine, "_COPIED_BYTES", {"cpu": 2**20})
    monkeypatch.setattr(machine, "_TIMES_THE_CACHE", 0)
    monkeypatch.setattr(machine, "_LARGEST_MATRIX", 256)
    monkeypatch.setattr(machine, "_LONG_ENOUGH_S", 0.001)
    monkeypatch.setattr(machine, "_BUDGET_S", 0.001)
    return tmp_path / "instruct-harness" / "machine.json"


@pytest.fixture
def probes(memory: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What has been measured: every probe answers with how many there were before it."""
    made: list[str] = []

    def probe(name: str) -> Any:
        def measure(*about: object) -> float:
            made.append(name)
            return float(len(made))

        return measure

    monkeypatch.setattr(machine, "copy_bytes_per_s", probe("copy"))
    monkeypatch.setattr(machine, "matrix_flops_per_s", probe("matrix"))
    return made


def test_this_machine_has_ceilings(memory: Path) -> None:
    found = ceilings(CPU, torch.float32)

    assert found.copy_bytes_per_s is not None
    assert found.copy_bytes_per_s > 1e8
    assert found.matrix_flops_per_s is not None
    assert found.matrix_flops_per_s > 1e8


def test_a_copy_counts_what_is_read_and_what_is_written(monkeypatch: pytest.MonkeyPatch, memory: Path) -> None:
    monkeypatch.setattr(machine, "_best_s", lambda work, device: 0.5)

    assert copy_bytes_per_s(CPU) == 2 * 2**20 / 0.5


def test_a_product_counts_two_operations_for_every_multiply_add(monkeypatch: pytest.MonkeyPatch, memory: Path) -> None:
    monkeypatch.setattr(machine, "_best_s", lambda work, device: 0.5)
    monkeypatch.setattr(machine, "_timed_s", lambda work, times, device: 1.0)

    assert matrix_flops_per_s(CPU, torch.float32) == 2 * 256**3 / 0.5


def test_a_copy_is_larger_than_the_cache_or_there_is_no_figure(monkeypatch: pytest.MonkeyPatch, memory: Path) -> None:
    copied: list[int] = []
    monkeypatch.setattr(machine, "_best_s", lambda work, device: copied.append(work().numel()) or 1.0)
    monkeypatch.setattr(machine, "_TIMES_THE_CACHE", 4)
    monkeypatch.setattr(machine, "cache_bytes", lambda device: 2**20)
    copy_bytes_per_s(CPU)
    assert copied == [4 * 2**20]

    monkeypatch.setattr(machine, "_free_bytes", lambda device: 2**20)
    assert copy_bytes_per_s(CPU) is None


def test_an_operation_the_device_lacks_has_no_figure_and_is_tried_again(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ceilings(CPU, torch.int8)  # no random numbers in it, and nothing to be gained from its rate

    assert found.copy_bytes_per_s is not None
    assert found.matrix_flops_per_s is None or found.matrix_flops_per_s > 0

    def lacks(*arguments: object, **named: object) -> None:
        raise RuntimeError("not implemented for 'Half'")

    monkeypatch.setattr(torch, "mm", lacks)
    assert ceilings(CPU, torch.float16).matrix_flops_per_s is None
    assert "float16" not in memory.read_text()


def test_the_seed_of_a_turn_is_not_spent_on_a_probe(memory: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()

    ceilings(CPU, torch.float32)

    assert torch.equal(torch.get_rng_state(), before)


def test_what_was_measured_is_remembered(probes: list[str], memory: Path) -> None:
    first = ceilings(CPU, torch.float32)

    assert ceilings(CPU, torch.float32) == first == Ceilings(1.0, 2.0, machine.cache_bytes(CPU))
    assert probes == ["copy", "matrix"]
    assert [path.name for path in memory.parent.iterdir()] == ["machine.json"]


def test_another_dtype_or_number_of_threads_is_measured_by_itself(probes: list[str]) -> None:
    threads = torch.get_num_threads()
    ceilings(CPU, torch.float32)
    ceilings(CPU, torch.bfloat16)
    try:
        torch.set_num_threads(threads + 1)
        ceilings(CPU, torch.float32)
    finally:
        torch.set_num_threads(threads)
    ceilings(CPU, torch.float32)
    ceilings(CPU, torch.bfloat16)

    assert probes == ["copy", "matrix"] * 3


@pytest.mark.parametrize("shift_s", [8 * 24 * 3600, -3600])
def test_what_is_older_than_a_week_or_from_the_future_is_measured_again(
    probes: list[str], memory: Path, monkeypatch: pytest.MonkeyPatch, shift_s: int
) -> None:
    ceilings(CPU, torch.float32)
    now = time.time() + shift_s
    monkeypatch.setattr(machine.time, "time", lambda: now)

    assert ceilings(CPU, torch.float32).copy_bytes_per_s == 3.0


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", "null", '{"x": 1}', '{"KEY": {"copy_bytes_per_s": "fast"}}', '{"KEY": null}', "\udcff"]
)
def test_a_damaged_memory_is_measured_again_and_repaired(probes: list[str], memory: Path, damage: str) -> None:
    ceilings(CPU, torch.float32)
    (key,) = json.loads(memory.read_text())
    memory.write_bytes(damage.replace('"KEY"', json.dumps(key)).encode(errors="surrogateescape"))

    assert ceilings(CPU, torch.float32).copy_bytes_per_s == 3.0
    assert ceilings(CPU, torch.float32).copy_bytes_per_s == 3.0


def test_where_nothing_can_be_remembered_every_process_measures(
    probes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    assert ceilings(CPU, torch.float32).copy_bytes_per_s == 1.0
    assert ceilings(CPU, torch.float32).copy_bytes_per_s == 3.0


def cache(root: Path, processor: int, index: int, level: str, size: str, shared: str) -> None:
    folder = root / f"cpu{processor}" / "cache" / f"index{index}"
    folder.mkdir(parents=True)
    for name, text in (("level", level), ("size", size), ("shared_cpu_list", shared)):
        (folder / name).write_text(text + "\n")


def test_the_last_caches_of_the_processors_we_may_use_are_added_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for processor, shared in ((0, "0-1"), (1, "0-1"), (2, "2-3"), (3, "2-3")):
        cache(tmp_path, processor, 0, "1", "32K", str(processor))
        cache(tmp_path, processor, 3, "3", "32768K", shared)
    monkeypatch.setattr(machine, "allowed_processors", lambda: (0, 1, 2))
    assert machine._cpu_cache_bytes(tmp_path) == 2 * 32 * 2**20
    monkeypatch.setattr(machine, "allowed_processors", lambda: (0, 1))
    assert machine._cpu_cache_bytes(tmp_path) == 32 * 2**20


def test_a_cache_of_unknown_size_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "allowed_processors", lambda: (0,))
    assert machine._cpu_cache_bytes(tmp_path) is None
    cache(tmp_path, 0, 0, "1", "", "0")
    assert machine._cpu_cache_bytes(tmp_path) is None
