"""docs/nightly.md does not lie: its commands run one after the other, as they stand."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.commands import ENVIRONMENT

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "nightly.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (.*)$", PAGE, flags=re.MULTILINE)


def test_two_nights_are_run_and_compared(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "prompts", tmp_path / "prompts")
    path = f"{Path(sys.executable).parent}:{ENVIRONMENT['PATH']}"
    said = []

    for command in COMMANDS:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=tmp_path, env={**ENVIRONMENT, "PATH": path}, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        said.append(done.stdout)

    behaviour, speed, script = said[4:]
    assert "No flips" in behaviour or "Flips" not in behaviour
    assert "TTFT" in speed
    assert "'ttft_s': '" in script
