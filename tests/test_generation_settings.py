"""What is told about the settings of a generation, and that it is what generation uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, GenerationMixin

from harness.backends.hf.settings import own_parameters, settle
from harness.backends.open import open_backend, preview
from harness.backends.seam import Backend, EffectiveSettings
from harness.config.schema import ModelSpec
from harness.errors import UsageError
from harness.records import Persona
from tests.asking import ask, dialog

OWN = {"do_sample": True, "temperature": 0.6, "repetition_penalty": 1.3, "top_p": 0.9, "eos_token_id": [2, 0]}


def effective(sampling: dict[str, Any], length: str = "natural", **values: Any) -> EffectiveSettings:
    known = {"own": {"eos_token_id": 2}, "stop_ids": (), "tokenizer_eos": 2, "context_tokens": 512, **values}
    return settle(sampling, length, **known).effective


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What reaches transformers' sampling loop: its config, its processors, its criteria."""
    seen: list[dict[str, Any]] = []
    original = GenerationMixin._sample

    def spy(self: Any, *arguments: Any, **named: Any) -> Any:
        seen.append(named)
        return original(self, *arguments, **named)

    monkeypatch.setattr(GenerationMixin, "_sample", spy)
    return seen


def names(things: Any) -> set[str]:
    return {type(thing).__name__ for thing in things}


@pytest.mark.parametrize(
    "sampling",
    [
        {"max_new_tokens": 4},
        {"max_new_tokens": 4, "do_sample": True, "top_k": 10},
        {"max_length": 60, "do_sample": True, "temperature": 0.3, "top_p": 0.5, "repetition_penalty": 2.0},
        {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "no_repeat_ngram_size": 2, "min_p": None},
    ],
)
@pytest.mark.parametrize("own", [None, OWN])
def test_every_effective_value_reaches_the_sampling_loop(
    sampling: dict[str, Any],
    own: dict[str, Any] | None,
    open_model: Callable[..., Backend],
    used: list[dict[str, Any]],
) -> None:
    backend = open_model(generation=own)
    told = dict(backend.effective(sampling, "natural").values)
    asked = ask(backend.open_session(), sampling=sampling)
    config = used[0]["generation_config"]
    told.pop("max_new_tokens", None)
    expected_length = sampling.get("max_length", asked.reply.prompt_tokens + 4)
    assert config.max_length == told.pop("max_length", expected_length) == expected_length
    for name, value in told.items():
        assert getattr(config, name) == value, name
    # And nothing is used that was not told, defaults of transformers apart.
    for name in {"temperature", "top_p", "repetition_penalty", "eos_token_id", "no_repeat_ngram_size"} - set(told):
        assert getattr(config, name) in (None, 1.0, 0), name


def test_settings_are_at_work_in_the_sampling_loop(
    open_model: Callable[..., Backend], used: list[dict[str, Any]]
) -> None:
    session = open_model(generation=OWN).open_session()
    ask(session, sampling={"max_new_tokens": 4, "top_k": 10})
    ask(session, sampling={"max_new_tokens": 4, "do_sample": False})
    sampled, greedy = (names(call["logits_processor"]) for call in used)
    assert {"TopKLogitsWarper", "TopPLogitsWarper", "TemperatureLogitsWarper"} <= sampled
    assert not {"TopKLogitsWarper", "TopPLogitsWarper", "TemperatureLogitsWarper"} & greedy
    assert "RepetitionPenaltyLogitsProcessor" in sampled & greedy


def test_the_fixed_lane_has_no_end_but_the_length(
    open_model: Callable[..., Backend], used: list[dict[str, Any]]
) -> None:
    session = open_model(generation=OWN).open_session()
    reply = ask(session, sampling={"max_new_tokens": 30, "stop_strings": ["e"]}, length="fixed").reply
    assert names(used[0]["stopping_criteria"]) == {"MaxLengthCriteria"}
    assert used[0]["generation_config"]._eos_token_tensor is None
    assert reply.completion_tokens == 30


def test_a_padding_id_in_the_prompt_is_attended_to(
    open_model: Callable[..., Backend], used: list[dict[str, Any]]
) -> None:
    backend = open_model(generation={"eos_token_id": 2, "pad_token_id": 0})
    ask(backend.open_session(), "What is <|endoftext|> then?")
    assert used[0]["attention_mask"] is None, "generate drops a mask that masks nothing, and guesses one without it"


