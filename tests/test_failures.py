"""What goes wrong inside a turn is in its reply: a class, a phase, a message, and no text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from harness.backends.failures import NonFiniteLogitsError, failure_of
from harness.backends.hf import generate as engine
from harness.backends.hf import sampler
from harness.backends.seam import Backend
from harness.meters.clock import HandCrankedClock
from tests.asking import ask


@pytest.fixture
def backend(open_model: Callable[..., Backend]) -> Backend:
    return open_model()


def break_forward(monkeypatch: pytest.MonkeyPatch, backend: Any, error: Exception, *, after: int) -> None:
    """Let the model's forward raise after it has worked `after` times."""
    original, calls = backend.model.forward, []

    def forward(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) > after:
            raise error
        return original(*arguments, **named)

    # generate looks at the signature of forward to decide what to pass.
    forward.__signature__ = __import__("inspect").signature(original)
    monkeypatch.setattr(backend.model, "forward", forward)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("sampling", [{"max_new_tokens": 4}, {"max_new_tokens": 4, "do_sample": True}])
def test_weights_that_are_not_finite_are_found(value: float, sampling: dict[str, Any], backend: Any) -> None:
    with torch.no_grad():
        backend.model.model.norm.weight.fill_(value)
    reply = ask(backend.open_session(), sampling=sampling).reply
    assert reply.failure is not None
    assert reply.failure.kind == "NonFiniteLogits"
    assert reply.text is None


def test_not_finite_logits_are_found_where_sampling_has_to_be_spared_them(backend: Any) -> None:
    # On an accelerator torch.multinomial ends the process over a NaN, so the sampler is given finite scores.
    scores = torch.tensor([[1.0, float("nan"), -float("inf")]])
    guard = sampler.LastScores(make_finite=True)
    spared = guard(torch.zeros((1, 1)), scores)
    assert spared.tolist()[0][:2] == [1.0, 0.0]
    assert torch.isfinite(torch.softmax(spared / 0.01, dim=-1)).all()  # a temperature comes after this
    torch.multinomial(torch.softmax(spared, -1), 1)
    with pytest.raises(NonFiniteLogitsError):
        guard.demand_finite()


def test_masked_scores_are_no_error() -> None:
    guard = sampler.LastScores(make_finite=False)
    guard(torch.zeros((1, 1)), torch.tensor([[-float("inf"), 3.0]]))
    guard.demand_finite()


@pytest.mark.parametrize(("after", "phase"), [(0, "prefill"), (2, "decode")])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 has …"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_running_out_of_memory_is_a_failure_with_its_phase(
    error: Exception, after: int, phase: str, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed: list[bool] = []
    monkeypatch.setattr("harness.backends.hf.session.free_memory", lambda: freed.append(True))
    session = backend.open_session()
    ask(session)
    with monkeypatch.context() as broken:
        break_forward(broken, backend, error, after=after)
        reply = ask(session, "And now?").reply
    assert reply.failure is not None
    assert (reply.failure.kind, reply.failure.phase) == ("OutOfMemory", phase)
    assert "\n" not in reply.failure.message
    assert reply.text is None
    assert freed == [True]
    after_it = ask(session, "And now?").reply
    assert after_it.failure is None
    assert after_it.cached_tokens == 0, "a cache that was being written to is thrown away"


def test_any_other_error_is_named_after_its_class(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    break_forward(monkeypatch, backend, ZeroDivisionError("by zero\nand more"), after=0)
    failure = ask(backend.open_session()).reply.failure
    assert failure is not None
    assert (failure.kind, failure.phase, failure.message) == ("ZeroDivisionError", "prefill", "by zero")


def test_ctrl_c_is_no_failure_of_a_turn(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    break_forward(monkeypatch, backend, KeyboardInterrupt(), after=0)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        ask(backend.open_session())


def test_a_time_out_ends_a_turn_at_the_id_that_comes_too_late(backend: Backend) -> None:
    clock, session = HandCrankedClock(), backend.open_session()
    from harness.backends.seam import TurnRequest
    from harness.meters.clock import Stopwatch
    from harness.records import Persona
    from tests.asking import dialog

    request = TurnRequest(
        "talk", 0, dialog("What?"), Persona(), {"max_new_tokens": 50}, 1, "fixed", "stop", Stopwatch(clock), None, 3.5
    )
    arrived: list[int] = []

    def each_takes_a_second(ids: Any) -> None:
        arrived.extend(ids)
        clock.advance(1_000_000_000)

    reply = session.reply(request, each_takes_a_second)
    assert reply.failure is not None
    assert (reply.failure.kind, reply.failure.phase) == ("Timeout", "decode")
    assert len(arrived) == 4


def test_a_failure_keeps_what_was_known_of_the_prompt(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    known = ask(backend.open_session()).reply
    break_forward(monkeypatch, backend, RuntimeError("boom"), after=0)
    reply = ask(backend.open_session()).reply
    assert (reply.prompt_tokens, reply.prompt_hash) == (known.prompt_tokens, known.prompt_hash)
    assert (reply.completion_tokens, reply.cached_tokens, reply.finish_reason) == (None, None, None)


def test_a_long_message_is_shortened() -> None:
    assert len(failure_of(ValueError("x" * 5000), "decode").message) == 500
    assert failure_of(ValueError(), "decode").message == "ValueError"


def test_ids_are_streamed_on_time_on_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.generation.utils import DeferredStopCheck

    monkeypatch.setattr(DeferredStopCheck, "is_supported", staticmethod(lambda device, *_: device.type == "mps"))
    engine.stream_on_time()
    assert not DeferredStopCheck.is_supported(torch.device("mps"), None, False, False)
