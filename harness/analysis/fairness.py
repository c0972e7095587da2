"""What differs between two sides besides the thing compared, and what that does to the numbers.

The thing compared is what the sides are different by name in: the model, the sampling, the level of concurrency; two
runs of one setting are compared as they are, and then everything counts. What else differs is either

    a blocker   the numbers are not of the same thing: they are shown, and no answer is given
    a suspect   the numbers are compared, and whatever they say may come from here

each for speed (with memory and loading) and for behaviour by itself. Of two different models, tokenizer, template and
weights are the thing compared; what their specs ask for besides – dtype, engine, attention … – is not. A model under
two names is compared by whatever its two specs differ in, and by what comes of that; what came out another way though
it was asked for alike counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from harness.analysis.pairing import Work
from harness.analysis.sides import Pair, Side

Weight = Literal["blocker", "suspect"]
Kind = Literal["machine", "plan", "interpreter", "model", "spec"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not the same on both sides."""

    field: str
    baseline: str
    candidate: str
    speed: Weight | None
    behaviour: Weight | None
    remark: str = ""

    @property
    def blocks(self) -> bool:
        return "blocker" in (self.speed, self.behaviour)

    @property
    def columns(self) -> dict[str, str | None]:
        """As a row of a ledger."""
        return {
            "field": self.field,
            "baseline_value": self.baseline,
            "candidate_value": self.candidate,
            "speed": self.speed,
            "behaviour": self.behaviour,
            "remark": self.remark or None,
        }


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    kind: Kind
    read: Callable[[Side], Any]
    """The value, or an iterable of what its launches say."""
    speed: Weight | None
    behaviour: Weight | None
    asked: tuple[str, ...] = ()
    """Of a model or spec: the keys of the spec that decide on it, the first being its own."""


def _machine(name: str) -> Callable[[Side], Any]:
    return lambda side: _Each(environment.get(name) for environment in _environments(side))


def _library(name: str) -> Callable[[Side], Any]:
    return lambda side: _Each(each["libraries"].get(name) for each in _interpreters(side))


def _environments(side: Side) -> list[Mapping[str, Any]]:
    """Where the run was begun, and where it was gone on with."""
    manifest = side.run.manifest
    return [manifest["environment"], *(entry["environment"] for entry in manifest.get("resumed", ()))]


def _interpreters(side: Side) -> list[Mapping[str, Any]]:
    """Where the workers of the side ran: a model may name its own interpreter. Runs of earlier versions tell of the
    command alone."""
    told = [entry.get("environment") for entry in side.launches]
    known = [environment for environment in told if environment is not None]
    return known if known and len(known) == len(told) else [*known, *_environments(side)]


def _fact(name: str) -> Callable[[Side], Any]:
    return lambda side: _Each(entry.get("facts", {}).get(name) for entry in side.launches)


def _launch(name: str) -> Callable[[Side], Any]:
    return lambda side: _Each(entry.get(name) for entry in side.launches)


def _plan(name: str) -> Callable[[Side], Any]:
    return lambda side: side.run.plan.get(name)


def _spec(name: str) -> Callable[[Side], Any]:
    return lambda side: _Each(spec.get(name) for spec in side.specs)


def _column(name: str) -> Callable[[Side], Any]:
    return lambda side: _Each(side.run.turns[name].iloc[side.turns.rows].dropna().unique().tolist())


class _Each(tuple[Any, ...]):
    """What several launches, specs or turns say."""

    __slots__ = ()


