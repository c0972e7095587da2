"""A run as one Markdown page: tables, warnings, environment, launches, transcripts.

What a model said is untrusted: it is fenced by more backticks than it contains and shows its control characters, so
that no reply can end its fence, become HTML, or drive the terminal of someone who prints the page. Everything else
that may hold foreign text – labels, messages, check names – is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from harness.analysis.context_limit import limits_met
from harness.analysis.frames import Run
from harness.analysis.growth import growth
from harness.analysis.notes import behaviour_caption, notes, speed_caption
from harness.analysis.phases import by_phase
from harness.analysis.summary import STEADINESS, by_conversation, by_setting, by_turn
from harness.analysis.throughput import has_levels, throughput
from harness.analysis.transcripts import MOST_ANSWERS, Answer, Exchange, transcripts
from harness.report import markdown_tables as tables
from harness.report import response, scores
from harness.report.captions import BY_TURN, COLD_START, GROWTH, LIMITS, PHASES, STABILITY, THROUGHPUT
from harness.report.markdown_tables import escaped
from harness.report.units import ABSENT, ms, number, printable
from harness.report.verdicts import headline
from harness.report.words import lane, machine, matrix

_MOST_ROWS = 2000
"""Of the table by conversation, more or less."""


def markdown(run: Run) -> str:
    """The page, ending in a line feed."""
    return "\n".join(_page(run)).rstrip("\n") + "\n"


def _page(run: Run) -> Iterator[str]:
    settings = by_setting(run)
    yield f"# {escaped(run.run_id)}\n"
    yield _list(matrix(run), lane(run), machine(run))
    yield from _best(run)
    warnings = [*run.manifest["warnings"], *notes(run)]
    if warnings:
        yield "## Beware\n"
        yield _list(*warnings)
    yield "## Behaviour by setting\n"
    yield tables.table(settings, {**tables.LABELS, **tables.STATES, **tables.BEHAVIOUR})
    yield behaviour_caption(run) + " A turn that failed or was not reached fails all its checks.\n"
    yield "## Speed by setting\n"
    yield tables.table(settings, {**tables.LABELS, **tables.SPEED, **tables.MEMORY})
    yield speed_caption(run) + " p95 from 60 turns on, p99 from 300.\n"
    if has_levels(run):
        yield "## Throughput\n"
        yield tables.table(throughput(run), {**tables.LABELS, **tables.THROUGHPUT})
        yield THROUGHPUT + "\n"
    yield from response.markdown(run)
    yield from _beside_speed(run, settings)
    yield from scores.section(run)
    yield "## By turn\n"
    yield tables.table(by_turn(run), {**tables.LABELS, **tables.BY_TURN})
    yield BY_TURN + "\n"
    yield "## By conversation\n"
    shown = max(1, _MOST_ROWS // len(settings))
    yield tables.table(by_conversation(run, shown), {**tables.LABELS, **tables.BY_CONVERSATION})
    if shown < len(run.plan["conversations"]):
        yield (
            f"The first {shown} of {len(run.plan['conversations'])} conversations; turns.parquet has all of them, and "
            "`harness.analysis.summary.by_conversation` their table.\n"
        )
    yield "## Launches\n"
    yield tables.table(run.launches, tables.LAUNCHES)
    yield COLD_START + "\n"
    yield "\n".join(_loaded(run.manifest["launches"])) + "\n"
    yield "## Environment\n"
    yield "\n".join(_environment(run.manifest["environment"])) + "\n"
    yield "## Transcripts\n"
    if (run.turns["weights"] == "random").any():
        yield "Random weights: replies mean nothing, and are not shown.\n"
    said = transcripts(run)
    if said.left_out:
        yield (
            f"Turns left out because the page would be too long: {said.left_out}. It shows the first of the plan, and "
            f"at most {MOST_ANSWERS} different answers of a setting to each; turns.parquet has all of them.\n"
        )
    conversation = None
    for exchange in said.exchanges:
        if exchange.conversation_id != conversation:
            conversation = exchange.conversation_id
            yield f"### {escaped(conversation)}\n"
        yield from _exchange(run, exchange)


def _best(run: Run) -> Iterator[str]:
    """Which is best at what."""
    answered = headline(run)
    if answered:
        yield "## Which is best at what\n"
    for asked, sentences in answered:
        yield f"**{escaped(asked)}**\n"
        yield _list(*sentences)


def _beside_speed(run: Run, settings: pd.DataFrame) -> Iterator[str]:
    """What there is to say about the speeds: how steady they are, where the time goes, what a growing context costs."""
    if settings[["stability", *STEADINESS]].notna().any(axis=None):
        yield "## Stability\n"
        yield tables.table(settings, {**tables.LABELS, **tables.STABILITY})
        yield STABILITY + "\n"
    yield "## Where the time goes\n"
    yield tables.table(by_phase(run), {**tables.LABELS, **tables.BY_PHASE})
    yield PHASES + "\n"
    slopes, limits = growth(run), limits_met(run)
    if len(slopes):
        yield "## Growth\n"
        yield tables.table(slopes, {**tables.LABELS, **tables.GROWTH})
        yield GROWTH + "\n"
    if len(limits):
        yield "## Largest context\n"
        yield tables.table(limits, {**tables.LABELS, **tables.LIMITS})
        yield LIMITS + "\n"


def _list(*lines: str) -> str:
    return "\n".join(f"- {escaped(line)}" for line in lines) + "\n"


def fenced(text: str) -> str:
    """Foreign text as a block that it cannot break out of: the fence is longer than any run of backticks in it."""
    shown = printable(text)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", shown)), default=0))
    return f"{fence}text\n{shown}\n{fence}\n"


def _pairs(values: Mapping[str, Any]) -> str:
    return escaped(", ".join(f"{name}: {value}" for name, value in values.items()))


def _loaded(launches: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What each model was, and what generation really ran with; of later launches only what changed."""
    said: dict[tuple[str, str], Any] = {}
    for launch in launches:
        told = {launch["model"]: launch.get("facts", {})}
        for sampling, settings in launch.get("effective", {}).items():
            told[f"{launch['model']} with {sampling}"] = settings["values"]
        for subject, values in told.items():
            news = {name: value for name, value in values.items() if said.get((subject, name), ...) != value}
            said |= {(subject, name): value for name, value in news.items()}
            if news:
                yield f"- {escaped(subject)}, launch {launch['launch']}: {_pairs(news)}"


