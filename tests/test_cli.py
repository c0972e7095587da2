"""The commands as a person or a script meets them: their stdout, stderr and exit codes.

Real processes where that is what is claimed; else `command`, which is the same but for the seconds that a process takes
to import its libraries.
"""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

import harness as package
from tests.commands import ENVIRONMENT, harness, run_python

Command = Callable[..., tuple[int, str, str]]
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
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "recital.yaml").write_text(RECITAL)
    (tmp_path / "prompts.yaml").write_text(PROMPTS)
    (tmp_path / "config.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
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


def test_a_one_liner_needs_no_config(here: Path, command: Command) -> None:
    code, _, told = command(
        "run", "-m", "scripted:recital.yaml", "-p", "prompts.yaml", "--top-k", "1,10,50", "--max-length", "256,500",
        "--run-id", "x",
    )  # fmt: skip

    assert code == 0, told
    assert "not said, so: do_sample: true" in told
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
    here: Path, arguments: list[str], complaint: str, command: Command
) -> None:
    code, out, told = command(*arguments)

    assert code == 2, told
    assert complaint in told.splitlines()[-1]
    assert "Traceback" not in told
    assert out == "" or arguments[0] == "plan"  # what plan could find out is worth showing


def test_a_run_with_failed_cells_ends_with_exit_code_6_and_its_path(here: Path) -> None:
    (here / "recital.yaml").write_text(RECITAL + "breakdown: {turn: 1}\n")

    done = harness("run", "config.yaml", "--run-id", "x", cwd=here)

    assert done.returncode == 6
    assert done.stdout == "results/x\n"
    assert "failed: scripted" in done.stderr or "failed: recital" in done.stderr
    assert "Breakdown" in done.stderr


def test_failed_checks_are_results_not_failures(here: Path, command: Command) -> None:
    assert command("run", "config.yaml")[0] == 0  # "forces" is not in the second reply


def test_a_run_can_be_resumed_by_its_directory_alone(here: Path, command: Command) -> None:
    command("run", "config.yaml", "--run-id", "x")
    lines = (here / "results/x/turns.jsonl").read_bytes().splitlines(keepends=True)
    (here / "results/x/turns.jsonl").write_bytes(b"".join(lines[:-1]) + lines[-1][:40])

    code, _, told = command("run", "--resume", "results/x")

    assert code == 0, told
    turns = package.load(here / "results/x").turns
    assert turns["state"].tolist() == ["done", "done"]
    assert turns["attempt"].tolist() == [1, 1]


def test_report_prints_what_it_is_asked_for(here: Path, command: Command) -> None:
    command("run", "config.yaml", "--run-id", "x", "-q")

    assert json.loads(command("report", "results/x", "--format", "json")[1])[0]["turns"] == 2
    assert command("report", "x", "--format", "csv")[1].startswith("run_id,model,")
    assert "How about Lagrangian mechanics?" in command("report", "x", "--format", "markdown")[1]
    assert command("report", "x")[0] == 0


def test_the_tables_of_several_runs_are_one_csv_and_one_json(here: Path, command: Command) -> None:
    for name in ("x", "y"):
        command("run", "config.yaml", "--run-id", name, "-q")

    rows = json.loads(command("report", "x", "y", "--format", "json")[1])
    lines = command("report", "x", "y", "--format", "csv")[1].splitlines()

    assert [row["run_id"] for row in rows] == ["x", "y"]
    assert [line.split(",")[0] for line in lines] == ["run_id", "x", "y"]


def test_a_run_is_resumed_by_its_name_as_well(here: Path, command: Command) -> None:
    command("run", "config.yaml", "--run-id", "x", "-q")

    assert command("run", "--resume", "x", "-q")[1] == "results/x\n"


