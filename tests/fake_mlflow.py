"""A tracking server that understands the few calls of MLflow's REST interface that a run needs, and remembers them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse


class Tracking:
    """What was sent."""

    def __init__(self) -> None:
        self.url = ""
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.artifacts: dict[str, bytes] = {}

    def answer(self, call: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """The answer to a call; None for what does not exist."""
        if call == "experiments/get-by-name":
            name = body["experiment_name"]
            return {"experiment": _experiment(name, self.experiments[name])} if name in self.experiments else None
        if call == "experiments/create":
            self.experiments[body["name"]] = str(len(self.experiments) + 1)
            return {"experiment_id": self.experiments[body["name"]]}
        if call == "runs/create":
            run = {
                "name": body["run_name"],
                "tags": _pairs(body["tags"]),
                "params": {},
                "metrics": {},
                "status": "RUNNING",
            }
            self.runs[f"run{len(self.runs)}"] = run
            return {"run": self._run(f"run{len(self.runs) - 1}", body["experiment_id"])}
        if call == "runs/get":
            return {"run": self._run(body["run_id"], "1")}
        if call == "runs/log-batch":
            self.runs[body["run_id"]]["params"].update(_pairs(body.get("params", [])))
            self.runs[body["run_id"]]["metrics"].update(_pairs(body.get("metrics", [])))
            return {}
        if call == "runs/update":
            self.runs[body["run_id"]]["status"] = body["status"]
            return {"run_info": self._run(body["run_id"], "1")["info"]}
        return None

    def _run(self, run_id: str, experiment: str) -> dict[str, Any]:
        info = {
            "run_id": run_id, "run_uuid": run_id, "experiment_id": experiment, "status": "RUNNING", "start_time": 1000,
            "artifact_uri": f"mlflow-artifacts:/{experiment}/{run_id}/artifacts", "lifecycle_stage": "active",
        }  # fmt: skip
        return {"info": info, "data": {}}


def _experiment(name: str, number: str) -> dict[str, Any]:
    return {"experiment_id": number, "name": name, "artifact_location": f"mlflow-artifacts:/{number}",
            "lifecycle_stage": "active"}  # fmt: skip


def _pairs(entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {entry["key"]: entry["value"] for entry in entries}


@contextmanager
def tracking_server() -> Iterator[Tracking]:
    """The server, while the block runs."""
    tracking = Tracking()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = {name: values[0] for name, values in parse_qs(urlparse(self.path).query).items()}
            self._reply(query)

        def do_POST(self) -> None:
            self._reply(json.loads(self._body()))

        def do_PUT(self) -> None:
            tracking.artifacts[urlparse(self.path).path.partition("/mlflow-artifacts/artifacts/")[2]] = self._body()
            self._send(200, {})

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers["Content-Length"]))

        def _reply(self, body: dict[str, Any]) -> None:
            answer = tracking.answer(urlparse(self.path).path.partition("/mlflow/")[2], body)
            missing = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"no {self.path}"}
            self._send(200 if answer is not None else 404, missing if answer is None else answer)

        def _send(self, status: int, value: dict[str, Any]) -> None:
            text = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    tracking.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield tracking
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
