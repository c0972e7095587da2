"""Counting with a named tokenizer what a server does not count: an estimate, and told as one.

A reply that is encoded again has not always the ids that were generated, and its end of text is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.backends.builtin import path as builtin_path
from harness.config.schema import ModelSpec
from harness.errors import ModelError
from harness.hub.fetch import hold
from harness.records import Message


class Counter:
    """A tokenizer, by the name of a spec."""

    def __init__(self, spec: ModelSpec) -> None:
        """Raises ModelError where it cannot be had."""
        from transformers import AutoTokenizer  # two seconds, for those only who name one

        assert spec.tokenizer is not None, "who names none counts nothing"
        self.name = spec.tokenizer
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(_folder(spec.tokenizer))
        except (OSError, ValueError) as error:
            raise ModelError(f"tokenizer: {self.name}", f"cannot be read: {str(error).splitlines()[0]}") from None

    def count(self, text: str) -> int:
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def count_prompt(self, messages: Sequence[Message], kwargs: Mapping[str, Any]) -> int | None:
        """Of the messages in the tokenizer's chat template; None where it has none, or that refuses them."""
        from jinja2 import TemplateError

        chat = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text = self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, **kwargs)
        except (ValueError, TemplateError):
            return None
        return self.count(text)


def _folder(name: str) -> str:
    kind, _, short = name.partition(":")
    if kind == "builtin":
        try:
            return str(builtin_path(short))
        except ValueError as error:
            raise ModelError(f"tokenizer: {name}", str(error)) from None
    if Path(name).expanduser().exists():
        return str(Path(name).expanduser())
    return str(hold(ModelSpec(model=name)).folder)