_FIELDS: tuple[_Field, ...] = (
    _Field("GPU", "machine", lambda side: _Each([gpu["name"] for gpu in each["gpus"]] for each in _environments(side)),
           "blocker", "suspect"),
    _Field("CPU", "machine", _machine("cpu"), "blocker", "suspect"),
    _Field("devices", "machine", _fact("devices"), "blocker", "suspect"),
    _Field("GPU driver", "machine", _machine("gpu_driver"), "suspect", "suspect"),
    _Field("host", "machine", _machine("host"), "suspect", None),
    _Field("operating system", "machine", _machine("os"), "suspect", None),
    _Field("memory of the host", "machine", _machine("memory_bytes"), "suspect", None),
    _Field("processors", "machine", _machine("cpu_threads"), "suspect", None),
    _Field("processors allowed", "machine", _machine("cpus_allowed"), "suspect", None),
    _Field("Python", "interpreter", lambda side: _Each(each["python"] for each in _interpreters(side)),
           "suspect", None),
    *(_Field(name, "interpreter", _library(name), "suspect", "suspect")
      for name in ("torch", "transformers", "tokenizers", "accelerate")),
    _Field("instruct-harness", "machine",
           lambda side: _Each(each["libraries"].get("instruct-harness") for each in _environments(side)),
           "suspect", "suspect"),
    _Field("environment variables", "machine", _machine("variables"), "suspect", None),
    _Field("git commit", "machine", _machine("git_commit"), "suspect", "suspect"),
    _Field("history", "plan", _plan("history"), "blocker", "blocker"),
    _Field("length", "plan", _plan("length"), "blocker", "blocker"),
    _Field("on_overflow", "plan", _plan("on_overflow"), "suspect", "blocker"),
    _Field("timeout", "plan", _plan("timeout"), "suspect", "suspect"),
    _Field("template_now", "plan", _plan("template_now"), "suspect", "suspect"),
    _Field("seed", "plan", _plan("seed"), None, "suspect"),
    _Field("warmup", "plan", _plan("warmup"), "suspect", None),
    _Field("threads", "plan", _launch("threads"), "suspect", None),
    _Field("cpu_affinity", "plan", _launch("cpu_affinity"), "suspect", None),
    _Field("sample_devices_s", "plan", _plan("sample_devices_s"), "suspect", None),
    _Field("model", "model", _spec("model"), "blocker", "blocker", ("model",)),
    _Field("model commit", "model", _fact("commit"), "blocker", "blocker", ("revision", "weights")),
    _Field("weights", "model", _column("weights"), "blocker", "blocker", ("weights", "revision")),
    _Field("parameters", "model", _fact("parameters"), "blocker", "blocker",
           ("revision", "quantization", "adapter", "gguf_file")),
    _Field("adapter", "spec", _spec("adapter"), "blocker", "blocker", ("adapter",)),
    _Field("adapter's commit", "spec", _fact("adapter_commit"), "blocker", "blocker", ("adapter",)),
    _Field("GGUF file", "spec", _spec("gguf_file"), "blocker", "blocker", ("gguf_file",)),
    _Field("template hash", "model", _fact("template_hash"), "blocker", "blocker", ("revision", "tokenizer")),
    _Field("chat format", "model", _fact("chat_format"), "blocker", "blocker", ("revision", "tokenizer")),
    _Field("context", "model", _fact("context_tokens"), None, "suspect", ("revision",)),
    _Field("dtype", "spec", _fact("dtype"), "blocker", "blocker",
           ("dtype", "revision", "weights", "quantization", "gguf_file")),
    _Field("quantization", "spec", _fact("quantization"), "blocker", "blocker",
           ("quantization", "revision", "gguf_file")),
    _Field("engine", "spec", _column("engine"), "blocker", "blocker", ("engine",)),
    _Field("kv_cache", "spec", _column("kv_cache"), "blocker", "suspect", ("kv_cache", "engine")),
    _Field("attention", "spec", _fact("attention"), "suspect", "suspect",
           ("attn_implementation", "dtype", "engine", "device_map", "quantization", "revision")),
    _Field("device map", "spec", _fact("device_map"), "blocker", None, ("device_map", "dtype", "quantization")),
    _Field("template_kwargs", "spec", _spec("template_kwargs"), "blocker", "blocker", ("template_kwargs",)),
)  # fmt: skip
ON_PURPOSE = "give the model another label on one side to compare this on purpose"
OF_PYTHON = "comes of python, which is compared"
ASKED_ALIKE = "asked for alike on both sides"
_MODELS_OWN = ("eos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id")
"""Generation settings in a model's own ids: of two models they mean the same where they are different."""


