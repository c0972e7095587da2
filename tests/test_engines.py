"""Every engine says what generate says, or says beforehand that it cannot."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM, Phi3Config, Phi3ForCausalLM

from harness.backends.hf.compiled import LEAST, CompiledStep, why_not_static
from harness.backends.hf.decode import Decode
from harness.backends.open import open_backend, preview
from harness.backends.seam import Backend
from harness.config.schema import ModelSpec
from harness.errors import ModelError, UsageError
from harness.records import Message, Persona
from tests import zoo
from tests.asking import QUESTIONS, ask, converse, converse_verbatim, dialog
from tests.conftest import TEMPLATE_NOW

OURS = ("decode", "compiled")
NOT_STATIC = {"falcon_alibi", "mamba2", "falcon_h1", "lfm2", "qwen3_next"}
RUNS = [("decode", name) for name in zoo.ARCHITECTURES] + [
    ("compiled", name) for name in zoo.ARCHITECTURES if name not in NOT_STATIC
]
GREEDY = {"max_new_tokens": 10}
SAMPLED = {
    "everything": {"do_sample": True, "top_k": 0},
    "top_k": {"do_sample": True, "top_k": 10, "temperature": 1.7},
    "top_p": {"do_sample": True, "top_k": 0, "top_p": 0.8, "min_p": 0.01},
    "typical": {"do_sample": True, "typical_p": 0.9, "top_k": 40},
    "penalties": {"do_sample": True, "repetition_penalty": 1.4, "no_repeat_ngram_size": 2},
    "greedy penalties": {"repetition_penalty": 1.3, "bad_words_ids": [[11], [17, 18]], "suppress_tokens": [40, 41]},
    "begin": {"begin_suppress_tokens": [20, 21], "forced_bos_token_id": 5, "sequence_bias": [[[30], 4.0]]},
    "least length": {"do_sample": True, "top_k": 5, "min_new_tokens": 9, "eos_token_id": list(range(0, 384, 3))},
    "least total": {"do_sample": True, "min_length": 22, "eos_token_id": list(range(0, 384, 3))},
    "forced end": {"forced_eos_token_id": 2},
    "watermark": {"do_sample": True, "watermarking_config": {"greenlist_ratio": 0.3, "bias": 3.0}},
}


@pytest.mark.parametrize(("engine", "architecture"), RUNS)
@pytest.mark.parametrize("verbatim", [False, True], ids=["retokenised", "verbatim"])
def test_greedy_replies_with_a_kept_cache_are_those_of_generate_without(
    engine: str, architecture: str, verbatim: bool, open_model: Callable[..., Backend], last_scores: list[torch.Tensor]
) -> None:
    talks = []
    for spec in ({"kv_cache": "fresh"}, {"engine": engine}):
        backend = open_model(architecture, spec=spec)
        talks.append(
            converse_verbatim(backend, GREEDY, length="fixed")
            if verbatim
            else converse(backend.open_session(), GREEDY, length="fixed")
        )
    expected, found = talks
    assert [asked.reply.failure for asked in found] == [None] * 4
    assert [asked.reply.completion_ids for asked in found] == [asked.reply.completion_ids for asked in expected]
    for scores, others in zip(last_scores[:4], last_scores[4:], strict=True):  # random models may repeat themselves
        torch.testing.assert_close(others, scores, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("engine", OURS)
@pytest.mark.parametrize("name", SAMPLED)
def test_the_same_seed_draws_the_ids_of_generate(engine: str, name: str, open_model: Callable[..., Backend]) -> None:
    sampling = {"max_new_tokens": 12, **SAMPLED[name]}
    stock, ours = open_model().open_session(), open_model(spec={"engine": engine}).open_session()
    for seed in range(4):
        expected, found = (ask(session, sampling=sampling, seed=seed).reply for session in (stock, ours))
        assert expected.failure is None
        assert (found.completion_ids, found.finish_reason) == (expected.completion_ids, expected.finish_reason)
        assert (found.text, found.tokens_left) == (expected.text, expected.tokens_left)


@pytest.mark.parametrize(("engine", "architecture"), RUNS)
def test_every_architecture_draws_the_ids_of_generate(
    engine: str, architecture: str, open_model: Callable[..., Backend]
) -> None:
    sampling = {"do_sample": True, "top_k": 10, "max_new_tokens": 10}
    stock, ours = (open_model(architecture, spec={"engine": name}).open_session() for name in ("generate", engine))
    for seed in range(2):
        expected, found = (ask(session, sampling=sampling, seed=seed).reply for session in (stock, ours))
        assert found.completion_ids == expected.completion_ids


@pytest.mark.parametrize("engine", OURS)
def test_half_precision_draws_the_ids_of_generate(engine: str, open_model: Callable[..., Backend]) -> None:
    sampling = {"do_sample": True, "top_k": 20, "max_new_tokens": 16}
    stock, ours = (
        open_model(spec={"engine": name, "dtype": "bfloat16"}).open_session() for name in ("generate", engine)
    )
    for settings in (sampling, {"max_new_tokens": 16}):
        assert ask(ours, sampling=settings).reply.completion_ids == ask(stock, sampling=settings).reply.completion_ids


@pytest.mark.parametrize("engine", OURS)
def test_stop_strings_end_a_reply_at_the_same_id(engine: str, open_model: Callable[..., Backend]) -> None:
    stock, ours = (open_model(spec={"engine": name}).open_session() for name in ("generate", engine))
    text = ask(stock, sampling={"max_new_tokens": 20}, length="fixed").reply.text or ""
    sampling = {"max_new_tokens": 20, "stop_strings": text[4:6]}
    expected, found = ask(stock, sampling=sampling).reply, ask(ours, sampling=sampling).reply
    assert found.finish_reason == expected.finish_reason == "stop"
    assert (found.completion_ids, found.text) == (expected.completion_ids, expected.text)
    assert found.completion_tokens < 20
    # What was cut off is in neither cache: the next turn is the same again.
    later = dialog(QUESTIONS[0], found.text or "", QUESTIONS[1])
    expected, found = ask(stock, later, GREEDY).reply, ask(ours, later, GREEDY).reply
    assert (found.completion_ids, found.cached_tokens) == (expected.completion_ids, expected.cached_tokens)


@pytest.mark.parametrize("engine", OURS)
def test_a_reply_of_one_id_needs_one_forward(engine: str, open_model: Callable[..., Backend]) -> None:
    expected = ask(open_model().open_session(), sampling={"max_new_tokens": 1}).reply
    found = ask(open_model(spec={"engine": engine}).open_session(), sampling={"max_new_tokens": 1}).reply
    assert (found.completion_ids, found.finish_reason) == (expected.completion_ids, "max_new_tokens")


@pytest.mark.parametrize("engine", ["generate", "decode"])
def test_an_id_ticks_before_the_forward_of_the_next_one(
    engine: str, open_model: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.generation.utils import DeferredStopCheck

    # As if this device were one where generate reads its stop flag, and streams, a step late.
    monkeypatch.setattr(DeferredStopCheck, "is_supported", staticmethod(lambda *_arguments, **_named: True))
    backend: Any = open_model(spec={"engine": engine})
    forwards = count_forwards(monkeypatch, backend.model)
    counted = ask(backend.open_session(), sampling={"max_new_tokens": 5}, length="fixed", clock=lambda: len(forwards))
    assert counted.stamps.tick_ns == (1, 2, 3, 4, 5)  # in forwards
    assert len(forwards) == 5


def count_forwards(monkeypatch: pytest.MonkeyPatch, whose: Any, fail_at: int | None = None) -> list[int]:
    """A list that grows with every forward, the `fail_at`-th of which (from 1) raises."""
    original, calls = whose.forward, []

    def forward(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == fail_at:
            raise RuntimeError("boom")
        return original(*arguments, **named)

    forward.__signature__ = signature(original)  # generate looks at it to decide what to pass
    monkeypatch.setattr(whose, "forward", forward)
    return calls


@pytest.mark.parametrize("engine", OURS)
@pytest.mark.parametrize("fail_at", [1, 3])
def test_a_turn_that_fails_leaves_a_sound_session(
    engine: str, fail_at: int, open_model: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend: Any = open_model(spec={"engine": engine})
    later = dialog(QUESTIONS[0], "It is blue.", QUESTIONS[1])
    undisturbed = ask(backend.open_session(), later, GREEDY).reply
    session = backend.open_session()
    ask(session, QUESTIONS[0], GREEDY)
    with monkeypatch.context() as patched:
        count_forwards(patched, backend.model if engine == "decode" else CompiledStep, fail_at)
        failed = ask(session, later, GREEDY).reply
    assert failed.failure is not None
    assert (failed.failure.message, failed.failure.phase) == ("boom", "prefill" if fail_at == 1 else "decode")
    after = ask(session, later, GREEDY).reply
    assert (after.completion_ids, after.cached_tokens) == (undisturbed.completion_ids, 0)


def test_numbers_that_were_none_do_not_stay_in_a_static_cache(open_model: Callable[..., Backend]) -> None:
    backend: Any = open_model(spec={"engine": "compiled"})
    before = ask(backend.open_session()).reply
    weight = backend.model.model.layers[0].self_attn.v_proj.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(float("nan"))
    failed = ask(backend.open_session(), "A question that is a little longer, so that more ids are in the cache.").reply
    assert failed.failure is not None
    assert failed.failure.kind == "NonFiniteLogits"
    with torch.no_grad():
        weight.copy_(kept)
    assert ask(backend.open_session()).reply.completion_ids == before.completion_ids


def test_a_conversation_that_outgrows_its_static_cache_gets_the_next_size_and_is_told(
    open_model: Callable[..., Backend],
) -> None:
    long = "What is motion? " * 160
    stock, backend = (
        open_model(max_position_embeddings=2048),
        open_model(max_position_embeddings=2048, spec={"engine": "compiled"}),
    )
    ours, session = backend.open_session(), stock.open_session()
    first = ask(ours, QUESTIONS[0], GREEDY).reply
    assert not any("compiled" in notice for notice in first.notices)
    messages = dialog(QUESTIONS[0], first.text or "", long)
    grown, expected = ask(ours, messages, GREEDY).reply, ask(session, messages, GREEDY).reply
    assert any("compiled for 1024 ids" in notice for notice in grown.notices)
    assert grown.cached_tokens >= first.prompt_tokens  # what it held has moved with it
    assert grown.completion_ids == expected.completion_ids
    assert grown.kv_cache_bytes == 2 * first.kv_cache_bytes
    again = ask(backend.open_session(), messages, GREEDY).reply
    assert not any("compiled" in notice for notice in again.notices)
    assert (again.completion_ids, again.cached_tokens) == (expected.completion_ids, 0)


def test_a_static_cache_has_no_more_room_than_the_models_context(open_model: Callable[..., Backend]) -> None:
    backend: Any = open_model(max_position_embeddings=100, spec={"engine": "compiled"})
    reply = ask(backend.open_session(), QUESTIONS[0], {"max_length": 100}, length="natural").reply
    assert reply.kv_cache_bytes == 2 * 2 * 2 * 8 * 100 * 4
    assert reply.failure is None
    expected = ask(open_model(max_position_embeddings=100).open_session(), QUESTIONS[0], {"max_length": 100}).reply
    assert reply.completion_ids == expected.completion_ids


def test_sessions_take_turns_on_one_static_cache_and_see_nothing_of_each_other(
    open_model: Callable[..., Backend],
) -> None:
    backend = open_model(spec={"engine": "compiled"})
    one, other = backend.open_session(), backend.open_session()
    expected = ask(open_model().open_session(), QUESTIONS[0], GREEDY).reply.completion_ids
    for session in (one, other, one):
        reply = ask(session, QUESTIONS[0], GREEDY).reply
        assert (reply.completion_ids, reply.cached_tokens) == (expected, 0)
    again = ask(one, QUESTIONS[0], GREEDY).reply
    assert (again.completion_ids, again.cached_tokens) == (expected, again.prompt_tokens - 1)


def test_a_fresh_static_cache_serves_nothing(open_model: Callable[..., Backend]) -> None:
    talk = converse(open_model(spec={"engine": "compiled", "kv_cache": "fresh"}).open_session(), GREEDY)
    assert {asked.reply.cached_tokens for asked in talk} == {0}


def test_a_model_that_changes_its_rope_begins_anew_as_under_generate(saved_model: Callable[..., Path]) -> None:
    changes: dict[str, Any] = {
        "max_position_embeddings": 128,
        "original_max_position_embeddings": 64,
        "rope_parameters": {
            "rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 1.0,
            "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "original_max_position_embeddings": 64,
        },
    }  # fmt: skip
    folder = saved_model("phi3", **changes)
    talks = {}
    for engine in ("generate", "decode"):
        spec = ModelSpec(model=str(folder), engine=engine, kv_cache="fresh")
        session = open_backend(spec, chat_format="auto", template_now=TEMPLATE_NOW).open_session()
        talks[engine] = [
            ask(session, QUESTIONS[0], {"max_new_tokens": 80}, length="fixed").reply.completion_ids for _ in range(2)
        ]
    assert talks["decode"] == talks["generate"]
    with pytest.raises(ModelError, match="its rope changes at 64 ids"):
        open_backend(ModelSpec(model=str(folder), engine="compiled"), chat_format="auto", template_now=TEMPLATE_NOW)


# --- what is refused


def shown(folder: Path, engine: str, **sampling: Any) -> Any:
    return preview(
        ModelSpec(model=str(folder), engine=engine),  # type: ignore[arg-type]
        samplings={"s": {"max_new_tokens": 4, **sampling}},
        length="natural",
        messages=(Message("user", "Hello!"),),
        persona=Persona(),
        chat_format="auto",
        template_now=TEMPLATE_NOW,
    )


@pytest.mark.parametrize("architecture", sorted(NOT_STATIC))
def test_what_cannot_be_compiled_is_refused_before_there_are_weights(
    architecture: str, saved_model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "weightless"
    shutil.copytree(saved_model(architecture), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(ModelError) as caught:
        shown(folder, "compiled")
    (mistake,) = caught.value.mistakes
    assert mistake.fact.startswith("cannot be used with engine: compiled: it")
    assert mistake.remedy == "engine: generate can"
    with pytest.raises(ModelError, match="cannot be used with engine: compiled"):
        open_backend(ModelSpec(model=str(folder), engine="compiled"), chat_format="auto", template_now=TEMPLATE_NOW)
    assert shown(folder, "decode").effective["s"].values["max_new_tokens"] == 4


def test_attention_that_cannot_mask_a_static_cache_is_refused(saved_model: Callable[..., Path]) -> None:
    spec = ModelSpec(model=str(saved_model()), engine="compiled", attn_implementation="flash_attention_2")
    with pytest.raises(ModelError, match="flash_attention_2 cannot tell the empty part of a static cache"):
        open_backend(spec, chat_format="auto", template_now=TEMPLATE_NOW)


def test_a_model_that_torch_cannot_compile_is_told_in_one_line(tmp_path: Path) -> None:
    config = OPTConfig(
        vocab_size=384, hidden_size=32, ffn_dim=48, num_hidden_layers=1, num_attention_heads=4, word_embed_proj_dim=32,
        max_position_embeddings=64,
    )  # fmt: skip
    OPTForCausalLM(config).save_pretrained(tmp_path)
    zoo.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError) as caught:
        open_backend(ModelSpec(model=str(tmp_path), engine="compiled"), chat_format="auto", template_now=TEMPLATE_NOW)
    assert "\n" not in str(caught.value)
    assert "cannot be compiled" in str(caught.value)


@pytest.mark.parametrize("engine", OURS)
@pytest.mark.parametrize(
    "parameter",
    [
        {"guidance_scale": 1.5}, {"prompt_lookup_num_tokens": 3}, {"assistant_early_exit": 1}, {"use_mtp": True},
        {"cache_implementation": "static"}, {"prefill_chunk_size": 16}, {"use_cache": False}, {"max_cache_len": 600},
        {"disable_compile": True},
    ],
    ids=lambda parameter: next(iter(parameter)),
)  # fmt: skip
def test_what_only_generate_can_do_is_refused_when_the_run_is_planned(
    engine: str, parameter: dict[str, Any], saved_model: Callable[..., Path], open_model: Callable[..., Backend]
) -> None:
    (name,) = parameter
    with pytest.raises(UsageError, match=f"sampling.{name}: cannot be used with engine: {engine}: .* generate can"):
        shown(saved_model(), engine, **parameter)
    with pytest.raises(UsageError, match=f"sampling.{name}"):
        open_model(spec={"engine": engine}).effective({"max_new_tokens": 4, **parameter}, "natural")


@pytest.mark.parametrize("value", [{"guidance_scale": 1.0}, {"use_mtp": False}, {"use_cache": True}])
def test_what_asks_for_nothing_is_not_refused(value: dict[str, Any], saved_model: Callable[..., Path]) -> None:
    assert shown(saved_model(), "decode", **value).effective


def test_what_the_model_itself_asks_for_is_left_out_with_a_warning(saved_model: Callable[..., Path]) -> None:
    folder = saved_model(generation={"prompt_lookup_num_tokens": 5, "eos_token_id": 2})
    effective = shown(folder, "decode").effective["s"]
    assert "prompt_lookup_num_tokens" not in effective.values
    assert any("prompt_lookup_num_tokens=5 of the model's" in warning for warning in effective.warnings)
    assert shown(folder, "generate").effective["s"].values["prompt_lookup_num_tokens"] == 5


@pytest.mark.parametrize("engine", OURS)
def test_an_engine_of_ours_says_that_it_is_not_stock_generate(
    engine: str, saved_model: Callable[..., Path], open_model: Callable[..., Backend]
) -> None:
    assert any("not stock generate" in notice for notice in shown(saved_model(), engine).notices)
    assert any("not stock generate" in notice for notice in open_model(spec={"engine": engine}).report.notices)
    assert not any("not stock generate" in notice for notice in open_model().report.notices)


# --- compiling


def test_only_compiling_takes_time_to_compile(open_model: Callable[..., Backend]) -> None:
    assert [open_model(spec={"engine": name}).report.compile_s for name in ("generate", "decode")] == [None, None]
    report = open_model(spec={"engine": "compiled"}).report
    assert report.compile_s is not None
    assert report.compile_s > 0


def test_a_static_cache_is_a_power_of_two_within_the_context(open_model: Callable[..., Backend]) -> None:
    model: Any = open_model().model  # type: ignore[attr-defined]
    step = CompiledStep(model, 3000, compiler="eager")
    assert [step.size(ids) for ids in (1, LEAST, LEAST + 1, 1024, 1025, 2049, 3000)] == [
        512, 512, 1024, 1024, 2048, 3000, 3000,
    ]  # fmt: skip
    assert CompiledStep(model, None, compiler="eager").size(5000) == 8192


def test_phi_3_with_a_rope_of_one_length_can_be_compiled() -> None:
    config = Phi3Config(max_position_embeddings=4096, original_max_position_embeddings=4096)
    assert why_not_static(Phi3ForCausalLM, config) is None


def test_the_step_is_compiled_to_machine_code_and_says_what_generate_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    config = LlamaConfig(**{**zoo.SIZES, "num_hidden_layers": 1})
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    zoo.tokenizer().save_pretrained(tmp_path / "model")
    talks = []
    for engine in ("generate", "compiled"):
        spec = ModelSpec(model=str(tmp_path / "model"), engine=engine)  # type: ignore[arg-type]
        session = open_backend(spec, chat_format="auto", template_now=TEMPLATE_NOW).open_session()
        talks.append([asked.reply.completion_ids for asked in converse(session, GREEDY, length="fixed")])
    assert talks[0] == talks[1]


def test_decode_asks_a_model_for_its_own_way_to_prepare_inputs_only_where_it_has_one(
    open_model: Callable[..., Backend],
) -> None:
    for architecture, own in (("llama", False), ("phi3", True), ("mamba2", True)):
        backend: Any = open_model(architecture)
        assert (Decode(backend.model, "reuse")._prepare is not None) is own
