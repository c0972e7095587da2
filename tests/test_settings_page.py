"""docs/settings.md does not lie: its commands run, and its example is the shipped config."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from harness.analysis.measures import MEASURES
from harness.config.load import load_config
from harness.config.plan import plan
from tests.commands import harness as command
from tests.commands import run_python
from tests.test_reference_docs import METRICS_PAGE, ROOT, rows

PAGE = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
SMALLER = ("--repeats", "1", "--launches", "1", "--set", "sampling.max_new_tokens=4", "--set", "warmup=0",
           "--set", "sampling.settings.sampled.temperature=1.5")  # fmt: skip
"""The sweep of the page takes a minute; that its commands run is seen from a few tokens too."""


def test_every_measure_is_documented_as_it_is_declared() -> None:
    assert rows(METRICS_PAGE, "| figure | title | unit | better | interval over | definition |") == [
        [f"`{measure.name}`", measure.title, measure.unit, measure.direction, measure.sample, measure.definition]
        for measure in MEASURES.values()
    ]


def test_the_example_is_the_shipped_config() -> None:
    (shown,) = (text for language, text in BLOCKS if language == "yaml")

    assert shown.strip() in (ROOT / "configs" / "sampling-sweep.yaml").read_text(encoding="utf-8")


def test_the_shipped_sweep_has_a_greedy_setting_and_a_full_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    planned = plan(load_config("configs/sampling-sweep.yaml"))

    assert [sampling.name for sampling in planned.samplings][:2] == ["greedy", "sampled,top_k=5,temperature=0.5"]
    assert len(planned.samplings) == 1 + 3 * 2
    assert len(planned.conversations) >= 6, "so that behaviour has a basis"
    assert (planned.repeats, planned.launches) > (1, 1)


def test_the_commands_of_the_page_run_and_say_what_it_says(tmp_path: Path) -> None:
    for folder in ("configs", "prompts"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    commands = [
        shlex.split(line.removeprefix("$ harness "))
        for language, text in BLOCKS
        if language == "console"
        for line in text.replace("\\\n", " ").splitlines()
    ]
    said = {}
    for words in commands:
        smaller = SMALLER if words[:2] == ["run", "configs/sampling-sweep.yaml"] else ()
        done = command(*words, *smaller, cwd=tmp_path)
        assert done.returncode == 0, (words, done.stderr)
        said[" ".join(words)] = done.stdout + done.stderr

    assert len(commands) == 5
    assert "choosing ms/token" in said["report sweep --table response"]
    assert "unlike greedy" in " ".join(said["report sweep --table response"].split())
    (inert,) = (text for words, text in said.items() if words.startswith("plan"))
    assert "warning: top_k=50 has no effect: do_sample=false" in inert
    assert "max_length=256" in said["report lengths --table length-limits"]
    (script,) = (text for language, text in BLOCKS if language == "python")
    assert "agreement_rate" in run_python("-c", script, cwd=tmp_path).stdout