def _environment(environment: Mapping[str, Any]) -> Iterator[str]:
    for name, value in environment.items():
        if isinstance(value, Mapping):
            yield f"- {escaped(name)}: {_pairs(value) or 'none'}"
        elif isinstance(value, list):
            yield f"- {escaped(name)}: {'; '.join(_pairs(entry) for entry in value) or 'none'}"
        else:
            yield f"- {escaped(name)}: {ABSENT if value is None else escaped(str(value))}"


def _exchange(run: Run, exchange: Exchange) -> Iterator[str]:
    yield f"#### Turn {exchange.turn_index}\n"
    if exchange.user is not None:
        yield "User:\n"
        yield fenced(exchange.user)
    if exchange.gold is not None:
        yield "Gold reply:\n"
        yield fenced(exchange.gold)
    for answer in exchange.answers:
        level = f" · {answer.concurrency} at a time" if has_levels(run) else ""
        yield f"**{escaped(answer.model)} · {escaped(answer.sampling)}{level}**{_given(run, answer)}\n"
        if answer.user is not None and answer.user != exchange.user:
            yield "Heard:\n"
            yield fenced(answer.user)
        if answer.reasoning is not None:
            yield "Reasoning:\n"
            yield fenced(answer.reasoning)
        if answer.reply is not None:
            yield fenced(answer.reply)
        yield "\n".join(f"- {line}" for line in _verdicts(answer)) + "\n"


def _given(run: Run, answer: Answer) -> str:
    """In which launches and repeats, where there is more than one."""
    if run.plan["repeats"] * run.plan["launches"] == 1:
        return ""
    by_repeats: dict[str, list[int]] = {}
    for launch, repeats in answer.given.items():
        by_repeats.setdefault(_numbered("repeat", repeats), []).append(launch)
    if run.plan["launches"] == 1:
        return f" – {'; '.join(by_repeats)}"
    return " – " + "; ".join(f"{_numbered('launch', launches)}, {repeats}" for repeats, launches in by_repeats.items())


def _numbered(what: str, numbers: Sequence[int]) -> str:
    plural = "es" if what.endswith("h") else "s"
    return f"{what}{plural if len(numbers) > 1 else ''} {spans(numbers)}"


def spans(numbers: Sequence[int]) -> str:
    """Whole numbers in runs: 0–2, 5."""
    runs: list[list[int]] = []
    for value in sorted(numbers):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _verdicts(answer: Answer) -> Iterator[str]:
    if answer.state == "not_reached":
        yield "not reached"
        return
    if answer.error is not None:
        yield f"✗ {escaped(answer.error)}"
    for check, passed, detail in answer.checks:
        yield f"{'✓' if passed else '✗'} {escaped(check)}" + (f" – {escaped(detail)}" if detail else "")
    facts = [
        f"{answer.prompt_tokens} → {answer.completion_tokens} tokens" if answer.completion_tokens is not None else "",
        escaped(answer.finish_reason or "") if answer.error is None else "",
        f"TTFT {ms(answer.ttft_s)} ms" if answer.ttft_s is not None else "",
        f"{number(answer.output_tokens_per_s)} tok/s" if answer.output_tokens_per_s is not None else "",
    ]
    if any(facts):
        yield " · ".join(fact for fact in facts if fact)
