"""What the parent and a worker process say to each other: one job down, events up, pickled on pipes of our own.

Both ends are the same program of the same user, so pickle is a safe and exact way to pass frozen values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.backends.seam import EffectiveSettings, LoadReport
from harness.chat import Rules
from harness.config.schema import ChatFormat, ModelSpec
from harness.config.variants import name_and_revision
from harness.conversations.script import Conversation
from harness.errors import Mistake
from harness.forced import ForcedReply, Known
from harness.records import Cell, Circumstances, Failure, Sample, SamplerCost, TurnRecord


@dataclass(frozen=True, slots=True)
class Play:
    """One conversation to play: its circumstances, by which rules."""

    conversation: Conversation
    circumstances: Circumstances
    rules: Rules


@dataclass(frozen=True, slots=True)
class SayAgain:
    """A conversation whose replies are known: the turns whose replies are to be forced, `play` telling how."""

    play: Play
    known: Known
    turns: frozenset[int]


@dataclass(frozen=True, slots=True)
class Force:
    """What is to be forced when all is played."""

    own: str
    """The run's id: what the greedy plays of this job's repeat 0 say is forced, as replies of this run."""
    known: tuple[SayAgain, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """Everything a worker process needs: load this model once, play these conversations in this order."""

    spec: ModelSpec
    chat_format: ChatFormat
    template_now: str
    samplings: Mapping[str, Mapping[str, Any]]
    check_first: tuple[ModelSpec, ...]
    """Models to look at (tokenizer and configs, no weights) before loading: the first worker of a run finds the
    mistakes of all of its interpreter, not the last one an hour later."""
    warmups: tuple[Play, ...]
    """One for every sampling and level of concurrency."""
    plays: tuple[Play, ...]
    warmup_passes: int | None = None
    """How often each warm-up is played; None: until two passes take the same time."""
    sequential_if_unbatchable: bool = False
    threads: int | None = None
    cpu_affinity: tuple[int, ...] | None = None
    sample_devices_s: float | None = None
    check_only: bool = False
    """Look at `check_first`, say `Checked`, and end."""
    probe: Play | None = None
    """To be played twice before anything is measured, to see whether it comes out alike."""
    force: Force | None = None

    @property
    def every_play(self) -> tuple[Play, ...]:
        """All that is to be played or said again, which is one at least."""
        return (*self.plays, *(again.play for again in (self.force.known if self.force is not None else ())))


def commits_of(spec: ModelSpec, found: Mapping[str, str]) -> dict[str, str]:
    """How the commits of a model and of what is put on it are kept: its own by its label, others by `LABEL/part`."""
    return {str(spec.label) if part == "model" else f"{spec.label}/{part}": commit for part, commit in found.items()}


def at_commit(spec: ModelSpec, commits: Mapping[str, str]) -> ModelSpec:
    """The spec with the commits that its label has there, if it has any."""
    pinned: dict[str, str] = {}
    if (commit := commits.get(spec.label or "")) is not None:
        pinned["revision"] = commit
    for part, text in (("adapter", spec.adapter), ("tokenizer", spec.tokenizer)):
        if text is not None and (commit := commits.get(f"{spec.label}/{part}")) is not None:
            pinned[part] = f"{name_and_revision(text)[0]}@{commit}"
    return spec.model_copy(update=pinned)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The model is loaded; `effective` is by sampling name."""

    report: LoadReport
    effective: Mapping[str, EffectiveSettings]
    threads: int | None
    cpu_affinity: tuple[int, ...] | None
    """The processors this worker may run on; None where the system does not say."""
    why_not_together: str | None
    """Why conversations are played one at a time whatever their concurrency; None if they are played together."""
    environment: Mapping[str, Any]
    """Versions of the worker's Python and of the libraries it runs on."""


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The model could not be loaded; the worker ends."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Warmed:
    """A sampling at a level of concurrency has been warmed up."""

    sampling: str
    concurrency: int
    passes: int
    settled: bool | None
    """Whether the last two passes took the same time; None where the number of passes was given, or no turn was
    answered."""


@dataclass(frozen=True, slots=True)
class TurnDone:
    """A turn has ended, well or badly."""

    record: TurnRecord


@dataclass(frozen=True, slots=True)
class Sampled:
    """What the background sampler saw during the turn that was told before; said only where one runs."""

    samples: tuple[Sample, ...]
    cost: SamplerCost


@dataclass(frozen=True, slots=True)
class CellDone:
    """A conversation has come to its end."""

    cell: Cell


@dataclass(frozen=True, slots=True)
class Refused:
    """Models of the run that cannot be used; said before any weight is loaded."""

    mistakes: tuple[Mistake, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """The models to look at can be used; `job` is what the worker understood it was asked."""

    job: Job
    commits: Mapping[str, str]
    """As of `Pinned`."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """The models of the run have been looked at: the commits of those that are on the Hub, by label, which every
    launch of the run loads. Said by its first worker."""

    commits: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Alive:
    """A turn that nothing else is told of has ended: the worker does not hang."""


@dataclass(frozen=True, slots=True)
class Probed:
    """Whether the same conversation, greedily, came out alike twice, to the bit."""

    equal: bool | None
    """None where there was no answer, or no log-probabilities, to compare."""
    first_difference: str | None
    """What differed first, or what kept it from being told."""
    turns: int
    tokens: int
    """Ids that were the same, of replies, before anything differed."""


@dataclass(frozen=True, slots=True)
class ForcedTurn:
    """A reply has been forced."""

    forced: ForcedReply


Event = (
    Pinned
    | Refused
    | Checked
    | Loaded
    | LoadFailed
    | Warmed
    | Alive
    | Probed
    | TurnDone
    | Sampled
    | CellDone
    | ForcedTurn
)


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The run's directory exists; said to whoever watches, as the two below."""

    path: Path
    cells: int
    turns: int
    cells_done: int
    turns_done: int
    resumed: bool


@dataclass(frozen=True, slots=True)
class WorkerStarted:
    """A worker process for one model and launch is loading."""

    model: str
    launch: int
    launches: int


@dataclass(frozen=True, slots=True)
class WorkerDied:
    """A worker process ended before its work did; the conversation in flight is recorded as failed."""

    model: str
    launch: int
    failure: Failure


Progress = RunStarted | WorkerStarted | WorkerDied | Event
Watch = Callable[[Progress], None]
