"""Records and runs made by hand, for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
from harness.records import Cell, CheckResult, Circumstances, Failure, Memory, Stamps, TurnRecord
from harness.store import create

if TYPE_CHECKING:
    import pandas as pd

    from harness.analysis.frames import Run

MS = 1_000_000
"""Nanoseconds in a millisecond."""


def cell(model="pico", sampling="greedy", conversation_id="physics", repeat=0, launch=0, concurrency=1) -> Cell:
    return Cell(model, sampling, conversation_id, repeat, launch, concurrency)


def circumstances(of: Cell | None = None, **values: Any) -> Circumstances:
    return Circumstances(
        **{
            "cell": of or cell(),
            "history": "generated",
            "length": "natural",
            "engine": "generate",
            "kv_cache": "reuse",
            **values,
        }
    )


def stamps(ttft_ms=10, tpot_ms=2, ids=5) -> Stamps:
    """One id at a time: the first after `ttft_ms`, the rest `tpot_ms` apart, text 1 ms after the engine returned."""
    at = tuple((ttft_ms + tpot_ms * i) * MS for i in range(ids))
    end = at[-1] if at else ttft_ms * MS
    return Stamps(1 * MS, 3 * MS, end + 1 * MS, end + 2 * MS, at)


def ticked(stamps: Stamps, *ticks: tuple[int, int]) -> Stamps:
    """The stamps with other arrivals: pairs of (nanoseconds, number of ids)."""
    sizes = tuple(ids for _, ids in ticks)
    return replace(stamps, tick_ns=tuple(ns for ns, _ in ticks), tick_ids=None if set(sizes) <= {1} else sizes)


def turn(of: Cell | None = None, index=0, *, ttft_ms=10, tpot_ms=2, ids=5, around=None, **values: Any) -> TurnRecord:
    """A turn that was answered; `around` are values of its circumstances, `values` those of the record."""
    return TurnRecord(
        **{
            "circumstances": circumstances(of, **(around or {})),
            "turn_index": index,
            "seed": 7,
            "started_at": 1_760_000_000.0 + index,
            "user": "What is Newtonian mechanics?",
            "reply": "The study of motion.",
            "finish_reason": "eos",
            "prompt_tokens": 20 * (index + 1),
            "cached_tokens": 20 * index,
            "completion_tokens": ids,
            "completion_ids": tuple(range(ids)),
            "visible_ids": 1,
            "answer_ids": 1,
            "prompt_hash": "00000000000000aa",
            "stamps": stamps(ttft_ms, tpot_ms, ids),
            "memory": Memory(host_rss_bytes=3 * 2**30),
            **values,
        }
    )


def failed(of: Cell | None = None, index=0, **values: Any) -> TurnRecord:
    """A turn that ran out of memory before its first id."""
    values = {
        "failure": Failure("OutOfMemoryError", "prefill", "2 GiB more than there is"),
        "reply": None,
        "finish_reason": "error",
        "stamps": Stamps(1 * MS, 3 * MS),
        "memory": Memory(),
        "completion_tokens": None,
        "completion_ids": (),
        "visible_ids": None,
        "answer_ids": None,
        **values,
    }
    return turn(of, index, **values)


def checks(*passed: bool) -> tuple[CheckResult, ...]:
    return tuple(CheckResult(f"contains: word{i}", ok, "" if ok else "not there") for i, ok in enumerate(passed))


def plan(
    models: Sequence[str] = ("pico",),
    samplings: Sequence[str] | Mapping[str, Mapping[str, Any]] = ("greedy",),
    conversations: Mapping[str, int] | None = None,
    checks: Sequence[int] | None = None,
    **values: Any,
) -> dict[str, Any]:
    """A resolved plan; `conversations` maps ids to numbers of turns, `samplings` names to parameters; `checks` are the
    numbers of checks by turn of every conversation, one each if not given."""
    named = samplings if isinstance(samplings, Mapping) else {name: {"do_sample": False} for name in samplings}
    return {
        "models": [
            {"model": f"builtin:{label}", "label": label, "engine": "generate", "kv_cache": "reuse"} for label in models
        ],
        "samplings": [{"name": name, "parameters": dict(parameters)} for name, parameters in named.items()],
        "conversations": [
            {
                "id": id_,
                "tags": [],
                "language": "en",
                "turns": list(range(n)),
                "checks": list(checks or [1] * n)[:n],
                "source": f"prompts/{id_}.yaml",
            }
            for id_, n in (conversations or {"physics": 2}).items()
        ],
        "repeats": 1,
        "launches": 1,
        "concurrency": [1],
        "history": "generated",
        "length": "natural",
        "on_overflow": "stop",
        "seed": 0,
        **values,
    }


def manifest(of: Mapping[str, Any], **values: Any) -> dict[str, Any]:
    return {
        "created_at": "2026-01-02T03:04:05+00:00",
        "finished_at": "2026-01-02T03:05:05+00:00",
        "resumed": [],
        "command": ["harness", "run", "configs/quickstart.yaml"],
        "harness_version": "0.1.0",
        "config_hash": "0123456789abcdef",
        "config_name": "quickstart",
        "config": {},
        "plan": dict(of),
        "environment": {
            "os": "Linux-6.1",
            "python": "3.11.7",
            "host": "testbench",
            "cpu": "An Honest CPU",
            "cpu_cores": 2,
            "cpu_threads": 4,
            "memory_bytes": 8 * 2**30,
            "gpus": [],
            "gpu_driver": None,
            "libraries": {"torch": "2.11.0", "transformers": "5.17.0"},
            "variables": {},
            "git_commit": "abc123",
        },
        "commits": {},
        "launches": [launch(model["label"], number) for number in range(of["launches"]) for model in of["models"]],
        "warnings": [],
        **values,
    }


def launch(model: str, number: int, **values: Any) -> dict[str, Any]:
    return {
        "model": model,
        "launch": number,
        "load_s": 1.5,
        "import_s": 1.0,
        "weights_s": 0.25,
        "first_forward_s": 0.25,
        "facts": {"parameters": 1_700_000, "dtype": "float32"},
        "notices": [],
        "effective": {},
        **values,
    }


def store(
    results: Path, records: Iterable[TurnRecord], of: Mapping[str, Any] | None = None, run_id="a-run", **values: Any
) -> Path:
    """Write a run as the runner does; `values` replace values of its manifest."""
    with create(results, run_id, manifest(of or plan(), **values)) as writer:
        for record in records:
            writer.append(record)
    return writer.path


def run_of(results: Path, records: Iterable[TurnRecord], of: Mapping[str, Any] | None = None, **values: Any) -> Run:
    """`store`, read again."""
    return harness.load(store(results, records, of, **values))


def only(frame: pd.DataFrame) -> dict[str, Any]:
    """The one row of a table."""
    (row,) = frame.to_dict("records")
    return {str(name): value for name, value in row.items()}


def every_turn(of: Mapping[str, Any], make: Callable[[Cell, int], TurnRecord] = turn) -> list[TurnRecord]:
    """A record for every turn of a plan."""
    return [
        make(Cell(model["label"], sampling["name"], conversation["id"], repeat, number, level), index)
        for number in range(of["launches"])
        for model in of["models"]
        for repeat in range(of["repeats"])
        for sampling in of["samplings"]
        for level in of["concurrency"]
        for conversation in of["conversations"]
        for index in conversation["turns"]
    ]
