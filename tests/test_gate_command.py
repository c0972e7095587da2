"""`harness gate`: what goes to programs, what to people, and an exit code for every answer."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.analysis.frames import Run
from harness.analysis.gate import gate
from harness.analysis.nights import keep
from harness.cli import main
from harness.report.gate_markdown import gate_markdown
from tests.builders import checks
from tests.commands import run_python
from tests.nights import again, failing, night, rules, stored_night, usual

RULES = {"tpot_s": "+5%", "checks": "exact", "failures": 0}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return night(tmp_path_factory.mktemp("nights"), 0, kept={"config": {"gate": {"rules": RULES}}})


@pytest.fixture
def place(tmp_path: Path, base: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a window of four nights."""
    for number, log in enumerate([0.0, 0.004, -0.003, 0.001], start=1):
        keep(again(base, number, log), tmp_path / "window" / f"night-{number:02d}.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@dataclass
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def harness(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str) -> Done:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        told = capsys.readouterr()
        return Done(int(ended.value.code or 0), told.out, told.err)

    return run


def judged(place: Path, run: Run, harness: Any, *more: str) -> Done:
    keep(run, place / "tonight.parquet")
    done: Done = harness("gate", "tonight.parquet", "--baseline", "window", *more)
    return done


def test_a_night_that_passes_ends_with_0(place: Path, base: Run, harness: Any) -> None:
    done = judged(place, again(base, 20, 0.002), harness)

    assert done.code == 0
    first, *others = done.out.splitlines()
    assert first.startswith("tpot_s of pico, greedy: pass, +0.2 % (")
    assert len(others) == 2
    assert "pass: night-20 against 4 nights, night-01 to night-04 (3 pass)" in done.err


def test_a_confirmed_regression_ends_with_3(place: Path, base: Run, harness: Any) -> None:
    keep(again(base, 21, np.log(1.2)), place / "more.parquet")

    done = judged(place, again(base, 20, np.log(1.2)), harness, "--confirm", "more.parquet", "--quiet")

    assert (done.code, done.err) == (3, "")
    assert done.out.startswith("tpot_s of pico, greedy: regression, +19.9 % (")


def test_a_suspicion_ends_with_4(place: Path, base: Run, harness: Any) -> None:
    assert judged(place, again(base, 20, np.log(1.2)), harness).code == 4


def test_other_hardware_ends_with_5(place: Path, base: Run, harness: Any) -> None:
    environment = {**base.manifest["environment"], "cpu": "Another CPU"}
    moved = again(base, 20, 0.0)

    done = judged(place, replace(moved, manifest={**moved.manifest, "environment": environment}), harness)

    assert done.code == 5
    assert "not comparable – CPU An Honest CPU → Another CPU" in done.out


def test_turns_that_failed_and_no_rule_is_about_end_with_6(place: Path, tmp_path: Path, harness: Any) -> None:
    run = night(tmp_path / "here", 20, failing("poem", at=1), kept={"config": {"gate": {"rules": {"tpot_s": "+5%"}}}})

    assert judged(place, run, harness).code == 6


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["gate", "nowhere", "--baseline", "window"], "nowhere: not a run: no manifest.json"),
        (["gate", "window/night-01.parquet", "--baseline", "nowhere"], "nowhere: not a run: no manifest.json"),
        (["gate", "window/night-01.parquet", "--baseline", "empty"], "empty: is neither a run nor a folder of night"),
        (["gate", "window/night-01.parquet", "--baseline", "broken"], "broken/night.parquet: cannot be read"),
        (["gate", "window", "--baseline", "window"], "window: holds 4 night files, and one run is judged"),
        (["gate", "window/night-01.parquet", "--baseline", "window/night-01.parquet"],
         "night-01: has no baseline to be held against but itself"),
        (["gate", "window/night-01.parquet"], "Missing option '--baseline'"),
        (["gate", "window/night-01.parquet", "-b", "window/night-02.parquet", "--config", "plain.yaml"],
         "plain.yaml: has no gate section"),
        (["gate", "window/night-01.parquet", "-b", "window/night-02.parquet", "--config", "wrong.yaml"],
         "wrong.yaml:4:18: gate.rules.tpot_s: tpot_s is the better the lower it is"),
        (["gate", "window/night-01.parquet", "-b", "window/night-02.parquet", "--config", "gpu.yaml"],
         "gate.rules.peak_memory_bytes: +1GiB: peak_memory_bytes was not measured, tonight or in the window"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_ends_with_2(place: Path, harness: Any, arguments: list[str], told: str) -> None:
    (place / "empty").mkdir()
    (place / "broken").mkdir()
    (place / "broken" / "night.parquet").write_bytes(b"PAR1 and no more")
    (place / "talk.yaml").write_text("conversations: [{id: a, turns: [{user: Hello}]}]\n")
    plain = "models: [builtin:pico]\nconversations: [talk.yaml]\nsampling: {max_new_tokens: 4}\n"
    (place / "plain.yaml").write_text(plain)
    (place / "wrong.yaml").write_text(plain + "gate: {rules: {  tpot_s: -5%}}\n")
    (place / "gpu.yaml").write_text(plain + "gate: {rules: {peak_memory_bytes: +1GiB}}\n")

    done = harness(*arguments)

    assert done.code == 2
    assert told in done.err
    assert done.out == ""


def test_a_run_without_rules_says_where_to_write_them(place: Path, tmp_path: Path, harness: Any) -> None:
    done = judged(place, night(tmp_path / "here", 20), harness)

    assert (done.code, done.err.splitlines()[-1]) == (
        2, "night-20: its config has no gate section – name a config that has one: --config FILE",
    )  # fmt: skip


def test_runs_are_directories_names_or_night_files(place: Path, harness: Any) -> None:
    for number in (1, 2, 3):
        stored_night(place / "results", number + 10)
    stored_night(place / "results", 20, kept={"config": {"gate": {"rules": RULES}}})

    done = harness("gate", "night-20", "-b", "results/night-11", "-b", "night-12", "-b", "window")

    assert done.code == 0
    assert "against 6 nights, night-01 to night-12" in done.err


def test_json_is_the_whole_verdict_and_nothing_else(place: Path, base: Run, harness: Any) -> None:
    done = judged(place, again(base, 20, np.log(1.2)), harness, "--format", "json")
    told = json.loads(done.out)

    assert (told["answer"], told["exit_code"], done.code) == ("cannot tell", 4, 4)
    speed = told["verdicts"][0]
    assert (speed["metric"], speed["cell"], speed["answer"]) == ("tpot_s", "pico, greedy", "suspicion")
    assert speed["change"] == pytest.approx(1.2, rel=0.01)
    for name in ("baseline", "candidate", "low", "high", "margin", "at_most", "resolvable"):
        assert isinstance(speed[name], float), name
    assert speed["reason"]


def test_what_models_said_can_do_nothing_to_a_page(tmp_path: Path) -> None:
    evil = "</details> ```\n| a | b |\n# heading <script>alert(1)</script> \x1b[2J"

    def make(ok: bool) -> Any:
        return lambda cell, index: usual(cell, index, checks=checks(ok), reply=evil)

    nights = [night(tmp_path, number, make(ok=True)) for number in (1, 2, 3)]
    page = gate_markdown(gate(night(tmp_path, 20, make(ok=False)), nights, rules(checks="exact")))

    assert page.startswith("# regression: night-20 against 3 nights")
    assert "````text" in page, "a fence longer than any in the reply"
    assert "\x1b" not in page
    assert page.count("### contains: word0 – pico, greedy, physics turn 0") == 1


def test_a_page_tells_every_verdict_with_its_numbers(place: Path, base: Run, harness: Any) -> None:
    done = judged(place, again(base, 20, np.log(1.2)), harness, "--format", "markdown")
    row = next(line for line in done.out.splitlines() if line.startswith("| tpot_s"))

    assert "| pico, greedy | 2.00 ms | 2.40 ms | +19.9 % |" in row
    assert "| +5.0 % | suspicion | worse than the margin" in row


def test_gating_needs_no_torch() -> None:
    script = (
        "import sys, harness.analysis.gate, harness.report.gate, harness.report.gate_markdown, harness.cli.gate\n"
        "import harness.exchange.verdict_json, harness.config.load\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))\n"
    )

    assert run_python("-c", script).stdout == "[]\n"
