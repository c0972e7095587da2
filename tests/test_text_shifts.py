"""Real models: another kernel is no regression, one matrix scaled by 1.01 is, and so is another dtype."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import torch

import harness
from harness.analysis.frames import Run
from harness.analysis.text_verdicts import text_verdicts
from harness.chat import Rules, replay
from harness.conversations.script import Conversation, Turn
from harness.forced import Known, recite
from harness.records import TurnRecord
from harness.runner.drive import drive
from harness.runner.forcing import own
from harness.store import FORCED
from tests.builders import cell, circumstances, launch, plan, store

QUESTIONS = ("What is Newtonian mechanics?", "How about Lagrangian mechanics?", "Who are you?")
TALK = Conversation("physics", tuple(Turn(question) for question in QUESTIONS))
AROUND = circumstances(cell(conversation_id="physics"))
RULES = Rules(sampling={"max_new_tokens": 32})


def played(results: Path, run_id: str, backend: Any, of: Known | None = None) -> tuple[Run, Known]:
    """A model plays, and has its own replies and those `of` another run forced."""
    records: list[TurnRecord] = list(drive(replay(TALK, AROUND, RULES), backend.open_session(), backend.gauges))
    said = own(records, run_id)
    known = [said] if of is None else [said, of]
    told = [
        line
        for one in known
        for line in recite(one, TALK, AROUND, RULES, backend.open_session(), wanted=lambda reply: True)
    ]
    of_run = plan(conversations={"physics": len(QUESTIONS)})
    path = store(results, records, of_run, run_id, launches=[launch("pico", 0, facts=dict(backend.report.facts))])
    (path / FORCED).write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in told))
    return harness.load(path), said


def test_a_model_that_has_moved_is_told_from_another_kernel(tmp_path: Path, open_model: Callable[..., Any]) -> None:
    before, said = played(tmp_path, "before", open_model("llama", spec={"dtype": "float32"}))
    worst = {}
    for run_id, answer, spec in (
        ("again", "pass", {}),
        ("eager", "pass", {"attn_implementation": "eager"}),
        ("scaled", "suspicion", {}),
        ("bfloat16", "suspicion", {"dtype": "bfloat16"}),
    ):
        backend = open_model("llama", spec={"dtype": "float32", **spec})
        if run_id == "scaled":
            with torch.no_grad():
                backend.model.get_parameter("model.layers.0.mlp.down_proj.weight").mul_(1.01)
        after, _ = played(tmp_path, run_id, backend, said)
        (verdict,) = text_verdicts(after, [before])
        assert (run_id, verdict.answer) == (run_id, answer), verdict.reason
        assert verdict.figures is not None
        worst[run_id] = abs(verdict.figures.worst)
    assert worst["again"] == 0 < worst["eager"] < 1e-4 < worst["scaled"]  # eager passes not for want of looking
