"""The path of a turn at a server: messages to a request, reads to ticks, chunks to a reply.

The server makes the prompt, so templating and tokenising are its business and part of `prefill_s`, as are its queue and
the way there and back. `template_s` is what making the request took.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import orjson

from harness.backends.failures import TurnTimedOutError, failure_of, first_line
from harness.backends.openai.arrivals import Placed, place
from harness.backends.openai.faults import ServerFault
from harness.backends.openai.reading import Reading
from harness.backends.openai.wire import Answer
from harness.backends.seam import Forced, OnTokens, Reply, TurnRequest
from harness.backends.thoughts import marks_in, parted
from harness.records import Failure, FinishReason, short_hash

if TYPE_CHECKING:
    from harness.backends.openai.backend import ServerBackend

NO_LOGPROBS = "a server is not asked for log-probabilities of given ids"
ESTIMATED = "tokens are estimated: the server told no counts, the tokenizer of {} counted"
NOT_SPREAD = "{} tokens came in {} chunks: there are no gaps between tokens to be told"
CONNECTED = "{:.1f} ms of this turn were spent on making a connection"
SHORT = "length: fixed was asked for, and {} tokens came instead of {}"


class ServerSession:
    """One conversation with a server, which knows nothing of it: every request holds all that was said."""

    def __init__(self, backend: ServerBackend) -> None:
        self._backend = backend

    def reply(self, request: TurnRequest, on_tokens: OnTokens) -> Reply:
        """Answer one request. What goes wrong is in the reply; only a sampling that cannot be carried out at all
        raises (UsageError)."""
        return self._backend.reply(request, on_tokens)

    def force(self, request: TurnRequest, ids: Sequence[int]) -> Forced:
        """Never: no server tells how likely given ids are after a chat."""
        return Forced(why_not=NO_LOGPROBS)


class ServerTurn:
    """A request that is being answered, and how far it has come. `on_text` is told every piece of text that comes."""

    def __init__(self, backend: ServerBackend, request: TurnRequest, on_text: Callable[[str], None]) -> None:
        self._backend = backend
        self._request = request
        self._on_text = on_text
        self._settled = backend.settled(request.sampling, request.length)
        self._phase = "prefill"
        self._reading = Reading(backend.spoken.counts_along)
        self._connect_s = 0.0

    def answer(self) -> Reply:
        """Ask and read the answer; whatever goes wrong is in the reply."""
        try:
            return self._answer()
        except ServerFault as fault:
            phase = "connect" if fault.kind == "NotConnected" else self._phase
            failure = Failure(fault.kind, phase, self._backend.wire.hidden(first_line(fault)))
        except Exception as error:  # noqa: BLE001 - whatever happens inside a turn is that turn's failure
            failure = failure_of(error, self._phase)
        return Reply(failure=failure, prompt_hash=self._prompt_hash(None), notices=tuple(self._connected()))

    def _answer(self) -> Reply:
        request, reading, stopwatch = self._request, self._reading, self._request.stopwatch
        wire = self._backend.wire
        body = orjson.dumps(self._backend.body(request, self._settled))
        stopwatch.templated()
        stopwatch.tokenized()
        with wire.ask(body, stopwatch.now, request.timeout_s) as answer:
            self._connect_s = wire.connect_s
            self._read(answer)
            reading.demand_an_end()
            content = wire.hidden(reading.content())
            marks = marks_in(content)
            said, thoughts = parted(content, marks)
            text = self._cut(said).strip()
            stopwatch.ready()
        tokens, prompt_tokens, estimated = self._counted()
        reason = self._finish_reason(prompt_tokens, tokens, stopped=text != said.strip(), estimated=estimated)
        placed = self._placed(tokens, reason)
        assert reading.last_ns is not None, "something was read, or it had no end"
        stopwatch.generated_elsewhere(placed.at, reading.last_ns, placed.ids)
        notices = self._connected()
        if estimated:
            notices.append(ESTIMATED.format(self._backend.spec.tokenizer))
        if not placed.exact:
            notices.append(NOT_SPREAD.format(tokens, sum(arrival.chunks for arrival in reading.arrivals)))
        wanted = self._settled.limits.max_new_tokens
        if request.length == "fixed" and tokens != wanted and not estimated:
            notices.append(SHORT.format(tokens, wanted))
        left = None if prompt_tokens is None else self._settled.limits.left(prompt_tokens, tokens)
        counter = self._backend.counter
        return Reply(
            text=text,
            reasoning=(wire.hidden(reading.reasoning()) + thoughts).strip() or None,
            finish_reason=reason,
            prompt_tokens=prompt_tokens,
            cached_tokens=reading.usage.cached_tokens if reading.usage is not None else None,
            completion_tokens=tokens,
            tokens_left=left,
            visible_ids=self._ids_until(placed, lambda n: _shown(self._thoughts_and_all(n))),
            answer_ids=self._ids_until(placed, lambda n: _shown(parted(reading.content(n), marks)[0])),
            gold_tokens=counter.count(request.gold) if counter is not None and request.gold is not None else None,
            prompt_hash=self._prompt_hash(prompt_tokens),
            paired=self._settled.greedy or self._backend.keeps_seeds,
            notices=tuple(notices),
        )

    def _read(self, answer: Answer) -> None:
        limit, stopwatch = self._request.timeout_s, self._request.stopwatch
        for read in answer.reads():
            texts, ended = self._reading.take(read)
            self._tell(texts)
            if ended:
                return
            if limit is not None and stopwatch.elapsed_s() > limit:
                raise TurnTimedOutError(f"the turn took longer than {limit} s")
        self._tell(self._reading.close())
        if self._reading.last_ns is None:
            raise ServerFault(
                "MalformedReply", f"the answer is no stream of events ({answer.content_type or 'no type'})"
            )

    def _tell(self, texts: Sequence[str]) -> None:
        for text in texts:
            self._phase = "decode"
            self._on_text(text)

    def _counted(self) -> tuple[int, int | None, bool]:
        """(tokens of the reply, of the prompt, whether the first is an estimate). Raises ServerFault."""
        usage, counter, reading = self._reading.usage, self._backend.counter, self._reading
        text = reading.reasoning() + reading.content()
        tokens = usage.completion_tokens if usage is not None else None
        prompt_tokens = usage.prompt_tokens if usage is not None else None
        if tokens is None or (tokens == 0 and text):
            if counter is None:
                raise ServerFault("NoUsage", "the server told no token counts, and no tokenizer is named to count with")
            kwargs = self._backend.spec.template_kwargs
            prompt_tokens = prompt_tokens or counter.count_prompt(self._request.messages, kwargs)
            return counter.count(text), prompt_tokens, True
        return tokens, prompt_tokens, False

    def _finish_reason(self, prompt_tokens: int | None, tokens: int, *, stopped: bool, estimated: bool) -> FinishReason:
        finish, limits, spoken = self._reading.finish, self._settled.limits, self._backend.spoken
        if finish == "length":
            if estimated and limits.max_new_tokens is not None:
                return "max_new_tokens"
            return limits.reached(tokens)
        if stopped or self._reading.stopped_by is not None or finish == "stop_sequence":
            return "stop"
        full = limits.total is not None and prompt_tokens is not None and prompt_tokens + tokens >= limits.total
        if full:  # transformers serve calls this a stop
            return limits.total_reason
        return "stop" if self._settled.stop_strings and not spoken.tells_stops else "eos"

    def _placed(self, tokens: int, reason: FinishReason) -> Placed:
        arrivals, counter = self._reading.arrivals, self._backend.counter
        first = next((one for one in arrivals if one.chunks), None)
        one_first = counter is not None and first is not None and counter.count(first.reasoning + first.content) == 1
        return place(
            arrivals,
            tokens,
            self._reading.end_ns,
            counts_along=self._backend.spoken.counts_along,
            end_is_a_token=self._backend.spoken.counts_the_end and reason == "eos",
            one_first=one_first,
        )

    def _ids_until(self, placed: Placed, enough: Callable[[int], bool]) -> int | None:
        """How many ids had arrived with the first of the arrivals after which `enough` is so; None if it never is."""
        arrivals = self._reading.arrivals
        if not enough(len(arrivals)):
            return None
        low, high = 0, len(arrivals)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        ns = arrivals[high - 1].ns
        return max(sum(ids for at, ids in zip(placed.at, placed.ids, strict=True) if at <= ns), 1)

    def _thoughts_and_all(self, arrivals: int) -> str:
        text = self._reading.reasoning(arrivals) + self._reading.content(arrivals)
        marks = marks_in(self._reading.content())
        return text.replace(marks[0], "", 1) if marks is not None and marks[0] else text

    def _cut(self, text: str) -> str:
        found = [at for stop in self._settled.stop_strings if (at := text.find(stop)) >= 0]
        return text[: min(found)] if found and self._request.length == "natural" else text

    def _prompt_hash(self, prompt_tokens: int | None) -> str:
        """Of the messages and what they were to be made into, since nobody shows us the ids: equal hashes mean the same
        messages to a model of the same name, which counted as many tokens. It says so in front."""
        messages = [[message.role, message.content] for message in self._request.messages]
        kwargs = dict(sorted(self._backend.spec.template_kwargs.items()))
        told = orjson.dumps([self._backend.server.model, messages, kwargs, prompt_tokens])
        return f"messages:{short_hash(told)}"

    def _connected(self) -> list[str]:
        return [CONNECTED.format(1000 * self._connect_s)] if self._connect_s else []


def _shown(text: str) -> bool:
    return bool(text.strip())
