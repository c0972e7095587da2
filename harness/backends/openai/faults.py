"""What goes wrong between us and a server, each thing of a kind that a failure is recorded as."""

from __future__ import annotations

from typing import Literal

FaultKind = Literal[
    "NotConnected",
    "ConnectionLost",
    "RateLimited",
    "RequestRefused",
    "ContextOverflow",
    "ServerError",
    "StreamError",
    "StreamCut",
    "MalformedReply",
    "NoUsage",
    "Unfinished",
]
"""No connection came about · it broke · 429 · another 4xx · one that says the prompt is too long · 5xx · the stream
itself tells of an error · it ended before the reply did · it holds what is none of the API · no counts, and no
tokenizer to count with · the reply was ended for a reason that is no end of a reply."""


class ServerFault(Exception):  # noqa: N818 – what it is called is its kind
    """One of these, with what there is to say about it."""

    def __init__(self, kind: FaultKind, message: str) -> None:
        super().__init__(message)
        self.kind: FaultKind = kind
