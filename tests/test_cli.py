"""The commands as a person or a script meets them: real processes, their stdout, stderr and exit codes."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest

import harness as package
from tests.commands import ENVIRONMENT, harness, run_python

RECITAL = "lines: [Motion is all., Energy it is.]\n"
PROMPTS = """
conversations:
  - id: mechanics
    turns:
      - {user: What is Newtonian mechanics?, expect: [{contains: Motion}]}
      - {user: How about Lagrangian mechanics?, expect: [{contains: forces}]}
"""
CONFIG = """
models: ["scripted:recital.yaml"]
sampling: {max_new_tokens: 8}
conversations: [prompts.yaml]
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "recital.yaml").write_text(RECITAL)
    (tmp_path / "prompts.yaml").write_text(PROMPTS)
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def test_python_m_harness_is_the_same_command() -> None:
    script = Path(sys.executable).with_name("harness")

    by_name = subprocess.run([script, "--help"], env=ENVIRONMENT, capture_output=True, text=True, check=True)

    assert by_name.stdout == harness("--help").stdout


@pytest.mark.parametrize("command", ["run", "report", "plan", "chat", "schema", "init"])
def test_every_command_explains_itself(command: str) -> None:
    done = harness(command, "--help")

    assert done.returncode == 0
    assert command in harness("--help").stdout
    assert "Usage: harness " + command in done.stdout


def test_stdout_of_a_run_is_its_path_and_nothing_else(here: Path) -> None:
    done = harness("run", "config.yaml", "--run-id", "x", cwd=here)

    assert done.returncode == 0, done.stderr
    assert done.stdout == "results/x\n"
    assert "mechanics" in done.stderr
    assert "\x1b" not in done.stderr
    assert {"manifest.json", "turns.jsonl", "turns.parquet", "report.md", "summary.csv"} <= {
        path.name for path in (here / "results" / "x").iterdir()
    }


