"""The observer effect: what the rest of a `harness run` does to the turns that its worker measures.

While a turn is timed nothing of ours may spin or poll: the worker waits until its parent has written a record and drawn
the progress, and then the parent sleeps on a pipe. Two processes of the same work differ by more than all that can
cost, so both sides are measured in *one* worker. Its parent is this process; in every other block of turns it does what
the parent of a run does – the store's line, the live display on a terminal, a sync to disk per conversation – and
in the others nothing at all, which leaves the generation loop alone. A block is held against its two neighbours,
so that what drifts slowly cancels out.
"""

import math
import os
import pty
import statistics
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t

from harness.chat import Rules
from harness.cli.progress import ProgressDisplay
from harness.metrics import METRICS
from harness.records import Cell, Circumstances, TurnRecord
from harness.runner.messages import CellDone, Event, Job, Play, RunStarted, TurnDone
from harness.runner.process import WorkerProcess
from harness.store import RunWriter, create
from harness.studies.replay import resolve

BLOCKS = int(os.environ.get("HARNESS_BENCH_OBSERVER_BLOCKS", "160"))
REPEATS_PER_BLOCK = 5
"""Of a conversation of two turns."""
SETTINGS = (
    "models=[builtin:pico]",
    "conversations=[prompts/physics-professor.yaml]",
    f"repeats={BLOCKS * REPEATS_PER_BLOCK}",
    "threads=2",
    "sampling.max_new_tokens=32",
)


@contextmanager
def _terminal() -> Iterator[None]:
    """stderr is a terminal that somebody reads; a read that blocks takes no processor time."""
    master, slave = pty.openpty()
    reader = threading.Thread(target=_drain, args=(master,), daemon=True)
    reader.start()
    with os.fdopen(slave, "w") as terminal, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        patch.setenv("TERM", "xterm-256color")
        yield
    reader.join(timeout=10)
    os.close(master)


def _drain(master: int) -> None:
    try:
        while os.read(master, 65536):
            pass
    except OSError:  # the other end is closed: how a terminal says so
        return


def _attend(event: Event, writer: RunWriter, display: ProgressDisplay) -> None:
    """What the parent of a run does about an event (runner/run.py)."""
    if isinstance(event, TurnDone):
        writer.append(event.record)
    elif isinstance(event, CellDone):
        writer.sync()
    display.show(event)


def _played(results: Path) -> list[list[TurnRecord]]:
    """The turns of each block; in blocks of odd numbers the parent did its work."""
    plan = resolve("configs/speed.yaml", SETTINGS)
    (spec,), (sampling,), (conversation,) = plan.models, plan.samplings, plan.conversations
    rules = Rules(sampling.parameters, plan.seed)

    def play(repeat: int, phase: str) -> Play:
        cell = Cell(str(spec.label), sampling.name, conversation.id, repeat, 0)
        circumstances = Circumstances(
            cell, plan.config.history, plan.config.length, spec.engine, spec.kv_cache, phase=phase
        )
        return Play(conversation, circumstances, rules)

    job = Job(
        spec=spec,
        chat_format=plan.config.chat_format,
        template_now=plan.config.template_now,
        samplings={sampling.name: sampling.parameters},
        check_first=(),
        warmups=(play(0, "warmup"),),
        plays=tuple(play(repeat, "measure") for repeat in range(plan.repeats)),
        threads=plan.config.threads,
    )
    blocks: list[list[TurnRecord]] = [[] for _ in range(BLOCKS)]
    attended = False
    writer, display = create(results, "observed", {}), ProgressDisplay(plan, quiet=False)
    with writer, display, WorkerProcess(job, results / "worker.log", None) as worker:
        display.show(RunStarted(writer.path, plan.repeats, 0, 2 * plan.repeats, 0, resumed=False))
        for event in worker.events():
            if isinstance(event, TurnDone) and event.record.circumstances.phase == "measure":
                block = event.record.circumstances.cell.repeat // REPEATS_PER_BLOCK
                blocks[block].append(event.record)
                attended = block % 2 == 1
            if attended:
                _attend(event, writer, display)
    return blocks


@pytest.mark.parametrize("metric", ["ttft_s", "e2e_s"])
def test_with_a_busy_parent_over_alone(benchmark, report, blocks, metric: str) -> None:
    turns = [METRICS[metric].formula(record) for block in blocks for record in block]
    logs = np.log(np.array(turns, dtype=float)).reshape(BLOCKS, REPEATS_PER_BLOCK, 2)
    # The first conversation of a block follows on what its neighbour did.
    level = np.median(logs[:, 1:], axis=1).mean(axis=1)
    apart = level[1:-1] - (level[:-2] + level[2:]) / 2
    apart[1::2] *= -1  # the parent is at work in blocks 1, 3, 5 …
    benchmark.pedantic(lambda: None, rounds=1)
    report(f"{metric} with a busy parent over alone", np.exp(apart).tolist())
    # Neighbouring differences share blocks; every other one shares none, so that half of them are the sample.
    degrees = len(apart) // 2
    reach = t.ppf(0.975, degrees - 1) * statistics.stdev(apart) / math.sqrt(degrees)
    interval = [math.exp(apart.mean() - reach), math.exp(apart.mean() + reach)]
    benchmark.extra_info["interval"] = interval
    print(f"{metric}: geometric mean {math.exp(apart.mean()):.4f}, 95 % interval {interval[0]:.4f}–{interval[1]:.4f}")


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> list[list[TurnRecord]]:
    with _terminal():
        return _played(tmp_path_factory.mktemp("observed"))
