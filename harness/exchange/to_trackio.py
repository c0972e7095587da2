"""trackio: a run of the project for every setting, in one group; local unless trackio's own variables say otherwise.

The artifacts are those of the whole, so they are logged once, with the first setting.
"""

from __future__ import annotations

from harness.errors import UsageError
from harness.exchange.sinks import Delivery


def send(delivery: Delivery) -> str:
    """Log a run, and say in which project. Raises UsageError without the package."""
    try:
        import trackio
    except ImportError:
        raise UsageError("--to trackio", "needs the package trackio", "pip install instruct-harness[trackio]") from None

    for index, setting in enumerate(delivery.settings):
        run = trackio.init(
            project=delivery.project,
            name=f"{delivery.run_id} · {setting.name}",
            group=delivery.run_id,
            config={**delivery.tags, **setting.params},
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        run.log(dict(setting.metrics))
        for path in delivery.artifacts if index == 0 else ():
            run.log_artifact(path, name=f"{delivery.run_id}-{path.name}", type="report")
        trackio.finish()
    return f"trackio project {delivery.project}"
