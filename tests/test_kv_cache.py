"""The cache of a conversation changes how long a turn takes, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch

from harness.backends.hf.cache import common_prefix
from harness.backends.seam import Backend
from tests import zoo
from tests.asking import QUESTIONS, ask, converse, converse_verbatim, dialog

WITHOUT_REUSE = {"mamba2", "falcon_h1", "lfm2", "qwen3_next"}
SLIDING = {"mistral", "gemma3"}  # a window of 24 ids, less than the first prompt
GREEDY = {"max_new_tokens": 10}


@pytest.mark.parametrize("architecture", zoo.ARCHITECTURES)
@pytest.mark.parametrize("verbatim", [False, True], ids=["retokenised", "verbatim"])
def test_reused_and_fresh_caches_give_the_same_greedy_replies(
    architecture: str, verbatim: bool, open_model: Callable[..., Backend], last_scores: list[torch.Tensor]
) -> None:
    talks = {}
    for mode in ("fresh", "reuse"):
        backend = open_model(architecture, spec={"kv_cache": mode})
        talks[mode] = (
            converse_verbatim(backend, GREEDY, length="fixed")
            if verbatim
            else converse(backend.open_session(), GREEDY, length="fixed")
        )
    fresh, reused = talks["fresh"], talks["reuse"]
    assert [asked.reply.failure for asked in (*fresh, *reused)] == [None] * 8
    assert [a.reply.prompt_hash for a in fresh] == [a.reply.prompt_hash for a in reused]
    assert [a.reply.completion_ids for a in fresh] == [a.reply.completion_ids for a in reused]
    for expected, found in zip(last_scores[:4], last_scores[4:], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("architecture", sorted(set(zoo.ARCHITECTURES) - WITHOUT_REUSE))
def test_a_history_that_goes_on_is_served_from_the_cache(architecture: str, open_model: Callable[..., Backend]) -> None:
    asked = converse_verbatim(open_model(architecture), GREEDY, length="fixed")
    for before, now in pairwise(asked):
        # All that was there but the last generated id, which no forward has seen yet.
        assert now.reply.cached_tokens == before.reply.prompt_tokens + before.reply.completion_tokens - 1


@pytest.mark.parametrize("architecture", sorted(set(zoo.ARCHITECTURES) - WITHOUT_REUSE - SLIDING))
def test_a_history_that_was_retokenised_is_served_up_to_where_it_differs(
    architecture: str, open_model: Callable[..., Backend]
) -> None:
    asked = converse(open_model(architecture).open_session(), GREEDY, length="fixed")
    for before, now in pairwise(asked):
        assert before.reply.prompt_tokens <= now.reply.cached_tokens < now.reply.prompt_tokens


@pytest.mark.parametrize("architecture", sorted(WITHOUT_REUSE))
def test_recurrent_states_begin_anew_and_the_report_says_so(
    architecture: str, open_model: Callable[..., Backend]
) -> None:
    backend = open_model(architecture)
    assert {asked.reply.cached_tokens for asked in converse(backend.open_session(), GREEDY)} == {0}
    assert any("kv_cache: reuse has no effect" in notice for notice in backend.report.notices)


def test_a_window_that_has_slid_is_thrown_away_when_the_history_changes(open_model: Callable[..., Backend]) -> None:
    session = open_model("mistral").open_session()
    first = ask(session, dialog(QUESTIONS[0]), GREEDY).reply
    assert first.prompt_tokens < 24 < first.prompt_tokens + 10
    edited = ask(session, dialog(QUESTIONS[0], "Something else.", QUESTIONS[1]), GREEDY).reply
    assert edited.cached_tokens == 0
    fresh = ask(open_model("mistral").open_session(), dialog(QUESTIONS[0], "Something else.", QUESTIONS[1]), GREEDY)
    assert edited.completion_ids == fresh.reply.completion_ids


def test_an_edited_or_shorter_history_is_answered_as_by_a_new_session(open_model: Callable[..., Backend]) -> None:
    backend = open_model("llama")
    session = backend.open_session()
    converse(session, GREEDY)
    for messages in (dialog(QUESTIONS[0]), dialog("Who?"), dialog(QUESTIONS[0], "It is blue.", QUESTIONS[3])):
        known, new = ask(session, messages, GREEDY).reply, ask(backend.open_session(), messages, GREEDY).reply
        assert known.completion_ids == new.completion_ids
        assert new.cached_tokens == 0


def test_the_same_prompt_again_is_cached_but_for_its_last_id(open_model: Callable[..., Backend]) -> None:
    session = open_model("llama").open_session()
    first, again = (ask(session, QUESTIONS[0], GREEDY).reply for _ in range(2))
    assert again.cached_tokens == again.prompt_tokens - 1
    assert first.completion_ids == again.completion_ids


def test_sessions_do_not_share_a_cache(open_model: Callable[..., Backend]) -> None:
    backend = open_model("llama")
    ask(backend.open_session(), QUESTIONS[0])
    assert ask(backend.open_session(), QUESTIONS[0]).reply.cached_tokens == 0


def test_fresh_caches_serve_nothing(open_model: Callable[..., Backend]) -> None:
    talk = converse(open_model("llama", spec={"kv_cache": "fresh"}).open_session(), GREEDY)
    assert {asked.reply.cached_tokens for asked in talk} == {0}


@pytest.mark.parametrize("sampling", [{"use_cache": False}, {"cache_implementation": "static"}])
def test_a_sampling_that_asks_for_another_cache_gets_it(
    sampling: dict[str, Any], open_model: Callable[..., Backend]
) -> None:
    talk = converse(open_model("llama").open_session(), {**GREEDY, **sampling})
    assert {asked.reply.cached_tokens for asked in talk} == {0}
    plain = converse(open_model("llama").open_session(), GREEDY)
    assert [asked.reply.completion_ids for asked in talk] == [asked.reply.completion_ids for asked in plain]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [([], [1], 0), ([1, 2], [1, 2, 3], 2), ([1, 2, 3], [1, 2], 2), ([1, 5], [1, 2], 1), ([4], [1], 0)],
)
def test_the_common_prefix_is_counted(one: list[int], other: list[int], expected: int) -> None:
    assert common_prefix(one, other) == expected


@pytest.mark.parametrize("engine", ["generate", "decode"])
def test_a_turn_tells_how_many_bytes_its_cache_holds(engine: str, open_model: Callable[..., Backend]) -> None:
    for asked in converse(open_model("llama", spec={"engine": engine}).open_session(), GREEDY, length="fixed"):
        held = asked.reply.prompt_tokens + asked.reply.completion_tokens - 1  # all but the last id
        # keys and values · 2 layers · 2 heads for keys and values · 8 wide · 4 bytes each
        assert asked.reply.kv_cache_bytes == 2 * 2 * 2 * 8 * held * 4


def test_a_window_holds_no_more_than_its_size(open_model: Callable[..., Backend]) -> None:
    reply = ask(open_model("mistral").open_session(), QUESTIONS[0], {"max_new_tokens": 30}, length="fixed").reply
    assert reply.kv_cache_bytes == 2 * 2 * 2 * 8 * 23 * 4  # of a window of 24 ids, the next one's own key is not held


def test_a_static_cache_holds_all_it_has_room_for(open_model: Callable[..., Backend]) -> None:
    reply = ask(open_model("llama", spec={"engine": "compiled"}).open_session(), QUESTIONS[0], GREEDY).reply
    assert reply.kv_cache_bytes == 2 * 2 * 2 * 8 * 512 * 4


def test_recurrent_states_are_counted_and_do_not_grow(open_model: Callable[..., Backend]) -> None:
    replies = [asked.reply for asked in converse(open_model("mamba2").open_session(), GREEDY, length="fixed")]
    # 2 layers · (4 heads · 16 wide · 8 states + a convolution over 4 ids of 64 + 2 · 8 channels) · 4 bytes each
    assert {reply.kv_cache_bytes for reply in replies} == {2 * (4 * 16 * 8 + 4 * (64 + 2 * 8)) * 4}


def test_fresh_caches_are_counted_too(open_model: Callable[..., Backend]) -> None:
    replies = [ask(open_model("llama", spec={"kv_cache": mode}).open_session()).reply for mode in ("fresh", "reuse")]
    assert replies[0].kv_cache_bytes == replies[1].kv_cache_bytes is not None


def test_a_cache_that_cannot_be_seen_is_not_counted(open_model: Callable[..., Backend]) -> None:
    sampling = {**GREEDY, "cache_implementation": "static"}
    assert ask(open_model("llama").open_session(), QUESTIONS[0], sampling).reply.kv_cache_bytes is None
