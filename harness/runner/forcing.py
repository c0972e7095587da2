"""Which replies a run has to force, on either side of the pipe: the parent knows what is missing, the worker does it.

A greedy setting has its own replies forced, those of repeat 0 of launch 0, and the replies of other runs that were
handed in, but for those that are its own: the same ids to the same prompt. A worker forces when all its plays are done.
What it did not come to, because it died, is done by the next one, or when the run is gone on with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.backends.seam import Backend
from harness.config.generation import SAMPLING_ONLY, is_greedy
from harness.config.plan import Plan
from harness.config.schema import ModelSpec
from harness.errors import StoreError
from harness.forced import ForcedReply, Known, Said, recite
from harness.records import Cell, TurnRecord
from harness.runner.messages import Event, Force, ForcedTurn, Loaded, LoadFailed, Play, Probed, SayAgain
from harness.runner.process import WorkerProcess
from harness.store import RunWriter, read_forced

PROBED_TURNS = 2
PROBED_IDS = 64
"""A probe is played twice at every launch: it is to be short, and still long enough that what goes on from a cache and
what a second turn prefills are in it."""

_Prompted = tuple[str | None, tuple[int, ...]]
"""(hash of a prompt, ids after it): where both are equal, so are the log-probabilities."""


class Forcings:
    """What one run has to force, as its parent keeps count of it."""

    def __init__(
        self,
        plan: Plan,
        writer: RunWriter,
        blessed: Sequence[Known] | None,
        done: Mapping[Cell, Sequence[TurnRecord]],
    ) -> None:
        """`blessed` are the replies of other runs to be forced beside its own; with None nothing is forced, unless a
        rule of the config's gate is about text. `done` are the cells that have been played.

        Raises StoreError where forced.jsonl holds something else."""
        self._plan = plan
        self._writer = writer
        gate = plan.config.gate
        self._asked = blessed is not None or (gate is not None and any(rule.kind == "text" for rule in gate.parsed))
        settings = {(model.label, sampling.name) for model in plan.models for sampling in plan.samplings}
        known = {conversation.id for conversation in plan.conversations}
        self._blessed = [
            one
            for one in blessed or ()
            if (one.model, one.sampling) in settings
            and one.conversation_id in known
            and one.concurrency in plan.config.concurrency
        ]
        self._own: dict[Cell, Known] = {}
        self._unloadable: set[str] = set()
        self._effective: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._forced: set[tuple[Cell, int, str | _Prompted]] = set()
        """What was forced, as a reply of whom and as the reply that it was."""
        if not self._asked:
            return
        for cell, records in done.items():
            self.played(cell, records)
        for entry in writer.manifest["launches"]:
            for sampling, settings_of in entry.get("effective", {}).items():
                self._effective[entry["model"], sampling] = settings_of["values"]
        try:
            for line in read_forced(writer.path):
                cell = Cell(**line["cell"])
                self._note(cell, line["turn_index"], line["of"], (line["prompt_hash"], tuple(line["ids"])))
        except (KeyError, TypeError) as error:
            subject = str(writer.path / "forced.jsonl")
            raise StoreError(subject, f"holds a line that is no forced reply: {error}", "delete it") from error

    def played(self, cell: Cell, records: Sequence[TurnRecord]) -> None:
        """A conversation has come to its end. One that failed will be played again, and is not forced."""
        if (
            self._asked
            and records
            and cell.launch == cell.repeat == 0
            and all(record.failure is None for record in records)
        ):
            self._own[cell] = own(records, self._run_id)

    def missing(self, model: str, launch: int) -> bool:
        """Whether anything is left to be forced on a model, all of whose conversations of this launch are played."""
        return model not in self._unloadable and any(self._left(known) for known in self._known(model, launch, ()))

    def of(
        self, spec: ModelSpec, launch: int, pending: Sequence[Cell], play: Callable[[ModelSpec, Cell], Play]
    ) -> Force | None:
        """What a worker that is to play these cells has to force after them."""
        if not self._asked or launch != 0:
            return None
        assert spec.label is not None, "the plan gives every model a label"
        again = (
            SayAgain(play(spec, known.cell), known, frozenset(turns))
            for known in self._known(spec.label, launch, pending)
            if (turns := self._left(known))
        )
        return Force(self._run_id, tuple(again))

    def probe(self, spec: ModelSpec, launch: int, play: Callable[[ModelSpec, Cell], Play]) -> Play | None:
        """The first turns of the first conversation, greedily."""
        if not self._asked:
            return None
        assert spec.label is not None, "the plan gives every model a label"
        first, sampling = self._plan.conversations[0], self._plan.samplings[0]
        parameters = {name: value for name, value in sampling.parameters.items() if name not in SAMPLING_ONLY}
        if parameters.get("max_new_tokens") is not None:
            parameters["max_new_tokens"] = min(parameters["max_new_tokens"], PROBED_IDS)
        whole = play(spec, Cell(spec.label, sampling.name, first.id, 0, launch))
        return Play(
            replace(first, turns=first.turns[:PROBED_TURNS]),
            replace(whole.circumstances, phase="warmup"),
            replace(whole.rules, sampling={**parameters, "do_sample": False}),
        )

    def heard(self, model: str, event: Event) -> None:
        """Keep what a worker for this model says about forcing."""
        match event:
            case Loaded():
                for sampling, settings in event.effective.items():
                    self._effective[model, sampling] = settings.values
            case LoadFailed():
                self._unloadable.add(model)
            case Probed():
                self._writer.manifest["launches"][-1]["probe"] = event
                self._writer.save_manifest()
            case ForcedTurn(forced):
                self._writer.append_forced(forced)
                self._note(forced.cell, forced.turn_index, forced.of, (forced.prompt_hash, forced.ids))

    def _note(self, cell: Cell, turn_index: int, of: str, prompted: _Prompted) -> None:
        self._forced |= {(cell, turn_index, of), (cell, turn_index, prompted)}

    def ended(self, model: str, launch: int, worker: WorkerProcess) -> None:
        """A worker has played all it was to play. If it died before all was forced, say so, and leave it at that."""
        if launch == 0 and self.missing(model, launch):
            failure = worker.failure("force")
            warning = f"{model}: not all replies were forced: {failure.message}"
            warnings = self._writer.manifest["warnings"]
            self._writer.manifest["warnings"] = list(dict.fromkeys([*warnings, warning]))
            self._writer.save_manifest()

    @property
    def _run_id(self) -> str:
        return str(self._writer.manifest["run_id"])

    def _known(self, model: str, launch: int, pending: Sequence[Cell]) -> Iterator[Known]:
        """Whatever is known and wanted of a model, its own replies first; `pending` are yet to be played."""
        if launch != 0:
            return
        held = [known for cell, known in self._own.items() if cell not in pending]
        for known in (*held, *self._blessed):
            effective = self._effective.get((model, known.sampling))
            if known.model == model and (effective is None or is_greedy(effective)):
                yield known

    def _left(self, known: Known) -> list[int]:
        """The turns whose replies have not been forced."""
        return [
            said.turn_index
            for said in known.replies
            if said.ids
            and (known.cell, said.turn_index, known.of) not in self._forced
            and (known.cell, said.turn_index, (said.prompt_hash, said.ids)) not in self._forced
        ]


def by_play(lane: Sequence[Play], told: Sequence[TurnRecord]) -> list[tuple[Play, list[TurnRecord]]]:
    """Each of some plays with its records, of all that were told."""
    return [(play, [each for each in told if each.circumstances.cell == play.circumstances.cell]) for play in lane]


def own(records: Sequence[TurnRecord], run_id: str) -> Known:
    """The replies that the records of one conversation, one at least, tell of."""
    cell = records[0].circumstances.cell
    said = tuple(Said.in_record(record) for record in records)
    return Known(run_id, cell.model, cell.sampling, cell.concurrency, cell.conversation_id, said)


def force(backend: Backend, todo: Force, played: Sequence[tuple[Play, Sequence[TurnRecord]]]) -> Iterator[ForcedReply]:
    """Force the replies of the conversations that were played, then those that are known besides, where they are
    others."""
    ours = [
        SayAgain(play, own(records, todo.own), frozenset(record.turn_index for record in records))
        for play, records in played
        if records and all(record.failure is None for record in records)
    ]
    done: set[tuple[Cell, int, _Prompted]] = set()
    for again in (*ours, *todo.known):
        rules, known = again.play.rules, again.known
        if not is_greedy(backend.effective(rules.sampling, again.play.circumstances.length).values):
            continue

        def is_wanted(said: Said, again: SayAgain = again) -> bool:
            seen = (again.known.cell, said.turn_index, (said.prompt_hash, said.ids))
            return said.turn_index in again.turns and seen not in done

        for reply in recite(
            known,
            again.play.conversation,
            again.play.circumstances,
            rules,
            backend.open_session(),
            wanted=is_wanted,
        ):
            if reply.why_not is None:
                done.add((reply.cell, reply.turn_index, (reply.prompt_hash, reply.ids)))
            yield reply