def test_a_one_liner_needs_no_config(here: Path) -> None:
    done = harness(
        "run", "-m", "scripted:recital.yaml", "-p", "prompts.yaml", "--top-k", "1,10,50", "--max-length", "256,500",
        "--run-id", "x", cwd=here,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "not said, so: do_sample: true" in done.stderr
    samplings = json.loads((here / "results/x/manifest.json").read_text())["plan"]["samplings"]
    assert len(samplings) == 6
    assert samplings[0]["parameters"] == {"do_sample": True, "top_k": 1, "max_length": 256}


def test_every_mistake_of_a_config_is_one_line_and_nothing_is_run(here: Path) -> None:
    (here / "config.yaml").write_text("models: ['scripted:recital.yaml']\nsamplng: {}\nconversations: [nothing.yaml]\n")

    done = harness("run", "config.yaml", cwd=here)

    assert done.returncode == 2
    assert "config.yaml:2:1: samplng: unknown key – did you mean sampling?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (here / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run"], "command line: no model – give a CONFIG file, or --model and --prompts"),
        (["run", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["run", "-m", "builtin:piko", "-p", "prompts.yaml"], "builtin:piko: "),
        (["run", "-m", "no/such/directory", "-p", "prompts.yaml"], "no/such/directory: "),
        (["report", "results/none"], "results/none: not a run"),
        (["run", "--resume", "results/none"], "results/none: not a run"),
        (["chat"], "command line: no model – harness chat MODEL, or --config FILE"),
        (["run", "config.yaml", "--set", "sampling.tok_k=3"], "--set sampling.tok_k=3: "),
        (["plan", "-m", "builtin:piko", "-p", "prompts.yaml"], "builtin:piko: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_said_in_one_line_with_exit_code_2(
    here: Path, arguments: list[str], complaint: str
) -> None:
    done = harness(*arguments, cwd=here)

    assert done.returncode == 2, done.stderr
    assert complaint in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert done.stdout == "" or arguments[0] == "plan"  # what plan could find out is worth showing


def test_a_run_with_failed_cells_ends_with_exit_code_6_and_its_path(here: Path) -> None:
    (here / "recital.yaml").write_text(RECITAL + "breakdown: {turn: 1}\n")

    done = harness("run", "config.yaml", "--run-id", "x", cwd=here)

    assert done.returncode == 6
    assert done.stdout == "results/x\n"
    assert "failed: scripted" in done.stderr or "failed: recital" in done.stderr
    assert "Breakdown" in done.stderr


def test_failed_checks_are_results_not_failures(here: Path) -> None:
    assert harness("run", "config.yaml", cwd=here).returncode == 0  # "forces" is not in the second reply


def test_a_run_can_be_resumed_by_its_directory_alone(here: Path) -> None:
    harness("run", "config.yaml", "--run-id", "x", cwd=here)
    lines = (here / "results/x/turns.jsonl").read_bytes().splitlines(keepends=True)
    (here / "results/x/turns.jsonl").write_bytes(b"".join(lines[:-1]) + lines[-1][:40])

    done = harness("run", "--resume", "results/x", cwd=here)

    assert done.returncode == 0, done.stderr
    turns = package.load(here / "results/x").turns
    assert turns["state"].tolist() == ["done", "done"]
    assert turns["attempt"].tolist() == [1, 1]


def test_report_prints_what_it_is_asked_for(here: Path) -> None:
    harness("run", "config.yaml", "--run-id", "x", "-q", cwd=here)

    assert json.loads(harness("report", "results/x", "--format", "json", cwd=here).stdout)[0]["turns"] == 2
    assert harness("report", "x", "--format", "csv", cwd=here).stdout.startswith("run_id,model,")
    assert "How about Lagrangian mechanics?" in harness("report", "x", "--format", "markdown", cwd=here).stdout
    assert harness("report", "x", cwd=here).returncode == 0


def test_the_tables_of_several_runs_are_one_csv_and_one_json(here: Path) -> None:
    for name in ("x", "y"):
        harness("run", "config.yaml", "--run-id", name, "-q", cwd=here)

    rows = json.loads(harness("report", "x", "y", "--format", "json", cwd=here).stdout)
    lines = harness("report", "x", "y", "--format", "csv", cwd=here).stdout.splitlines()

    assert [row["run_id"] for row in rows] == ["x", "y"]
    assert [line.split(",")[0] for line in lines] == ["run_id", "x", "y"]


def test_a_run_is_resumed_by_its_name_as_well(here: Path) -> None:
    harness("run", "config.yaml", "--run-id", "x", "-q", cwd=here)

    assert harness("run", "--resume", "x", "-q", cwd=here).stdout == "results/x\n"


def test_a_run_is_resumed_from_another_directory(here: Path) -> None:
    (here / "config.yaml").write_text(CONFIG.replace("recital.yaml", str(here / "recital.yaml")))
    harness("run", "config.yaml", "--run-id", "x", "-q", cwd=here)
    (here / "elsewhere").mkdir()

    done = harness("run", "--resume", "../results/x", "-q", cwd=here / "elsewhere")

    assert done.stdout == "../results/x\n", done.stderr


def test_what_is_set_by_assignment_is_said_as_well(here: Path) -> None:
    one_liner = ["plan", "-m", "scripted:recital.yaml", "-p", "prompts.yaml"]

    done = harness(*one_liner, "--set", "sampling.temperature=0.7", "--set", "sampling.max_length=99", cwd=here)

    assert "not said, so: do_sample: true\n" in done.stderr
    assert "max_new_tokens" not in done.stdout


def test_plan_takes_the_options_of_run_that_shape_the_matrix(here: Path) -> None:
    done = harness("plan", "config.yaml", "--lane", "behaviour", "--repeats", "3", "--launches", "2", cwd=here)

    assert "6 cells, 12 turns" in done.stdout


def test_plan_shows_prompt_settings_and_warnings_without_loading_weights(here: Path) -> None:
    done = harness("plan", "-m", "builtin:pico", "-p", "prompts.yaml", "--top-k", "5", "--greedy", cwd=here)

    assert done.returncode == 0, done.stderr
    assert "1 cells, 2 turns" in done.stdout
    assert "What is Newtonian mechanics?" in done.stdout
    assert re.search(r"first prompt: \d+ tokens; context: 2048", done.stdout)
    assert "warning: top_k" in done.stdout
    assert "free disk" in done.stdout
    assert not (here / "results").exists()


def test_schema_prints_a_json_schema() -> None:
    for of in ("configs", "prompts"):
        jsonschema.Draft202012Validator.check_schema(json.loads(harness("schema", of).stdout))


def test_init_writes_working_files_and_keeps_those_that_exist(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "quickstart.yaml").write_text("mine")

    done = harness("init", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "configs" / "quickstart.yaml").read_text() == "mine"
    assert harness("plan", "configs/behaviour.yaml", cwd=tmp_path).returncode == 0


def test_init_leads_to_a_run_in_another_directory_too(tmp_path: Path) -> None:
    done = harness("init", "mine", cwd=tmp_path)

    command = re.search(r"now: (.*)$", done.stderr, flags=re.MULTILINE)
    assert command is not None
    assert command[1] == "cd mine && harness run configs/quickstart.yaml"
    assert harness("plan", "configs/quickstart.yaml", cwd=tmp_path / "mine").returncode == 0


def test_init_says_where_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    done = harness("init", "file/x", cwd=tmp_path)

    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "file/x/configs/behaviour.yaml: cannot be written: Not a directory – choose another directory"
    ]


