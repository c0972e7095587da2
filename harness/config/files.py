"""Which conversations a config means: globs become files, files become conversations, filters choose among them."""

from __future__ import annotations

import difflib
import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.config.schema import ConversationFilter
from harness.conversations.script import Conversation
from harness.documents import Keys, Problem, did_you_mean


def find_files(
    patterns: Sequence[str], folder: Path | None, under: Keys = ("conversations",)
) -> tuple[list[str], list[Problem]]:
    """The files that paths and globs name, each once and sorted within a glob, and the patterns that name none.

    A pattern is looked for in the current directory and, if nothing is there, in `folder`, the config file's own.
    """
    files: dict[str, None] = {}
    problems: list[Problem] = []
    for index, pattern in enumerate(patterns):
        path = (*under, index)
        found = _matches(pattern, None) or (_matches(pattern, folder) if folder is not None else [])
        if not found:
            problems.append(Problem(path, f"no file matches {pattern}", _nearby(pattern, folder)))
        for name in found:
            if Path(name).is_dir():
                problems.append(Problem(path, f"{name} is a directory", f"write {name.rstrip('/')}/*.yaml"))
            files[name] = None
    return list(files), problems


def _matches(pattern: str, folder: Path | None) -> list[str]:
    # A path that exists is itself, even where it looks like a glob: [ ] are ordinary in file names.
    whole = pattern if folder is None else str(folder / pattern)
    if os.path.exists(whole):
        return [whole]
    # A glob means scripts: schema.json lies beside them.
    return sorted(name for name in glob.glob(whole, recursive=True) if not name.endswith(".json"))


def _nearby(pattern: str, folder: Path | None) -> str:
    parent = Path(pattern).parent
    names = [str(entry) for entry in sorted(parent.glob("*.yaml"))]
    if folder is not None and not names:
        names = [str(parent / entry.name) for entry in sorted((folder / parent).glob("*.yaml"))]
    close = difflib.get_close_matches(pattern, names, n=1)
    return f"did you mean {close[0]}?" if close else "paths are relative to the current directory"


def choose(
    conversations: Sequence[Conversation], chosen: ConversationFilter, under: Keys = ("conversations",)
) -> tuple[tuple[Conversation, ...], list[Problem]]:
    """The conversations a filter keeps, and what it names in vain: a misspelt tag must not become an empty run."""
    problems = list(_unknown(conversations, chosen, under))
    kept = tuple(
        conversation
        for conversation in conversations
        if (not chosen.tags or set(chosen.tags) & set(conversation.tags))
        and not set(chosen.exclude_tags) & set(conversation.tags)
        and (not chosen.ids or conversation.id in chosen.ids)
    )
    if not kept and not problems:
        problems.append(Problem(under, "no conversation is left", "widen the filters"))
    return kept, problems


def _unknown(conversations: Sequence[Conversation], chosen: ConversationFilter, under: Keys) -> Iterator[Problem]:
    tags = sorted({tag for conversation in conversations for tag in conversation.tags})
    ids = [conversation.id for conversation in conversations]
    for key, wanted, known, what in (
        ("tags", chosen.tags, tags, "has the tag"),
        ("exclude_tags", chosen.exclude_tags, tags, "has the tag"),
        ("ids", chosen.ids, ids, "has the id"),
    ):
        for index, word in enumerate(wanted):
            if word not in known:
                yield Problem((*under, key, index), f"no conversation {what} {word}", did_you_mean(word, known))