def test_a_run_is_resumed_from_another_directory(here: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "config.yaml").write_text(CONFIG.replace("recital.yaml", str(here / "recital.yaml")))
    command("run", "config.yaml", "--run-id", "x", "-q")
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")

    _, out, told = command("run", "--resume", "../results/x", "-q")

    assert out == "../results/x\n", told


def test_what_is_set_by_assignment_is_said_as_well(here: Path, command: Command) -> None:
    one_liner = ["plan", "-m", "scripted:recital.yaml", "-p", "prompts.yaml"]

    _, out, told = command(*one_liner, "--set", "sampling.temperature=0.7", "--set", "sampling.max_length=99")

    assert "not said, so: do_sample: true\n" in told
    assert "max_new_tokens" not in out


def test_plan_takes_the_options_of_run_that_shape_the_matrix(here: Path, command: Command) -> None:
    _, out, _ = command("plan", "config.yaml", "--lane", "behaviour", "--repeats", "3", "--launches", "2")

    assert "6 cells, 12 turns" in out


def test_plan_shows_prompt_settings_and_warnings_without_loading_weights(here: Path, command: Command) -> None:
    code, out, told = command("plan", "-m", "builtin:pico", "-p", "prompts.yaml", "--top-k", "5", "--greedy")

    assert code == 0, told
    assert "1 cells, 2 turns" in out
    assert "What is Newtonian mechanics?" in out
    assert re.search(r"first prompt: \d+ tokens; context: 2048", out)
    assert "warning: top_k" in out
    assert "free disk" in out
    assert not (here / "results").exists()


def test_schema_prints_a_json_schema(command: Command) -> None:
    for of in ("configs", "prompts"):
        jsonschema.Draft202012Validator.check_schema(json.loads(command("schema", of)[1]))


def test_init_writes_working_files_and_keeps_those_that_exist(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "quickstart.yaml").write_text("mine")

    code, _, told = command("init")

    assert code == 0, told
    assert (tmp_path / "configs" / "quickstart.yaml").read_text() == "mine"
    assert command("plan", "configs/behaviour.yaml")[0] == 0


def test_init_leads_to_a_run_in_another_directory_too(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, _, told = command("init", "mine")

    line = re.search(r"now: (.*)$", told, flags=re.MULTILINE)
    assert line is not None
    assert line[1] == "cd mine && harness run configs/quickstart.yaml"
    monkeypatch.chdir(tmp_path / "mine")
    assert command("plan", "configs/quickstart.yaml")[0] == 0


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


def test_chat_saves_a_talk_that_can_be_replayed(here: Path, command: Command) -> None:
    done = harness(
        "chat",
        "scripted:recital.yaml",
        cwd=here,
        stdin="What is: 'motion'?\nAnd energy?\n/save talk.yaml\n/quit\nnever\n",
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == "Motion is all.\nEnergy it is.\n"
    code, _, told = command("run", "-m", "scripted:recital.yaml", "-p", "talk.yaml", "--set", "history=scripted",
                            "--run-id", "x", "-q")  # fmt: skip
    assert code == 0, told
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


def on_a_terminal(*arguments: str) -> tuple[int, int]:
    """The command with a terminal of its own: its process id, and the other side of the terminal."""
    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # what a shell put in the background ignores, its children do too
        os.execve(sys.executable, [sys.executable, "-m", "harness", *arguments], ENVIRONMENT)
    return child, terminal


def test_on_a_terminal_chat_shows_numbers_and_ctrl_c_ends_it_cleanly(here: Path) -> None:
    child, terminal = on_a_terminal("chat", "scripted:recital.yaml")
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
    child, terminal = on_a_terminal("run", "config.yaml", "--run-id", "x", "--set", "repeats=50")
    seen = _read_until(terminal, "1/50 conversations, 3/100 turns")
    os.write(terminal, b"\x03")
    seen += _read_until(terminal, None)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 130
    assert "warm-up" in seen
    assert "default mechanics" in seen
    assert "stopped; go on with: harness run --resume results/x" in seen
    assert "Traceback" not in seen
