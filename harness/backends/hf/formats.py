"""From messages to prompt ids: the tokenizer's chat template, or lines of a transcript.

Both work in two steps that are timed apart, text and then ids. A template writes its special tokens into the text, so
its text is encoded without adding any (otherwise there are two beginnings of text); a transcript is encoded the way
the tokenizer encodes any text, as a text-generation pipeline would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils import chat_template_utils

from harness.backends.transcript import render_transcript
from harness.config.schema import ChatFormat
from harness.errors import ModelError
from harness.records import Message, Persona, short_hash

NO_NEWLINE = "the tokenizer has no id that is a newline: replies are ended by a newline in their text"
NO_TEMPLATE = "the tokenizer has no chat template: prompts are transcripts (chat_format: transcript)"
FOLDED = "the chat template {}: the system text is put before the first user message"


class Format(Protocol):
    """How a conversation becomes a prompt, and what ends a reply besides the model's own end of text."""

    name: ChatFormat
    notices: tuple[str, ...]
    """About the model, found while the format was chosen."""

    def render(self, messages: Sequence[Message], persona: Persona) -> tuple[str, tuple[str, ...]]:
        """The prompt as text, and notices about how it came to be. May raise jinja2.TemplateError."""
        ...

    def encode(self, text: str) -> list[int]: ...

    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end a reply like an end of text."""
        ...

    def stop_strings(self, persona: Persona) -> tuple[str, ...]:
        """Texts that end a reply and are cut off it."""
        ...

    def facts(self) -> Mapping[str, Any]: ...


def choose_format(
    tokenizer: PreTrainedTokenizerBase,
    chat_format: ChatFormat,
    *,
    subject: str,
    template_kwargs: Mapping[str, Any],
    template_now: str,
) -> Format:
    """The format that `chat_format` asks for; raises ModelError about `subject` for `template` where there is none."""
    if chat_format == "transcript":
        return TranscriptFormat(tokenizer)
    template = _template_of(tokenizer)
    if template is not None:
        return TemplateFormat(tokenizer, template, template_kwargs, datetime.fromisoformat(template_now))
    if chat_format == "template":
        raise ModelError(subject, "its tokenizer has no chat template", "use chat_format: transcript or auto")
    return TranscriptFormat(tokenizer, notices=(NO_TEMPLATE,))


def _template_of(tokenizer: PreTrainedTokenizerBase) -> str | None:
    try:
        return str(tokenizer.get_chat_template())
    except ValueError:  # transformers' way to say that there is none
        return None


class TemplateFormat:
    """The tokenizer's chat template, told a frozen time."""

    name: ChatFormat = "template"

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: str,
        template_kwargs: Mapping[str, Any],
        now: datetime,
    ) -> None:
        self.notices: tuple[str, ...] = ()
        self._tokenizer = tokenizer
        self.template = template
        self._now = now
        self._kwargs: dict[str, Any] = {}
        if "date_string" in template:
            self._kwargs["date_string"] = now.strftime("%d %b %Y")  # as Llama's templates write it
        self._kwargs.update(template_kwargs)
        self._folded: str | None = None

    def with_arguments(self, template_kwargs: Mapping[str, Any]) -> TemplateFormat:
        """The same template, passed other arguments."""
        return TemplateFormat(self._tokenizer, self.template, template_kwargs, self._now)

    def render(self, messages: Sequence[Message], persona: Persona) -> tuple[str, tuple[str, ...]]:
        system = messages[0].content if messages[0].role == "system" else None
        if system is None:
            return self._apply(messages), ()
        if self._folded is None:
            try:
                text = self._apply(messages)
            except TemplateError as refusal:
                folded = self._apply(_fold(messages))
                self._folded = FOLDED.format(f"refuses a system message ({refusal})")
                return folded, (self._folded,)
            if system.strip() in text:
                return text, ()
            # Some templates have no word for a system message and pass over it in silence.
            self._folded = FOLDED.format("leaves a system message out")
        return self._apply(_fold(messages)), (self._folded,)

    def _apply(self, messages: Sequence[Message]) -> str:
        chat = [{"role": message.role, "content": message.content} for message in messages]
        if "strftime_now" in self.template:
            self._freeze_time()
        text = self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, **self._kwargs)
        return str(text)

    def _freeze_time(self) -> None:
        # transformers gives templates a clock of its own, and since 5.23 replaces callables among the arguments by
        # text. The compiled template is cached, so its own globals are where a frozen clock can be hung.
        compiled: Any = chat_template_utils._compile_jinja_template(self.template)
        compiled.globals["strftime_now"] = self._now.strftime

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def stop_ids(self) -> tuple[int, ...]:
        return ()

    def stop_strings(self, persona: Persona) -> tuple[str, ...]:
        return ()

    def facts(self) -> Mapping[str, Any]:
        return {"chat_format": self.name, "template_hash": short_hash(self.template.encode())}


class TranscriptFormat:
    """Lines of `Name: text`. The newline ends a reply: as an id where the tokenizer has one for it, else as text."""

    name: ChatFormat = "transcript"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, notices: tuple[str, ...] = ()) -> None:
        self._tokenizer = tokenizer
        self._newline = newline_id(tokenizer)
        self.notices = notices if self._newline is not None else (*notices, NO_NEWLINE)

    def render(self, messages: Sequence[Message], persona: Persona) -> tuple[str, tuple[str, ...]]:
        return render_transcript(messages, persona), ()

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text)["input_ids"])

    def stop_ids(self) -> tuple[int, ...]:
        return () if self._newline is None else (self._newline,)

    def stop_strings(self, persona: Persona) -> tuple[str, ...]:
        # With a newline id, other ids that merely contain a newline do not end a reply (the tutorial's behaviour),
        # unless the model goes on to speak for the user.
        return (f"\n{persona.user}:",) if self._newline is not None else ("\n",)

    def facts(self) -> Mapping[str, Any]:
        return {"chat_format": self.name, "template_hash": None, "newline_id": self._newline}


def newline_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id that is a newline and nothing else; None if the tokenizer has none."""
    # Sentencepiece tokenizers put a word boundary before the newline, so it need not be the only id.
    for one in tokenizer("\n", add_special_tokens=False)["input_ids"]:
        if tokenizer.decode([one]) == "\n":
            return int(one)
    return None


def _fold(messages: Sequence[Message]) -> list[Message]:
    """The messages with the system text put before the first user message."""
    system, first, *rest = messages
    return [Message(first.role, f"{system.content}\n\n{first.content}"), *rest]
