"""A night: played, kept, judged, confirmed, told. Its faults are in test_nightly_faults.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.analysis.baselines import device_of, history_file, window_folder
from harness.analysis.nights import find_nights, keep
from harness.errors import NotReadyError, StoreError, UsageError
from harness.meters.environment import environment
from harness.store import read_manifest
from harness.studies import nightly as module
from harness.studies.bless import bless
from harness.studies.preflight import Finding
from tests.commands import harness as command
from tests.recited_nights import answers, bless_some, furnish, play, recital


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return furnish(tmp_path, monkeypatch)


def test_the_first_night_cannot_tell_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = furnish(tmp_path, monkeypatch, reports=True)
    night = play(here, run_id="first")

    assert set(answers(night).values()) == {"cannot tell"}
    assert {verdict.reason for verdict in night.gate.verdicts} == {"no baseline: harness bless first"}
    assert (night.exit_code(strict=False), night.exit_code(strict=True)) == (0, 4)
    assert night.kept == history_file(here / "results", "first")
    assert len(harness.load(night.kept).turns) == 8
    assert {"verdict.json", "junit.xml", "nightly.md", "nightly.html", "report.md", "report.html"} <= {
        path.name for path in night.path.iterdir()
    }
    assert "./../trend.html" in (night.path / "nightly.html").read_text()
    assert "./first/nightly.html" in (here / "results" / "trend.html").read_text()
    assert night.problems == ()
    manifest = read_manifest(night.path)["night"]
    assert manifest == {
        "preflight": [{"about": "disk", "level": "ok", "line": "room enough"}],
        "budget_s": None,
        "cut": False,
        "confirmed_by": None,
    }
    bless([night.path], here / "results")


def test_a_night_like_the_window_passes_and_is_not_its_own_baseline(here: Path) -> None:
    bless_some(play(here, run_id="first"), here / "results")

    night = play(here, run_id="second")

    assert set(answers(night).values()) == {"pass"}
    assert night.exit_code(strict=True) == 0
    assert [run.run_id for run in night.gate.baseline] == ["day-1", "day-2", "day-3"]
    assert [path.stem for path in find_nights(here / "results" / "history")] == ["first", "second"]
    bless([night.path], here / "results")
    assert [run.run_id for run in play(here, run_id="second").gate.baseline][-1] == "day-3"


def test_what_is_slower_is_played_again_by_itself_and_red_once_it_is_confirmed(here: Path) -> None:
    bless_some(play(here, run_id="first"), here / "results")
    (here / "two.yaml").write_text(recital(token_s=0.008))

    night = play(here, run_id="second")

    assert answers(night)["two", "tpot_s.p50"] == "regression"
    assert answers(night)["one", "tpot_s.p50"] == "pass"
    assert night.exit_code(strict=False) == 3
    assert read_manifest(night.path)["night"]["confirmed_by"] == "second-confirm"
    again = harness.load(here / "results" / "second-confirm")
    assert again.manifest["confirms"] == "second"
    assert set(again.turns["model"]) == {"two"}
    assert again.turns["launch"].nunique() == 2
    told = json.loads((night.path / "verdict.json").read_text())
    assert (told["answer"], told["confirmed_by"]) == ("regression", ["second-confirm"])
    with pytest.raises(UsageError, match="its verdict is 'regression'"):
        bless([night.path], here / "results")


def test_what_is_not_seen_again_is_no_regression(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bless_some(play(here, run_id="first"), here / "results")
    (here / "two.yaml").write_text(recital(token_s=0.008))
    monkeypatch.setattr(
        module, "narrowed", _and_then(module.narrowed, lambda: (here / "two.yaml").write_text(recital()))
    )

    night = play(here, run_id="second")

    assert answers(night)["two", "tpot_s.p50"] != "regression"
    assert night.exit_code(strict=False) == 0
    assert len(night.gate.confirmed_by) == 1


def _and_then(work: Any, then: Any) -> Any:
    def both(*arguments: Any) -> Any:
        then()
        return work(*arguments)

    return both


def test_a_night_of_another_device_than_the_blessed_ones_is_not_comparable(here: Path) -> None:
    night = play(here, run_id="first")
    keep(harness.load(night.path), window_folder(here / "results", "nvidia-h100-x1", "nightly") / "old.parquet")

    night = play(here, run_id="second")

    assert set(answers(night).values()) == {"not comparable"}
    assert "the blessed nights are of nvidia-h100-x1, and this is " in night.gate.verdicts[0].reason
    assert night.exit_code(strict=False) == 5
    assert night.kept.exists()


def test_a_machine_that_cannot_be_measured_on_is_not(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        module, "preflight", lambda seen, before: (Finding("GPU processes", "stop", "2 compute on it"),)
    )

    with pytest.raises(NotReadyError, match="GPU processes: 2 compute on it – nothing was played") as raised:
        play(here)
    assert raised.value.exit_code == 4
    assert not list((here / "results").glob("*/manifest.json"))
    assert play(here, run_id="anyway", anyway=True).kept.exists()


def test_a_config_without_a_gate_makes_no_night(here: Path) -> None:
    with pytest.raises(UsageError, match="has no gate section"):
        play(here, "gate=null")


def test_a_verdict_that_cannot_be_made_loses_nothing(here: Path) -> None:
    bless_some(play(here, run_id="first"), here / "results")

    with pytest.raises(UsageError, match="peak_memory_bytes"):
        play(here, "gate.rules={peak_memory_bytes.max: '+1MiB'}", run_id="second")

    assert history_file(here / "results", "second").exists()
    assert set(answers(play(here, run_id="second")).values()) == {"pass"}  # with rules that can be judged


def test_the_command_says_all_on_stderr_and_the_path_on_stdout(here: Path) -> None:
    done = command("nightly", "nightly.yaml", "--run-id", "first", "--strict", "--set", "launches=1", cwd=here)

    assert done.returncode == 4, done.stderr
    assert done.stdout.splitlines() == ["results/first"]
    assert "warning" not in done.stdout
    assert "no baseline: harness bless first" in done.stderr

    wrong = command("nightly", "nightly.yaml", "--budget", "soon", cwd=here)
    assert (wrong.returncode, wrong.stderr) == (
        2,
        "--budget: 'soon' is no time – write one such as 45min or 1h 30min\n",
    )


def test_a_baseline_that_cannot_be_read_is_said_before_anything_is_played(here: Path) -> None:
    where = window_folder(here / "results", device_of(environment()), "nightly")
    where.mkdir(parents=True)
    (where / "torn.parquet").write_bytes(b"PAR1")

    with pytest.raises(StoreError, match=r"torn\.parquet: cannot be read"):
        play(here)
    assert not list((here / "results").glob("*/manifest.json"))


def test_launches_that_confirm_are_asked_about_the_blessed_replies_too(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = "gate.rules={tpot_s.p50: +60%, text: divergence}"
    bless_some(play(here, rules, run_id="first"), here / "results")
    (here / "two.yaml").write_text(recital(token_s=0.008))
    asked = []
    original = module.execute
    monkeypatch.setattr(module, "execute", lambda plan, **how: asked.append(how["force"]) or original(plan, **how))

    play(here, rules, run_id="second")

    assert len(asked) == 2
    assert asked[0] is not None
    assert asked[0] == asked[1]


def test_further_launches_that_were_all_broken_off_leave_the_suspicion_as_it_was(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bless_some(play(here, run_id="first"), here / "results")
    (here / "two.yaml").write_text(recital(token_s=0.008))
    original = module._Night._execute

    def cut(self: Any, plan: Any, run_id: str, budget: Any, notes: Any, wanted: Any = None, force: Any = None) -> Path:
        nothing = run_id.endswith("-confirm")
        return original(self, plan, run_id, budget, notes, (lambda cell: not nothing), force)

    monkeypatch.setattr(module._Night, "_execute", cut)

    night = play(here, run_id="second")

    assert answers(night)["two", "tpot_s.p50"] == "suspicion"
    assert any("played nothing of second again" in note for note in night.gate.notes)
    assert (night.path / "verdict.json").exists()
