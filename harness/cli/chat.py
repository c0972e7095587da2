"""`harness chat`: talk with a model through the same chat loop that replays scripts.

On a terminal the reply appears as it is generated, with one dim line of numbers after each turn. Lines piped into
stdin are turns too; then stdout holds the replies and nothing else.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import (
    DoSample,
    MaxLength,
    MaxNewTokens,
    RepetitionPenalty,
    Sets,
    Temperature,
    TopK,
    TopP,
    one_liner_defaults,
    plan_of,
    sampling_assignments,
)

if TYPE_CHECKING:
    from rich.console import Console

    from harness.backends.seam import Backend
    from harness.chat import Rules
    from harness.config.matrix import Sampling
    from harness.config.schema import ChatFormat, ModelSpec
    from harness.conversations.script import Conversation, Turn
    from harness.records import TurnRecord

HELP = "/save FILE.yaml keeps the talk as a scripted conversation, /quit ends it"


def chat(
    model: Annotated[str | None, typer.Argument(help="Hub id, directory or builtin:NAME.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Talk with the settings and persona of a run config.")
    ] = None,
    system: Annotated[str | None, typer.Option("--system", help="System text.")] = None,
    top_k: TopK = None,
    top_p: TopP = None,
    temperature: Temperature = None,
    repetition_penalty: RepetitionPenalty = None,
    max_length: MaxLength = None,
    max_new_tokens: MaxNewTokens = None,
    do_sample: DoSample = None,
    sets: Sets = None,
) -> None:
    """Talk with a model. Ctrl-D, Ctrl-C or /quit ends it."""
    from rich.console import Console

    sampling = sampling_assignments(
        top_k=top_k,
        top_p=top_p,
        temperature=temperature,
        repetition_penalty=repetition_penalty,
        max_length=max_length,
        max_new_tokens=max_new_tokens,
        do_sample=do_sample,
    )
    settings = _settings(model, config, [*sampling, *(sets or [])], system)
    notes = Console(stderr=True)
    try:
        ended_well = _talk(settings, notes)
    except KeyboardInterrupt:
        notes.print()
        return
    if not ended_well:
        sys.exit(1)


@dataclass(frozen=True)
class Settings:
    """What a talk needs: the first model, sampling and conversation of a config, or what the options say."""

    spec: ModelSpec
    sampling: Sampling
    conversation: Conversation
    chat_format: ChatFormat
    template_now: str
    rules: Rules


def _settings(model: str | None, config: Path | None, assignments: Sequence[str], system: str | None) -> Settings:
    from harness.chat import Rules
    from harness.config.schema import RunConfig
    from harness.conversations.script import Conversation
    from harness.errors import UsageError

    if config is not None:
        plan = plan_of(config, [model] if model else None, None, assignments)
        spec, sampling, first, run_config = plan.models[0], plan.samplings[0], plan.conversations[0], plan.config
        if spec.python is not None:
            raise UsageError(f"python: {spec.python}", "a talk runs in this interpreter", "use that one's own harness")
        talk = Conversation("talk", (), persona=first.persona, system=system or first.system)
        rules = Rules(sampling.parameters, run_config.seed, run_config.on_overflow, run_config.timeout)
        return Settings(spec, sampling, talk, run_config.chat_format, run_config.template_now, rules)
    if model is None:
        raise UsageError("command line", "no model", "harness chat MODEL, or --config FILE")
    spec, sampling = _spec_and_sampling(model, assignments)
    fields = RunConfig.model_fields
    return Settings(
        spec,
        sampling,
        Conversation("talk", (), system=system),
        fields["chat_format"].default,
        fields["template_now"].default,
        # A person who talks on wants to go on talking: the oldest turns make room.
        Rules(sampling.parameters, on_overflow="drop_oldest"),
    )


def _spec_and_sampling(model: str, assignments: Sequence[str]) -> tuple[ModelSpec, Sampling]:
    from harness.config.matrix import expand
    from harness.config.schema import ModelSpec
    from harness.documents import Problem, document_of, fit, set_values
    from harness.errors import DocumentError

    base = {"models": [{"model": model}], "sampling": one_liner_defaults(assignments)}
    document = set_values(document_of(base, "command line"), assignments)
    spec, problems = fit(document.value["models"][0], ModelSpec)
    samplings, found = expand(document.value["sampling"])
    problems = [Problem(("models", 0, *problem.path), *problem[1:]) for problem in problems] + found
    problems += [Problem((key,), "means nothing to a talk") for key in document.value if key not in base]
    if len(samplings) > 1:
        problems.append(Problem(("sampling",), "a talk has one sampling, not several", "give one value for each"))
    if spec is None or problems:
        raise DocumentError(document.mistakes(problems))
    return spec, samplings[0]


def _talk(settings: Settings, notes: Console) -> bool:
    """Talk until the person or the model's context ends it; False if a turn failed."""
    from harness.backends.open import open_backend
    from harness.chat import replay
    from harness.records import Cell, Circumstances
    from harness.runner.drive import drive

    live = sys.stdin.isatty() and sys.stdout.isatty()
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # a stray byte must not end the talk
    with notes.status(f"loading {settings.spec.model}") if live else nullcontext():
        backend = open_backend(settings.spec, chat_format=settings.chat_format, template_now=settings.template_now)
    gc.freeze()  # what loading left behind is not looked through between turns
    effective = backend.effective(settings.sampling.parameters, "natural")
    for warning in (*backend.report.notices, *effective.warnings):
        notes.print(f"note: {warning}", style="dim", markup=False, highlight=False)
    if live:
        notes.print(HELP, style="dim", markup=False, highlight=False)
    talk = _Talk(settings.conversation, notes, live=live)
    cell = Cell(settings.spec.model, settings.sampling.name, settings.conversation.id, 0, 0)
    circumstances = Circumstances(cell, "generated", "natural", settings.spec.engine, settings.spec.kv_cache)
    dialog = replay(settings.conversation, circumstances, settings.rules, turns=talk.turns())
    voice = _Voice(backend, live=live)
    record = None
    for record in drive(dialog, backend.open_session(), backend.gauges, voice.hear):
        voice.finish(record)
        talk.add(record)
        if record.failure is not None:
            notes.print(f"{record.failure.kind}: {record.failure.message}", style="red", markup=False)
        elif live:
            notes.print(_numbers(record), style="dim", highlight=False)
    if record is not None and record.finish_reason in ("max_length", "context"):
        notes.print(f"the talk is full: {record.finish_reason}", style="dim", highlight=False)
    return record is None or record.failure is None


