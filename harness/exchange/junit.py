"""A gate's verdicts as JUnit XML, which every CI system draws: one test case for each cell that a rule judges.

A regression is a failure, what is not comparable an error, and what nobody can tell – a suspicion, too few launches,
not run – is skipped: a skipped case is seen, and turns nothing red. Nothing but a pass is a pass.

There is no standard, only what is accepted: the elements and attributes here are those that Jenkins, GitLab and others
have in common. XML 1.0 cannot hold every character, not even escaped, and what a model said may have any.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree as ET

from harness.analysis.verdict import Answer, Gate, Verdict
from harness.report.judged import between, change, value
from harness.report.units import printable

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What is no Char in XML 1.0, section 2.2."""
_OUTCOME: Mapping[Answer, Literal["failure", "error", "skipped"]] = {
    "regression": "failure",
    "not comparable": "error",
    "suspicion": "skipped",
    "cannot tell": "skipped",
    "not run": "skipped",
}


@dataclass(frozen=True, slots=True)
class _Case:
    place: str
    """Dots between what it is part of, as classes have them."""
    name: str
    """The same every night, so that a system can draw its history."""
    outcome: Literal["failure", "error", "skipped"] | None
    kind: str
    message: str
    details: str = ""


def junit_xml(gate: Gate) -> bytes:
    """The content of a JUnit file, UTF-8."""
    cases = list(_cases(gate))
    run, manifest = gate.candidate, gate.candidate.manifest
    totals = {
        "tests": str(len(cases)),
        "failures": str(sum(case.outcome == "failure" for case in cases)),
        "errors": str(sum(case.outcome == "error" for case in cases)),
    }
    root = ET.Element("testsuites", {"name": "harness gate", **totals})
    suite = ET.SubElement(
        root,
        "testsuite",
        {
            "name": clean(run.run_id),
            **totals,
            "skipped": str(sum(case.outcome == "skipped" for case in cases)),
            "timestamp": clean(str(manifest["created_at"]).partition("+")[0]),
            "hostname": clean(str(manifest["environment"]["host"])),
        },
    )
    facts = {
        "answer": gate.answer,
        "baseline": ", ".join(night.run_id for night in gate.baseline),
        "confirmed_by": ", ".join(night.run_id for night in gate.confirmed_by),
        "harness_version": str(manifest["harness_version"]),
    }
    properties = ET.SubElement(suite, "properties")
    for name, fact in facts.items():
        ET.SubElement(properties, "property", {"name": name, "value": clean(fact)})
    for case in cases:
        element = ET.SubElement(suite, "testcase", {"classname": clean(case.place), "name": clean(case.name)})
        if case.outcome is not None:
            attributes = {"type": case.kind, "message": clean(case.message)}
            ET.SubElement(element, case.outcome, attributes).text = clean(case.details or case.message)
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def clean(text: str) -> str:
    """The text as XML can hold it: what does not show is written out, what is no character at all replaced."""
    return _NOT_XML.sub("\ufffd", printable(text))


def _cases(gate: Gate) -> Iterator[_Case]:
    for verdict in gate.verdicts:
        place = ".".join(["harness", verdict.kind, verdict.model, *([verdict.sampling] if verdict.sampling else [])])
        outcome = _OUTCOME.get(verdict.answer)
        yield _Case(
            place, f"{verdict.name} of {verdict.cell}", outcome, verdict.answer, verdict.reason, _details(verdict)
        )
    if gate.failed:
        turns = f"{gate.failed} turns were not answered"
        yield _Case("harness.failures", "every turn was answered", "error", "some failed", turns)
    if not gate.verdicts:
        yield _Case("harness.gate", "the night was judged", "skipped", "cannot tell", "there is nothing to judge")


def _details(verdict: Verdict) -> str:
    lines = [
        verdict.sentence,
        f"rule: {verdict.rule}",
        f"baseline: {value(verdict, verdict.baseline)}",
        f"tonight: {value(verdict, verdict.candidate)}",
        f"change: {change(verdict, verdict.change)}" + (f" ({interval})" if (interval := between(verdict)) else ""),
        f"allowed: {change(verdict, verdict.margin)}",
        f"launches: {verdict.launches}, nights: {verdict.nights}",
    ]
    return "\n".join([*lines, *([f"needed: {verdict.needed}"] if verdict.needed else [])])
