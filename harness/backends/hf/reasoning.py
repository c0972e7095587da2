"""What a reply's ids say: the reasoning of models that think aloud, and the answer after it.

The block is found in the text, not in the ids: for many tokenizers its marks are ordinary text. A template may open
the block in the prompt, so that the reply contains only its end; a reply may be cut off before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from harness.backends.thoughts import MARKS


@dataclass(frozen=True, slots=True)
class Said:
    """The text of a reply: `answer` is stripped; `reasoning` is None where there is no block."""

    answer: str
    reasoning: str | None = None


def special_texts(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The texts of all special tokens, which are no part of what a model says."""
    added = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    return tuple({*tokenizer.all_special_tokens, *added})


class Reader:
    """Reads the ids of one reply. `specials` are the tokenizer's `special_texts`."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        specials: Sequence[str],
        prompt: str,
        stop_strings: Sequence[str],
    ) -> None:
        self._tokenizer = tokenizer
        self._specials = specials
        self._stop_strings = tuple(stop_strings)
        # `<|im_end|>` is the commonest stop string of all, and no part of the text without its special tokens.
        self._special_stops = any(special in stop for special in specials for stop in stop_strings)
        self._reach = max((len(stop.encode()) for stop in stop_strings), default=0) + 8
        self._opened = next((marks for marks in MARKS if prompt.rstrip().endswith(marks[0])), None)

    def read(self, ids: Sequence[int]) -> Said:
        """The answer and the reasoning in a whole reply, stop strings and what follows them cut off."""
        return self._parse(ids, self._marks(ids))

    def _marks(self, ids: Sequence[int]) -> tuple[str, str] | None:
        """The marks of the reply's reasoning block; None if it has none."""
        if self._opened:
            return self._opened
        # Special tokens are kept: the marks are special for some tokenizers.
        beginning = self._decode(ids, skip_special_tokens=False).lstrip()
        return next((marks for marks in MARKS if beginning.startswith(marks[0])), None)

    def _parse(self, ids: Sequence[int], marks: tuple[str, str] | None) -> Said:
        if marks is None:
            return Said(self._cut(self._decode(ids, skip_special_tokens=True)).strip())
        start, end = marks
        thought, closed, answer = self._decode(ids, skip_special_tokens=False).partition(end)
        before, started, after = thought.partition(start)
        if not started:
            # Either the prompt holds the start mark, or these are the first ids of a reply and it is still arriving.
            after = before if self._opened else ""
        reasoning = self._without_specials(after).strip()
        return Said(self._cut(self._without_specials(answer)).strip() if closed else "", reasoning or None)

    def stop_found(self, ids: Sequence[int]) -> bool:
        """Whether a stop string is in the reply. Called for every id, so it looks at the end first."""
        # A stop string of n bytes is spread over n ids at most; a few more may decode to nothing.
        return self._has_stop(ids[-self._reach :]) and self._has_stop(ids)

    def visible_ids(self, ids: Sequence[int]) -> int | None:
        """The smallest number of ids whose text has something to see in it, thoughts included."""
        marks = self._marks(ids)

        def anything(some: Sequence[int]) -> bool:
            said = self._parse(some, marks)
            return _shown(said.answer) or _shown(said.reasoning)

        return _smallest(ids, anything)

    def answer_ids(self, ids: Sequence[int]) -> int | None:
        """The smallest number of ids whose text has something of the answer in it."""
        marks = self._marks(ids)
        return _smallest(ids, lambda some: _shown(self._parse(some, marks).answer))

    def _has_stop(self, ids: Sequence[int]) -> bool:
        text = self._decode(ids, skip_special_tokens=not self._special_stops)
        return any(stop in text for stop in self._stop_strings)

    def _cut(self, text: str) -> str:
        found = [at for stop in self._stop_strings if (at := text.find(stop)) >= 0]
        return text[: min(found)] if found else text

    def _without_specials(self, text: str) -> str:
        for special in self._specials:
            text = text.replace(special, "")
        return text

    def _decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens))


def _shown(text: str | None) -> bool:
    # U+FFFD stands for a character whose bytes have not all arrived.
    return bool((text or "").strip().strip("\ufffd"))


def _smallest(ids: Sequence[int], enough: Callable[[Sequence[int]], bool]) -> int | None:
    """The smallest n for which `enough(ids[:n])`, which once true stays true; None if it never is."""
    if not enough(ids):
        return None
    low, high = 0, len(ids)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(ids[:middle]) else (middle, high)
    return high
