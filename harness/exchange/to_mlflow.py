"""MLflow: one run of the experiment for the whole, with the artifacts, and a nested run for every setting.

Needs a tracking server (`MLFLOW_TRACKING_URI=http://…`): the small client, mlflow-skinny, has no store of its own.
"""

from __future__ import annotations

from harness.errors import UsageError
from harness.exchange.sinks import Delivery

_TO = "--to mlflow"
_PARAMS_AT_A_TIME = 100
"""MLflow's own limit on a batch."""


def send(delivery: Delivery) -> str:
    """Send a run, and say where it can be looked at.

    Raises UsageError without the package or without a server; what the server says is MLflow's own exception.
    """
    try:
        import mlflow
        from mlflow.entities import Metric, Param
    except ImportError:
        raise UsageError(_TO, "needs the package mlflow-skinny", "pip install instruct-harness[mlflow]") from None
    if not mlflow.is_tracking_uri_set():
        raise UsageError(_TO, "knows no tracking server", "set MLFLOW_TRACKING_URI=http://…")

    client = mlflow.MlflowClient()
    known = client.get_experiment_by_name(delivery.project)
    experiment = client.create_experiment(delivery.project) if known is None else known.experiment_id
    whole = client.create_run(experiment, tags=dict(delivery.tags), run_name=delivery.run_id).info.run_id
    for path in delivery.artifacts:
        client.log_artifact(whole, str(path))
    for setting in delivery.settings:
        tags = {"mlflow.parentRunId": whole}
        run = client.create_run(experiment, tags=tags, run_name=setting.name)
        now = run.info.start_time
        params = [Param(name, str(value)) for name, value in setting.params.items()]
        for start in range(0, len(params), _PARAMS_AT_A_TIME):
            client.log_batch(run.info.run_id, params=params[start : start + _PARAMS_AT_A_TIME])
        client.log_batch(run.info.run_id, [Metric(name, value, now, 0) for name, value in setting.metrics.items()])
        client.set_terminated(run.info.run_id)
    client.set_terminated(whole)
    return f"{mlflow.get_tracking_uri().rstrip('/')}/#/experiments/{experiment}/runs/{whole}"
