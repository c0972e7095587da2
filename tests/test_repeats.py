"""Repetition on arrays is repetition by its definition."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.analysis import repeats
from harness.analysis.repeats import repetitions
from harness.conversations.repetition import repetition

WORDS = ["the", "The", "cat", "sat", "on", ",", ".", "’", "hahahahahahahaha", "naïve", "Straße", "ΣΣ", "дом"]
STRANGE = ["字", "²", "e\u0301", "😀", "\x1e", "İ", "\x1c"]


@pytest.fixture(autouse=True)
def at_any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "_FEW", 0)


def test_of_texts_worked_by_hand() -> None:
    said = "we like the very blue sky"
    found = repetitions(["", said, f"{said} {said}", "no " * 10, "a, b", said])

    assert found.tolist() == [0, 0, 0.5, 0.9, 0, 0]


def test_no_text_at_all() -> None:
    assert repetitions([]).tolist() == []
    assert repetitions(["", " \n"]).tolist() == [0, 0]


@settings(deadline=None, max_examples=300)  # the machine may be busy
@given(st.lists(st.lists(st.sampled_from([*WORDS, *STRANGE]), max_size=25).flatmap(
    lambda words: st.sampled_from([" ".join(words), "".join(words), "\n".join(words * 2)])
), max_size=8))  # fmt: skip
def test_of_any_texts(texts: list[str]) -> None:
    assert repetitions(texts).tolist() == pytest.approx([repetition(text) for text in texts], abs=1e-12)


@settings(deadline=None)
@given(st.lists(st.text(max_size=40), max_size=6))
def test_of_any_characters(texts: list[str]) -> None:
    assert repetitions(texts).tolist() == pytest.approx([repetition(text) for text in texts], abs=1e-12)


def test_of_very_many_texts_that_repeat_now_and_then() -> None:
    dice = random.Random(0)
    texts = [" ".join(dice.choices(WORDS[: dice.randint(1, len(WORDS))], k=dice.randint(0, 60))) for _ in range(2000)]

    assert repetitions(texts).tolist() == pytest.approx([repetition(text) for text in texts], abs=1e-12)
