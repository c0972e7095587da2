"""The README does not lie: every command in it runs, and every command the program has is in it.

The models that README names from the Hub are stood in for by tiny ones of the same architecture, in directories of the
same names, so the command lines run exactly as they are written. What some of the configs have for minutes of is made
smaller; that they are right as they are shipped is seen when they are loaded and planned.
"""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import ENVIRONMENT, harness, shell

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.removeprefix("$ ")
    for language, text in BLOCKS
    if language == "console"
    for line in text.replace("\\\n", " ").splitlines()
    if line.startswith("$ ")
]
SMALLER = {
    "nightly.yaml": {"\nlaunches: 4": "\nlaunches: 1"},
    "speed.yaml": {"launches: 4": "launches: 2", "max_new_tokens: 32": "max_new_tokens: 8"},
    "tune-sampling.yaml": {
        "[0.5, 1.0, 2.5]": "[0.5, 1.0]",
        "[16, 32, 64, 128]": "[16, 128]",
        "repeats: 2, l": "repeats: 1, l",
    },
}
STAND_INS = {"tiiuae/falcon-7b-instruct": "falcon", "Qwen/Qwen3-0.6B": "qwen3"}


@pytest.fixture(scope="module")
def directory(saved_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout as README's commands find it, with smaller configs, and stand-ins for the models of the Hub."""
    here = tmp_path_factory.mktemp("readme")
    for folder in ("configs", "prompts"):
        shutil.copytree(ROOT / folder, here / folder)
    for file, changes in SMALLER.items():
        text = (ROOT / "configs" / file).read_text(encoding="utf-8")
        for shipped, smaller in changes.items():
            assert text.count(shipped) == 1
            text = text.replace(shipped, smaller)
        (here / "configs" / file).write_text(text, encoding="utf-8")
    for name, architecture in STAND_INS.items():
        shutil.copytree(saved_model(architecture), here / name)
    return here


def test_the_readme_has_commands_to_run() -> None:
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("command", [command for command in COMMANDS if not command.startswith("make ")])
def test_a_command_of_the_readme_does_what_it_says(command: str, directory: Path) -> None:
    assert shlex.split(command)[0] in {"harness", "printf"}

    done = shell(command, cwd=directory)

    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("make ")])
def test_a_make_target_of_the_readme_exists(command: str) -> None:
    subprocess.run(["make", "--dry-run", *shlex.split(command)[1:]], cwd=ROOT, check=True, capture_output=True)


def test_every_command_of_the_program_is_in_the_readme() -> None:
    commands = re.findall(r"^  (\w+) ", harness("--help").stdout.split("Commands")[1], flags=re.MULTILINE)

    assert commands
    assert [name for name in commands if f"harness {name}" not in README] == []


def test_the_python_example_runs(directory: Path) -> None:
    (example,) = [text for language, text in BLOCKS if language == "python"]

    done = subprocess.run(
        [sys.executable, "-c", example], cwd=directory, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "ttft_s" in done.stdout


def test_links_lead_somewhere() -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in target]

    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
