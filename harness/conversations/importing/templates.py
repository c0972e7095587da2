"""promptfoo's templates, as far as they are names in braces: `Translate {{ text }}.`"""

from __future__ import annotations

from collections.abc import Mapping

from harness.conversations.importing.ledger import CannotSayError
from harness.conversations.variables import VARIABLE


def rendered(template: str, variables: Mapping[str, str]) -> str:
    """The text with its names filled in. Raises CannotSayError for an unknown name, a filter, a loop or a condition."""
    if "{%" in template or "{#" in template or "{{" in VARIABLE.sub("", template):
        raise CannotSayError("a template that is more than names")
    unknown = [name for name in VARIABLE.findall(template) if name not in variables]
    if unknown:
        raise CannotSayError("a template with a name that no variable has")
    return VARIABLE.sub(lambda match: variables[match[1]], template)
