"""The engine `batched`: conversations in lock-step say what each would say alone, and are timed each for itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
import transformers as hf

from harness.backends.hf.joint_cache import JointCache
from harness.backends.hf.lockstep import Lockstep, keeps_cache, stretches_after, why_not_padded
from harness.backends.hf.session import HfSession
from harness.backends.seam import Backend
from tests import zoo
from tests.asking import ask, dialog
from tests.crowds import CROWD, Said, ids_of, play, request

GREEDY = {"max_new_tokens": 10}
NO_KEPT_CACHE = {"mistral", "gemma3", "mamba2", "falcon_h1", "lfm2", "qwen3_next"}
_ENDS = {"vocab_size": 384, "bos_token_id": 3, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.5}
OTHERS: dict[str, Callable[[], hf.PreTrainedConfig]] = {
    "mamba": lambda: hf.MambaConfig(hidden_size=32, num_hidden_layers=2, state_size=8, **_ENDS),
    "falcon_mamba": lambda: hf.FalconMambaConfig(hidden_size=32, num_hidden_layers=2, state_size=8, **_ENDS),
    "bloom": lambda: hf.BloomConfig(hidden_size=32, n_layer=2, n_head=4, **_ENDS),
    "mpt": lambda: hf.MptConfig(d_model=32, n_layers=2, n_heads=4, max_seq_len=512, **_ENDS),
    "gpt_neo": lambda: hf.GPTNeoConfig(
        hidden_size=32, num_layers=2, num_heads=4, window_size=24, attention_types=[[["global", "local"], 1]],
        max_position_embeddings=512, **_ENDS,
    ),
    "jamba": lambda: hf.JambaConfig(
        **zoo.SIZES, num_experts=2, num_experts_per_tok=1, mamba_d_state=8, attn_layer_period=2, attn_layer_offset=1,
        use_mamba_kernels=False,
    ),
    "bamba": lambda: hf.BambaConfig(
        **zoo.SIZES, mamba_n_heads=8, mamba_d_head=8, mamba_d_state=8, mamba_n_groups=1, attn_layer_indices=[1],
        mamba_chunk_size=16,
    ),
    "granitemoehybrid": lambda: hf.GraniteMoeHybridConfig(
        **zoo.SIZES, layer_types=["mamba", "attention"], mamba_n_heads=8, mamba_d_head=8, mamba_d_state=8,
        mamba_n_groups=1, mamba_chunk_size=16, num_local_experts=0, shared_intermediate_size=32,
    ),
}  # fmt: skip
"""Architectures that padding is said not to harm, beside those of the zoo."""
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "factor": 8.0,
    "original_max_position_embeddings": 64, "partial_rotary_factor": 1.0,
}  # fmt: skip


def batched(
    open_model: Callable[..., Backend], architecture: str = "llama", kv_cache: str = "reuse", **values: Any
) -> Backend:
    return open_model(architecture, spec={"engine": "batched", "kv_cache": kv_cache}, **values)


def alone(open_model: Callable[..., Backend], architecture: str = "llama", **values: Any) -> Backend:
    return open_model(architecture, spec={"engine": "generate"}, **values)


@pytest.mark.parametrize("architecture", zoo.ARCHITECTURES)
def test_greedy_replies_of_a_batch_are_those_of_each_conversation_alone(
    architecture: str, open_model: Callable[..., Backend]
) -> None:
    expected = play(alone(open_model, architecture), GREEDY, together=False, length="fixed")
    for kv_cache in ("reuse", "fresh"):
        found = play(batched(open_model, architecture, kv_cache), GREEDY, together=True, length="fixed")
        assert ids_of(found) == ids_of(expected)
        assert {reply.batch_size for reply, _ in found.values()} == {3, 4, 5}
        assert all(reply.paired for reply, _ in found.values())


@pytest.mark.parametrize("architecture", OTHERS)
def test_architectures_said_to_bear_padding_do(
    architecture: str, open_model: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(zoo.CONFIGS, architecture, OTHERS[architecture])
    expected = play(alone(open_model, architecture), GREEDY, together=False, crowd=CROWD[:3])
    assert ids_of(play(batched(open_model, architecture), GREEDY, together=True, crowd=CROWD[:3])) == ids_of(expected)


@pytest.mark.parametrize("architecture", ["llama", "falcon_alibi", "gemma3", "mistral", "mamba2"])
def test_logits_of_a_batch_are_those_of_each_conversation_alone(
    architecture: str, open_model: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    told = HfSession.told

    def note(session: HfSession, turn: Any, generated: Any, said: Any) -> Any:
        seen.append(generated.last.scores)
        return told(session, turn, generated, said)

    monkeypatch.setattr(HfSession, "told", note)
    backend = batched(open_model, architecture)
    play(backend, GREEDY, together=False, length="fixed")
    single, seen[:] = list(seen), []
    play(backend, GREEDY, together=True, length="fixed")
    assert len(single) == len(seen) == 26
    for expected, found in zip(single, seen, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("architecture", sorted(set(zoo.ARCHITECTURES) - NO_KEPT_CACHE))
def test_a_batch_keeps_of_each_row_what_a_conversation_alone_would(
    architecture: str, open_model: Callable[..., Backend]
) -> None:
    expected = play(alone(open_model, architecture), GREEDY, together=False)
    found = play(batched(open_model, architecture), GREEDY, together=True)
    assert cached_of(found) == cached_of(expected)
    assert sum(cached_of(found).values()) > 0


@pytest.mark.parametrize("architecture", sorted(NO_KEPT_CACHE))
def test_where_holes_would_be_seen_every_turn_is_prefilled_anew(
    architecture: str, open_model: Callable[..., Backend]
) -> None:
    found = play(batched(open_model, architecture), GREEDY, together=True, crowd=CROWD[:3])
    assert set(cached_of(found).values()) == {0}
    assert {reply.kv_cache_bytes for reply, _ in found.values()} == {None}


def test_fresh_caches_serve_nothing(open_model: Callable[..., Backend]) -> None:
    assert set(cached_of(play(batched(open_model, kv_cache="fresh"), GREEDY, together=True)).values()) == {0}


def cached_of(said: Said) -> dict[tuple[int, int], int | None]:
    return {place: reply.cached_tokens for place, (reply, _) in said.items()}


def test_a_lone_request_is_a_batch_of_one_and_says_what_generate_says(open_model: Callable[..., Backend]) -> None:
    for sampling in (GREEDY, {**GREEDY, "do_sample": True, "top_k": 10, "temperature": 0.7}):
        expected, found = (
            ask(open_().open_session(), sampling=sampling, seed=7)
            for open_ in (lambda: alone(open_model), lambda: batched(open_model))
        )
        assert found.reply.completion_ids == expected.reply.completion_ids
        assert (found.reply.batch_size, found.reply.paired) == (1, True)


def test_processors_that_look_at_ids_see_no_padding(open_model: Callable[..., Backend]) -> None:
    sampling = {**GREEDY, "repetition_penalty": 1.7, "no_repeat_ngram_size": 2, "min_new_tokens": 4}
    expected = play(alone(open_model), sampling, together=False, crowd=CROWD[:3])
    assert ids_of(play(batched(open_model), sampling, together=True, crowd=CROWD[:3])) == ids_of(expected)


def test_what_a_batch_draws_is_marked_unpaired_and_drawn_again_by_the_same_batch(
    open_model: Callable[..., Backend],
) -> None:
    sampling = {**GREEDY, "do_sample": True}
    first, again = (play(batched(open_model), sampling, together=True, crowd=CROWD[:2]) for _ in range(2))
    assert ids_of(first) == ids_of(again)
    assert {reply.paired for reply, _ in first.values() if reply.batch_size > 1} == {False}


def test_a_row_that_has_ended_ticks_no_more_and_is_ready_before_the_others(open_model: Callable[..., Backend]) -> None:
    backend = batched(open_model)
    long, short = request(["What is motion?"], GREEDY), request(["What is motion?", "It is.", "Who?"], GREEDY)
    ids = [
        reply.completion_ids for reply in backend.reply_many([one_session(backend, long), one_session(backend, short)])
    ]
    stop = {**GREEDY, "eos_token_id": ids[1][2]}  # the third id of the second row, now an end
    asked = [one_session(backend, request(["What is motion?"], stop)),
             one_session(backend, request(["What is motion?", "It is.", "Who?"], stop))]  # fmt: skip
    replies = backend.reply_many(asked)
    stamps = [one.stopwatch.stamps() for _, one in asked]
    ends = [reply.completion_ids.index(stop["eos_token_id"]) + 1 if stop["eos_token_id"] in reply.completion_ids else 10
            for reply in replies]  # fmt: skip
    assert [reply.completion_tokens for reply in replies] == ends
    assert [len(one.tick_ns) for one in stamps] == ends
    assert ends[1] <= 3 < ends[0]
    assert replies[1].finish_reason == "eos"
    ended, went_on = stamps[1], stamps[0]
    assert ended.tick_ns[-1] < ended.generated_ns < ended.ready_ns < went_on.tick_ns[ends[1]] < went_on.generated_ns  # type: ignore[operator]


def one_session(backend: Backend, one: Any) -> tuple[Any, Any]:
    return backend.open_session(), one


def test_stamps_of_every_row_are_in_order_and_steps_are_shared(open_model: Callable[..., Backend]) -> None:
    for reply, stamps in play(batched(open_model), GREEDY, together=True, crowd=CROWD[:3]).values():
        order = [stamps.templated_ns, stamps.tokenized_ns, *stamps.tick_ns, stamps.generated_ns, stamps.ready_ns]
        assert order == sorted(order)  # type: ignore[type-var]
        assert len(stamps.tick_ns) == reply.completion_tokens
        assert stamps.tick_ids is None


def test_rows_fail_alone(open_model: Callable[..., Backend]) -> None:
    backend = batched(open_model, template=zoo.NO_SYSTEM)
    good, late = request(["What is motion?"], GREEDY), request(["Who?"], GREEDY, timeout_s=0.0)
    torn = replace(request(["a"], GREEDY), messages=(*dialog("a"), *dialog("b")))
    full = request(["What is motion? " * 400], GREEDY, on_overflow="error")
    replies = backend.reply_many([one_session(backend, one) for one in (good, late, torn, full)])
    kinds = [(reply.failure.kind, reply.failure.phase) if reply.failure else None for reply in replies]
    assert kinds == [None, ("Timeout", "decode"), ("TemplateError", "template"), ("ContextOverflow", "tokenize")]
    assert (
        replies[0].completion_ids
        == ask(alone(open_model, template=zoo.NO_SYSTEM).open_session(), sampling=GREEDY).reply.completion_ids
    )
    assert replies[0].batch_size == 2  # those that came to be generated
    assert late.stopwatch.stamps().tick_ns != ()


def test_a_prompt_without_room_has_an_empty_reply_and_the_others_go_on(open_model: Callable[..., Backend]) -> None:
    backend = batched(open_model)
    full, good = request(["What is motion? " * 400], GREEDY), request(["Who?"], GREEDY)
    replies = backend.reply_many([one_session(backend, full), one_session(backend, good)])
    assert (replies[0].text, replies[0].finish_reason, replies[0].completion_tokens) == ("", "context", 0)
    assert replies[1].completion_tokens


def test_numbers_that_are_none_fail_their_row_only_and_are_not_kept(
    open_model: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Lockstep.step

    def poison(self: Lockstep, ids: torch.Tensor) -> torch.Tensor:
        logits = step(self, ids)
        logits[0] = float("nan")
        return logits

    for sampling in (GREEDY, {**GREEDY, "do_sample": True}):
        backend = batched(open_model)
        sessions = [backend.open_session() for _ in range(2)]
        with monkeypatch.context() as patched:
            patched.setattr(Lockstep, "step", poison)
            replies = backend.reply_many(
                [(session, request(["Who?"], sampling, length="fixed")) for session in sessions]
            )
        assert [reply.failure.kind if reply.failure else None for reply in replies] == ["NonFiniteLogits", None]
        again = backend.reply_many([(session, request(["Who?"], GREEDY)) for session in sessions])
        assert [reply.failure for reply in again] == [None, None]
        assert [bool(reply.cached_tokens) for reply in again] == [False, True]


def test_running_out_of_memory_fails_all_rows_that_had_not_ended(
    open_model: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = batched(open_model)
    step = Lockstep.step

    def out_of_memory(self: Lockstep, ids: torch.Tensor) -> torch.Tensor:
        if self.mask.shape[1] > 40:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
        return step(self, ids)

    sessions = [backend.open_session() for _ in range(3)]
    asked = [
        (session, request(["Who?"], {"max_new_tokens": new}))
        for session, new in zip(sessions, (1, 60, 60), strict=True)
    ]
    with pytest.raises(AssertionError, match="one sampling"):
        backend.reply_many(asked)
    asked = [
        (session, request(["Who?"], {"max_length": 64, "max_new_tokens": None}, length="natural"))
        for session in sessions
    ]
    with monkeypatch.context() as patched:
        patched.setattr(Lockstep, "step", out_of_memory)
        replies = backend.reply_many(asked)
    assert {reply.failure.kind for reply in replies if reply.failure} == {"OutOfMemory"}
    assert {reply.failure.phase for reply in replies if reply.failure} == {"decode"}
    again = backend.reply_many([(session, request(["Who?"], GREEDY)) for session in sessions])
    assert [(reply.failure, reply.cached_tokens) for reply in again] == [(None, 0)] * 3


def test_an_edited_history_is_answered_as_by_a_new_conversation(open_model: Callable[..., Backend]) -> None:
    backend = batched(open_model)
    sessions = [backend.open_session() for _ in range(2)]
    for lines in (["What is motion?"], ["What is motion?", "It is blue.", "Who?"], ["Who?"], ["Who?", "Bob", "And?"]):
        other = ["A rainbow", *lines[1:]]
        replies = backend.reply_many(
            [(session, request(said, GREEDY)) for session, said in zip(sessions, (lines, other), strict=True)]
        )
        expected = [
            alone(open_model).open_session().reply(request(said, GREEDY), lambda ids: None) for said in (lines, other)
        ]
        assert [reply.completion_ids for reply in replies] == [reply.completion_ids for reply in expected]


def test_the_cache_of_a_row_is_its_share_of_the_batch(open_model: Callable[..., Backend]) -> None:
    backend = batched(open_model)
    asked = [one_session(backend, request(lines, GREEDY, length="fixed")) for lines in (["Who?"], ["What is motion?"])]
    replies = backend.reply_many(asked)
    columns = max(reply.prompt_tokens for reply in replies) + 9  # type: ignore[type-var, operator]
    # keys and values × 2 layers × 2 heads × 8 numbers × 4 bytes, for every column; the last id was never fed
    assert {reply.kv_cache_bytes for reply in replies} == {columns * 2 * 2 * 2 * 8 * 4}


def test_the_joint_cache_moves_rows_and_closes_holes() -> None:
    config = hf.LlamaConfig(**{**zoo.SIZES, "num_hidden_layers": 1})
    joint = JointCache(hf.LlamaForCausalLM(config))
    taken = joint.take([("a", [1, 2, 3]), ("b", [4, 5])])
    assert (taken.cached, taken.columns) == ((0, 0), 0)
    # Row a holds 1 2 3, row b 4 5 with a hole before and one behind.
    states = torch.tensor([[1.0, 2.0, 3.0, 9.0], [9.0, 4.0, 5.0, 9.0]])[:, None, :, None].expand(2, 2, 4, 8)
    taken.cache.update(states, -states, 0)
    joint.keep([("a", 0, [1, 2, 3]), ("b", 1, [4, 5])], taken.cache, torch.tensor([[1, 1, 1, 0], [0, 1, 1, 0]]))

    moved = joint.take([("b", [4, 5, 6]), ("new", [7]), ("a", [1, 2, 8])])

    assert moved.cached == (2, 0, 2)
    keys = moved.cache.growing[0].keys[:, 0, :, 0].tolist()
    assert (keys[0], keys[2]) == ([4.0, 5.0], [1.0, 2.0])
    values = moved.cache.growing[0].values[:, 0, :, 0].tolist()
    assert (values[0], values[2]) == ([-4.0, -5.0], [-1.0, -2.0])
    assert joint.take([("b", [4, 5, 6])]).cached == (0,)  # nothing is held until it is kept again


def test_a_growing_layer_holds_what_it_was_given() -> None:
    config = hf.LlamaConfig(**{**zoo.SIZES, "num_hidden_layers": 1})
    cache = JointCache(hf.LlamaForCausalLM(config)).take([("a", [1])]).cache
    stock = hf.DynamicCache(config=config)
    dice = torch.Generator().manual_seed(0)
    for ids in (3, 1, 200, 1, 1, 90, 1):
        keys, values = torch.rand((2, 2, ids, 8), generator=dice), torch.rand((2, 2, ids, 8), generator=dice)
        for found, expected in zip(cache.update(keys, values, 0), stock.update(keys, values, 0), strict=True):
            assert torch.equal(found, expected)
        assert cache.get_seq_length() == stock.get_seq_length()


def test_a_rope_that_stretches_with_the_longest_row_fails_long_rows_only(open_model: Callable[..., Backend]) -> None:
    backend = batched(open_model, "phi3", rope_parameters=LONGROPE, original_max_position_embeddings=64)
    assert stretches_after(backend.model.config) == 64  # type: ignore[attr-defined]
    long, short = request(["What is motion? " * 20], GREEDY), request(["Who?"], GREEDY)
    replies = backend.reply_many([one_session(backend, long), one_session(backend, short)])
    assert [reply.failure.kind if reply.failure else None for reply in replies] == ["Unbatchable", None]


def test_models_that_padding_would_harm_are_known_from_their_configs() -> None:
    assert why_not_padded(hf.LlamaForCausalLM, hf.LlamaConfig()) is None
    assert "position ids" in str(why_not_padded(hf.RwkvForCausalLM, hf.RwkvConfig()))
    assert "recurrent" in str(why_not_padded(hf.RecurrentGemmaForCausalLM, hf.RecurrentGemmaConfig()))
    assert not keeps_cache(hf.GPTNeoForCausalLM, hf.GPTNeoConfig())
    assert stretches_after(hf.LlamaConfig()) is None


def test_what_is_held_grows_with_every_turn(open_model: Callable[..., Backend]) -> None:
    found = play(batched(open_model), GREEDY, together=True, crowd=CROWD[:1], length="fixed")
    for (before, _), (now, _) in pairwise(found.values()):
        assert before.prompt_tokens <= now.cached_tokens < now.prompt_tokens  # type: ignore[operator]
