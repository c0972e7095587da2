"""A config, carried out on paper: the models, samplings and conversations of a run, its cells and their order.

    cells = models × samplings × conversations × repeats × launches × levels of concurrency

Order matters where machines drift. The models take turns over the launches, A B then B A; within a launch the repeats
follow each other, and within a repeat samplings and conversations are shuffled by a generator seeded with
(seed, launch, repeat) – the same for every model, the same in every process, the same when a run is resumed. Where
several conversations are replayed at a time, those of one sampling follow each other: they share a batch.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.config.files import choose, find_files
from harness.config.labels import labelled
from harness.config.matrix import Sampling, expand
from harness.config.ranges import without_ranges
from harness.config.schema import ModelSpec, RunConfig
from harness.conversations.load import load_conversations
from harness.conversations.script import Check, Conversation, Rubric
from harness.documents import Keys, Problem, document_of
from harness.errors import DocumentError, Mistake
from harness.records import Cell, short_hash

_NOT_HASHED = ("source", "persona", "system", "rubrics")
"""What is stored of a conversation and does not count as a change, or is in its digest."""


@dataclass(frozen=True)
class Plan:
    """What a run will do. Every model has a label; labels, sampling names and conversation ids are unique."""

    config: RunConfig
    models: tuple[ModelSpec, ...]
    samplings: tuple[Sampling, ...]
    conversations: tuple[Conversation, ...]

    @property
    def repeats(self) -> int:
        return self.config.repeats

    @property
    def launches(self) -> int:
        return self.config.launches

    @property
    def seed(self) -> int:
        return self.config.seed

    def model(self, label: str) -> ModelSpec:
        """The model of a label. Raises KeyError."""
        return {spec.label: spec for spec in self.models}[label]

    def sampling(self, name: str) -> Sampling:
        """The sampling of a name. Raises KeyError."""
        return {sampling.name: sampling for sampling in self.samplings}[name]

    def conversation(self, conversation_id: str) -> Conversation:
        """The conversation of an id. Raises KeyError."""
        return {conversation.id: conversation for conversation in self.conversations}[conversation_id]

    def launch_order(self, launch: int) -> tuple[ModelSpec, ...]:
        """The models in the order in which they are launched: A B, B A, A B …, so that drift hits both alike."""
        return self.models[::-1] if launch % 2 else self.models

    def cell_order(self, model_label: str, launch: int) -> tuple[Cell, ...]:
        """The cells of one model in one launch, in the order in which they are played."""
        cells: list[Cell] = []
        for repeat in range(self.repeats):
            # Text as a seed is hashed by SHA-512, which is the same in every process (hash() is not).
            dice = random.Random(f"{self.seed}/{launch}/{repeat}")  # noqa: S311 - an order, not a secret
            levels = list(self.config.concurrency)
            if len(levels) > 1:  # a single one draws nothing, so that its order is that of every version before
                dice.shuffle(levels)
            for concurrency in levels:
                pairs = [(sampling, talk) for sampling in self.samplings for talk in self.conversations]
                dice.shuffle(pairs)
                if concurrency > 1:
                    order = list(dict.fromkeys(sampling.name for sampling, _ in pairs))
                    pairs.sort(key=lambda pair: order.index(pair[0].name))
                cells += [
                    Cell(model_label, sampling.name, talk.id, repeat, launch, concurrency) for sampling, talk in pairs
                ]
        return tuple(cells)

    def cells(self) -> Iterator[Cell]:
        """Every cell, in the order in which a run on one machine plays them."""
        for launch in range(self.launches):
            for spec in self.launch_order(launch):
                assert spec.label is not None
                yield from self.cell_order(spec.label, launch)

    def turns_of(self, conversation: Conversation) -> tuple[int, ...]:
        """The indexes of the turns that are generated: under `history: fill` only those without a gold reply."""
        return tuple(
            index
            for index, turn in enumerate(conversation.turns)
            if self.config.history != "fill" or turn.assistant is None
        )

    @property
    def n_cells(self) -> int:
        return len(self.conversations) * self._n_settings

    @property
    def _n_settings(self) -> int:
        """How often each conversation is played."""
        levels = len(self.config.concurrency)
        return len(self.models) * len(self.samplings) * levels * self.repeats * self.launches

    @property
    def n_turns(self) -> int:
        """Turns that are generated and measured, warm-up not counted."""
        return sum(len(self.turns_of(conversation)) for conversation in self.conversations) * self._n_settings

    def resolved(self) -> dict[str, Any]:
        """The plan as JSON: nothing is left to defaults, globs or files that may change."""
        rest = self.config.model_dump(
            mode="json", exclude={"models", "variants", "sampling", "conversations", "tune", "gate"}
        )
        return {
            "models": [spec.model_dump(mode="json", exclude={"variants"}) for spec in self.models],
            "samplings": [
                {"name": sampling.name, "parameters": dict(sampling.parameters)} for sampling in self.samplings
            ],
            "conversations": [
                {
                    "id": conversation.id,
                    "source": conversation.source,
                    "tags": list(conversation.tags),
                    "language": conversation.language,
                    "persona": asdict(conversation.persona),
                    "system": conversation.system,
                    "rubrics": [
                        _rubric(conversation.turns[index].rubric or conversation.rubric)
                        for index in self.turns_of(conversation)
                    ],
                    "turns": list(self.turns_of(conversation)),
                    "checks": [
                        len(conversation.turns[index].expect) + len(conversation.expect)
                        for index in self.turns_of(conversation)
                    ],
                    "digest": conversation_digest(conversation),
                    "turn_digests": list(turn_digests(conversation)),
                }
                for conversation in self.conversations
            ],
            **rest,
            "n_cells": self.n_cells,
            "n_turns": self.n_turns,
        }

    @cached_property
    def config_hash(self) -> str:
        """Stands for everything that decides what is run: equal hashes mean that a run can be resumed.

        Where files lie does not count, what is in them does; not the rubrics that replies may be judged by afterwards.
        """
        resolved = self.resolved()
        for conversation in resolved["conversations"]:
            for name in _NOT_HASHED:
                del conversation[name]
        return short_hash(_canonical(resolved))


def plan(config: RunConfig) -> Plan:
    """The plan of a config. Raises DocumentError with everything that keeps it from being carried out."""
    made, problems, mistakes = assemble(config, None)
    for name in without_ranges(config.sampling)[1]:
        problems.append(
            Problem(("sampling", name), "is a range, which only harness tune can choose from", "list values")
        )
    if made is None or problems:
        document = document_of(config.given, config.source)
        raise DocumentError([*document.mistakes(problems), *mistakes])
    return made


def assemble(config: RunConfig, folder: Path | None) -> tuple[Plan | None, list[Problem], list[Mistake]]:
    """The plan, or None with the problems of the config and the mistakes of the prompts files it names."""
    under: Keys = ("conversations",)
    short_form = isinstance(config.given.get("conversations"), list)
    models, problems = labelled(config.models, config.variants)
    listed, ranges, found = without_ranges(config.sampling)
    problems += found
    if ranges and "tune" not in config.given:
        fact = "is a range, and there is no tune section that would choose from it"
        problems.append(Problem(("sampling", next(iter(ranges))), fact, "list values, or add tune:"))
    samplings, found = expand(listed)
    problems += found
    files, found = find_files(config.conversations.files, folder, under if short_form else (*under, "files"))
    problems += found
    mistakes: list[Mistake] = []
    conversations: tuple[Conversation, ...] = ()
    try:
        conversations = load_conversations(files) if not found else ()
    except DocumentError as error:
        mistakes += error.mistakes
    if conversations:
        conversations, found = choose(conversations, config.conversations, under)
        problems += found
    problems += _length_problems(config, samplings)
    mistakes += history_mistakes(config, conversations)
    if problems or mistakes:
        return None, problems, mistakes
    resolved = config.conversations.model_copy(update={"files": files})
    config = config.model_copy(update={"conversations": resolved}).coming_from(config.source, config.given)
    return Plan(config, models, samplings, conversations), [], []


def _length_problems(config: RunConfig, samplings: tuple[Sampling, ...]) -> list[Problem]:
    unsaid = [sampling.name for sampling in samplings if sampling.parameters.get("max_new_tokens") is None]
    if config.length == "natural" or not unsaid:
        return []
    where = "length" if "length" in config.given else "lane"
    which = "" if len(unsaid) == len(samplings) else f" (not said by {', '.join(unsaid)})"
    return [Problem((where,), f"a fixed length needs max_new_tokens{which}", "set sampling.max_new_tokens")]


def history_mistakes(config: RunConfig, conversations: tuple[Conversation, ...]) -> list[Mistake]:
    """Conversations that lack what the config's history needs, or leave nothing to generate."""
    mistakes = []
    for conversation in conversations:
        subject = f"{conversation.source}: {conversation.id}"
        open_turns = [index for index, turn in enumerate(conversation.turns) if turn.assistant is None]
        if config.history == "scripted":
            # The last reply feeds nothing, so it needs no gold.
            for index in (index for index in open_turns if index < len(conversation.turns) - 1):
                fact = "has no assistant line for history: scripted to go on with"
                mistakes.append(Mistake(f"{subject}.turns.{index}", fact, "add one, or use history: generated"))
        elif config.history == "fill" and not open_turns:
            mistakes.append(Mistake(subject, "leaves history: fill nothing to generate", "drop a gold reply"))
    return mistakes


