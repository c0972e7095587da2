"""The generation loop by itself: no parent, no pipe, no store, no display. Prints seconds per turn as JSON.

`test_observer.py` sets it against the same turns inside a full `harness run`.
"""

import gc
import json
import sys

from harness.backends.open import open_backend
from harness.chat import Rules, replay
from harness.metrics import METRICS
from harness.records import Cell, Circumstances
from harness.runner.drive import drive
from harness.studies.replay import resolve


def main(config: str, *overrides: str) -> None:
    """Play every conversation of a config so often as it says, after two for warm-up."""
    plan = resolve(config, overrides)
    (spec,), (sampling,), (conversation,) = plan.models, plan.samplings, plan.conversations
    loaded = open_backend(
        spec,
        chat_format=plan.config.chat_format,
        template_now=plan.config.template_now,
        threads=plan.config.threads,
    )
    gc.freeze()
    seconds = []
    for repeat in range(-2, plan.repeats):
        cell = Cell(str(spec.label), sampling.name, conversation.id, max(repeat, 0), 0)
        circumstances = Circumstances(cell, plan.config.history, plan.config.length, spec.engine, spec.kv_cache)
        dialog = replay(conversation, circumstances, Rules(sampling.parameters, plan.seed))
        played = [METRICS["e2e_s"].formula(record) for record in drive(dialog, loaded.open_session(), loaded.gauges)]
        seconds += played if repeat >= 0 else []
    json.dump(seconds, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
