"""What goes wrong while a model is loaded or a turn is answered, turned into values.

`OutOfMemory` is raised by `open_backend`; inside a turn the same thing is a `Failure` of kind `OutOfMemory`.
This module recognises errors of torch and transformers without importing either.
"""

from __future__ import annotations

from harness.errors import ModelError
from harness.records import Failure

_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")
# torch.multinomial's words for NaN or infinity among the probabilities (aten/src/ATen/native/Distributions.cpp).
_NOT_FINITE = "probability tensor contains either"
_LONGEST_MESSAGE = 500


class OutOfMemory(ModelError):  # noqa: N818 - the kind it is recorded as
    """The model does not fit: memory ran out while its weights were loaded or first used."""


class TurnTimedOutError(Exception):
    """A turn took longer than it may; raised where ids arrive, reported as kind `Timeout`."""


class NonFiniteLogitsError(Exception):
    """The model computed NaN or infinity; reported as kind `NonFiniteLogits`."""


class ContextOverflowError(Exception):
    """A prompt at or over the limit under `on_overflow: error`; reported as kind `ContextOverflow`."""


class UnbatchableError(Exception):
    """A row that would change what the other rows of its batch compute; reported as kind `Unbatchable`."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: torch has a class for accelerators and only a sentence for the host."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _NO_MEMORY)


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, shortened to a length a table can bear."""
    lines = str(error).strip().splitlines()
    return lines[0][:_LONGEST_MESSAGE] if lines else type(error).__name__


def failure_of(error: BaseException, phase: str) -> Failure:
    """The failure that an exception inside a turn is recorded as; its kind is the class's name where we have none."""
    if is_out_of_memory(error):
        kind = "OutOfMemory"
    elif isinstance(error, RuntimeError) and _NOT_FINITE in str(error):
        kind = "NonFiniteLogits"
    else:
        ours = (TurnTimedOutError, NonFiniteLogitsError, ContextOverflowError, UnbatchableError)
        kind = type(error).__name__
        if isinstance(error, ours):
            kind = {"TurnTimedOutError": "Timeout"}.get(kind, kind.removesuffix("Error"))
    return Failure(kind, phase, first_line(error))
