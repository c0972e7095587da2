"""Calibrating: identical runs become a floor, rules are told what they may ask, and the gate makes use of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import harness
from harness.analysis.decide import components, launches_needed
from harness.analysis.floor import Calibration, calibrate, read_floor, write_floor
from harness.analysis.frames import Run
from harness.analysis.gate import gate
from harness.analysis.gating.cells import Cell
from harness.analysis.nights import keep
from harness.cli import main
from harness.config.rules import Gating
from harness.errors import StoreError, UsageError
from harness.records import Cell as PlannedCell
from harness.records import TurnRecord
from harness.report.floor import rows
from tests.builders import every_turn, plan, store, turn

RULES = Gating(rules={"ttft_s": "+5%", "decode_tokens_per_s": "-5%", "host_rss_bytes": "+64MiB", "failures": 0})


def _runs(
    results: Path, count: int = 6, launches: int = 3, noise: float = 0.01, machine: float = 0.0, **values: Any
) -> list[Run]:
    """Runs of pico and nano, whose launches vary by `noise`, and what both of them take in a run by `machine`."""
    draw = np.random.default_rng(5)
    of = plan(["pico", "nano"], conversations={"physics": 2}, launches=launches)
    made = []
    for number in range(count):
        shared = draw.normal(0, machine)
        by_launch = {
            (model, launch): math.exp(shared + draw.normal(0, noise))
            for model in ("pico", "nano")
            for launch in range(launches)
        }

        def played(cell: PlannedCell, index: int, taken: dict[Any, float] = by_launch) -> TurnRecord:
            times = taken[cell.model, cell.launch]
            return turn(cell, index, ttft_ms=round(10_000 * times), tpot_ms=round(2_000 * times), ids=6)

        at = f"2026-01-{number + 1:02}T03:04:05+00:00"
        made.append(
            harness.load(store(results, every_turn(of, played), of, run_id=f"r{number}", created_at=at, **values))
        )
    return made


def test_each_cell_of_a_rule_has_the_noise_of_its_own_numbers(tmp_path: Path) -> None:
    runs = _runs(tmp_path)
    calibration, resolutions = calibrate(runs, RULES)

    cells = [(each.metric, each.cell.model, each.ratio) for each in calibration.cells]
    assert cells == [
        *(("ttft_s", model, True) for model in ("pico", "nano")),
        *(("decode_tokens_per_s", model, True) for model in ("pico", "nano")),
        *(("host_rss_bytes", model, False) for model in ("pico", "nano")),
    ]
    of_pico = [
        np.log(run.turns[run.turns["model"] == "pico"].groupby("launch")["ttft_s"].mean().to_numpy(dtype=float))
        for run in runs
    ]
    assert calibration.cells[0].floor.launch == pytest.approx(components(of_pico).launch, rel=0.02)
    assert (calibration.runs, calibration.launches, calibration.anchor) == (tuple(f"r{n}" for n in range(6)), 3, None)
    assert [each.rule.subject for each in resolutions] == [metric for metric, _, _ in cells]


def test_rules_are_told_what_can_be_held_and_what_would_be_needed(tmp_path: Path) -> None:
    loose, strict = Gating(rules={"ttft_s": "+50%"}), Gating(rules={"ttft_s": "+0.1%"})
    runs = _runs(tmp_path, 6)
    _, held = calibrate(runs, loose)
    _, refused = calibrate(runs, strict)
    _, auto = calibrate(runs, Gating(rules={"ttft_s": "auto"}))

    assert all(each.holds for each in (*held, *auto))
    assert not any(each.holds for each in refused)
    assert {row[-1] for row in rows(held)} == {"can be held"}
    assert {row[-1] for row in rows(auto)} == {"auto: this much"}
    assert all(row[-1].startswith("cannot be held") for row in rows(refused))
    floor = refused[0].calibrated.floor
    assert refused[0].needed == launches_needed(floor, math.log1p(0.001), 2, strict.confirm_launches)
    assert rows(held)[0][2:4] == [
        f"{math.expm1(floor.launch**0.5):.1%}",
        f"{math.expm1(max(floor.night, 0) ** 0.5):.1%}",
    ]


def test_an_anchor_takes_away_what_the_machine_does_and_is_not_judged(tmp_path: Path) -> None:
    runs = _runs(tmp_path, 6, machine=0.2)
    absolute, _ = calibrate(runs, Gating(rules={"ttft_s": "auto"}))
    relative, resolutions = calibrate(runs, Gating(rules={"ttft_s": "auto"}, anchor="pico"))

    assert [each.cell.model for each in relative.cells] == ["nano"]
    assert absolute.cells[1].floor.night ** 0.5 > 0.1
    assert relative.cells[0].floor.between ** 0.5 < 0.03
    assert resolutions[0].resolvable < 0.1
    assert relative.of(resolutions[0].rule, Cell("nano", "greedy", 1), None) is None, "of numbers that are not relative"


def test_a_floor_is_stored_and_read_again(tmp_path: Path) -> None:
    calibration, _ = calibrate(_runs(tmp_path), RULES)
    path = tmp_path / "baselines" / "cpu" / "nightly" / "floor.json"
    write_floor(path, calibration)

    assert read_floor(path) == calibration
    assert read_floor(tmp_path / "none.json") is None
    for text, fact in (
        ("{", "cannot be read"),
        ('{"format": 9}', "format 9, this version reads 2"),
        ("[]", "cannot be"),
    ):
        path.write_text(text)
        with pytest.raises(StoreError, match=fact):
            read_floor(path)


def test_the_gate_decides_with_a_floor_what_two_nights_alone_do_not(tmp_path: Path) -> None:
    *runs, tonight = _runs(tmp_path, 8)
    rules = Gating(rules={"ttft_s": "+25%"})
    calibration, _ = calibrate(runs[:5], rules)

    alone = gate(tonight, runs[-2:], rules)
    calibrated = gate(tonight, runs[-2:], rules, calibration.floors(rules))
    assert (alone.answer, calibrated.answer) == ("cannot tell", "pass")


def test_the_command_finds_the_floor_beside_the_window(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    *runs, tonight = _runs(tmp_path / "results", 8, config={"gate": {"rules": {"ttft_s": "+25%"}}})
    window = tmp_path / "window"
    for run in runs[-2:]:
        keep(run, window / f"{run.run_id}.parquet")
    judge = ["gate", str(tonight.path), "--baseline", str(window), "-q"]
    assert _exit_code(judge) == 4
    write_floor(window / "floor.json", calibrate(runs[:5], Gating(rules={"ttft_s": "+25%"}))[0])
    assert _exit_code(judge) == 0
    assert _exit_code([*judge, "--floor", str(tmp_path / "none.json")]) == 2
    assert "none.json: there is no such file" in capsys.readouterr().err


def _exit_code(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_calibrating_plays_runs_that_are_kept_and_goes_on_with_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = _scripted(tmp_path)
    ask = ["calibrate", str(config), "--results", str(tmp_path / "results")]
    assert _exit_code([*ask, "--runs", "2"]) == 2
    assert "2 runs do not tell how much runs differ" in capsys.readouterr().err
    assert _exit_code([*ask, "--runs", "3", "-q"]) in (0, 4), "three runs may tell that auto would be too large"
    path = Path(capsys.readouterr().out.strip())
    first = {run: run.stat().st_mtime_ns for run in (tmp_path / "results").glob("scripted-calibration-*/turns.jsonl")}
    assert (len(first), path.name) == (3, "floor.json")
    found = read_floor(path)
    assert isinstance(found, Calibration)
    assert [each.metric for each in found.cells] == ["ttft_s", "tpot_s", "e2e_s"]

    assert _exit_code([*ask, "--runs", "4"]) in (0, 4)
    assert "run 4 of 4" in capsys.readouterr().err
    assert all(run.stat().st_mtime_ns == at for run, at in first.items()), "what is there is not played again"
    assert _exit_code([*ask, "--runs", "3", "--set", "repeats=2"]) == 2
    assert "is a run of another config" in capsys.readouterr().err


def _scripted(folder: Path) -> Path:
    (folder / "talk.yaml").write_text("conversations:\n  - id: talk\n    turns: [{user: Hello}]\n")
    (folder / "lines.yaml").write_text("lines: [Good evening to you.]\n")
    config = folder / "scripted.yaml"
    config.write_text(f"models: ['scripted:{folder / 'lines.yaml'}']\nconversations: [talk.yaml]\nwarmup: 0\n")
    return config


def test_too_few_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 runs do not tell"):
        calibrate(_runs(tmp_path, 2), RULES)
    with pytest.raises(UsageError, match="was not measured"):
        gate(*[(runs := _runs(tmp_path / "b", 4))[-1], runs[:-1]], Gating(rules={"energy_j": "+5%"}))
