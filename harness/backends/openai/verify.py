"""Whether a server does what it was asked: a few short replies before anything is measured.

Servers pass over what they do not know, and nothing in their answers says so. So greedy is asked for twice, draws with
equal and with different seeds, and a reply that is to stop at something it is known to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from harness.backends.seam import Reply

Ask = Callable[[Mapping[str, Any], int], Reply]
"""(sampling, seed) → the reply to a question that is always the same. Raises ModelError where there is none."""

QUESTION = "Tell me in one sentence what motion is."
_GREEDY: Mapping[str, Any] = {"do_sample": False, "max_new_tokens": 12}
_DRAWN: Mapping[str, Any] = {"do_sample": True, "temperature": 2.0, "top_k": 0, "max_new_tokens": 12}
"""As wild as all servers allow, so that two draws hardly ever come out alike."""
_SEEDS = (1, 1, 2, 3, 4, 5)


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found out; None for what could not be."""

    greedy: bool | None = None
    """Greedy replies came out alike, whatever the seed."""
    draws: bool | None = None
    """With do_sample, seeds make a difference: it does not decode greedily whatever it is asked."""
    seeds: bool | None = None
    """Equal seeds gave equal replies."""
    stops: bool | None = None
    """A stop string ended the reply."""
    estimated: bool = False
    """It tells no token counts."""

    def facts(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def notices(self) -> tuple[str, ...]:
        """What a user should know, a line each."""
        said = []
        if self.greedy is False:
            said.append("the server does not repeat itself: two greedy replies to one question differed")
        if self.draws is False:
            said.append("the server decodes greedily whatever it is asked: six draws at temperature 2 were alike")
        if self.seeds is False:
            said.append("the server does not keep to seeds: what it draws cannot be paired, nor drawn again")
        if self.stops is False:
            said.append("the server does not end replies at stop strings")
        return tuple(said)


def verify(ask: Ask, *, top_k: bool, stops: bool) -> Verified:
    """Find out. `top_k` says whether the server may be told one, `stops` whether it may be given stop strings."""
    one, other = ask(_GREEDY, 1), ask(_GREEDY, 2)
    drawn = {name: value for name, value in _DRAWN.items() if top_k or name != "top_k"}
    replies: list[str] = []
    for seed in _SEEDS:
        replies.append(_text(ask(drawn, seed)))
        if len(replies) >= 3 and len(set(replies)) > 1:
            break
    draws = len(set(replies)) > 1
    return Verified(
        greedy=_text(one) == _text(other),
        draws=draws,
        seeds=replies[0] == replies[1] if draws else None,
        stops=_stops(ask, one) if stops else None,
        estimated=any("estimated" in notice for notice in one.notices),
    )


def _stops(ask: Ask, whole: Reply) -> bool | None:
    """Whether a reply ends at a text in its middle; None where it is too short to tell, or is not said again."""
    text = whole.text or ""
    words = text.split()
    middle = next((later for earlier, later in list(pairwise(words))[len(words) // 3 :] if earlier != later), "")
    if not middle or (whole.completion_tokens or 0) < 4:
        return None
    stopped = ask({**_GREEDY, "stop_strings": [middle]}, 1)
    before = text[: text.find(middle)].strip()
    if stopped.text != before:
        return None if not (stopped.text or "").startswith(before[:3]) else False
    return (stopped.completion_tokens or 0) < (whole.completion_tokens or 0)


def _text(reply: Reply) -> str:
    return f"{reply.reasoning or ''}{reply.text or ''}"
