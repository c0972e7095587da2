"""docs/gate.md: its example runs as it stands, and shows what the page shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from harness.analysis.verdict import EXIT_CODES
from harness.cli import main
from harness.config.rules import Gating, parse_rule

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "gate.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_the_example_shows_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    codes = []
    for language, text in BLOCKS[BLOCKS.index(next(block for block in BLOCKS if "# talk.yaml" in block[1])) :]:
        if language == "yaml":
            (tmp_path / text.split()[1]).write_text(text, encoding="utf-8")
        for line in text.splitlines() if language == "console" else ():
            capsys.readouterr()
            with pytest.raises(SystemExit) as ended:
                main(shlex.split(line.removeprefix("$ harness ")))
            codes.append(ended.value.code or 0)
        if language == "text":
            assert _unmeasured(capsys.readouterr().out) == _unmeasured(text)

    assert codes == [0, 0, 3]


def _unmeasured(text: str) -> str:
    """Without what a clock decides."""
    return re.sub(r"tell, [+-]\d+\.\d %", "tell", text)


def test_the_rules_of_the_page_are_rules() -> None:
    lines = next(text for language, text in BLOCKS if "  rules:\n" in text and "talk" not in text).splitlines()
    rules = dict(line.split("#")[0].rsplit(": ", 1) for line in lines if line.startswith("    "))

    assert len(Gating(rules={name.strip(): bound.strip() for name, bound in rules.items()}).parsed) == 7
    assert parse_rule("text", "divergence").kind == "text"


def test_every_exit_code_is_on_the_page() -> None:
    for answer, code in EXIT_CODES.items():
        assert f"| {code} | **{answer}**" in PAGE
