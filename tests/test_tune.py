"""A whole study: what it plays, that it can be killed at any moment, what it leaves, and how it is commanded."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

import harness as package
from harness.cli import main
from harness.config.load import load_config, parse_config
from harness.config.study import study_of
from harness.errors import ModelError, StoreError, UsageError
from harness.studies.tune import PartStarted, RungDone, read_history, tune
from harness.studies.tune import unfinished as unfinished_study
from tests.commands import harness, start_harness

ROOT = Path(__file__).parent.parent
RECITAL = """\
lines: [one two three four five six seven eight]
prefill_s: 0.001
token_s: 0.001
"""
TALK = """\
  - id: talk-{i}
    turns:
      - {{user: Hello number {i}., expect: [{{contains: {word}}}]}}
      - {{user: And now?, expect: [{{contains: two}}]}}
"""
WORDS = ["one", "two", "three", "four", "five", "six"]
"""What the first reply of a conversation has to hold: those of more tokens have more of them."""
CONFIG = """\
models: ["scripted:recital.yaml"]
conversations: [talks.yaml]
sampling: {max_new_tokens: [1, 3, 6, 8]}
warmup: 0
tune:
  maximize: check_pass_rate
  minimize: completion_tokens.mean
  subject_to: [e2e_s.max < 60 s]
  rungs: [1, 1]
  holdout: {ids: [talk-8, talk-9, talk-10, talk-11, talk-12, talk-13]}
  validation: {repeats: 1, launches: 1}
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recital.yaml").write_text(RECITAL)
    talks = [TALK.format(i=i, word=WORDS[i % 6]) for i in range(14)]
    (tmp_path / "talks.yaml").write_text("conversations:\n" + "".join(talks))
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def carried_out(here, *overrides, run_id="study", **more):
    return tune(
        study_of(load_config(here / "config.yaml", overrides)), results=here / "results", study_id=run_id, **more
    )


def decided(path):
    """What a study decided, without when and how fast."""
    history = read_history(path)
    rungs = [
        [
            rung["runs"],
            rung["stopped"],
            [(each["name"], each["on_front"], each["broken"]) for each in rung["standings"]],
        ]
        for rung in history["rungs"]
    ]
    return [history["recommended"], history["choice"], rungs]


def test_a_study_finds_the_best_setting_and_leaves_everything_about_it(here):
    parts, rungs = [], []

    def tell(event):
        if isinstance(event, PartStarted):
            parts.append((event.name, [each.name for each in event.plan.samplings]))
        elif isinstance(event, RungDone):
            rungs.append(event.rung)

    tuned = carried_out(here, tell=tell)

    assert tuned.recommended == "max_new_tokens=6"  # eight tokens pass no more checks and are more
    assert [name for name, _ in parts] == ["rung-0", "rung-1", "validation"]
    assert parts[0][1] == ["default", *(f"max_new_tokens={n}" for n in (1, 3, 6, 8))]
    assert set(parts[1][1]) == {each.name for each in rungs[0].standings} - set(rungs[0].stopped)
    assert parts[2][1] == ["default", "max_new_tokens=6"]
    assert not {each.name for each in rungs[-1].standings if each.on_front} & set(rungs[0].stopped)
    history = read_history(tuned.path)
    assert history["finished_at"] is not None
    assert history["parameters"] == {"max_new_tokens": 6}
    assert history["held_out"] == [f"talk-{i}" for i in range(8, 14)]
    page = (ROOT / "docs/file-formats.md").read_text(encoding="utf-8").split("## tune.json")[1].split("## summary")[0]
    keys = {*history, *history["rungs"][0], *history["rungs"][0]["standings"][0], *history["validation"]}
    assert [key for key in sorted(keys) if f"`{key}`" not in page] == []
    report = (tuned.path / "tune.md").read_text()
    assert "**Recommended: max_new_tokens=6.**" in report
    assert "These are the numbers to quote" in report
    assert json.loads((tuned.path / "generation_config.json").read_text()) == {"max_new_tokens": 6}
    best = load_config(tuned.path / "best.yaml")
    assert best.sampling == {"max_new_tokens": 6}
    assert best.tune is None
    turns = package.load(tuned.path / "rung-0").turns
    assert (len(turns), set(turns["conversation_id"])) == (5 * 8 * 2, set(tuned.tuned_on))
    assert set(package.load(tuned.path / "validation").turns["conversation_id"]) == set(tuned.held_out)


