"""docs/choosing-a-model.md: its commands do what it says, one after the other, against a Hub on loopback."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

import harness
from harness.cli import main
from harness.hub.search import SORTS, Wanted
from tests.fake_hub import fake_hub, reached
from tests.in_this_process import InThisProcess

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "choosing-a-model.md").read_text()
STORY, REFERENCE = PAGE.split("## Searching")


def commands(text: str) -> list[str]:
    blocks = re.findall(r"```\n(.*?)```", text, flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_the_story_can_be_followed_command_by_command(
    saved_model: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("harness.runner.run.WorkerProcess", InThisProcess)
    monkeypatch.setattr("gc.freeze", lambda: None)
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "physics-professor.yaml").write_text(
        "conversations: [{id: physics-professor, turns: [{user: What is Newtonian mechanics?}]}]\n"
    )
    described = {
        "tags": ["en", "transformers"], "pipeline_tag": "text-generation", "library_name": "transformers",
        "config": {"tokenizer_config": {"chat_template": "x"}}, "safetensors": {"parameters": {}, "total": 10**8},
    }  # fmt: skip
    with fake_hub() as hub, reached(hub, tmp_path / "cache"):
        for name in ("Qwen/Qwen3-0.6B", "someone/small-instruct", "someone/other-instruct"):
            hub.publish(name, saved_model("llama"), **described)
        said = []
        for command in commands(STORY):
            with pytest.raises(SystemExit) as ended:
                main(shlex.split(command)[1:])
            assert not ended.value.code, command
            said.append(capsys.readouterr().out)
    searched, inspected, chosen, planned, played = said
    assert "someone/small-instruct" in searched
    assert "24 GiB: fits: " in inspected
    assert "someone/other-instruct" in chosen
    assert planned.count("fit (estimated): ") == 2
    run = harness.load(tmp_path / played.splitlines()[-1])
    assert set(run.manifest["commits"]) == {"small-instruct", "other-instruct"}
    assert (run.turns["state"] == "done").all()


def test_every_filter_and_every_order_is_on_the_page() -> None:
    names = {
        "words": "WORDS", "least_parameters": "--min-parameters", "most_parameters": "--max-parameters",
        "least_downloads": "--min-downloads",
    }  # fmt: skip
    for field in Wanted.__dataclass_fields__:
        assert names.get(field, f"--{field.replace('_', '-')}") in REFERENCE
    assert all(sort in REFERENCE for sort in SORTS)
