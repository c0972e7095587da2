"""The ids of one turn as they come from an engine: stamped, handed on, and looked at for what ends a reply."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.backends.failures import TurnTimedOutError
from harness.backends.seam import OnTokens

if TYPE_CHECKING:
    from harness.backends.hf.session import OpenTurn


class Arrivals:
    """Ids that have arrived on the host, in order."""

    def __init__(self, turn: OpenTurn, on_tokens: OnTokens) -> None:
        self.ids: list[int] = []
        self.stopped = False
        """Whether they hold a stop string: what would follow is cut off anyway."""
        self._turn = turn
        self._stopwatch = turn.request.stopwatch
        self._on_tokens = on_tokens

    def come(self, ids: list[int]) -> None:
        """These ids are on the host now. Ticks first; raises TurnTimedOutError."""
        self._stopwatch.tick(len(ids))
        self.look(ids)

    def look(self, ids: list[int]) -> None:
        """Look at ids that have been ticked. Raises TurnTimedOutError."""
        self.ids += ids
        turn = self._turn
        turn.arrived(ids, self._on_tokens)
        if turn.stop_found is not None and turn.stop_found(self.ids):
            self.stopped = True
            return
        timeout_s = turn.request.timeout_s
        if timeout_s is not None and self._stopwatch.elapsed_s() > timeout_s:
            raise TurnTimedOutError(f"the turn took longer than {timeout_s} s ({len(self.ids)} ids had arrived)")
