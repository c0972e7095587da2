"""Starts the real command in a real process, as a person or a shell script would."""

import os
import subprocess
import sys
from pathlib import Path

ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "error::ResourceWarning", "COLUMNS": "120"}


def run_python(*arguments: str, cwd: Path | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Python with these arguments; fails the test if it does not exit with 0."""
    done = _run([sys.executable, *arguments], cwd, stdin)
    assert done.returncode == 0, done.stderr
    return done


def harness(*arguments: str | Path, cwd: Path | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The `harness` command, whatever it exits with."""
    return _run([sys.executable, "-m", "harness", *map(str, arguments)], cwd, stdin)


def shell(line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A line of a page in bash, as it stands, where `harness` is the command; whatever it exits with."""
    path = f"{Path(sys.executable).parent}:{ENVIRONMENT['PATH']}"
    return _run(["bash", "-euo", "pipefail", "-c", line], cwd, stdin="", environment={**ENVIRONMENT, "PATH": path})


def start_harness(*arguments: str | Path, cwd: Path) -> subprocess.Popen[str]:
    """The `harness` command in the background, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "harness", *map(str, arguments)],
        cwd=cwd,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _run(
    command: list[str], cwd: Path | None, stdin: str, environment: dict[str, str] = ENVIRONMENT
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env=environment, input=stdin, capture_output=True, text=True, check=False, timeout=300
    )
