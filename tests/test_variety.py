"""Distinct-n and the longest loop: by hand, and on arrays as by their definitions."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.analysis.variety import distincts, longest_loops
from harness.conversations.repetition import repetition, units_of
from harness.conversations.variety import LONGEST_PASSAGE, SHORTEST_LOOP, SIZES, distinct, longest_loop

WORDS = ["the", "The", "cat", "sat", "on", ",", ".", "hahahahahahahaha", "naïve", "дом"]
STRANGE = ["字", "²", "e\u0301", "😀", "\x1e", "İ"]
PASSAGE = "we like the very blue sky of May"
"""Eight units."""
ANY_TEXT = st.lists(st.sampled_from([*WORDS, *STRANGE]), max_size=12).flatmap(
    lambda words: st.sampled_from([" ".join(words), "".join(words), "\n".join(words * 3), " ".join(words * 2)])
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b a b", (2 / 4, 2 / 3, 2 / 2)),  # a b | ab ba ab | aba bab
        ("one two three", (1, 1, 1)),
        ("No, no, no.", (3 / 6, 3 / 5, 3 / 4)),  # no, ,no no, ,no no. | no,no ,no, no,no ,no.
        ("one", (1, None, None)),
        ("", (None, None, None)),
        ("字字", (1 / 2, 1, None)),
    ],
)
def test_distinct_n_worked_by_hand(text: str, expected: tuple[float | None, ...]) -> None:
    assert tuple(distinct(text, size) for size in SIZES) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{PASSAGE} {PASSAGE}", 16),
        (f"Well then, {PASSAGE} {PASSAGE} we like", 18),  # begun for a third time
        (PASSAGE, 0),
        ("no " * 9, 0),  # nine units
        ("no " * 10, 10),
        ("a b c d a b c d", 0),  # eight units: too short
        ("a b c d a b c d a b", 10),
        (f"{PASSAGE} but {PASSAGE}", 0),  # comes again, but not at once
        ("haha" * 40, 16),  # one word of 160 letters: sixteen units of ten
        ("!" * 30, 30),
        (f"{'no ' * 12}and {'yes ' * 20}", 20),
        ("", 0),
    ],
)
def test_the_longest_loop_worked_by_hand(text: str, expected: int) -> None:
    assert longest_loop(text) == expected


def test_a_passage_longer_than_a_paragraph_is_no_loop() -> None:
    passage = [f"w{number}" for number in range(LONGEST_PASSAGE + 1)]

    assert longest_loop(" ".join(passage[:-1] * 2)) == 2 * LONGEST_PASSAGE
    assert longest_loop(" ".join(passage * 2)) == 0


@settings(deadline=None, max_examples=150)
@given(st.lists(ANY_TEXT, max_size=6))
def test_on_arrays_they_are_what_their_definitions_say(texts: list[str]) -> None:
    shares = distincts(texts)

    assert longest_loops(texts).tolist() == [longest_loop(text) for text in texts]
    assert shares.shape == (len(SIZES), len(texts))
    for size, row in zip(SIZES, shares.tolist(), strict=True):
        assert row == pytest.approx([distinct(text, size) or float("nan") for text in texts], nan_ok=True)


def test_on_arrays_over_very_many_texts() -> None:
    dice = random.Random(0)
    texts = []
    for _ in range(700):
        words = dice.choices(WORDS[: dice.randint(1, len(WORDS))], k=dice.randint(0, 40))
        texts.append(" ".join(words * dice.randint(1, 3)))

    assert longest_loops(texts).tolist() == [longest_loop(text) for text in texts]
    for size, row in zip(SIZES, distincts(texts).tolist(), strict=True):
        assert row == pytest.approx([distinct(text, size) or float("nan") for text in texts], nan_ok=True)


@settings(deadline=None)
@given(ANY_TEXT)
def test_whatever_is_a_loop_is_repetition(text: str) -> None:
    """So only replies that repeat anything have to be searched for one."""
    loop = longest_loop(text)

    assert loop == 0 or (repetition(text) > 0 and SHORTEST_LOOP <= loop <= len(units_of(text)))
