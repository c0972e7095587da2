"""What happened in between: the git commits from one night to another, as far as the repository at hand knows them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

_COMMIT = re.compile(r"([0-9a-f]{7,64})\+?")
"""As `environment` writes one: `+` where the tree differed from it. Anything else is never given to git."""


def commits_between(earlier: str | None, later: str | None, folder: Path, most: int = 20) -> tuple[str, ...] | None:
    """The commits after `earlier` up to `later`, newest first, each as `hash subject`; past `most` of them a line that
    says how many more. None where that cannot be known: no commits, no git, or another repository."""
    found = [_COMMIT.fullmatch(commit or "") for commit in (earlier, later)]
    git = shutil.which("git")
    if git is None or found[0] is None or found[1] is None:
        return None
    asked = f"{found[0][1]}..{found[1][1]}"
    answer = subprocess.run(
        [git, "-C", str(folder), "log", "--no-decorate", "--no-show-signature", "--format=%h %s", asked, "--"],
        capture_output=True, text=True, check=False, encoding="utf-8", errors="replace",
    )  # fmt: skip
    if answer.returncode != 0:
        return None
    lines = answer.stdout.splitlines()
    return tuple(lines[:most]) + ((f"… and {len(lines) - most} more",) if len(lines) > most else ())
