"""What lies in the local cache of the Hub, without asking anybody.

The layout is the one huggingface_hub documents: `models--ORG--NAME/` with `refs/BRANCH` (a commit), `snapshots/COMMIT/`
(the files, as links) and `blobs/` (their contents, by ETag).
"""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import constants

_PREFIX = "models--"
_COMMIT = re.compile(r"[0-9a-f]{40}")
BRANCH = "main"
"""What no revision means."""


def is_commit(revision: str | None) -> bool:
    """Whether a revision is a whole commit hash, which names the same files for ever."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def root() -> Path:
    """The cache's directory, which need not exist."""
    return Path(constants.HF_HUB_CACHE).expanduser()


def folder_of(model: str) -> Path:
    """Where a model is cached, or would be."""
    return root() / f"{_PREFIX}{model.replace('/', '--')}"


def snapshot_of(model: str, commit: str) -> Path:
    """Where the files of a commit are, or would be."""
    return folder_of(model) / "snapshots" / commit


def cached_commit(model: str, revision: str | None) -> str | None:
    """The commit that a branch or tag had when it was last looked up; None where nothing of it is cached."""
    if revision is not None and is_commit(revision):
        return revision if snapshot_of(model, revision).is_dir() else None
    ref = folder_of(model) / "refs" / (revision or BRANCH)
    commit = ref.read_text(encoding="ascii").strip() if ref.is_file() else None
    return commit if commit is not None and snapshot_of(model, commit).is_dir() else None


def note_commit(model: str, revision: str | None, commit: str) -> None:
    """Remember which commit a branch or tag has, for when the Hub is out of reach."""
    if is_commit(revision):
        return
    ref = folder_of(model) / "refs" / (revision or BRANCH)
    ref.parent.mkdir(parents=True, exist_ok=True)
    beside = ref.with_name(f"{ref.name}.new")
    beside.write_text(commit, encoding="ascii")
    beside.replace(ref)


def cached_models() -> list[str]:
    """The names of all models of which a commit is cached, sorted."""
    found = (path for path in root().glob(f"{_PREFIX}*") if any((path / "snapshots").glob("*/*")))
    return sorted(path.name.removeprefix(_PREFIX).replace("--", "/") for path in found)
