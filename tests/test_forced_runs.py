"""A run that forces replies: its own and those it was handed, each once, whatever was killed in between."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson
import pytest

import harness
from harness.analysis.forced import changes, known, shifts
from harness.analysis.nights import keep
from harness.records import Cell
from harness.runner.run import execute
from harness.store import FORCED, TURNS, read_manifest
from harness.studies.replay import resolve

RECITAL = "lines: [Motion is all., Energy it is. my friend.]\nlogprobs: [-0.5, -0.25]\n"
PROMPTS = """
conversations:
  - id: a
    turns: [{user: What is Newtonian mechanics?}, {user: How about Lagrange?}]
  - id: b
    turns: [{user: Hello}]
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "recital.yaml").write_text(RECITAL)
    (tmp_path / "prompts.yaml").write_text(PROMPTS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(**values: Any) -> dict[str, Any]:
    model = {"model": "scripted:recital.yaml", "label": "bob"}
    return {"models": [model], "conversations": ["prompts.yaml"], "warmup": 0, **values}


def play(run_id: str, force: Any = (), **values: Any) -> Path:
    return execute(resolve(config(**values)), results=Path("results"), run_id=run_id, force=force)


def lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (path / FORCED).read_bytes().splitlines()]


def places(path: Path) -> list[tuple[str, int, str]]:
    return sorted((line["cell"]["conversation_id"], line["turn_index"], line["of"]) for line in lines(path))


def test_a_plain_run_forces_and_probes_nothing(here: Path) -> None:
    path = play("plain", force=None)

    assert not (path / FORCED).exists()
    assert "probe" not in read_manifest(path)["launches"][0]


def test_own_replies_are_forced_once_for_all_launches_and_repeats_of_what_is_greedy(here: Path) -> None:
    path = play("own", launches=2, repeats=2, sampling={"do_sample": [False, True], "max_new_tokens": 9})

    assert places(path) == [("a", 0, "own"), ("a", 1, "own"), ("b", 0, "own")]
    turns = {
        (turn["circumstances"]["cell"]["conversation_id"], turn["turn_index"]): turn
        for turn in map(orjson.loads, (path / TURNS).read_bytes().splitlines())
    }
    for line in lines(path):
        turn = turns[line["cell"]["conversation_id"], line["turn_index"]]
        assert (line["cell"]["repeat"], line["cell"]["launch"]) == (0, 0)
        assert (line["ids"], line["prompt_hash"]) == (turn["completion_ids"], turn["prompt_hash"])
        assert line["logprobs"] == [-0.5, -0.25, -0.5, -0.25, -0.5][: len(line["ids"])]
    probes = [launch["probe"] for launch in read_manifest(path)["launches"]]
    assert [probe["equal"] for probe in probes] == [True, True]
    assert probes[0]["turns"] == 2
    assert probes[0]["first_difference"] is None


def test_a_rule_about_text_asks_for_it(here: Path) -> None:
    path = play("nightly", force=None, gate={"rules": {"text": "divergence"}})
    assert len(lines(path)) == 3


def test_replies_of_another_run_are_forced_where_they_are_others(here: Path) -> None:
    baseline = harness.load(play("before"))
    Path("recital.yaml").write_text(RECITAL.replace("Energy it is. my", "Energy it was. my").replace("-0.25", "-0.75"))
    path = play("after", known(baseline))

    # Conversation a turn 1 is answered otherwise; everything else was said before, word for word.
    assert places(path) == [("a", 0, "after"), ("a", 1, "after"), ("a", 1, "before"), ("b", 0, "after")]
    after = harness.load(path)
    moved = shifts(after, baseline)
    assert list(moved["tokens"]) == [3, 5, 3]
    assert list(moved["mean"]) == pytest.approx([-0.5 / 3, -0.5 * 2 / 5, -0.5 / 3])
    assert list(moved["worst"]) == pytest.approx([-0.5, -0.5, -0.5])
    (row,) = changes(after, baseline).to_dict("records")
    assert (row["conversation_id"], row["turn_index"], row["token"], row["follows"]) == ("a", 1, 2, False)
    assert row["baseline_reply"][: row["common"]] == row["candidate_reply"][: row["common"]] == "Energy it "


def test_a_night_file_knows_replies_as_its_run_does(here: Path) -> None:
    run = harness.load(play("before"))
    night = harness.load(keep(run, here / "before.parquet"))
    assert known(night) == known(run)
    assert [each.replies[0].reply for each in known(night)] == ["Motion is all.", "Motion is all."]