def test_a_killed_study_goes_on_and_decides_the_same(here):
    whole = decided(carried_out(here, run_id="whole").path)
    path = here / "results" / "killed"
    kills = 0
    while kills < 2:
        process = start_harness("tune", "config.yaml", "--run-id", "killed", "-q", cwd=here)
        before = written(path)
        deadline = time.monotonic() + 1 + kills
        while process.poll() is None and (time.monotonic() < deadline or written(path) == before):
            time.sleep(0.01)
        if process.poll() is not None:
            process.communicate()
            break
        process.send_signal(signal.SIGKILL if kills else signal.SIGTERM)
        _, told = process.communicate()
        if not kills:
            assert process.returncode == 143
            assert told.endswith("stopped; go on with: harness tune --resume results/killed\n")
        kills += 1

    done = harness("tune", "config.yaml", "--run-id", "killed", cwd=here)

    assert kills > 0
    assert done.returncode == 0, done.stderr
    assert done.stdout == "results/killed\n"
    assert "going on with results/killed" in done.stderr
    assert decided(path) == whole


def written(path: Path) -> int:
    return sum(file.stat().st_size for file in path.glob("*/turns.jsonl"))


def test_the_same_command_goes_on_with_an_unfinished_study_and_starts_anew_after_a_finished_one(here):
    def stop(event):
        if isinstance(event, PartStarted) and event.name == "rung-1":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carried_out(here, run_id=None, tell=stop)
    (unfinished,) = (here / "results").iterdir()
    assert read_history(unfinished)["finished_at"] is None

    study = study_of(load_config(here / "config.yaml"))
    assert unfinished_study(here / "results", study.study_hash) == unfinished
    assert carried_out(here, run_id=None).path == unfinished
    assert unfinished_study(here / "results", study.study_hash) is None


