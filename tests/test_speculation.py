"""Ids guessed ahead by generate and accepted several at a time, through Hugging Face's own parameters."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from harness.backends.open import open_backend, preview
from harness.backends.seam import Backend
from harness.config.schema import ModelSpec
from harness.errors import UsageError
from harness.metrics import METRICS, itl_s
from harness.records import Persona
from tests import builders
from tests.asking import QUESTIONS, Asked, ask, converse, converse_verbatim, dialog
from tests.conftest import TEMPLATE_NOW

STATEFUL = ("falcon_h1", "mamba2", "qwen3_next")
LOOKUP = {"prompt_lookup_num_tokens": 5}
SKY = "Why is the sky blue?"
LINE = "The sky is blue because air scatters short blue waves of sunlight more than long red ones."
AGAIN = dialog(SKY, LINE, SKY)  # pico answers with the same line, which stands in the prompt


@pytest.fixture(scope="module")
def pico() -> Backend:
    return open_backend(ModelSpec(model="builtin:pico"), chat_format="auto", template_now=TEMPLATE_NOW)


@pytest.fixture
def looked_up(pico: Backend) -> Asked:
    return ask(pico.open_session(), AGAIN, {"max_new_tokens": 60, **LOOKUP})


@pytest.fixture
def plain(pico: Backend) -> Asked:
    return ask(pico.open_session(), AGAIN, {"max_new_tokens": 60})


def test_ids_looked_up_in_the_prompt_are_those_that_one_at_a_time_gives(plain: Asked, looked_up: Asked) -> None:
    assert plain.reply.text == LINE
    assert looked_up.reply.completion_ids == plain.reply.completion_ids
    assert looked_up.reply.text == plain.reply.text


def test_an_arrival_of_several_ids_is_one_tick_that_counts_them_all(plain: Asked, looked_up: Asked) -> None:
    sizes = looked_up.stamps.tick_ids
    assert sizes is not None
    assert max(sizes) == 6  # five candidates and the model's own id after them
    assert len(sizes) == len(looked_up.stamps.tick_ns) < len(plain.stamps.tick_ns)
    assert sum(sizes) == looked_up.reply.completion_tokens == len(plain.stamps.tick_ns)
    assert [len(ids) for ids in looked_up.arrivals] == list(sizes)


def test_an_end_of_text_inside_an_accepted_block_ends_the_reply_there(looked_up: Asked, pico: Any) -> None:
    reply = looked_up.reply
    assert (looked_up.stamps.tick_ids or ())[-1] > 1
    assert reply.finish_reason == "eos"
    assert reply.completion_ids.count(reply.completion_ids[-1]) == 1
    assert reply.completion_ids[-1] in pico.settled({"max_new_tokens": 60}, "natural").eos_ids


@pytest.mark.parametrize("room", range(1, 14))
def test_no_block_goes_beyond_the_room(room: int, pico: Backend, plain: Asked) -> None:
    reply = ask(pico.open_session(), AGAIN, {"max_new_tokens": room, **LOOKUP}).reply
    assert reply.completion_ids == plain.reply.completion_ids[:room]
    assert (reply.completion_tokens, reply.finish_reason) == (room, "max_new_tokens")


def test_a_stop_string_inside_an_accepted_block_ends_the_turn_after_that_block(pico: Backend, plain: Asked) -> None:
    session = pico.open_session()
    stopped = ask(session, AGAIN, {"max_new_tokens": 60, "stop_strings": "scatters", **LOOKUP})
    sizes = stopped.stamps.tick_ids
    assert sizes is not None
    assert stopped.reply.finish_reason == "stop"
    assert stopped.reply.text == "The sky is blue because air"
    # What arrived together is counted, also what is behind the stop string: it was generated.
    assert stopped.reply.completion_tokens == sum(sizes) in list(accumulate((6, 6, 6, 4)))
    after = ask(session, AGAIN, {"max_new_tokens": 60, **LOOKUP}).reply
    assert after.completion_ids == plain.reply.completion_ids


def test_gaps_between_ids_are_unknown_where_several_arrive_at_once_and_the_average_is_not() -> None:
    def record(*ticks: tuple[int, int]) -> Any:
        return builders.turn(stamps=builders.ticked(builders.stamps(), *ticks))

    one_first = record((10_000_000, 1), (16_000_000, 3), (20_000_000, 2))
    assert itl_s(one_first) is None
    assert METRICS["tpot_s"].formula(one_first) == pytest.approx(0.010 / 5)
    # The first block has an age nobody knows: there is no time from its first id on.
    assert METRICS["tpot_s"].formula(record((10_000_000, 6), (16_000_000, 6))) is None
    assert METRICS["ttft_s"].formula(record((10_000_000, 6), (16_000_000, 6))) == pytest.approx(0.010)


@pytest.mark.parametrize("architecture", ["llama", "falcon", "falcon_alibi", "gemma3", "mistral", "lfm2"])
@pytest.mark.parametrize("sampling", [LOOKUP, {"prompt_lookup_num_tokens": 3, "max_matching_ngram_size": 1}])
def test_a_conversation_with_looked_up_ids_is_the_same_and_every_turn_prefills_anew(
    architecture: str, sampling: dict[str, Any], open_model: Callable[..., Backend]
) -> None:
    greedy = {"max_new_tokens": 12}
    expected = converse_verbatim(open_model(architecture, spec={"kv_cache": "fresh"}), greedy, length="fixed")
    found = converse_verbatim(open_model(architecture), {**greedy, **sampling}, length="fixed")
    assert [asked.reply.completion_ids for asked in found] == [asked.reply.completion_ids for asked in expected]
    # generate would feed the whole prompt once more onto a cache that already holds its beginning.
    assert {asked.reply.cached_tokens for asked in found} == {0}


def test_a_model_may_guess_with_its_own_first_layers(open_model: Callable[..., Backend]) -> None:
    greedy = {"max_new_tokens": 12}
    plain, guessed = (
        converse(open_model().open_session(), {**greedy, **extra}, length="fixed")
        for extra in ({}, {"assistant_early_exit": 1})
    )
    assert [asked.reply.completion_ids for asked in guessed] == [asked.reply.completion_ids for asked in plain]


def test_speculation_tells_that_no_cache_is_kept(pico: Backend) -> None:
    warnings = pico.effective({"max_new_tokens": 4, **LOOKUP}, "natural").warnings
    assert any("kv_cache: reuse has no effect" in warning for warning in warnings)


@pytest.mark.parametrize("architecture", STATEFUL)
def test_a_state_that_cannot_be_taken_back_is_refused_before_there_are_weights(
    architecture: str, saved_model: Callable[..., Path], open_model: Callable[..., Backend], tmp_path: Path
) -> None:
    folder = tmp_path / "weightless"
    shutil.copytree(saved_model(architecture), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(UsageError, match=r"sampling.prompt_lookup_num_tokens: .* keeps a state that cannot be taken"):
        preview(
            ModelSpec(model=str(folder)),
            samplings={"s": {"max_new_tokens": 4, **LOOKUP}},
            length="natural",
            messages=dialog(QUESTIONS[0]),
            persona=Persona(),
            chat_format="auto",
            template_now=TEMPLATE_NOW,
        )
    with pytest.raises(UsageError, match="keeps a state"):
        ask(open_model(architecture).open_session(), sampling={"max_new_tokens": 4, **LOOKUP})