def test_the_history_of_a_later_turn_is_what_was_said_then(here: Path) -> None:
    baseline = harness.load(play("before"))
    Path("recital.yaml").write_text(RECITAL.replace("Motion is all", "Motion is nothing"))
    path = play("after", known(baseline))

    told = {(line["cell"]["conversation_id"], line["turn_index"], line["of"]): line for line in lines(path)}
    assert told["a", 1, "before"]["prompt_hash"] != told["a", 1, "after"]["prompt_hash"]
    assert shifts(harness.load(path), baseline)["mean"].notna().all()
    assert list(changes(harness.load(path), baseline)["follows"]) == [False, False]  # turn 1 says the same anyway


def test_what_was_not_forced_is_forced_when_the_run_is_gone_on_with(here: Path) -> None:
    baseline = harness.load(play("before"))
    Path("recital.yaml").write_text(RECITAL.replace("Energy it is", "Energy it was"))
    path = play("after", known(baseline))
    whole, turns = (path / FORCED).read_bytes(), (path / TURNS).read_bytes()

    (path / FORCED).write_bytes(whole.splitlines(keepends=True)[0] + b'{"cell": {"mod')  # killed in the second line
    again = play("after", known(baseline))

    assert sorted((again / FORCED).read_bytes().splitlines()) == sorted(whole.splitlines())
    assert (again / TURNS).read_bytes() == turns
    assert play("after", known(baseline)) == path
    assert (path / FORCED).read_bytes().count(b"\n") == whole.count(b"\n")


def test_a_turn_that_the_script_lost_is_told_and_not_asked_for_again(here: Path) -> None:
    baseline = harness.load(play("before"))
    Path("prompts.yaml").write_text(PROMPTS.replace(", {user: How about Lagrange?}", ""))
    path = play("after", known(baseline))

    (lost,) = [line for line in lines(path) if line["of"] == "before"]
    assert (lost["turn_index"], lost["logprobs"]) == (1, [])
    assert lost["why_not"] == "the conversation does not come to this turn any more"
    assert play("after", known(baseline)) == path
    assert len(read_manifest(path)["launches"]) == 1  # no second worker went looking for it
    assert list(shifts(harness.load(path), baseline)["why_not"].dropna()) == [lost["why_not"]]


def test_a_conversation_that_failed_is_not_forced(here: Path) -> None:
    Path("recital.yaml").write_text(RECITAL + "breakdown: {turn: 1, conversation: a}\n")
    path = play("broken")
    assert places(path) == [("b", 0, "broken")]


def test_settings_and_conversations_that_are_no_more_are_left_alone(here: Path) -> None:
    baseline = harness.load(play("before"))
    path = play("after", known(baseline), models=[{"model": "scripted:recital.yaml", "label": "other"}])
    assert {line["of"] for line in lines(path)} == {"after"}
    assert list(shifts(harness.load(path), baseline)["why_not"]) == ["was not forced"] * 3


def test_forcing_goes_on_in_the_next_worker_where_one_dies(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = play("killed")
    (path / FORCED).unlink()
    monkeypatch.setenv("PYTHONPATH", _worker_that_dies(here))
    play("killed")
    (warning,) = read_manifest(path)["warnings"]
    assert warning == "bob: not all replies were forced: killed by SIGKILL (out of memory?)"
    assert len(lines(path)) == 1

    monkeypatch.delenv("PYTHONPATH")
    play("killed")
    assert places(path) == [("a", 0, "killed"), ("a", 1, "killed"), ("b", 0, "killed")]


def _worker_that_dies(folder: Path) -> str:
    """A folder whose sitecustomize ends a worker at the second reply it forces."""
    (folder / "dying").mkdir()
    (folder / "dying" / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "if 'harness.runner.worker' in sys.orig_argv:\n"
        "    from harness.backends.scripted import ScriptedSession\n"
        "    force, times = ScriptedSession.force, []\n"
        "    def dying(*arguments):\n"
        "        times.append(1)\n"
        "        if len(times) == 6:\n"  # the probe has forced two replies twice
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return force(*arguments)\n"
        "    ScriptedSession.force = dying\n"
    )
    return os.pathsep.join([str(folder / "dying"), os.environ.get("PYTHONPATH", "")])


def test_the_cell_of_a_known_conversation_is_the_first_of_its_setting(here: Path) -> None:
    (first, _) = known(harness.load(play("before", concurrency=[1, 2]).resolve()))[:2]
    assert first.cell == Cell("bob", first.sampling, "a", 0, 0, first.concurrency)