def test_chat_answers_piped_lines_on_stdout(tmp_path: Path) -> None:
    done = harness(
        "chat", "builtin:pico", cwd=tmp_path, stdin="What is Newtonian mechanics?\nHow about Lagrangian mechanics?\n"
    )

    newton, lagrange = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert "motion" in newton
    assert "energ" in lagrange


def test_chat_saves_a_talk_that_can_be_replayed(here: Path) -> None:
    done = harness(
        "chat",
        "scripted:recital.yaml",
        cwd=here,
        stdin="What is: 'motion'?\nAnd energy?\n/save talk.yaml\n/quit\nnever\n",
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == "Motion is all.\nEnergy it is.\n"
    replayed = harness("run", "-m", "scripted:recital.yaml", "-p", "talk.yaml", "--set", "history=scripted",
                       "--run-id", "x", "-q", cwd=here)  # fmt: skip
    assert replayed.returncode == 0, replayed.stderr
    turns = package.load(here / "results/x").turns
    assert turns["user"].tolist() == ["What is: 'motion'?", "And energy?"]
    assert turns["gold"].tolist() == ["Motion is all.", "Energy it is."]


def test_chat_takes_model_persona_and_format_from_a_config(here: Path) -> None:
    (here / "prompts.yaml").write_text(
        PROMPTS.replace("    turns:", "    persona: {user: Alice, assistant: Bob}\n    turns:")
    )

    done = harness("chat", "--config", "config.yaml", cwd=here, stdin="hello\n")

    assert done.returncode == 0, done.stderr
    assert done.stdout == "Motion is all.\n"


def test_on_a_terminal_chat_shows_numbers_and_ctrl_c_ends_it_cleanly(here: Path) -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(here)
        os.execve(sys.executable, [sys.executable, "-m", "harness", "chat", "scripted:recital.yaml"], ENVIRONMENT)
    seen = _read_until(terminal, "> ")
    os.write(terminal, b"hello\n")
    seen += _read_until(terminal, "> ")
    time.sleep(0.5)  # between showing its prompt and reading from the terminal, Python would miss the key
    os.write(terminal, b"\x03")
    seen += _read_until(terminal, None)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert "Motion is all." in seen
    assert re.search(r"3 tokens · TTFT \d+ ms", seen)
    assert "Traceback" not in seen


def _read_until(terminal: int, text: str | None) -> str:
    """What the terminal shows until it has shown `text`, or until its end."""
    seen = ""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (text and text in seen):
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # Linux says EIO when the other side is closed
            break
        if not piece:
            break
        seen += piece.decode(errors="replace")
    return seen


def test_harness_run_from_python_does_what_the_command_does(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)

    path = package.run("config.yaml", overrides=["repeats=2"], results="elsewhere")

    assert path.parent == Path("elsewhere")
    assert package.load(path).turns["repeat"].tolist() == [0, 0, 1, 1]
    assert (path / "report.md").exists()


def test_version_is_that_of_the_package() -> None:
    assert run_python("-c", "import harness; print(harness.__version__)").stdout.strip() == package.__version__


def test_on_a_terminal_a_run_shows_what_is_going_on_and_ctrl_c_says_how_to_go_on(here: Path) -> None:
    (here / "recital.yaml").write_text(RECITAL + "real_time: true\nprefill_s: 0.3\n")
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(here)
        command = [sys.executable, "-m", "harness", "run", "config.yaml", "--run-id", "x", "--set", "repeats=50"]
        os.execve(sys.executable, command, ENVIRONMENT)
    seen = _read_until(terminal, "1/50 conversations, 3/100 turns")
    os.write(terminal, b"\x03")
    seen += _read_until(terminal, None)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 130
    assert "warm-up" in seen
    assert "default mechanics" in seen
    assert "stopped; go on with: harness run --resume results/x" in seen
    assert "Traceback" not in seen
