"""What can go wrong, as values with a subject, a fact and a remedy.

    HarnessError                 exit code 1 unless a subclass says otherwise
    ├── UsageError               a command or config that cannot be carried out      (2)
    │   └── DocumentError        mistakes in a file someone wrote, all at once       (2)
    ├── ModelError               a model that cannot be loaded or is not supported   (2)
    ├── StoreError               a run that cannot be written or read                (2)
    ├── NotComparableError       two sides whose numbers are not of the same thing   (5)
    └── NotReadyError            a machine on which nothing can be measured now      (4)

What goes wrong *while a turn is answered* is not an exception but a `records.Failure` inside the turn's record:
a run must survive it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong: where it is (`configs/a.yaml:5:3: sampling.tok_k`), what is wrong, what to do."""

    subject: str
    fact: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.subject}: {self.fact}" + (f" – {self.remedy}" if self.remedy else "")


class HarnessError(Exception):
    """Anything the harness itself has to say; its text is one line per mistake and never needs a traceback."""

    exit_code = 1

    def __init__(self, subject: str, fact: str, remedy: str = "") -> None:
        self.mistakes: tuple[Mistake, ...] = (Mistake(subject, fact, remedy),)
        super().__init__(str(self.mistakes[0]))


class UsageError(HarnessError):
    """The command or the config asks for something that cannot be done."""

    exit_code = 2


class DocumentError(UsageError):
    """Every mistake of a user's file or files, reported together."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        Exception.__init__(self, "\n".join(str(mistake) for mistake in mistakes))
        self.mistakes = tuple(mistakes)


class ModelError(HarnessError):
    """A model cannot be found, loaded or used."""

    exit_code = 2


class StoreError(HarnessError):
    """A run cannot be written to or read from the results directory."""

    exit_code = 2


class NotComparableError(HarnessError):
    """What differs between the sides of a comparison makes their numbers incomparable, each thing a mistake."""

    exit_code = 5

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        Exception.__init__(self, "\n".join(str(mistake) for mistake in mistakes))
        self.mistakes = tuple(mistakes)


class NotReadyError(HarnessError):
    """What keeps a machine from being measured on, each thing a mistake: so nobody can tell anything of it."""

    exit_code = 4

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        Exception.__init__(self, "\n".join(str(mistake) for mistake in mistakes))
        self.mistakes = tuple(mistakes)
