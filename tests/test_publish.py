"""What a gate said, where CI looks for it: whole where programs read, harmless and worst first where people do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

import harness
from harness.analysis.frames import Run
from harness.analysis.verdict import Gate, Verdict
from harness.exchange.github import SUMMARY_BYTES, command, log_lines, step_summary
from harness.exchange.junit import clean, junit_xml
from harness.exchange.publish import publish
from harness.exchange.verdict_json import verdict_json
from tests.builders import every_turn, failed, plan, store

SCHEMA = etree.XMLSchema(etree.parse(Path(__file__).parent / "data" / "junit.xsd"))
FORMATS = (Path(__file__).parent.parent / "docs" / "file-formats.md").read_text(encoding="utf-8")
TEXTS = st.text(max_size=30)
HOSTILE = "100 %\r\n::error::x,y | <b>\x1b[31m\x00\ud800\ufffe"


def verdict(answer: Any = "pass", **values: Any) -> Verdict:
    return Verdict(
        **{
            "rule": "ttft_s.p50: +8%",
            "kind": "speed",
            "metric": "ttft_s",
            "statistic": "p50",
            "model": "nano",
            "sampling": "greedy",
            "concurrency": 1,
            "conversation_id": None,
            "turn_index": None,
            "answer": answer,
            "reason": "slower by more than 8 %",
            "baseline": 0.1,
            "candidate": 0.112,
            "change": 1.12,
            "low": 1.09,
            "high": 1.15,
            "margin": 1.08,
            "unit": "s",
            "launches": 6,
            "nights": 10,
            **values,
        }
    )


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """A run; with a turn that failed where it is asked for."""
    folder = tmp_path_factory.mktemp("nights")

    def make(run_id: str, *, broken: bool = False) -> Run:
        path = folder / run_id
        if not path.exists():
            store(folder, [failed()] if broken else every_turn(plan()), run_id=run_id)
        return harness.load(path)

    return make


@pytest.fixture
def gate(night: Callable[..., Run]) -> Callable[..., Gate]:
    def make(verdicts: Sequence[Verdict], *, broken: bool = False, **values: Any) -> Gate:
        return Gate(
            **{
                "candidate": night("broken", broken=True) if broken else night("tonight"),
                "baseline": (night("monday"), night("tuesday")),
                "verdicts": tuple(verdicts),
                "ledger": pd.DataFrame({"field": ["torch"], "baseline_value": ["2.11"], "candidate_value": [pd.NA]}),
                "notes": ("the machine was hot",),
                **values,
            }
        )

    return make


EVERY_ANSWER = [
    verdict("pass", metric="e2e_s"),
    verdict("not run", reason="the budget was used up"),
    verdict("cannot tell", needed="5 launches"),
    verdict("suspicion"),
    verdict("not comparable", reason="dtype is float16 and bfloat16"),
    verdict("regression", model="big", suspects=("torch 2.11 → 2.12",)),
]

# --- JUnit ------------------------------------------------------------------------------------------------------------


def parsed(xml: bytes) -> Any:
    root = etree.fromstring(xml)
    SCHEMA.assertValid(root)
    return root


def test_every_cell_is_a_case_and_nothing_but_a_pass_passes(gate) -> None:
    root = parsed(junit_xml(gate(EVERY_ANSWER)))

    outcomes = [[child.tag for child in case] for case in root.iter("testcase")]
    assert outcomes == [[], ["skipped"], ["skipped"], ["skipped"], ["error"], ["failure"]]
    assert dict(root.attrib) == {"name": "harness gate", "tests": "6", "failures": "1", "errors": "1"}
    failure = root.find(".//failure")
    assert (failure.get("type"), failure.get("message")) == ("regression", "slower by more than 8 %")
    assert "change: +12.0 % (+9.0 % to +15.0 %)\nallowed: +8.0 %" in failure.text
    assert "torch 2.11 → 2.12" in failure.text
    case = failure.getparent()
    assert (case.get("classname"), case.get("name")) == ("harness.speed.big.greedy", "ttft_s.p50 of big, greedy")


def test_names_do_not_change_with_what_was_measured(gate) -> None:
    first, second = (
        [(case.get("classname"), case.get("name")) for case in parsed(junit_xml(gate([each]))).iter("testcase")]
        for each in (verdict("pass"), verdict("regression", candidate=0.2, reason="else", nights=3))
    )

    assert first == second


def test_failed_turns_and_a_night_without_verdicts_do_not_pass(gate) -> None:
    broken = parsed(junit_xml(gate([verdict()], broken=True)))
    empty = parsed(junit_xml(gate([])))

    assert broken.find(".//error").get("message") == "2 turns were not answered"
    assert empty.find(".//skipped").get("message") == "there is nothing to judge"


@given(st.text(st.characters(), max_size=30))  # lone surrogates included
def test_whatever_a_model_says_is_xml_in_the_end(text: str) -> None:
    element = ET.Element("a", {"b": clean(text)})
    element.text = clean(text)

    again = etree.fromstring(ET.tostring(element))

    assert (again.text or "", again.get("b")) == (clean(text), clean(text))


def test_hostile_text_is_valid(gate) -> None:
    root = parsed(junit_xml(gate([verdict("regression", reason=HOSTILE, conversation_id=HOSTILE, turn_index=1)])))

    assert "\\x1b[31m\\x00\\ud800\ufffd" in root.find(".//failure").get("message")


# --- GitHub -----------------------------------------------------------------------------------------------------------


def unescaped(line: str) -> tuple[str, str, str]:
    """What the runner makes of a line: level, title, message."""
    level, properties, message = re.fullmatch(r"::(\w+) title=([^:,\r\n]*)::([^\r\n]*)", line).groups()
    for sign, code in ((":", "%3A"), (",", "%2C")):
        properties = properties.replace(code, sign)
    for sign, code in (("\r", "%0D"), ("\n", "%0A"), ("%", "%25")):
        properties, message = properties.replace(code, sign), message.replace(code, sign)
    return level, properties, message


@given(TEXTS, TEXTS)
def test_the_runner_reads_what_was_written(title: str, message: str) -> None:
    from harness.report.units import printable

    assert unescaped(command("error", title, message)) == ("error", printable(title), printable(message))


def test_regressions_are_errors_and_what_nobody_can_tell_are_warnings(gate) -> None:
    lines = [unescaped(line) for line in log_lines(gate(EVERY_ANSWER))]

    assert [(level, title.partition(":")[0]) for level, title, _ in lines] == [
        ("error", "Got worse"), ("error", "Not comparable"), ("warning", "May have got worse"),
        ("warning", "Nobody can tell"), ("warning", "Not run"),
    ]  # fmt: skip
    assert lines[0][2].startswith("ttft_s.p50 of big, greedy: regression")
    assert "slower by more than 8 %; also different: torch 2.11 → 2.12" in lines[0][2]
    assert unescaped(log_lines(gate([verdict()], broken=True))[0]) == (
        "error",
        "Turns failed",
        "2 turns were not answered",
    )
    assert log_lines(gate([verdict()])) == []


def test_no_more_annotations_than_are_shown_and_the_last_counts_the_rest(gate) -> None:
    many = [verdict("cannot tell")] * 11 + [verdict("not comparable")] * 9 + [verdict("regression")] * 9

    lines = [unescaped(line) for line in log_lines(gate(many))]

    assert [level for level, *_ in lines] == ["error"] * 10 + ["warning"] * 10
    assert [title.partition(":")[0] for _, title, _ in lines][:9] == ["Got worse"] * 9
    assert lines[9][1] == "9 more"
    assert lines[19][1] == "2 more"


def test_a_message_is_not_longer_than_the_runner_takes(gate) -> None:
    (line,) = log_lines(gate([verdict("regression", reason="x" * 10_000)]))

    assert len(unescaped(line)[2]) == 4000


def test_the_summary_says_what_got_worse_first(gate) -> None:
    text = step_summary(gate(EVERY_ANSWER))

    titles = re.findall(r"^#+ (.*)$|<summary>(.*)</summary>", text, flags=re.MULTILINE)
    assert ["".join(title) for title in titles] == [
        "❌ Got worse: tonight", "Got worse (1)", "Not comparable (1)", "May have got worse (1)", "Nobody can tell (1)",
        "Not run (1)", "What else differs", "Notes", "Passed (1)",
    ]  # fmt: skip
    assert "Held against 2 nights, monday to tuesday." in text
    assert "| ttft\\_s.p50 | big, greedy |" in text or "| ttft_s.p50 | big, greedy |" in text
    assert "| 100 ms | 112 ms | +12.0 % | +9.0 % to +15.0 % | +8.0 % |" in text
    assert "needed: 5 launches" in text


def test_foreign_text_ends_no_row_of_the_summary(gate) -> None:
    text = step_summary(gate([verdict("regression", reason=HOSTILE, model="a|b")], notes=(HOSTILE,)))

    (row,) = [line for line in text.splitlines() if line.startswith("| ttft_s")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 9
    assert "<b>" not in text
    assert "\x1b" not in text


@pytest.mark.parametrize("room", [SUMMARY_BYTES, 50_000, 6_000, 4_500, 1_000, -5])
def test_the_summary_never_grows_too_large_and_says_what_it_lacks(gate, room: int) -> None:
    many = [verdict("pass", reason="é" * 1000)] * 700 + [verdict("regression", reason="worst")]

    text = step_summary(gate(many), room)

    assert len(text.encode()) <= max(room, 0)
    if room == SUMMARY_BYTES:
        assert "worst" in text
        shown = text.count("é" * 1000)
        assert f"{700 - shown} lines of “Passed” are left out" in text
        assert 400 < shown < 700
    elif room == 50_000:
        assert "worst" in text
    elif room <= 1_000:
        assert text == ""


# --- JSON and all together --------------------------------------------------------------------------------------------


def test_verdict_json_holds_everything(gate) -> None:
    told = json.loads(verdict_json(gate(EVERY_ANSWER)))

    assert (told["answer"], told["exit_code"], told["run_id"]) == ("regression", 3, "tonight")
    assert told["baseline"] == ["monday", "tuesday"]
    assert told["counts"] == {
        "regression": 1, "not comparable": 1, "suspicion": 1, "cannot tell": 1, "not run": 1, "pass": 1,
    }  # fmt: skip
    assert told["differences"] == [{"field": "torch", "baseline_value": "2.11", "candidate_value": None}]
    worst = told["verdicts"][-1]
    assert (worst["change"], worst["margin"], worst["suspects"]) == (1.12, 1.08, ["torch 2.11 → 2.12"])
    assert worst["sentence"].startswith("ttft_s.p50 of big, greedy: regression")


def test_every_key_of_verdict_json_is_documented(gate) -> None:
    told = json.loads(verdict_json(gate(EVERY_ANSWER)))
    section = FORMATS.split("## verdict.json")[1].split("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", section))

    assert set(told) <= named
    assert {*(field.name for field in fields(Verdict)), *told["verdicts"][0]} <= named


def test_beside_a_run_everything_is_written_and_on_github_shown(gate, tmp_path, monkeypatch) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)

    at_home = publish(gate(EVERY_ANSWER), tmp_path / "run")
    assert [path.name for path in at_home.files] == ["verdict.json", "junit.xml"]
    assert (at_home.annotations, summary.read_text()) == ((), "before\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    there = publish(gate(EVERY_ANSWER), None, junit=tmp_path / "deep" / "j.xml")

    assert there.files == (tmp_path / "deep" / "j.xml", summary)
    assert len(there.annotations) == 5
    assert summary.read_text().startswith("before\n## ❌ Got worse")
    parsed((tmp_path / "deep" / "j.xml").read_bytes())


def test_what_cannot_be_written_keeps_nothing_else_from_being_written(gate, tmp_path) -> None:
    (tmp_path / "file").write_text("")

    done = publish(gate([verdict()]), None, json=tmp_path / "file" / "v.json", junit=tmp_path / "j.xml", github=False)

    assert done.files == (tmp_path / "j.xml",)
    assert "cannot be written" in str(done.problems[0])