def test_top_k_changes_what_is_said(open_model: Callable[..., Backend]) -> None:
    session = open_model().open_session()
    greedy = ask(session, sampling={"max_new_tokens": 12}).reply.completion_ids
    first = ask(session, sampling={"max_new_tokens": 12, "do_sample": True, "top_k": 1}).reply.completion_ids
    wide = ask(session, sampling={"max_new_tokens": 12, "do_sample": True, "top_k": 0, "temperature": 5.0}).reply
    assert greedy == first != wide.completion_ids


def test_replies_equal_those_of_generate_itself(open_model: Callable[..., Backend]) -> None:
    backend = open_model(generation={"do_sample": True, "temperature": 2.0, "eos_token_id": 2})
    reply = ask(backend.open_session(), seed=11, sampling={"max_new_tokens": 12, "top_k": 20}).reply
    ids = torch.tensor([backend.format.encode(backend.format.render(dialog("What is motion?"), Persona())[0])])
    torch.manual_seed(11)
    expected = backend.model.generate(
        ids, do_sample=True, temperature=2.0, top_k=20, max_new_tokens=12, eos_token_id=2, pad_token_id=0
    )
    assert reply.completion_ids == tuple(expected[0, ids.shape[1] :].tolist())


class TestWarnings:
    def test_sampling_parameters_without_sampling(self) -> None:
        settings = effective({"top_k": 10, "temperature": 0.7, "max_new_tokens": 5})
        assert settings.warnings == (
            "temperature=0.7 has no effect: do_sample=false",
            "top_k=10 has no effect: do_sample=false",
        )
        assert "top_k" not in settings.values

    def test_beam_parameters_without_beams(self) -> None:
        assert effective({"length_penalty": 2.0, "max_new_tokens": 5}).warnings == (
            "length_penalty=2.0 has no effect: there are no beams",
        )

    def test_what_the_model_supplies_unasked(self) -> None:
        settings = effective({"max_new_tokens": 5, "top_p": 1.0, "top_k": 0}, own=OWN)
        assert settings.warnings == (
            "do_sample=True comes from the model's generation_config",
            "repetition_penalty=1.3 comes from the model's generation_config",
            "temperature=0.6 comes from the model's generation_config",
        )
        assert settings.values["top_p"] == 1.0

    def test_a_models_sampling_parameters_do_nothing_to_greedy_replies(self) -> None:
        settings = effective({"max_new_tokens": 5, "do_sample": False}, own=OWN)
        assert settings.warnings == ("repetition_penalty=1.3 comes from the model's generation_config",)
        assert not {"temperature", "top_p", "top_k"} & set(settings.values)

    def test_the_top_k_that_transformers_adds_to_sampling(self) -> None:
        settings = effective({"do_sample": True, "max_new_tokens": 5})
        assert settings.warnings == ("top_k=50 is transformers' default; set top_k: 0 to sample from everything",)
        assert settings.values["top_k"] == 50

    def test_max_new_tokens_wins_over_max_length(self) -> None:
        settings = effective({"max_new_tokens": 5, "max_length": 100})
        assert settings.warnings == ("max_length=100 has no effect: max_new_tokens wins over it",)
        assert "max_length" not in settings.values

    def test_a_length_that_was_asked_for_wins_over_the_models(self) -> None:
        settings = effective({"max_length": 100}, own={"max_new_tokens": 7})
        assert "max_new_tokens=7 of the model's generation_config is left out: you set the length" in settings.warnings
        assert (settings.values["max_length"], settings.values.get("max_new_tokens")) == (100, None)

    def test_a_length_that_the_model_supplies(self) -> None:
        settings = effective({}, own={"max_new_tokens": 7, "eos_token_id": 2})
        assert settings.warnings == ("max_new_tokens=7 comes from the model's generation_config",)

    def test_the_twenty_tokens_of_transformers(self) -> None:
        settings = effective({})
        assert settings.values["max_new_tokens"] == 20
        assert "max_new_tokens=20 is transformers' default" in settings.warnings[0]

    def test_an_end_of_text_that_only_the_tokenizer_knows(self) -> None:
        settings = effective({"max_new_tokens": 5}, own={})
        assert settings.values["eos_token_id"] == [2]
        assert settings.warnings == ("eos_token_id=2 comes from the tokenizer: the model's generation_config has none",)

    def test_an_end_of_text_that_the_model_does_not_know(self) -> None:
        assert effective({"max_new_tokens": 5}, own={"eos_token_id": [7]}).warnings == (
            "the tokenizer's end of text (2) does not end a reply: eos_token_id is [7]",
        )

    def test_a_max_length_beyond_the_context(self) -> None:
        assert effective({"max_length": 600}).warnings == (
            "max_length=600 is beyond the model's context: replies end at 512",
        )

    def test_an_end_of_text_that_is_switched_off(self) -> None:
        assert "eos_token_id" not in effective({"max_new_tokens": 5, "eos_token_id": None}, own=OWN).values

    def test_plain_settings_have_none(self) -> None:
        assert effective({"max_new_tokens": 5}, own={"eos_token_id": 2}).warnings == ()
        own = {"eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0, "use_cache": True, "repetition_penalty": 1.0}
        assert effective({"max_new_tokens": 5, "do_sample": True, "top_k": 10}, own=own).warnings == ()


class TestRefusals:
    @pytest.mark.parametrize(
        ("sampling", "message"),
        [
            ({"tok_k": 3}, "sampling.tok_k: is no generation parameter – did you mean top_k?"),
            ({"num_beams": 4}, "sampling.num_beams: cannot be used"),
            ({"num_return_sequences": 2}, "sampling.num_return_sequences: cannot be used: a turn has one reply"),
            ({"max_time": 3.0}, "sampling.max_time: cannot be used"),
            ({"do_sample": True, "temperature": 0.0}, "sampling.temperature: must be above 0"),
            ({"cache_implementation": "magic"}, "cache_implementation"),
        ],
    )
    def test_what_cannot_be_carried_out_is_refused(self, sampling: dict[str, Any], message: str) -> None:
        with pytest.raises(UsageError) as caught:
            effective(sampling)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_the_fixed_lane_needs_a_length(self) -> None:
        with pytest.raises(UsageError, match="length: fixed: needs max_new_tokens"):
            effective({"max_length": 100}, "fixed")

    def test_beams_of_the_model_are_left_out(self) -> None:
        settings = effective({"max_new_tokens": 5}, own={"num_beams": 4})
        assert "num_beams" not in settings.values
        assert settings.warnings[0].startswith("num_beams=4 of the model's generation_config is left out")


def test_a_preview_needs_no_weights_and_says_the_same(
    saved_model: Callable[..., Any], open_model: Callable[..., Backend], tmp_path: Any
) -> None:
    import shutil

    folder = shutil.copytree(saved_model(generation=OWN), tmp_path / "model")
    (folder / "model.safetensors").unlink()
    sampling = {"max_new_tokens": 5, "top_k": 3}
    messages = dialog("What is motion?", system="Bob is a professor.")
    shown = preview(
        ModelSpec(model=str(folder)),
        samplings={"one": sampling},
        length="natural",
        messages=messages,
        persona=Persona(),
        chat_format="auto",
        template_now="2026-01-01T00:00:00",
    )
    backend = open_model(generation=OWN)
    reply = ask(backend.open_session(), messages, sampling).reply
    assert shown.prompt_tokens == reply.prompt_tokens
    assert shown.context_tokens == backend.report.facts["context_tokens"] == 512
    assert shown.effective["one"] == backend.effective(sampling, "natural")


def test_a_checkpoint_cannot_switch_the_cache_off() -> None:
    assert own_parameters(GenerationConfig(use_cache=False, top_k=7)).get("use_cache") is None


def test_a_stop_string_that_is_a_special_token_stops() -> None:
    backend = open_backend(ModelSpec(model="builtin:pico"), chat_format="auto", template_now="2026-01-01T00:00:00")
    sampling = {"do_sample": False, "max_new_tokens": 64, "eos_token_id": 5, "stop_strings": ["<|end|>"]}

    reply = ask(backend.open_session(), "What is Newtonian mechanics?", sampling).reply

    assert reply.finish_reason == "stop"
    assert reply.completion_tokens < 64
    assert reply.text.endswith("how hard that is.")
