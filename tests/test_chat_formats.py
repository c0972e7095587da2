"""From messages to prompt ids, and from reply ids to text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import AddedToken
from tokenizers.normalizers import Replace

from harness.backends.hf.formats import FOLDED, NO_NEWLINE, NO_TEMPLATE, TranscriptFormat, newline_id
from harness.backends.hf.reasoning import Reader, Said, special_texts
from harness.backends.seam import Backend
from harness.errors import ModelError
from harness.records import Persona, short_hash
from tests import zoo
from tests.asking import ask, dialog
from tests.conftest import TEMPLATE_NOW

PERSONA = Persona("Bob is a professor in Physics.", user="Alice", assistant="Bob")
DIALOG = dialog("What is it?", "Motion.", "And energies?", system="Bob is a professor in Physics.")


def prompt_of(backend: Backend, messages=DIALOG) -> tuple[str, list[int], tuple[str, ...]]:
    text, notices = backend.format.render(messages, PERSONA)
    return text, backend.format.encode(text), notices


def as_chat(messages=DIALOG) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return zoo.tokenizer()


class TestTemplates:
    @pytest.mark.parametrize("template", [zoo.CHATML, "{{ bos_token }}" + zoo.CHATML])
    def test_prompt_ids_are_those_of_the_tokenizers_own_way(
        self, template: str, open_model: Callable[..., Backend]
    ) -> None:
        backend = open_model(template=template)
        _, ids, _ = prompt_of(backend)
        assert ids == backend.tokenizer.apply_chat_template(
            as_chat(), tokenize=True, add_generation_prompt=True, return_dict=False
        )
        reply = ask(backend.open_session(), DIALOG, persona=PERSONA).reply
        assert reply.prompt_tokens == len(ids)

    def test_there_is_one_beginning_of_text(self, open_model: Callable[..., Backend]) -> None:
        from tokenizers.processors import TemplateProcessing

        backend = open_model(template="{{ bos_token }}" + zoo.CHATML)
        bos = backend.tokenizer.bos_token_id
        backend.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<|bos|> $A", special_tokens=[("<|bos|>", bos)]
        )
        assert backend.tokenizer("x")["input_ids"][0] == bos
        assert prompt_of(backend)[1].count(bos) == 1

    def test_a_refused_system_message_is_put_before_the_first_user_message(
        self, open_model: Callable[..., Backend]
    ) -> None:
        backend = open_model(template=zoo.NO_SYSTEM)
        text, _, notices = prompt_of(backend)
        assert text == (
            "<|bos|>[user] Bob is a professor in Physics.\n\nWhat is it?"
            "[assistant] Motion.[user] And energies?[assistant]"
        )
        assert len(notices) == 1
        assert notices[0].startswith("the chat template refuses a system message (Conversation roles must alternate")
        assert prompt_of(backend)[2] == notices, "told for every prompt it happened to"

    def test_a_system_message_that_a_template_passes_over_is_not_lost(self, open_model: Callable[..., Backend]) -> None:
        deaf = "{% for m in messages if m.role != 'system' %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
        text, _, notices = prompt_of(open_model(template=deaf))
        assert text.startswith("[user]Bob is a professor in Physics.\n\nWhat is it?")
        assert notices == (FOLDED.format("leaves a system message out"),)

    def test_the_notice_of_a_fold_is_in_the_reply(self, open_model: Callable[..., Backend]) -> None:
        session = open_model(template=zoo.NO_SYSTEM).open_session()
        assert len(ask(session, DIALOG).reply.notices) == 1
        assert ask(session, DIALOG[1:]).reply.notices == ()

    def test_what_a_template_refuses_altogether_is_a_failure_of_the_turn(
        self, open_model: Callable[..., Backend]
    ) -> None:
        reply = ask(open_model(template="{{ raise_exception('no') }}").open_session(), DIALOG).reply
        assert reply.failure is not None
        assert (reply.failure.kind, reply.failure.phase, reply.failure.message) == ("TemplateError", "template", "no")

    def test_templates_are_told_a_frozen_date(self, open_model: Callable[..., Backend]) -> None:
        assert TEMPLATE_NOW.startswith("2026-01-02")
        backend = open_model(template=zoo.DATED)
        assert prompt_of(backend)[0].startswith("Today is 02 January 2026; 02 Jan 2026.\n")

    def test_template_arguments_are_passed_on(self, open_model: Callable[..., Backend]) -> None:
        thinking = open_model(template=zoo.THINKING, spec={"template_kwargs": {"enable_thinking": True}})
        assert prompt_of(thinking)[0].endswith("<|im_start|>assistant\n<think>\n")
        assert prompt_of(open_model(template=zoo.THINKING))[0].endswith("<|im_start|>assistant\n")

    def test_the_template_is_known_by_its_hash(self, open_model: Callable[..., Backend]) -> None:
        facts = open_model().report.facts
        assert facts["chat_format"] == "template"
        assert facts["template_hash"] == short_hash(zoo.CHATML.encode())


class TestTranscripts:
    def test_a_transcript_has_the_persona_the_lines_and_an_open_end(self, open_model: Callable[..., Backend]) -> None:
        text, ids, _ = prompt_of(open_model(chat_format="transcript"))
        assert text == ("Bob is a professor in Physics.\nAlice: What is it?\nBob: Motion.\nAlice: And energies?\nBob:")
        assert ids == zoo.tokenizer()(text)["input_ids"]

    def test_auto_falls_back_to_a_transcript_and_says_so(self, open_model: Callable[..., Backend]) -> None:
        backend = open_model(template=None)
        assert prompt_of(backend)[0].endswith("\nBob:")
        assert NO_TEMPLATE in backend.report.notices

    def test_template_demands_a_template(self, open_model: Callable[..., Backend]) -> None:
        with pytest.raises(ModelError, match="its tokenizer has no chat template – use chat_format: transcript"):
            open_model(template=None, chat_format="template")

    def test_a_newline_id_ends_a_reply(self, open_model: Callable[..., Backend]) -> None:
        backend = open_model(chat_format="transcript")
        newline = newline_id(backend.tokenizer)
        assert backend.tokenizer.decode([newline]) == "\n"
        assert backend.report.facts["newline_id"] == newline
        assert backend.effective({}, "natural").values["eos_token_id"] == [2, newline]
        assert backend.effective({"eos_token_id": newline}, "natural").values["eos_token_id"] == [newline]


def test_a_tokenizer_without_a_newline_id_is_noted() -> None:
    words: Any = zoo.tokenizer()
    words.backend_tokenizer.normalizer = Replace("\n", "ab")
    assert newline_id(words) is None
    spaced = TranscriptFormat(words)
    assert spaced.notices == (NO_NEWLINE,)
    assert spaced.stop_ids() == ()
    assert spaced.stop_strings(PERSONA) == ("\n",)


class TestEndsOfTranscripts:
    """What a model says is forced upon it: a bias makes it say a text, whatever its weights."""

    @pytest.fixture
    def say(self, open_model: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
        def make(text: str, *, newline: bool = True, newline_ends: bool = True, **values: Any) -> Any:
            import torch

            backend = open_model(chat_format="transcript")
            if not newline:
                backend.format._newline = None
            if not newline_ends:
                backend.format.stop_ids = lambda: ()
            ids = backend.tokenizer(text, add_special_tokens=False)["input_ids"]
            start = len(prompt_of(backend)[1])

            def bias(scores: Any, length: int) -> Any:
                forced = torch.full_like(scores, -1e4)
                forced[0, ids[(length - start) % len(ids)]] = 0.0
                return forced

            from harness.backends.hf.sampler import LastScores

            monkeypatch.setattr(
                LastScores, "__call__", lambda self, input_ids, scores: bias(scores, input_ids.shape[1])
            )
            values.setdefault("sampling", {"max_new_tokens": 20})
            return ask(backend.open_session(), DIALOG, persona=PERSONA, **values)

        return make

    def test_a_newline_ends_the_reply_and_is_counted(self, say: Callable[..., Any]) -> None:
        asked = say(" Motion\nAlice: hi")
        assert (asked.reply.text, asked.reply.finish_reason) == ("Motion", "stop")
        assert asked.reply.completion_tokens == len(zoo.tokenizer()(" Motion\n")["input_ids"])

    def test_a_newline_at_once_is_an_empty_reply(self, say: Callable[..., Any]) -> None:
        reply = say("\nmore").reply
        assert (reply.text, reply.finish_reason, reply.completion_tokens) == ("", "stop", 1)
        assert reply.visible_ids is None

    def test_without_a_newline_id_the_newline_is_found_in_the_text(self, say: Callable[..., Any]) -> None:
        reply = say(" Motion\nAlice: hi", newline=False).reply
        assert (reply.text, reply.finish_reason) == ("Motion", "stop")
        assert reply.completion_tokens == len(zoo.tokenizer()(" Motion\n")["input_ids"])
        assert say("\nmore", newline=False).reply.text == ""

    def test_the_model_never_speaks_for_the_user(self, say: Callable[..., Any]) -> None:
        # The newline that ends a reply may be hidden in an id of two characters, so that only the text tells.
        reply = say(" Motion\nAlice: hi", newline_ends=False).reply
        assert (reply.text, reply.finish_reason) == ("Motion", "stop")
        assert reply.completion_tokens == len(zoo.tokenizer()(" Motion\nAlice:")["input_ids"])

    def test_stop_strings_of_a_sampling_end_and_are_cut_off(self, say: Callable[..., Any]) -> None:
        reply = say("one two three", sampling={"max_new_tokens": 20, "stop_strings": ["two"]}).reply
        assert (reply.text, reply.finish_reason) == ("one", "stop")
        at_once = say("two three", sampling={"max_new_tokens": 20, "stop_strings": "two"}).reply
        assert (at_once.text, at_once.finish_reason) == ("", "stop")

    def test_the_reply_ends_at_the_first_of_several_stop_strings(self, say: Callable[..., Any]) -> None:
        # Both arrive with one id: "tion of" is in the tokenizer's text, the strings overlap in its end.
        reply = say(" Motion of", sampling={"max_new_tokens": 20, "stop_strings": ["ion of", "otion of"]}).reply
        assert reply.text == "M"

    def test_a_long_stop_string_is_found_across_many_ids(self, say: Callable[..., Any]) -> None:
        stop = "zqzqzqzqzqzqzqzqzqzq"
        assert len(zoo.tokenizer()(stop)["input_ids"]) == len(stop)
        reply = say(f"one {stop}", sampling={"max_new_tokens": 40, "stop_strings": [stop]}).reply
        assert (reply.text, reply.finish_reason) == ("one", "stop")

    def test_the_end_of_text_is_told_from_a_stop(self, say: Callable[..., Any]) -> None:
        reply = say("one<|im_end|>").reply
        assert (reply.text, reply.finish_reason) == ("one", "eos")

    def test_nothing_ends_the_fixed_lane(self, say: Callable[..., Any]) -> None:
        reply = say(" a\nAlice: hi<|im_end|>", length="fixed").reply
        assert (reply.completion_tokens, reply.finish_reason) == (20, "max_new_tokens")
        assert "\nAlice: hi" in reply.text


class TestReasoning:
    def read(self, tokenizer: Any, text: str, prompt: str = "", stops: tuple[str, ...] = ()) -> Said:
        return Reader(tokenizer, special_texts(tokenizer), prompt, stops).read(
            tokenizer(text, add_special_tokens=False)["input_ids"]
        )

    def test_a_block_is_told_from_the_answer(self, tokenizer: Any) -> None:
        assert self.read(tokenizer, "<think>\nhm\n</think>\n\nMotion.<|im_end|>") == Said("Motion.", "hm")

    def test_a_block_that_the_prompt_opened_needs_only_its_end(self, tokenizer: Any) -> None:
        assert self.read(tokenizer, "hm\n</think>\n\nMotion.", prompt="…assistant\n<think>\n") == Said("Motion.", "hm")

    def test_an_unfinished_block_has_no_answer(self, tokenizer: Any) -> None:
        assert self.read(tokenizer, "<think>\nhm, let me") == Said("", "hm, let me")
        assert self.read(tokenizer, "hm, let me", prompt="<think>\n") == Said("", "hm, let me")

    def test_an_empty_block_is_no_reasoning(self, tokenizer: Any) -> None:
        assert self.read(tokenizer, "<think>\n\n</think>\n\nMotion.") == Said("Motion.", None)

    def test_a_block_that_the_prompt_closed_is_none_of_the_replys(self, tokenizer: Any) -> None:
        assert self.read(tokenizer, "Motion.", prompt="<think>\n\n</think>\n\n") == Said("Motion.", None)

    def test_a_mark_in_mid_sentence_is_text(self, tokenizer: Any) -> None:
        assert self.read(tokenizer, "Write <think> and </think>.") == Said("Write <think> and </think>.", None)

    def test_marks_may_be_special_tokens(self, tokenizer: Any) -> None:
        special = zoo.tokenizer()
        special.add_special_tokens({"extra_special_tokens": ["<think>", "</think>"]})
        assert self.read(special, "<think>hm</think>Motion.<|im_end|>") == Said("Motion.", "hm")

    def test_the_channels_of_gpt_oss_are_a_block(self, tokenizer: Any) -> None:
        special = zoo.tokenizer()
        special.add_tokens([AddedToken(f"<|{name}|>", special=True) for name in ("start", "channel", "message", "end")])
        text = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Motion.<|im_end|>"
        assert self.read(special, text) == Said("Motion.", "hm")

    def test_ids_are_counted_up_to_the_first_thought_and_the_first_word_of_the_answer(self, tokenizer: Any) -> None:
        text = "<think>\nhm\n</think>\n\nMotion."
        ids = tokenizer(text)["input_ids"]
        reader = Reader(tokenizer, special_texts(tokenizer), "", ())
        visible, answer = reader.visible_ids(ids), reader.answer_ids(ids)
        assert tokenizer.decode(ids[: visible - 1]).strip() == "<think>"
        assert tokenizer.decode(ids[:visible]).strip() != "<think>"
        assert tokenizer.decode(ids[: answer - 1]).strip().endswith("</think>")
        assert not tokenizer.decode(ids[:answer]).strip().endswith("</think>")

    def test_half_a_character_is_not_visible(self, tokenizer: Any) -> None:
        ids = tokenizer("é", add_special_tokens=False)["input_ids"]
        assert len(ids) == 2
        assert Reader(tokenizer, special_texts(tokenizer), "", ()).visible_ids(ids) == 2

    def test_thoughts_are_stored_apart_and_the_answer_is_the_reply(self, open_model: Callable[..., Backend]) -> None:
        backend = open_model(template=zoo.THINKING, spec={"template_kwargs": {"enable_thinking": True}})
        reply = ask(backend.open_session()).reply
        assert (reply.text, reply.answer_ids) == ("", None)
        assert reply.reasoning
        assert reply.visible_ids >= 1