def fairness(pair: Pair, shared: Work) -> tuple[Difference, ...]:
    """Everything that differs, blockers first; `shared` is the work of the pair."""
    found = [*_fields(pair), *_settings(pair), *_tokenizer(pair), *_system(pair), *_scripts(pair), *_prompts(shared)]
    return tuple(sorted(found, key=lambda each: not each.blocks))


def what(pair: Pair) -> str:
    """The thing compared, in a few words."""
    if not pair.compared:
        return "run"
    if "model" in pair.compared and not _other_model(pair):
        asked = [sorted(_asked(side)) for side in pair]
        keys = {key for key, _ in {*asked[0]} ^ {*asked[1]}}
        return " and ".join(sorted(keys)) or "model"
    return " and ".join(pair.compared)


def _asked(side: Side) -> Iterator[tuple[str, str]]:
    for spec in side.specs:
        yield from ((key, _told(value)) for key, value in spec.items() if key != "label")


def _other_model(pair: Pair) -> bool:
    ours, theirs = ({str(spec["model"]) for spec in side.specs} for side in pair)
    return ours != theirs


def _fields(pair: Pair) -> Iterator[Difference]:
    for field in _FIELDS:
        ours, theirs = (_told(field.read(side)) for side in pair)
        if ours == theirs:
            continue
        found = _weighed(Difference(field.name, ours, theirs, field.speed, field.behaviour), field, pair)
        if found is not None:
            yield found


def _weighed(found: Difference, field: _Field, pair: Pair) -> Difference | None:
    """A difference with the weight it has between these sides; None where it is, or comes of, the thing compared."""
    if field.name == "CPU" and any(_on_accelerator(side) for side in pair):
        return replace(found, speed="suspect")
    if field.kind not in ("model", "spec"):
        come_of = field.kind == "interpreter" and _pythons_compared(pair)
        return replace(found, speed=None, behaviour=None, remark=OF_PYTHON) if come_of else found
    if "model" not in pair.compared:
        return replace(found, remark=ON_PURPOSE) if field.kind == "spec" and not _other_model(pair) else found
    ours, theirs = ([_told(_spec(key)(side)) for key in field.asked] for side in pair)
    if not _other_model(pair):
        return replace(found, remark=ASKED_ALIKE) if ours == theirs else None
    if field.kind == "spec" and ours[0] == theirs[0]:  # what came of it is the models' own
        speed, behaviour = _softened(found.speed), _softened(found.behaviour)
        return replace(found, speed=speed, behaviour=behaviour, remark="the models' own")
    return found if field.kind == "spec" else None


def _pythons_compared(pair: Pair) -> bool:
    """Whether one model is set against itself in another interpreter."""
    ours, theirs = (_told(_spec("python")(side)) for side in pair)
    return "model" in pair.compared and not _other_model(pair) and ours != theirs


def _softened(weight: Weight | None) -> Weight | None:
    return "suspect" if weight else None


def _on_accelerator(side: Side) -> bool:
    return any(
        not str(device).startswith("cpu")
        for entry in side.launches
        for device in entry.get("facts", {}).get("devices", ())
    )


def _settings(pair: Pair) -> Iterator[Difference]:
    """How generation really ran, as far as anybody knows, or else as was asked for."""
    if "sampling" in pair.compared:
        return
    ours, theirs = (_effective(side) for side in pair)
    other = _other_model(pair)
    weight: Weight = "suspect" if other else "blocker"
    for name in dict.fromkeys([*ours, *theirs]):
        if ours.get(name) != theirs.get(name) and not (other and name in _MODELS_OWN):
            before, after = (_told(_Each(side.get(name, ()))) or "unset" for side in (ours, theirs))
            remark = "from the models' own generation_config" if other else ""
            yield Difference(name, before, after, weight, weight, remark)


