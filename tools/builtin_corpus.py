"""The corpus of the built-in models: what is asked, what is right to answer, and endless conversations of it.

An entry is one thing the tutor knows. Five or six phrasings of its question are trained; one is held out, and
`load_corpus` asserts that neither a phrasing nor a variation of one can say it. Training, measuring and the tests
draw their conversations from `converse`, so that all of them agree on what the right reply is.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

CORPUS = Path(__file__).resolve().parent / "corpus"
PERSONAS = "personas.yaml"
RECALL_SHARE = 0.2


@dataclass(frozen=True)
class Entry:
    """One thing the tutor knows: an answer, the phrasings that train it, and one that is kept out."""

    answer: str
    phrasings: tuple[str, ...]
    held_out: str
    prefixes: tuple[str, ...]
    gives_user: bool
    otherwise: str | None

    @property
    def in_context(self) -> bool:
        """Whether the answer carries a name that only the conversation tells."""
        return "{name}" in self.answer or "{user}" in self.answer


@dataclass(frozen=True)
class Persona:
    """A system message ("" for none) and what it makes of the assistant's name and role."""

    system: str
    name: str
    role: str


@dataclass(frozen=True)
class Corpus:
    entries: tuple[Entry, ...]
    personas: tuple[Persona, ...]
    users: tuple[str, ...]


@dataclass(frozen=True)
class Turn:
    """A question and the reply that is right at this place of the conversation."""

    question: str
    reply: str


def load_corpus(folder: Path = CORPUS) -> Corpus:
    """Read the corpus and assert that no held-out phrasing can appear in training."""
    yaml = YAML(typ="safe")
    documents = [yaml.load(path) for path in sorted(folder.glob("*.yaml")) if path.name != PERSONAS]
    entries = tuple(
        Entry(
            answer=raw["answer"],
            phrasings=tuple(raw["phrasings"]),
            held_out=raw["held_out"],
            prefixes=tuple(document["prefixes"]),
            gives_user=raw.get("gives") == "user",
            otherwise=raw.get("otherwise"),
        )
        for document in documents
        for raw in document["entries"]
    )
    cast = yaml.load(folder / PERSONAS)
    personas = tuple(Persona(**{**cast["default"], **raw}) for raw in cast["personas"])
    corpus = Corpus(entries, personas, tuple(cast["users"]))
    _assert_held_out(corpus)
    return corpus


def _assert_held_out(corpus: Corpus) -> None:
    held_out = {letters(entry.held_out) for entry in corpus.entries}
    seen: set[str] = set()
    for entry in corpus.entries:
        for phrasing in entry.phrasings:
            assert letters(phrasing) not in seen, f"phrasing occurs twice: {phrasing}"
            seen.add(letters(phrasing))
            for prefix in ("", *entry.prefixes):
                assert letters(prefix + phrasing) not in held_out, f"held out, yet trained: {prefix}{phrasing}"
    assert len(held_out) == len(corpus.entries), "two entries hold out the same phrasing"


def letters(text: str) -> str:
    """The text without case, spaces and marks: what `vary` never changes, apart from a prefix."""
    return "".join(character for character in text.lower() if character.isalnum())


def vary(question: str, prefixes: Sequence[str], rng: random.Random) -> str:
    """A phrasing as a hurried or a polite user would type it."""
    if prefixes and rng.random() < 0.3:
        if rng.random() < 0.5:
            question = question[0].lower() + question[1:]
        question = rng.choice(prefixes) + question
    if rng.random() < 0.25:
        question = question.lower()
    if rng.random() < 0.2:
        question = question.rstrip("?!.")
    return question


def deal(corpus: Corpus, rng: random.Random) -> Iterator[tuple[Entry, str]]:
    """Every trained phrasing in random order, then all again: even coverage without luck.

    Replies that carry a name from earlier in the conversation are the hardest to learn and are dealt three times.
    """
    deck = [
        (entry, phrasing)
        for entry in corpus.entries
        for phrasing in entry.phrasings
        for _ in range(3 if entry.in_context else 1)
    ]
    while True:
        rng.shuffle(deck)
        yield from deck


def converse(
    corpus: Corpus, deck: Iterator[tuple[Entry, str]], rng: random.Random, *, varied: bool
) -> tuple[Persona, Iterator[Turn]]:
    """An endless conversation: its persona (none, one that gives a name, any) and its turns."""
    chance = rng.random()
    persona = corpus.personas[0]
    if chance > 0.7:
        persona = rng.choice([named for named in corpus.personas if named.name != persona.name])
    elif chance > 0.4:
        persona = rng.choice(corpus.personas)

    recall = [(entry, phrasing) for entry in corpus.entries if entry.otherwise for phrasing in entry.phrasings]

    def turns() -> Iterator[Turn]:
        user: str | None = None
        for dealt in deck:
            # Once told, the name is asked for often: by the deck alone that would be too rare to be learnt.
            entry, phrasing = rng.choice(recall) if user and rng.random() < RECALL_SHARE else dealt
            if entry.gives_user:
                user = rng.choice(corpus.users)
            # A name in lower case could not be told back, so only a phrasing without one is varied.
            question = phrasing.replace("{user}", user or "")
            if varied and not entry.gives_user:
                question = vary(question, entry.prefixes, rng)
            yield Turn(question, reply_of(entry, persona, user))

    return persona, turns()


def reply_of(entry: Entry, persona: Persona, user: str | None) -> str:
    """The right reply under a persona, after the user gave a name (or None)."""
    text = entry.otherwise if entry.otherwise is not None and user is None else entry.answer
    return text.replace("{name}", persona.name).replace("{role}", persona.role).replace("{user}", user or "")
