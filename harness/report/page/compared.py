"""The comparisons on the page: what differs between sides besides the thing compared, and what differs in numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from harness.analysis.compare import Comparison, compare
from harness.analysis.frames import Run
from harness.analysis.sides import axes_of
from harness.errors import UsageError
from harness.report import answers, response
from harness.report.page.tables import Header, Row, Shown, Table


@dataclass(frozen=True, slots=True)
class Compared:
    """One comparison."""

    heading: str
    notes: tuple[str, ...]
    tables: tuple[Table, ...] = ()
    footing: tuple[str, ...] = ()
    """What the answers stand on, and what was not compared."""


def compared(runs: Sequence[Run]) -> list[Compared]:
    """Several runs against the first of them, or, of one run, whatever it has several of against the first of these."""
    if len(runs) > 1:
        try:
            return [_told("runs", compare(runs[0], *runs[1:]))]
        except UsageError as error:  # runs of nothing in common can stand on one page
            return [Compared("The runs cannot be compared", (str(error),))]
    (run,) = runs
    several = [axis for axis, values in axes_of(run).items() if len(values) > 1]
    if len(run.turns) > response.MOST_TURNS:
        how = "Not worked out unasked for so many turns: harness compare RUN --by {} does it."
        return [Compared(f"Compared by {axis}", (how.format(axis),)) for axis in several]
    return [_told(axis, compare(run, by=axis)) for axis in several]


def _told(name: str, comparison: Comparison) -> Compared:
    fairness = [list(row.values()) for row in answers.differences(comparison)]
    found = [
        [
            answers.sides(row),
            answers.TITLES[row["metric"]],
            answers.value(row, "baseline_value"),
            answers.value(row, "candidate_value"),
            f"{answers.effect(row)}\n{answers.between(row)}",
            answers.q(row),
            answers.answer(row),
        ]
        for row in comparison.rows[comparison.rows["effect"].notna()].to_dict("records")
    ]
    differs = ("differs", "baseline", "candidate", "speed", "behaviour", "remark")
    answered = ("sides", "metric", "baseline", "candidate", "effect", "q", "answer")
    unfair = [_table(f"fairness-{name}", "What differs besides", differs, fairness, answers.FAIRNESS)]
    fair = "Fairness: nothing differs besides the thing compared."
    return Compared(
        answers.heading(comparison),
        (*([] if fairness else [fair]), *(f"Only in {side.run.run_id}: {side.label}." for side in comparison.alone)),
        (*(unfair if fairness else []), _table(f"answers-{name}", "Answers", answered, found, answers.ANSWERS)),
        tuple(_footing(comparison)),
    )


def _footing(comparison: Comparison) -> Iterator[str]:
    """What is said of every pair once, and of the others with their names."""
    said: dict[str, list[str]] = {}
    for _, rows in comparison.rows.groupby("pair", sort=False):
        for line in (*answers.footing(rows), *answers.not_compared(rows)):
            said.setdefault(line, []).append(answers.sides(rows.head(1).to_dict("records")[0]))
    for line, pairs in said.items():
        yield line if len(pairs) == len(comparison.pairs) else f"{'; '.join(pairs)} – {line}"


def _table(name: str, title: str, headers: Iterable[str], rows: Iterable[Sequence[str]], caption: str) -> Table:
    """A table of text; what follows a line feed stands small beside what comes before it."""
    cells = [[text.partition("\n") for text in row] for row in rows]
    return Table(
        name,
        title,
        caption,
        tuple(Header(header, is_text=True) for header in headers),
        tuple(Row("", "", tuple(Shown(value, beside, value) for value, _, beside in row)) for row in cells),
    )