class _Talk:
    """What the person types, and what has been said so far."""

    def __init__(self, conversation: Conversation, notes: Console, *, live: bool) -> None:
        self._conversation = conversation
        self._notes = notes
        self._live = live

    def turns(self) -> Iterator[Turn]:
        from harness.conversations.script import Turn

        while (line := self._read()) is not None:
            command, _, rest = line.partition(" ")
            if command == "/quit":
                return
            if command == "/save":
                self._save(rest.strip())
            elif command == "/help":
                self._notes.print(HELP, markup=False, highlight=False)
            elif line:
                yield Turn(line)

    def add(self, record: TurnRecord) -> None:
        from harness.conversations.script import Turn

        turns = (*self._conversation.turns, Turn(record.user, assistant=record.reply))
        self._conversation = replace(self._conversation, turns=turns)

    def _read(self) -> str | None:
        """The next line; None at the end of the input."""
        try:
            return input("> " if self._live else "").strip()
        except EOFError:
            return None

    def _save(self, name: str) -> None:
        from harness.conversations.save import script_text

        if not name or not self._conversation.turns:
            self._notes.print("nothing to save yet" if name else "say where: /save prompts/talk.yaml", markup=False)
            return
        path = Path(name)
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(script_text(replace(self._conversation, id=path.stem)))
        except OSError as error:
            self._notes.print(f"{path}: {error.strerror}", style="red", markup=False)
        else:
            self._notes.print(f"saved {len(self._conversation.turns)} turns in {path}", markup=False)


class _Voice:
    """Speaks the reply: as it grows on a terminal, when it is complete elsewhere."""

    def __init__(self, backend: Backend, *, live: bool) -> None:
        self._backend = backend
        self._live = live
        self._line: list[int] = []
        self._spoken = ""

    def hear(self, ids: Sequence[int]) -> None:
        if not self._live:
            return
        self._line += ids
        text = self._backend.decode(self._line)
        if text.endswith("\N{REPLACEMENT CHARACTER}"):  # the rest of this character is still to come
            return
        sys.stdout.write(_printable(text.removeprefix(self._spoken)))
        sys.stdout.flush()
        self._spoken = text
        if text.endswith("\n"):  # decode only the current line, so that long replies do not slow down
            self._line, self._spoken = [], ""

    def finish(self, record: TurnRecord) -> None:
        self._line, self._spoken = [], ""
        sys.stdout.write("\n" if self._live else f"{record.reply or ''}\n")
        sys.stdout.flush()


def _printable(text: str) -> str:
    """Model output is untrusted: escape sequences must not reach the terminal."""
    return "".join(char for char in text if char.isprintable() or char in "\n\t")


def _numbers(record: TurnRecord) -> str:
    from harness.metrics import METRICS

    def value(name: str, scale: float, form: str) -> str:
        number = METRICS[name].formula(record)
        return "" if number is None else form.format(number * scale)

    memory = value("peak_memory_bytes", 2**-20, "{:.0f} MiB") or value("host_rss_bytes", 2**-20, "{:.0f} MiB host")
    parts = [
        f"{record.completion_tokens} tokens",
        value("ttft_s", 1000, "TTFT {:.0f} ms"),
        value("decode_tokens_per_s", 1, "{:.1f} tok/s"),
        memory,
        "" if record.tokens_left is None else f"{record.tokens_left} tokens left",
    ]
    return " · ".join(part for part in parts if part)