def _effective(side: Side) -> dict[str, tuple[Any, ...]]:
    """Generation parameter → what the settings of the side have for it, in their order."""
    parameters = {sampling["name"]: dict(sampling["parameters"]) for sampling in side.run.plan["samplings"]}
    names = dict.fromkeys(sampling for _, sampling, _ in side.settings)
    found: dict[str, dict[str, Any]] = {name: parameters[name] for name in names}
    for entry in side.launches:
        for name in names:
            if name in entry.get("effective", {}):
                found[name] = {**found[name], **entry["effective"][name]["values"]}
    keys = dict.fromkeys(key for values in found.values() for key in values)
    return {key: tuple(_told(values.get(key)) for values in found.values()) for key in keys}


def _tokenizer(pair: Pair) -> Iterator[Difference]:
    ours, theirs = (_told(_fact("vocabulary")(side)) for side in pair)
    if ours != theirs:
        remark = "a token of one is not a token of the other: read s_per_1k_gold_chars"
        yield Difference("tokenizer", f"{ours} ids", f"{theirs} ids", "suspect", "suspect", remark)


def _system(pair: Pair) -> Iterator[Difference]:
    """Whether a system message was sent as one."""
    ours, theirs = (_folded(side) for side in pair)
    if ours != theirs:
        told = ["put before the first user message" if folded else "sent as such" for folded in (ours, theirs)]
        yield Difference("system message", told[0], told[1], None, "suspect")


def _folded(side: Side) -> bool:
    """By the notice of `backends/hf/formats.py`: that room is not for analysis, which runs without torch."""
    notices = side.run.turns["notices"].iloc[side.turns.rows].dropna().explode().dropna().unique()
    return any("the system text is put before the first user message" in str(notice) for notice in notices)


def _scripts(pair: Pair) -> Iterator[Difference]:
    ours, theirs = ({talk["id"]: talk.get("digest") for talk in side.run.plan["conversations"]} for side in pair)
    changed = [name for name in ours if name in theirs and ours[name] != theirs[name]]
    if changed:
        told = f"{len(changed)} of {len(ours.keys() & theirs.keys())}: {', '.join(changed[:3])}"
        remark = "the script or its checks were changed"
        yield Difference(
            "conversations", told + (" …" if len(changed) > 3 else ""), "other", "suspect", "blocker", remark
        )
    if ours.keys() != theirs.keys():
        own = [f"{len(mine.keys() - yours.keys())} of its own" for mine, yours in ((ours, theirs), (theirs, ours))]
        yield Difference("conversations played", own[0], own[1], "suspect", "suspect", "only common ones count")


def _prompts(shared: Work) -> Iterator[Difference]:
    """Prompt ids turn by turn. They follow the replies under history: generated; elsewhere they follow the script."""
    answered = shared.answered
    unlike = answered & (~shared.same_prompt | shared.by_script)
    if not unlike.any():
        return
    told = f"in {int(unlike.sum())} of {int(answered.sum())} turns"
    if not (unlike & shared.scripted).any():
        yield Difference("prompt ids", told, "other ids", "suspect", None, "other replies before them; not paired")
    elif _other_model(shared.pair):
        paired = int((unlike & shared.by_script).sum())
        remark = f"other tokenizers or templates; {paired} of these turns are paired by their script"
        yield Difference("prompt ids", told, "other ids", "suspect", None, remark)
    else:
        remark = "the same script became other prompts: template, tokenizer or date"
        yield Difference("prompt ids", told, "other ids", "blocker", "blocker", remark)


def _told(value: Any) -> str:
    """A value as text; of several launches what they say, each thing once."""
    if isinstance(value, _Each):
        return " or ".join(dict.fromkeys(_told(each) for each in value))
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_told(each)}" for key, each in sorted(value.items())) or "none"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(_told(each) for each in value) or "none"
    return f"{value:g}" if isinstance(value, float | np.floating) else str(value)
