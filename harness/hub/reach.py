"""Asking the Hub, politely: with a time-out, waiting as long as it asks for, and telling in one line why it says no.

A token is found by huggingface_hub itself (HF_TOKEN, or what `hf auth login` has stored). It never passes through here,
and nothing that is said holds it.
"""

from __future__ import annotations

import difflib
import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import httpx2
from huggingface_hub import HfApi, constants, set_client_factory
from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import hf_raise_for_status, logging  # type: ignore[attr-defined]  # exported lazily

from harness.errors import ModelError
from harness.hub.cache import cached_models

TIMEOUT_S = 15
"""For any answer of the Hub's API."""
PATIENCE_S = 60
"""The longest wait that is waited for when the Hub asks for one; who is told to come back later is told so."""
LOG_IN = "run: hf auth login (or set HF_TOKEN)"
_TRIES = 3
UNREACHABLE = (httpx2.TransportError, OfflineModeIsEnabled, LocalEntryNotFoundError, FileMetadataError)
"""What is raised where nobody answers."""
_Answer = TypeVar("_Answer")


def _before_each(request: httpx2.Request) -> None:
    """What huggingface_hub's own client does not do: to wait no longer than that, also for the pages of a list."""
    if constants.HF_HUB_OFFLINE:
        raise OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
    limits = request.extensions.get("timeout", {})
    request.extensions["timeout"] = {kind: limits.get(kind) or TIMEOUT_S for kind in _WAITS}


def _after_each(response: httpx2.Response) -> None:
    """huggingface_hub waits as long as it is asked to, be it an hour; beyond our patience that is an answer."""
    if (_asked_wait_s(response) or 0) > PATIENCE_S:
        response.read()
        hf_raise_for_status(response)


if "HF_HUB_VERBOSITY" not in os.environ:
    hub_logging: Any = logging  # has no types
    hub_logging.set_verbosity_error()  # every try that fails would be a line, and what is said at the end is enough
_WAITS = ("connect", "read", "write", "pool")
set_client_factory(
    lambda: httpx2.Client(
        event_hooks={"request": [_before_each], "response": [_after_each]}, follow_redirects=True, timeout=TIMEOUT_S
    )
)


def asked(question: Callable[[], _Answer]) -> _Answer:
    """The answer to a question, asked again where the Hub says when (429 with Retry-After, up to `PATIENCE_S`)."""
    for _ in range(_TRIES - 1):
        try:
            return question()
        except HfHubHTTPError as error:
            wait_s = _retry_after_s(error)
            if wait_s is None or wait_s > PATIENCE_S:
                raise
            time.sleep(wait_s)
    return question()


@contextmanager
def reaching(model: str, revision: str | None = None) -> Iterator[None]:
    """Turn what the Hub, the way to it and the disk may raise into a ModelError of one line."""
    try:
        yield
    except (HfHubHTTPError, *UNREACHABLE, HFValidationError, OSError) as error:
        raise explanation(model, revision, error) from error


def is_unreachable(error: BaseException) -> bool:
    """Whether the Hub did not answer, or only that it cannot: a cached commit will do instead."""
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return status >= 500 or status == 429
    return isinstance(error, UNREACHABLE)


def explanation(model: str, revision: str | None, error: Exception) -> ModelError:
    """What an exception of huggingface_hub means to somebody who wants this model."""
    cause = error.__cause__ if isinstance(error, (LocalEntryNotFoundError, FileMetadataError)) else None
    if isinstance(cause, HfHubHTTPError):  # the file is not cached either, but this is why it did not come
        error = cause
    match error:
        case GatedRepoError():
            fact, remedy = "is gated on the Hub", f"accept its terms on {constants.ENDPOINT}/{model} and {LOG_IN}"
        case RevisionNotFoundError():
            fact, remedy = f"has no revision {revision}", "leave revision out for the newest"
        case RepositoryNotFoundError():
            fact = "there is no such model on the Hub, or it is private"
            remedy = f"{_did_you_mean(model)}for a private one {LOG_IN}"
        case HfHubHTTPError():
            fact, remedy = _refused(error)
        case HFValidationError():
            fact, remedy = "is neither a directory nor the name of a model on the Hub", "names are ORG/MODEL"
        case OSError(errno=errno.ENOSPC):
            fact, remedy = "the disk is full", f"free some of it, or set HF_HOME ({constants.HF_HUB_CACHE})"
        case _ if isinstance(error, UNREACHABLE):
            fact, remedy = _not_at_hand(model, error)
        case _:
            fact, remedy = f"could not be fetched: {str(error).strip().splitlines()[0][:300]}", "try again"
    return ModelError(model, fact, remedy)


def nearest(model: str) -> str | None:
    """The name that is most like this one, in the cache or on the Hub; None where nothing is near."""
    names = {name.lower(): name for name in [*_found_on_hub(model), *cached_models()]}
    close = difflib.get_close_matches(model.lower(), names, n=1, cutoff=0.6)
    return names[close[0]] if close else None


def _found_on_hub(model: str) -> list[str]:
    """What the Hub finds by the model's last name, or by the first word of it; nothing where it does not answer."""
    last = model.rpartition("/")[2]
    try:
        for words in dict.fromkeys((last, last.replace("_", "-").partition("-")[0])):
            names = [one.id for one in islice(HfApi().list_models(search=words, sort="downloads", limit=50), 50)]
            if names:
                return names
    except (HfHubHTTPError, *UNREACHABLE):  # a hint is not worth a second mistake
        return []
    return []


def _did_you_mean(model: str) -> str:
    name = nearest(model)
    return f"did you mean {name}? – " if name is not None else "check its name; "


def _refused(error: HfHubHTTPError) -> tuple[str, str]:
    match status := error.response.status_code:
        case 401:
            return "the Hub does not accept the token", f"{LOG_IN} with a valid one, or unset it"
        case 403:
            return "the token may not read it", f"{LOG_IN} with a token that has the right to"
        case 429:
            wait_s = _retry_after_s(error)
            wait = f"wait {wait_s} s" if wait_s is not None else "wait some minutes"
            return "the Hub has had too many requests (429)", f"{wait}; a token is allowed more: {LOG_IN}"
        case _:
            fact = f"the Hub answers {status}, and it is not in the local cache"
            return fact, "try again later, or name a directory"


def _not_at_hand(model: str, error: Exception) -> tuple[str, str]:
    if constants.HF_HUB_OFFLINE:
        close = difflib.get_close_matches(model, cached_models(), n=1, cutoff=0.6)
        there = f"cached is {close[0]}; " if close else ""
        fact = "is not in the local cache, and HF_HUB_OFFLINE forbids to fetch it"
        return fact, f"{there}unset HF_HUB_OFFLINE, or name a directory"
    if isinstance(error, httpx2.TimeoutException):
        fact = "is not in the local cache, and the Hub does not answer in time"
    else:
        fact = "is not in the local cache, and the Hub cannot be reached"
    return fact, f"connect to {constants.ENDPOINT}, or name a directory"


def _retry_after_s(error: HfHubHTTPError) -> int | None:
    return _asked_wait_s(error.response)


def _asked_wait_s(response: httpx2.Response) -> int | None:
    said = response.headers.get("Retry-After", "")
    return int(said) if response.status_code == 429 and said.isdigit() else None
