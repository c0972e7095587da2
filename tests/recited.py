"""Plays a plan of scripted models in this process, on a clock turned by hand: every time is known to the nanosecond."""

from __future__ import annotations

from pathlib import Path

from harness.backends.scripted import ScriptedBackend, read_recital
from harness.chat import Rules, replay
from harness.config.plan import Plan
from harness.meters.clock import HandCrankedClock
from harness.records import Circumstances
from harness.runner.drive import drive
from harness.store import create
from tests.builders import manifest


def execute(plan: Plan, *, results: Path, run_id: str | None = None) -> Path:
    """What `harness.runner.run.execute` does with such a plan, but for the processes."""
    config = plan.config.model_dump(mode="json")
    stored = manifest(plan.resolved(), config_hash=plan.config_hash, config=config, config_name=plan.config.name)
    with create(results, run_id or plan.config_hash, stored) as writer:
        for cell in plan.cells():
            spec, clock = plan.model(cell.model), HandCrankedClock()
            backend = ScriptedBackend(read_recital(spec.model.removeprefix("scripted:")), clock=clock)
            around = Circumstances(cell, plan.config.history, plan.config.length, spec.engine, spec.kv_cache)
            rules = Rules(sampling=plan.sampling(cell.sampling).parameters, seed=plan.seed)
            dialog = replay(plan.conversation(cell.conversation_id), around, rules, clock=clock)
            for record in drive(dialog, backend.open_session(), backend.gauges):
                writer.append(record)
    return writer.path
