"""A tuning study in words and tables: tune.md, and the rows that the terminal shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.analysis.stats import Estimate
from harness.analysis.tuned import Rung, Tuned
from harness.analysis.tuning import CHANCE, Goals, Standing
from harness.analysis.validation import Difference, Kept, Validation
from harness.config.figures import Figure
from harness.report.markdown_tables import escaped
from harness.report.units import ABSENT, memory, ms, number, share
from harness.report.words import several

ANSWERS = {
    "better": "better than the default",
    "not worse": "not worse than the default beyond the margin",
    "worse": "worse than the default beyond the margin",
    "cannot tell": "cannot tell whether it is worse than the default beyond the margin",
}
_MOST_SHOWN = 200
"""Settings that tune.md lists; tune.json has all."""


def shown(figure: Figure, value: float | None) -> str:
    """A value of a figure in a unit that suits it."""
    if value is None:
        return ABSENT
    match figure.unit:
        case "s":
            return f"{number(value)} s" if value >= 1 else f"{ms(value)} ms"
        case "bytes":
            return memory(value)
        case "ratio":
            return share(value)
    return f"{number(value)} {figure.unit}"


def with_interval(figure: Figure, found: Estimate) -> str:
    """A figure and, in brackets, where it lies with 95 % confidence."""
    if found.low is None or found.high is None:
        return shown(figure, found.value)
    return f"{shown(figure, found.value)} ({shown(figure, found.low)} to {shown(figure, found.high)})"


def headers(goals: Goals) -> list[str]:
    """Of the rows of `rows`."""
    return ["setting", *(figure.name for figure in goals.figures), "turns", ""]


def rows(
    goals: Goals, standings: Sequence[Standing], stopped: Mapping[str, str], default: str, *, intervals: bool = False
) -> list[list[str]]:
    """A row for each setting: its figures, and how it stands; those on the front first."""
    ordered = sorted(standings, key=lambda each: (not each.on_front, each.name in stopped))
    return [
        [
            _named(each.name, default),
            *((with_interval if intervals else _plain)(figure, each.figures[figure.name]) for figure in goals.figures),
            str(each.turns),
            state(each, stopped.get(each.name)),
        ]
        for each in ordered
    ]


def state(standing: Standing, reason: str | None) -> str:
    """How a setting stands, in a few words."""
    if reason is not None:
        return f"stopped: {reason}"
    if standing.broken:
        return f"beyond {', '.join(standing.broken)}"
    if standing.fails_more:
        return "fails more turns than the default"
    return "front" if standing.on_front else ""


def verdict(tuned: Tuned) -> list[str]:
    """What the study says, in sentences: what is recommended, why, and what it is worth on held-out conversations."""
    if tuned.choice is None or tuned.validation is None:
        limits = ", ".join(limit.text for limit in tuned.goals.limits) or "the study's figures"
        return [f"No setting that was played to the end is within {limits}: nothing is recommended."]
    validation, name = tuned.validation, tuned.choice.name
    lines = [f"Recommended: {_named(str(tuned.recommended), tuned.default)}."]
    if not validation.stands:
        lines = [f"Recommended: the default, {tuned.default}. {name} did best in the search, but does not hold up."]
    lines += tuned.choice.reasons
    held = f"{several(validation.conversations, 'held-out conversation')} in {several(validation.launches, 'launch')}"
    if name == tuned.default:
        lines.append(f"On {held}, with fresh draws, the figures to quote:")
        lines += [
            f"{each.figure.name}: {with_interval(each.figure, each.candidate)}" for each in validation.differences
        ]
    else:
        lines.append(f"On {held}, with fresh draws, {name}: {ANSWERS[validation.answer]}.")
        if validation.failed > validation.failed_by_default:
            theirs = several(validation.failed_by_default, "turn")
            lines.append(f"It failed {several(validation.failed, 'turn')} of {validation.turns}, the default {theirs}.")
        lines += [f"{each.figure.name}: {difference_text(each)}" for each in validation.differences]
    lines += [f"{each.limit}: {kept_text(each)}" for each in validation.limits]
    return lines


def difference_text(each: Difference) -> str:
    """`97 % against 95 % …: better`."""
    text = f"{shown(each.figure, each.candidate.value)} against {shown(each.figure, each.default.value)}"
    if each.change is not None:
        text += f", {_change(each, each.change)}"
    if each.low is not None and each.high is not None:
        text += f" (95 %: {_change(each, each.low)} to {_change(each, each.high)})"
    return f"{text}: {each.answer}" + (f" – {each.why}" if each.why else "")


def kept_text(each: Kept) -> str:
    word = {True: "kept", False: "not kept", None: "cannot tell"}[each.kept]
    if each.kept and not each.surely:
        word += ", though its interval reaches beyond"
    if each.kept_by_default is False:
        word += f"; the default is beyond it: {shown(each.figure, each.default.value)}"
    return f"{with_interval(each.figure, each.candidate)}: {word}"


def tune_markdown(tuned: Tuned) -> str:
    """tune.md."""
    first, *reasons = verdict(tuned)
    parts = [
        f"# Tuning {escaped(tuned.model)}: {escaped(tuned.path.name)}\n",
        f"**{escaped(first)}**\n",
        "".join(f"- {escaped(line)}\n" for line in reasons),
    ]
    if tuned.validation is not None:
        parts.append(_validation(tuned, tuned.validation))
    parts += [_settings(tuned), *(_rung(rung) for rung in tuned.rungs if rung.stopped), _how(tuned), _warnings(tuned)]
    return "\n".join(part for part in parts if part)


def _validation(tuned: Tuned, validation: Validation) -> str:
    lines = ["## On held-out conversations\n", "These are the numbers to quote: nothing was chosen by them.\n"]
    header = ["figure", _named(tuned.default, tuned.default), validation.candidate, "change", "95 %", "answer"]
    body = [
        [
            each.figure.name,
            with_interval(each.figure, each.default),
            with_interval(each.figure, each.candidate),
            _change(each, each.change),
            ABSENT if each.low is None else f"{_change(each, each.low)} to {_change(each, each.high)}",
            each.answer,
        ]
        for each in validation.differences
    ]
    if validation.candidate == validation.default:
        header, body = ["figure", "the default"], [[name, figures] for name, figures, *_ in body]
    lines.append(_table(header, body))
    if validation.limits:
        lines.append(
            _table(["limit", validation.candidate], [[each.limit, kept_text(each)] for each in validation.limits])
        )
    return "\n".join(lines)


def _settings(tuned: Tuned) -> str:
    text = (
        "## Settings\n\nWhat every setting did on the conversations it was tuned on, over all rungs it played, with "
        "95 % intervals over conversations. The best of many is so partly by luck: they flatter the winner.\n\n"
    )
    stopped = {name: reason for rung in tuned.rungs for name, reason in rung.stopped.items()}
    last = [standing for _, standing in sorted(tuned.last.values(), key=lambda each: -each[0])]
    if len(last) > _MOST_SHOWN:
        text += f"The first {_MOST_SHOWN} of {len(last)}; tune.json has all.\n\n"
    return text + _table(
        headers(tuned.goals), rows(tuned.goals, last, stopped, tuned.default, intervals=True)[:_MOST_SHOWN]
    )


def _rung(rung: Rung) -> str:
    lines = [f"- {escaped(name)}: {escaped(reason)}\n" for name, reason in rung.stopped.items()]
    return f"## Stopped after rung {rung.number}\n\n{''.join(lines)}"


def _how(tuned: Tuned) -> str:
    goals = tuned.goals
    wanted = [f"{'minimize' if each.better == 'lower' else 'maximize'} {each.figure.name}" for each in goals.objectives]
    lines = [
        f"objectives, the first counting first: {', '.join(wanted)}",
        f"limits: {', '.join(limit.text for limit in goals.limits) or 'none'}",
        f"margin: {share(goals.margin)} of a quantity, or so many points of a rate",
        f"search: {tuned.search}, {len(tuned.settings)} settings, seed {tuned.seed}; every rung "
        "draws anew, all settings of a rung alike",
        *(
            []
            if tuned.paired
            else ["several conversations were replayed at a time, so draws of settings are not paired"]
        ),
        "rungs: " + "; ".join(f"{', '.join(rung.runs)}: {len(rung.standings)} settings" for rung in tuned.rungs),
        "a setting stops where it breaks a limit clearly, or where one on the front is better in one objective for "
        "certain and by its values worse in none by more than the margin; each such comparison errs with a chance of "
        f"{tuned.chance:.2g} at most, so that each of the good settings is lost with a chance of at most {CHANCE:g}",
        f"tuned on: {', '.join(tuned.tuned_on)}",
        f"held out: {', '.join(tuned.held_out)}",
        f"config: {tuned.config}",
    ]
    return "## How\n\n" + "".join(f"- {escaped(line)}\n" for line in lines)


def _warnings(tuned: Tuned) -> str:
    """What the runs have to say; nothing where they have nothing."""
    if not tuned.warnings:
        return ""
    shown = [f"- {escaped(warning)}\n" for warning in tuned.warnings[:_MOST_SHOWN]]
    left = len(tuned.warnings) - len(shown)
    return "## Warnings\n\n" + "".join(shown) + (f"- and {left} more, in the runs' own reports\n" if left else "")


def _change(each: Difference, value: float | None) -> str:
    """A ratio as per cent more or less, a difference of rates in points."""
    if value is None:
        return ABSENT
    shift, unit = (100 * value, "points") if each.figure.is_rate else (100 * (value - 1), "%")
    return f"{shift:+.0f} {unit}" if abs(shift) >= 100 - 0.5 else f"{shift:+.2g} {unit}"  # .2g: 1e+02


def _plain(figure: Figure, found: Estimate) -> str:
    return shown(figure, found.value)


def _named(name: str, default: str) -> str:
    return f"{name} (the default)" if name == default and name != "default" else name


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *body]
    return "".join(f"| {' | '.join(map(escaped, cells))} |\n" for cells in lines)
