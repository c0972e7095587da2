"""What is played again of a night, before anything is called a regression: the settings that are suspicious, nothing
else, in an ordinary run of a narrower config."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.gating.cells import Cell
from harness.analysis.gating.window import settings_of
from harness.analysis.sides import Setting
from harness.analysis.verdict import Gate
from harness.config.load import parse_config
from harness.config.plan import Plan
from harness.config.plan import plan as make_plan
from harness.config.rules import Gating


def suspicious(judged: Gate, gating: Gating) -> list[Setting]:
    """The settings of the suspicions of a night, in the order of its plan; with the anchor's where there are any, since
    speed is judged relative to it."""
    known = settings_of(judged.candidate)
    cells = [Cell(each.model, each.sampling, each.concurrency) for each in judged.of("suspicion")]
    if cells and gating.anchor is not None:
        cells.append(Cell(gating.anchor))
    again = {setting for cell in cells for setting in cell.settings(known)}
    return [setting for setting in known if setting in again]


def narrowed(plan: Plan, settings: Sequence[Setting], launches: int) -> Plan:
    """A plan with the models, samplings and levels of these settings only, and so many launches. It may have more
    settings than these, where they differ on several axes."""
    models, samplings, levels = (list(dict.fromkeys(part)) for part in zip(*settings, strict=True))
    config = {
        **plan.config.model_dump(mode="json", exclude={"tune", "gate", "lane"}),
        "models": [plan.model(label).model_dump(mode="json") for label in models],
        "sampling": {"settings": {name: dict(plan.sampling(name).parameters) for name in samplings}},
        "conversations": {
            "files": list(dict.fromkeys(talk.source for talk in plan.conversations)),
            "ids": [talk.id for talk in plan.conversations],
        },
        "concurrency": levels,
        "launches": launches,
    }
    return make_plan(parse_config(config, source=plan.config.source))
