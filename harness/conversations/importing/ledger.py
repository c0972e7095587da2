"""What an import did not take over as it was: counted, with the first lines of each kind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

LEFT_OUT = "the conversation is left out"
_EXAMPLES = 3
_KINDS = 50
"""Kinds that are told apart: what is foreign can have a new name in every line."""


class CannotSayError(Exception):
    """Something that a scripted conversation cannot hold; without it, it would be another conversation."""


@dataclass(slots=True)
class Finding:
    """One kind of thing: what it is, what became of it, how often, and the first lines where it stands."""

    what: str
    became: str
    times: int = 0
    lines: list[int] = field(default_factory=list)


class Ledger:
    """The findings of one import."""

    def __init__(self) -> None:
        self._findings: dict[tuple[str, str], Finding] = {}
        self._unread: dict[str, None] = {}

    @property
    def findings(self) -> list[Finding]:
        """The most frequent first."""
        return sorted(self._findings.values(), key=lambda finding: -finding.times)

    @property
    def unread(self) -> list[str]:
        """Names of fields that say nothing about the talk itself, as far as the format is known."""
        return list(self._unread)

    def note(self, line: int, what: str, became: str = LEFT_OUT) -> None:
        """Something in this line was not taken over as it was."""
        key = self._key(what, became)
        finding = self._findings.setdefault(key, Finding(*key))
        finding.times += 1
        if len(finding.lines) < _EXAMPLES and line not in finding.lines:
            finding.lines.append(line)

    def add(self, aside: Ledger) -> None:
        """Take over what was noted of a conversation that is kept after all."""
        self.pass_over(aside.unread)
        for finding in aside.findings:
            for line in finding.lines:
                self.note(line, finding.what, finding.became)
            self._findings[self._key(finding.what, finding.became)].times += finding.times - len(finding.lines)

    def pass_over(self, names: Iterable[str]) -> None:
        """Fields that are not read."""
        for name in names:
            if len(self._unread) < _KINDS:
                self._unread[str(name)] = None

    def _key(self, what: str, became: str) -> tuple[str, str]:
        full = (what, became) not in self._findings and len(self._findings) >= _KINDS
        return ("something else" if full else what), became
