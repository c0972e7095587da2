"""What can only be seen with an accelerator."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.backends.seam import Backend
from harness.meters.accelerators import Board, as_torch_knows, open_nvml
from harness.meters.gauges import Gauges, gauges_of
from harness.meters.machine import ceilings
from tests.asking import ask, converse

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.accelerator.is_available(), reason="there is no accelerator"),
]


def test_a_model_is_put_on_the_accelerator_and_answers_there(open_model: Callable[..., Backend]) -> None:
    backend = open_model()
    assert backend.report.facts["devices"] != ["cpu"]
    assert backend.report.facts["memory_bytes"] >= backend.report.facts["weights_bytes"]
    asked = ask(backend.open_session())
    assert asked.reply.failure is None
    times = [ns for ns, _ in asked.stamps.ticks]
    assert times == sorted(times)


def test_caches_are_reused_on_the_accelerator(open_model: Callable[..., Backend]) -> None:
    talks = [
        converse(open_model(spec={"kv_cache": mode}).open_session(), {"max_new_tokens": 8}, length="fixed")
        for mode in ("fresh", "reuse")
    ]
    fresh, reused = ([asked.reply.completion_ids for asked in talk] for talk in talks)
    assert fresh == reused
    assert talks[1][-1].reply.cached_tokens > 0


def test_logits_that_are_not_finite_do_not_end_the_process(open_model: Callable[..., Backend]) -> None:
    backend: Any = open_model()
    norm = backend.model.model.norm.weight
    sound = norm.detach().clone()
    with torch.no_grad():
        norm.fill_(float("nan"))
    reply = ask(backend.open_session(), sampling={"do_sample": True, "max_new_tokens": 4}).reply
    assert reply.failure is not None
    assert reply.failure.kind == "NonFiniteLogits"
    with torch.no_grad():
        norm.copy_(sound)
    assert ask(backend.open_session()).reply.failure is None


@pytest.fixture
def card() -> torch.device:
    """The last of NVIDIA's devices: with several, NVML's and torch's order may differ there."""
    if not torch.cuda.is_available() or open_nvml() is None:
        pytest.skip("there is no GPU of NVIDIA")
    return torch.device("cuda", torch.cuda.device_count() - 1)


def keep_busy(card: torch.device, seconds: float) -> None:
    matrix = torch.randn(4096, 4096, device=card)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        matrix @ matrix
        torch.accelerator.synchronize(card)


def test_the_uuid_that_torch_tells_leads_to_the_card_the_memory_is_on(card: torch.device) -> None:
    board = Board(open_nvml(), as_torch_knows(card).uuid)
    torch.zeros(1, device=card)
    before = board.used_bytes()
    if before is None:
        pytest.skip("this card does not tell its memory")
    block = torch.zeros(2**30, dtype=torch.uint8, device=card)
    torch.accelerator.synchronize(card)
    grown = (board.used_bytes() or 0) - before
    free, total = torch.accelerator.get_memory_info(card)

    assert grown >= block.numel() * 0.9
    assert abs((board.used_bytes() or 0) - (total - free)) < 0.02 * total


def test_a_busy_card_takes_energy_and_its_state_is_told(card: torch.device) -> None:
    gauges = gauges_of([card])
    if Board(open_nvml(), as_torch_knows(card).uuid).energy_mj() is None:
        pytest.skip("this card has no energy counter")
    gauges.reset()
    keep_busy(card, 1.0)
    seen = gauges.read().devices[0]

    assert seen.device == str(card)
    assert seen.energy_mj is not None
    assert 10_000 < seen.energy_mj < 2_000_000  # a second of 10 W to 2 kW
    assert seen.after.sm_clock_mhz is not None
    assert seen.after.sm_clock_mhz > 100
    assert seen.after.temperature_c is not None
    assert 10 < seen.after.temperature_c < 110
    assert seen.after.throttle is not None


def test_the_peaks_of_a_turn_are_those_of_the_allocator(open_model: Callable[..., Backend]) -> None:
    backend = open_model()
    gauges: Gauges = backend.gauges
    gauges.reset()
    assert ask(backend.open_session()).reply.failure is None
    seen = gauges.read()

    peaks = [torch.accelerator.max_memory_allocated(device.index) for device in gauges.devices]
    assert [device.peak_memory_bytes for device in seen.devices] == peaks
    assert seen.memory.peak_memory_bytes == sum(peaks) >= backend.report.facts["memory_bytes"]
    assert all((device.reserved_memory_bytes or 0) >= (device.peak_memory_bytes or 0) for device in seen.devices)
    assert seen.memory.device_used_bytes is not None
    assert seen.memory.device_used_bytes >= sum(device.reserved_memory_bytes or 0 for device in seen.devices)


def test_the_clock_of_the_host_agrees_with_the_events_of_the_card(
    card: torch.device, open_model: Callable[..., Backend]
) -> None:
    session = open_model(spec={"device_map": str(card)}).open_session()
    events: list[torch.cuda.Event] = []

    def reply(request: Any, on_tokens: Callable[[Any], None]) -> Any:
        def arrived(ids: Any) -> None:
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(card))
            events.append(event)
            on_tokens(ids)

        return session.reply(request, arrived)

    sampling = {"max_new_tokens": 64}
    ask(session, sampling=sampling, length="fixed")
    events.clear()
    asked = ask(SimpleNamespace(reply=reply), sampling=sampling, length="fixed")  # type: ignore[arg-type]
    torch.accelerator.synchronize(card)

    ticks = asked.stamps.tick_ns
    assert len(ticks) == len(events) == 64
    host_ms = (ticks[-1] - ticks[0]) / 1e6
    assert events[0].elapsed_time(events[-1]) == pytest.approx(host_ms, rel=0.01)
    assert all(earlier.elapsed_time(later) > 0 for earlier, later in pairwise(events))


def test_the_ceilings_of_a_card_are_plausible_and_leave_its_memory_free(card: torch.device) -> None:
    found = ceilings(card, torch.bfloat16)
    torch.accelerator.synchronize(card)
    large = any(name in torch.cuda.get_device_name(card) for name in ("H100", "H200"))

    assert found.copy_bytes_per_s is not None
    assert (1e12 if large else 5e10) < found.copy_bytes_per_s < 2e13
    assert found.matrix_flops_per_s is not None
    assert (2e14 if large else 1e12) < found.matrix_flops_per_s < 2e16
    assert found.cache_bytes is not None
    assert found.cache_bytes > 2**20
    assert torch.accelerator.memory_allocated(card.index) < 2**30
    assert ceilings(card, torch.bfloat16) == found  # remembered
