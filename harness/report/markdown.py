"""A run as one Markdown page: tables, warnings, environment, launches, transcripts.

What a model said is untrusted: it is fenced by more backticks than it contains and shows its control characters, so
that no reply can end its fence, become HTML, or drive the terminal of someone who prints the page. Everything else
that may hold foreign text – labels, messages, check names – is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from harness.analysis.frames import Run
from harness.analysis.notes import THROUGHPUT, behaviour_caption, notes, speed_caption
from harness.analysis.summary import by_conversation, by_setting, by_turn
from harness.analysis.throughput import has_levels, throughput
from harness.analysis.transcripts import MOST_ANSWERS, Answer, Exchange, transcripts
from harness.report.units import ABSENT, count, interval, memory, ms, number, percent, percents, printable
from harness.report.words import lane, machine, matrix

_SPECIAL = re.compile(r"([\\`*\[\]|~#<>&]|(?<!\w)_|_(?!\w))")
"""What can mean something within a line; an underscore inside a word cannot (CommonMark §6.2)."""
_MOST_ROWS = 2000
"""Of the table by conversation, more or less."""
_Columns = Mapping[str, Callable[[Mapping[Any, Any]], str]]
"""Header → what to show of a row."""


def markdown(run: Run) -> str:
    """The page, ending in a line feed."""
    return "\n".join(_page(run)).rstrip("\n") + "\n"


def _page(run: Run) -> Iterator[str]:
    settings = by_setting(run)
    yield f"# {escaped(run.run_id)}\n"
    yield _list(matrix(run), lane(run), machine(run))
    warnings = [*run.manifest["warnings"], *notes(run)]
    if warnings:
        yield "## Beware\n"
        yield _list(*warnings)
    yield "## Behaviour by setting\n"
    yield _table(settings, {**_LABELS, **_STATES, **_BEHAVIOUR})
    yield behaviour_caption(run) + " A turn that failed or was not reached fails all its checks.\n"
    yield "## Speed by setting\n"
    yield _table(settings, {**_LABELS, **_SPEED, **_MEMORY})
    yield speed_caption(run) + " p95 from 60 turns on, p99 from 300.\n"
    if has_levels(run):
        yield "## Throughput\n"
        yield _table(throughput(run), {**_LABELS, **_THROUGHPUT})
        yield THROUGHPUT + "\n"
    yield "## By turn\n"
    yield _table(by_turn(run), {**_LABELS, **_BY_TURN})
    yield "p50 of the turns at each position. Prefill ends with the first id: it holds the first sample and one sync.\n"
    yield "## By conversation\n"
    shown = max(1, _MOST_ROWS // len(settings))
    yield _table(by_conversation(run, shown), {**_LABELS, **_BY_CONVERSATION})
    if shown < len(run.plan["conversations"]):
        yield (
            f"The first {shown} of {len(run.plan['conversations'])} conversations; turns.parquet has all of them, and "
            "`harness.analysis.summary.by_conversation` their table.\n"
        )
    yield "## Launches\n"
    yield _table(run.launches, _LAUNCHES)
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


def _list(*lines: str) -> str:
    return "\n".join(f"- {escaped(line)}" for line in lines) + "\n"


def escaped(text: str) -> str:
    """Foreign text within a line of Markdown: one line, nothing in it means anything."""
    return _SPECIAL.sub(r"\\\1", " ".join(printable(text).split()))


def fenced(text: str) -> str:
    """Foreign text as a block that it cannot break out of: the fence is longer than any run of backticks in it."""
    shown = printable(text)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", shown)), default=0))
    return f"{fence}text\n{shown}\n{fence}\n"


def _between(name: str, shown: Callable[[Any], str]) -> Callable[[Mapping[Any, Any]], str]:
    """A p50 followed by its interval."""

    def cell(row: Mapping[Any, Any]) -> str:
        inside = interval(row[f"{name}_low"], row[f"{name}_high"], shown)
        return shown(row[f"{name}_p50"]) + (f" ({inside})" if inside else "")

    return cell


def _rate(row: Mapping[Any, Any]) -> str:
    inside = percents(row["checks_low"], row["checks_high"])
    return percent(row["checks_rate"]) + (f" ({inside})" if inside else "")


def _of(name: str, shown: Callable[[Any], str]) -> Callable[[Mapping[Any, Any]], str]:
    return lambda row: shown(row[name])


def _text(value: Any) -> str:
    return "" if pd.isna(value) else escaped(str(value))


_LABELS: _Columns = {
    "model": _of("model", _text),
    "sampling": _of("sampling", _text),
    "concurrency": _of("concurrency", count),
}
_STATES: _Columns = {
    name.replace("_", " "): _of(name, count) for name in ("turns", "done", "failed", "not_reached", "missing")
}
_BEHAVIOUR: _Columns = {
    "checks passed": _rate,
    "tokens p50": _of("completion_tokens_p50", count),
    "tokens mean": _of("completion_tokens_mean", number),
    "cut off": _of("truncated_rate", percent),
    "repetition": _of("repetition_mean", percent),
}
_SPEED: _Columns = {
    "TTFT ms": _between("ttft_s", ms),
    "TTFT p95": _of("ttft_s_p95", ms),
    "TTFT p99": _of("ttft_s_p99", ms),
    "TPOT ms": _between("tpot_s", ms),
    "TPOT p95": _of("tpot_s_p95", ms),
    "TPOT p99": _of("tpot_s_p99", ms),
    "tok/s": _between("output_tokens_per_s", number),
    "end to end ms": _between("e2e_s", ms),
}
_MEMORY: _Columns = {
    "GPU memory": _of("peak_memory_bytes", memory),
    "device in use": _of("device_used_bytes", memory),
    "host memory": _of("host_rss_bytes", memory),
    "load s": _of("load_s", number),
    "first turn ms": _of("first_turn_s", ms),
}
_THROUGHPUT: _Columns = {
    "turns": _of("turns", count),
    "answered together": _of("batch_size_mean", number),
    "tok/s": _between("output_tokens_per_s", number),
    "turns/s": _between("turns_per_s", number),
    "speed-up": _between("speedup", number),
    "TTFT ms": _between("ttft_s", ms),
    "TPOT ms": _between("tpot_s", ms),
    "end to end ms": _between("e2e_s", ms),
}
_BY_TURN: _Columns = {
    "turn": _of("turn_index", count),
    "turns": _of("turns", count),
    "done": _of("done", count),
    "prompt tokens": _of("prompt_tokens_p50", count),
    "cached": _of("cached_tokens_p50", count),
    "tokens": _of("completion_tokens_p50", count),
    "left": _of("tokens_left_p50", count),
    "dropped messages": _of("dropped_messages_p50", count),
    "checks passed": _of("checks_rate", percent),
    "prefill ms": _of("prefill_s_p50", ms),
    "TTFT ms": _between("ttft_s", ms),
    "TPOT ms": _between("tpot_s", ms),
    "tok/s": _between("output_tokens_per_s", number),
}
_BY_CONVERSATION: _Columns = {
    "conversation": _of("conversation_id", _text),
    **_STATES,
    "checks passed": _of("checks_rate", percent),
    "tokens mean": _of("completion_tokens_mean", number),
    "cut off": _of("truncated_rate", percent),
    "repetition": _of("repetition_mean", percent),
    "end to end ms": _of("e2e_s_p50", ms),
}
_LAUNCHES: _Columns = {
    "model": _of("model", _text),
    "launch": _of("launch", count),
    "load s": _of("load_s", number),
    "imports s": _of("import_s", number),
    "weights s": _of("weights_s", number),
    "first forward s": _of("first_forward_s", number),
    "first turn ms": _of("first_turn_s", ms),
    "error": _of("error", _text),
}


def _table(frame: pd.DataFrame, columns: _Columns) -> str:
    """A table of the columns that have something to say in any row."""
    rows = frame.to_dict("records")
    cells = {header: [show(row) for row in rows] for header, show in columns.items()}
    silent = {ABSENT, ""}
    told = {
        header: column
        for header, column in cells.items()
        if header in _ALWAYS or set(column) - silent - _UNREMARKABLE.get(header, set())
    }
    lines = [_line(list(told)), _line(["---" if header in _TEXTS else "---:" for header in told])]
    lines += [_line([column[index] for column in told.values()]) for index in range(len(rows))]
    return "\n".join(lines) + "\n"


_ALWAYS = {"model", "sampling"}
_UNREMARKABLE = {
    "failed": {"0"}, "not reached": {"0"}, "missing": {"0"}, "dropped messages": {"0"}, "concurrency": {"1"},
}  # fmt: skip
"""Columns that are left out where they say nothing but this."""
_TEXTS = {"model", "sampling", "conversation", "error"}


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


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