def conversation_digest(conversation: Conversation) -> str:
    """A hash of everything in a conversation but the file it came from."""
    return short_hash(_canonical(_content(conversation)))


def turn_digests(conversation: Conversation) -> tuple[str, ...]:
    """One hash per turn, of everything in the script that can decide its prompt and its checks."""
    content = _content(conversation)
    turns = content.pop("turns")
    content.pop("tags")
    return tuple(short_hash(_canonical([content, turns[: index + 1]])) for index in range(len(turns)))


def _content(conversation: Conversation) -> dict[str, Any]:
    return {
        "id": conversation.id,
        "tags": conversation.tags,
        "language": conversation.language,
        "persona": asdict(conversation.persona),
        "system": conversation.system,
        "expect": [_check(check) for check in conversation.expect],
        "turns": [
            {
                "user": turn.user,
                "assistant": turn.assistant,
                "expect": [_check(check) for check in turn.expect],
                "capture": dict(turn.capture),
            }
            for turn in conversation.turns
        ],
    }


def _rubric(rubric: Rubric | None) -> dict[str, str] | None:
    return None if rubric is None else asdict(rubric)


def _check(check: Check) -> list[Any]:
    """Everything that decides what a check says; its name is shortened for people."""
    assert is_dataclass(check) and not isinstance(check, type)  # noqa: PT018 – one fact, for the type checker
    return [type(check).__name__, asdict(check)]


def _canonical(value: Mapping[str, Any] | list[Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