def test_a_study_of_another_config_is_not_gone_on_with(here):
    def stop(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carried_out(here, tell=stop)
    with pytest.raises(UsageError, match="is a study of another config"):
        carried_out(here, "tune.margin=1 %")
    (here / "results" / "no-study" / "something").mkdir(parents=True)
    with pytest.raises(StoreError, match="not a study"):
        carried_out(here, run_id="no-study")


def test_a_figure_that_the_machine_does_not_have_ends_the_study_at_once(here):
    with pytest.raises(UsageError, match=r"peak_memory_bytes.max: no turn of this machine has a peak_memory_bytes"):
        carried_out(here, "tune.subject_to=peak_memory_bytes < 16 GiB")


def test_a_model_that_answers_nothing_ends_the_study_with_its_reason(here):
    (here / "recital.yaml").write_text(RECITAL + "breakdown: {turn: 0}\n")
    with pytest.raises(ModelError, match="answered no turn: the script says so"):
        carried_out(here)


def command(capsys, *arguments):
    """(exit code, stdout, stderr) of the command in this process."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    told = capsys.readouterr()
    return ended.value.code, told.out, told.err


def test_failed_turns_show_in_the_exit_code(here, capsys):
    (here / "recital.yaml").write_text(RECITAL + "breakdown: {turn: 1, conversation: talk-3}\n")
    code, out, _ = command(capsys, "tune", "config.yaml", "--run-id", "x", "-q")
    assert (code, out) == (6, "results/x\n")


def test_no_setting_within_the_limits_recommends_nothing(here, capsys):
    limit = "tune.subject_to=completion_tokens.mean < 1"
    code, out, err = command(
        capsys, "tune", "config.yaml", "--run-id", "x", "--set", limit, "--set", "sampling.max_new_tokens=[2, 3]",
        "--write", "best.yaml",
    )  # fmt: skip
    assert (code, out) == (4, "results/x\n")
    assert "is within completion_tokens.mean < 1: nothing is recommended" in err
    assert not (here / "best.yaml").exists()
    assert not (here / "results/x/best.yaml").exists()


def test_the_command_writes_a_config_that_loads_and_never_over_anothers_file(here, capsys):
    (here / "mine.yaml").write_text("models: []\n")
    refused = command(capsys, "tune", "config.yaml", "--write", "mine.yaml")
    code, out, err = command(capsys, "tune", "config.yaml", "--run-id", "x", "--write", "configs/best.yaml")
    again = command(capsys, "tune", "--resume", "x", "--write", "configs/best.yaml", "-q")

    assert refused == (2, "", "--write mine.yaml: exists, and was not written by a study – name another file\n")
    assert (code, out) == (0, "results/x\n")
    assert "rung-0: 5 settings × 8 conversations × 1 repeat × 1 launch = 80 turns" in err
    assert "Recommended: max_new_tokens=6." in err
    assert again == (0, "results/x\n", "")
    assert load_config("configs/best.yaml").sampling == {"max_new_tokens": 6}


# ---- optuna ----------------------------------------------------------------------------------------------

SEARCHED = {
    "sampling.max_new_tokens": "{low: 1, high: 12}",
    "tune.trials": "10",
    "tune.search": "optuna",
    "tune.rungs": "[1]",
    "tune.seed": "3",
}


def test_proposals_are_the_same_again_and_go_on_where_they_stopped(here):
    pytest.importorskip("optuna")
    overrides = [f"{key}={value}" for key, value in SEARCHED.items()]

    def stop(event):
        if isinstance(event, PartStarted) and event.name == "rung-0-01":
            raise KeyboardInterrupt

    first = carried_out(here, *overrides, run_id="first")
    with pytest.raises(KeyboardInterrupt):
        carried_out(here, *overrides, run_id="second", tell=stop)
    second = carried_out(here, *overrides, run_id="second")

    assert decided(first.path) == decided(second.path)
    assert first.rungs[0].runs == ("rung-0-00", "rung-0-01")
    assert len(first.settings) == 11
    assert first.recommended == "max_new_tokens=6"


def test_without_optuna_a_search_by_proposals_says_how_to_get_it(here, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"optuna is not installed – pip install 'instruct-harness\[tune\]'"):
        carried_out(here, "tune.search=optuna")
    assert not (here / "results").exists()


def test_a_small_grid_is_exhausted_by_proposals(here):
    pytest.importorskip("optuna")
    tuned = carried_out(here, "tune.search=optuna", "tune.rungs=[1]")
    assert set(tuned.settings) == {"default", *(f"max_new_tokens={n}" for n in (1, 3, 6, 8))}


# ---- a real model ----------------------------------------------------------------------------------------


def test_pico_is_tuned_and_transformers_loads_what_comes_of_it(tmp_path):
    from transformers import GenerationConfig

    study = study_of(
        parse_config(
            {
                "models": ["builtin:pico"],
                "conversations": [str(ROOT / "prompts/physics-professor.yaml")],
                "sampling": {"do_sample": True, "top_k": [5], "temperature": [0.5], "max_new_tokens": 40},
                "warmup": 0,
                "threads": 1,
                "tune": {
                    "maximize": "check_pass_rate",
                    "rungs": [1],
                    "holdout": {"files": [str(ROOT / "prompts/refusal.yaml")]},
                    "validation": {"repeats": 1, "launches": 1},
                },
            }
        )
    )

    tuned = tune(study, results=tmp_path, study_id="pico")

    found = GenerationConfig.from_pretrained(str(tuned.path))
    assert (found.do_sample, found.max_new_tokens, found.eos_token_id) == (True, 40, [2])
    assert load_config(tuned.path / "best.yaml").sampling["max_new_tokens"] == 40
    assert (tuned.recommended, tuned.validation.answer) == ("default", "not worse")
    assert any("top_k" in warning for warning in tuned.warnings)  # of the default, which transformers sets
