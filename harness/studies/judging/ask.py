"""A judge is asked: a worker process loads it, as one loads any model of a run, and answers one question at a time.

Every question is a conversation of one turn, so that a judge may be whatever the runner can load, and draws by seeds
that follow from the question and the trial alone. A verdict is on the disk before the next question is asked; the same
command again goes on where it was stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.analysis.frames import Run
from harness.analysis.scores import given
from harness.chat import Rules
from harness.config.labels import labelled
from harness.config.matrix import expand
from harness.config.schema import ModelSpec, RunConfig
from harness.conversations.script import Conversation, Turn
from harness.documents import Assignment, Problem, document_of, fit, set_values
from harness.errors import DocumentError, HarnessError, ModelError, UsageError
from harness.records import Cell, Circumstances, Score, ScorerSetup, TurnRecord, short_hash
from harness.runner.messages import Job, Loaded, LoadFailed, Play, Refused, TurnDone
from harness.runner.process import WorkerProcess
from harness.store import WORKERS_LOG, ScoreWriter
from harness.studies.judging.prompts import PROMPT_HASH, SYSTEM
from harness.studies.judging.questions import Question, Rubrics
from harness.studies.judging.verdicts import Verdict, read_verdict
from harness.studies.setups import counts, setup_of

GREEDY = {"do_sample": False, "max_new_tokens": 512}
"""How a judge generates unless told otherwise."""
SEED = 0
TEMPLATE_NOW = RunConfig.model_fields["template_now"].default
_SAMPLING = "judge"


@dataclass(frozen=True, slots=True)
class Judge:
    """A model that judges, how it generates, and how often it is asked the same."""

    spec: ModelSpec
    sampling: Mapping[str, Any]
    trials: int = 1

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return self.spec.label or self.spec.model


@dataclass(frozen=True, slots=True)
class Judged:
    """How far the judging has come."""

    asked: int
    """Questions that have to be asked in this call; equal ones are asked once."""
    answered: int
    no_verdict: int


def judge_of(model: str, assignments: Sequence[str] = (), trials: int = 1) -> Judge:
    """The judge that the words of a command mean: `dtype=bfloat16` and the like say how to load it, `sampling.…` how it
    generates.

    Raises DocumentError for what cannot be set, and UsageError for several trials of a greedy judge.
    """
    document = set_values(
        document_of({"model": model, "sampling": dict(GREEDY)}, "--judge"),
        [Assignment(text, f"--judge-set {text}") for text in assignments],
    )
    sampling = document.value.pop("sampling")
    spec, problems = fit(document.value, ModelSpec)
    samplings, found = (
        expand(sampling) if isinstance(sampling, dict) else ((), [Problem(("sampling",), "is no mapping")])
    )
    problems += found
    if not problems and len(samplings) != 1:
        problems.append(Problem(("sampling",), "should be one sampling", "a judge generates in one way"))
    if spec is None or problems:
        raise DocumentError(document.mistakes(problems))
    parameters = samplings[0].parameters
    if trials > 1 and not parameters.get("do_sample"):
        remedy = "sample: --judge-set sampling.do_sample=true, or ask once"
        raise UsageError(f"--trials {trials}", "a greedy judge says the same every time", remedy)
    return Judge(spec, parameters, trials)


def ask(
    run: Run,
    judge: Judge,
    rubrics: Rubrics,
    questions: Iterable[Question],
    watch: Callable[[Judged], None] = lambda judged: None,
) -> Judged:
    """Ask everything that has no answer yet, and store each verdict as it comes.

    What a judge answers badly, or fails to answer, is stored as no verdict and not asked again. Raises ModelError where
    it cannot be loaded, UsageError where it is another model than the one whose verdicts are there, HarnessError where
    its process dies.
    """
    questions = list(questions)
    setups = {name: _setup(judge, name, rubrics) for name in sorted({each.scorer for each in questions})}
    with ScoreWriter(run.path) as writer:
        asking = _Asking(run, judge, setups, writer, watch)
        asking.ask(questions)
    return asking.judged


class _Asking:
    """One judge being asked about one run."""

    def __init__(
        self,
        run: Run,
        judge: Judge,
        setups: Mapping[str, ScorerSetup],
        writer: ScoreWriter,
        watch: Callable[[Judged], None],
    ) -> None:
        self._run, self._judge, self._writer, self._watch = run, judge, writer, watch
        self._setups = setups
        self._there = given(run, list(setups.values()))
        self.judged = Judged(0, 0, 0)

    def ask(self, questions: Sequence[Question]) -> None:
        pending = self._pending(questions)
        unasked = [score for (asked, _), same in pending.items() if asked is None for score in same]
        groups = {(asked, trial): same for (asked, trial), same in pending.items() if asked is not None}
        self.judged = Judged(len(groups), 0, 0)
        if not groups:
            self._begin({})
            self._store(unasked, 0.5, "both replies end the same conversation")
            return
        texts = {question.asked: question.text for question in questions}
        job = self._job({asked: texts[asked] or "" for asked, _ in groups}, list(groups))
        with WorkerProcess(job, self._run.path / WORKERS_LOG, timeout_s=None) as worker:
            for event in worker.events():
                match event:
                    case Refused(mistakes):
                        raise DocumentError(mistakes)
                    case LoadFailed(failure):
                        raise ModelError(self._judge.spec.model, failure.message)
                    case Loaded():
                        self._begin(event.report.facts)
                        self._store(unasked, 0.5, "both replies end the same conversation")
                    case TurnDone(record):
                        cell = record.circumstances.cell
                        self._answered(groups.pop((cell.conversation_id, cell.repeat)), record)
            if groups:
                failure = worker.failure("decode")
                fact = f"stopped with {len(groups)} questions left: {failure.kind}: {failure.message}"
                raise HarnessError(self._judge.spec.model, fact, "the same command again goes on")

    def _pending(self, questions: Sequence[Question]) -> dict[tuple[str | None, int], list[tuple[Question, int]]]:
        """Equal questions with each trial that has no answer, by (question, trial)."""
        lines = self._there.lines
        hashes = [setup.config_hash for setup in self._setups.values()]
        there = lines[lines["config_hash"].isin(hashes)]
        done = set(zip(*(there[name] for name in ("scorer", "row", "other", "trial", "swapped")), strict=True))
        pending: dict[tuple[str | None, int], list[tuple[Question, int]]] = {}
        for question in questions:
            for trial in range(self._judge.trials if question.text is not None else 1):
                if (question.scorer, question.row, question.other, trial, question.swapped) not in done:
                    pending.setdefault((question.asked, trial), []).append((question, trial))
        return pending

    def _begin(self, facts: Mapping[str, Any]) -> None:
        """Store as what the judge was loaded; raises UsageError if it is not what gave the verdicts that are there."""
        told = {name: facts.get(name) for name in ("source", "commit", "class", "dtype") if facts.get(name)}
        for setup in self._setups.values():
            known = next((each for each in self._there.setups if each.config_hash == setup.config_hash), None)
            before = None if known is None else known.facts.get("commit")
            if known is not None and told and before != told.get("commit"):
                fact = f"is at commit {told.get('commit')}; the verdicts that are there are of {before}"
                raise UsageError(self._judge.spec.model, fact, f"--judge-set revision={before}")
            if not counts(self._there, setup):
                self._writer.append([replace(setup, facts=told or (known.facts if known is not None else {}))])

    def _answered(self, same: Sequence[tuple[Question, int]], record: TurnRecord) -> None:
        question, _ = same[0]
        if record.failure is not None:
            verdict = Verdict(None, f"no verdict: {record.failure.kind}: {record.failure.message}")
        else:
            verdict = read_verdict(record.reply or "", question.kind)
        value = verdict.value
        # A judge names the place, A or B; a score belongs to the reply.
        self._store(same, None if value is None else 1 - value if question.swapped else value, verdict.detail)
        judged = self.judged
        self.judged = replace(
            judged, answered=judged.answered + 1, no_verdict=judged.no_verdict + (verdict.value is None)
        )
        self._watch(self.judged)

    def _store(self, same: Sequence[tuple[Question, int]], value: float | None, detail: str) -> None:
        self._writer.append(
            Score(
                config_hash=self._setups[question.scorer].config_hash,
                reply=question.reply,
                value=value,
                detail=detail,
                against=question.against,
                trial=trial,
                swapped=question.swapped,
                asked=question.asked,
            )
            for question, trial in same
        )

    def _job(self, texts: Mapping[str, str], wanted: Sequence[tuple[str, int]]) -> Job:
        (spec,), _ = labelled([self._judge.spec])
        rules = Rules(self._judge.sampling, SEED, on_overflow="error")
        plays = []
        for asked, trial in wanted:
            cell = Cell(str(spec.label), _SAMPLING, asked, trial, launch=0)
            around = Circumstances(cell, "generated", "natural", spec.engine, spec.kv_cache)
            plays.append(Play(Conversation(asked, (Turn(texts[asked]),), system=SYSTEM), around, rules))
        return Job(
            spec=spec,
            chat_format="auto",
            template_now=self._run.plan.get("template_now", TEMPLATE_NOW),
            samplings={_SAMPLING: self._judge.sampling},
            check_first=(spec,),
            warmups=(),
            plays=tuple(plays),
        )


def _setup(judge: Judge, scorer: str, rubrics: Rubrics) -> ScorerSetup:
    """Everything that decides what a judge says, but the replies themselves."""
    by_rubric = [
        [*place, rubric.text]
        for place, rubric in sorted(rubrics.items())
        if scorer in ("judge_pair", f"judge_{rubric.verdict}")
    ]
    config = {
        "model": judge.spec.model_dump(mode="json", exclude={"label"}),
        "sampling": dict(judge.sampling),
        "seed": SEED,
        "prompt": PROMPT_HASH,
        "rubrics": short_hash(json.dumps(by_rubric).encode()),
    }
    return setup_of(scorer, config, by=judge.name)
