"""docs/nightly.md does not lie: its commands run one after the other, as they stand, on a config that takes no time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.commands import shell
from tests.recited_nights import CONFIG, PROMPTS, recital

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "nightly.md").read_text(encoding="utf-8")
INIT, *COMMANDS = re.findall(r"^\$ (.*)$", PAGE, flags=re.MULTILINE)


def test_a_night_is_set_up_and_carried_out(tmp_path: Path) -> None:
    assert shell(INIT, tmp_path).returncode == 0
    assert (tmp_path / "configs" / "nightly.yaml").exists()
    one_model = CONFIG.replace('  - {model: "scripted:two.yaml", label: two}\n', "").replace(
        "launches: 2", "launches: 1"
    )
    no_times = one_model.replace('"tpot_s.p50": "+60%"', 'host_rss_bytes.max: "+1GiB"')  # a busy machine is no matter
    for name, text in (("configs/nightly.yaml", no_times), ("prompts.yaml", PROMPTS), ("one.yaml", recital())):
        (tmp_path / name).write_text(text)
    said = []

    for command in COMMANDS:
        quick = command.replace("--runs 20", "--runs 3")
        done = shell(quick, tmp_path)
        assert done.returncode in ((0, 4) if "calibrate" in command else (0,)), f"{command}\n{done.stderr}"
        said.append(done.stdout)

    _, blessed, night, told = said
    assert len(blessed.splitlines()) == 1
    assert night.startswith("results/")
    assert told.startswith("cannot tell {")  # of memory, until three nights are blessed
    assert "'pass': 2" in told


@pytest.mark.parametrize("command", ["run", "bless", "nightly", "calibrate", "compare"])
def test_the_page_names_the_commands_it_takes(command: str) -> None:
    assert f"harness {command}" in PAGE
