"""`harness import`: from the file of a benchmark to a run, and what is told on the way."""

from __future__ import annotations

import json

import harness
from tests.questions import question_file


def test_eighty_questions_import_plan_and_run_on_pico(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "question.jsonl").write_text(question_file())
    arguments = ("-m", "builtin:pico", "-p", "mt-bench.yaml", "--max-new-tokens", "4", "--set", "warmup=0")

    assert command("import", "auto", "question.jsonl", "-o", "mt-bench.yaml") == (
        0, "mt-bench.yaml\n", "mt-bench: 80 conversations with 160 turns\n",
    )  # fmt: skip
    planned = command("plan", *arguments)[1]
    assert "80 cells, 160 turns" in planned
    assert "mt-bench-100 (2 turns), and 60 more\n" in planned
    assert command("run", *arguments, "--run-id", "x", "-q")[0] == 0
    turns = harness.load(tmp_path / "results" / "x").turns
    assert len(turns) == 160
    assert set(turns["state"]) == {"done"}


def test_the_command_tells_what_was_left_out_and_refuses_in_one_line(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    asked = {"role": "user", "content": "a"}
    records = [{"messages": [asked]}, {"messages": [asked, {"role": "\x1b[31mtool", "content": "b"}]}]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))

    assert command("import", "auto", "x.jsonl", "-o", "x.out.jsonl") == (
        0, "x.out.jsonl\n",
        "openai: 1 conversation with 1 turn\n"
        r"  1 × a message of the role '\x1b[31mtool': the conversation is left out (x.jsonl:2)" "\n",
    )  # fmt: skip
    assert command("import", "auto", "x.jsonl", "-o", "x.out.jsonl") == (
        2, "", "x.out.jsonl: exists already – choose another name, or --force\n",
    )  # fmt: skip
    assert command("import", "openai", "y.jsonl", "-o", "y.yaml") == (
        2, "", "y.jsonl: cannot be read: No such file or directory\n",
    )  # fmt: skip
