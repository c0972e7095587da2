"""What one GPU does with models of real shapes: one script, at most nine minutes, no network, no weights.

    python -m benchmarks.gpu                      on the first GPU; writes results/reference/<gpu>/
    python -m benchmarks.gpu --budget 300         in less time: shapes that do not fit in are said to be missing
    python -m benchmarks.gpu --rehearse           a tiny shape on the CPU: shows that the script works, measures nothing

Every shape gets three ordinary runs: `turns` (prompts of 128 to 32k tokens, and a conversation of twenty turns, with
the cache kept and without), `engines` (decoding by `generate`, `decode` and `compiled`), and `throughput` (many
conversations at a time). What is on the page comes from these runs, but for two cross-checks made in this process:
the clock of the host against the events of CUDA, and the allocator of torch against NVML.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import harness
from harness.analysis.frames import Run
from harness.analysis.throughput import throughput
from harness.errors import HarnessError
from harness.report.units import memory, ms, number, percent

SHAPES = ("smollm2-135m", "llama-3.1-8b", "qwen3-4b", "falcon-7b")
CONTEXTS = {"smollm2-135m": 8192, "llama-3.1-8b": 131072, "qwen3-4b": 40960, "falcon-7b": 2048, "llama-100m": 2048}
BATCHED = ("falcon-7b",)
"""Shapes that transformers' continuous batching gets wrong (reference: docs/config.md, engines)."""
PROMPTS = {"128": 128, "2k": 1920, "8k": 7936, "32k": 32512}
"""Sizes in bytes, which are tokens of the synthetic tokenizer; each leaves room for a template and a reply."""
NEW_TOKENS = 32
AT_A_TIME = (1, 8, 32, 64)


@dataclass(frozen=True)
class Bench:
    """Where the runs go, and how much time is left."""

    out: Path
    scratch: Path
    dtype: str
    ends: float

    def run(self, name: str, config: dict[str, Any]) -> Run | None:
        """Make one run, unless the time is up; a model that cannot be run is said and left out."""
        if time.monotonic() > self.ends:
            print(f"{name}: not run, the time is up")
            return None
        started = time.monotonic()
        try:
            path = harness.run(config, results=self.out, run_id=name)
        except HarnessError as error:
            print(f"{name}: {error}")
            return None
        print(f"{name}: {time.monotonic() - started:.0f} s")
        return harness.load(path)


def main() -> None:
    arguments = _arguments()
    import torch

    on_gpu = torch.cuda.is_available() and not arguments.rehearse
    if not on_gpu and not arguments.rehearse:
        raise SystemExit("there is no GPU; --rehearse shows on the CPU that the script works")
    name = torch.cuda.get_device_name(0).lower().replace(" ", "-") if on_gpu else "rehearsal"
    out = arguments.out / name
    out.mkdir(parents=True, exist_ok=True)
    shapes = SHAPES if on_gpu else ("llama-100m",)
    with tempfile.TemporaryDirectory() as scratch:
        ends = time.monotonic() + arguments.budget
        bench = Bench(out, Path(scratch), "bfloat16" if on_gpu else "float32", ends)
        stamp = time.strftime("%Y%m%d-%H%M%S")
        pages = [_page_of(bench, shape, f"{stamp}-{shape}", small=not on_gpu) for shape in shapes]
        checks = clock_against_events(f"shape:{shapes[0]}", bench.dtype) if on_gpu else None
    page = out / "README.md"
    page.write_text("\n".join([_title(name, arguments), *pages, _clock_page(checks)]), encoding="utf-8")
    print(page)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=500, help="seconds after which no further run is begun")
    parser.add_argument("--out", type=Path, default=Path("results/reference"))
    parser.add_argument("--rehearse", action="store_true")
    return parser.parse_args()


# --- the runs -------------------------------------------------------------------------------------------------------


def _page_of(bench: Bench, shape: str, run_id: str, *, small: bool) -> str:
    """The runs of one shape, as a section of the page."""
    base: dict[str, Any] = {"lane": "speed", "sampling": {"max_new_tokens": NEW_TOKENS}, "repeats": 2}
    if small:  # a rehearsal is to end soon, not to measure
        base |= {"sampling": {"max_new_tokens": 4}, "repeats": 1, "warmup": 0, "threads": 1}
    spec = {"model": f"shape:{shape}", "dtype": bench.dtype}
    sizes = {label: size for label, size in PROMPTS.items() if size + 128 <= CONTEXTS[shape]}
    if small:
        sizes = {"128": 128}
    prompts = _prompts(bench.scratch / f"{shape}-prompts.yaml", sizes)
    twenty = _twenty_turns(bench.scratch / f"{shape}-turns.yaml", 150 if CONTEXTS[shape] >= 8192 else 20)
    turns = bench.run(
        f"{run_id}-turns",
        {
            **base,
            "models": [
                {**spec, "engine": "decode", "label": "reuse"},
                {**spec, "engine": "decode", "kv_cache": "fresh", "label": "fresh"},
            ],
            "conversations": [str(prompts), str(twenty)],
        },
    )
    engines = bench.run(
        f"{run_id}-engines",
        {
            **base,
            "sampling": {"max_new_tokens": 4 if small else 128},
            "models": [{**spec, "engine": engine, "label": engine} for engine in _engines(small)],
            "conversations": {"files": [str(prompts)], "ids": ["prompt-128"]},
        },
    )
    levels = [1, 2] if small else list(AT_A_TIME)
    throughput = bench.run(
        f"{run_id}-throughput",
        {
            **base,
            "repeats": 1,
            "models": [{**spec, "engine": "batched" if shape in BATCHED or small else "continuous"}],
            "conversations": [str(_many(bench.scratch / f"{shape}-many.yaml", max(levels)))],
            "concurrency": levels,
        },
    )
    return "\n".join([f"## {shape}\n", _turns_page(turns), _engines_page(engines), _throughput_page(throughput)])


def _engines(small: bool) -> tuple[str, ...]:
    return ("generate", "decode") if small else ("generate", "decode", "compiled")


def _prompts(path: Path, sizes: dict[str, int]) -> Path:
    """One conversation of one turn for each size."""
    talks = [
        {"id": f"prompt-{label}", "turns": [{"user": _text(size - 20), "assistant": "Yes."}]}
        for label, size in sizes.items()
    ]
    return _write(path, talks)


def _twenty_turns(path: Path, length: int) -> Path:
    turns = [{"user": _text(length, turn), "assistant": _text(length, turn + 20)} for turn in range(20)]
    return _write(path, [{"id": "twenty-turns", "turns": turns}])


def _many(path: Path, count: int) -> Path:
    """As many conversations as play at a time, each with another prompt of about 128 tokens."""
    talks = [
        {"id": f"talk-{index}", "turns": [{"user": _text(64, index), "assistant": "Yes."}]} for index in range(count)
    ]
    return _write(path, talks)


def _text(size: int, number: int = 0) -> str:
    words = f"{number} the quick brown fox jumps over the lazy dog and runs on "
    return (words * (size // len(words) + 1))[:size]


def _write(path: Path, talks: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"conversations": talks}), encoding="utf-8")  # JSON is YAML
    return path


# --- the page -------------------------------------------------------------------------------------------------------


def _title(name: str, arguments: argparse.Namespace) -> str:
    return (
        f"# {name}\n\nRandom weights of real shapes, `python -m benchmarks.gpu --budget {arguments.budget:g}`, "
        f"{time.strftime('%Y-%m-%d')}. The runs beside this page hold every turn; `harness report` reads them.\n"
    )


def _turns_page(run: Run | None) -> str:
    if run is None:
        return "The run of single turns is missing.\n"
    done = run.turns[run.turns["state"] == "done"]
    single = done[(done["model"] == "reuse") & done["conversation_id"].str.startswith("prompt-")]
    prompts = [
        (
            number(turns["prompt_tokens"].median()),
            ms(turns["ttft_s"].median()),
            ms(turns["tpot_s"].median()),
            percent(turns["prefill_flop_utilisation"].median()),
            memory(turns["peak_memory_bytes"].max()),
        )
        for _, turns in single.groupby("conversation_id", sort=False)
    ]
    talks = [
        (
            str(label),
            ms(_at(turns, turns["turn_index"].min())),
            ms(_at(turns, turns["turn_index"].max())),
            number(turns.groupby("repeat")["e2e_s"].sum().median()),
            number(turns["prompt_tokens"].max()),
        )
        for label, turns in done[done["conversation_id"] == "twenty-turns"].groupby("model", sort=False)
    ]
    return "\n".join(
        [
            _ceilings(run),
            _table(("prompt tokens", "TTFT ms", "TPOT ms", "share of matrix rate", "peak memory"), prompts),
            "Twenty turns:\n",
            _table(("cache", "TTFT turn 1 ms", "TTFT last turn ms", "all turns s", "last prompt"), talks),
            _memory_check(done),
        ]
    )


def _at(turns: Any, index: int) -> float:
    return turns.loc[turns["turn_index"] == index, "ttft_s"].median()


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)) + "\n"


def _ceilings(run: Run) -> str:
    roofline = next((entry.get("roofline") for entry in run.manifest["launches"] if entry.get("roofline")), None)
    if roofline is None:
        return "No ceiling was measured.\n"
    bandwidth, rate = roofline["copy_bytes_per_s"], roofline["matrix_flops_per_s"]
    return (
        f"Measured ceilings: copy {number(bandwidth / 1e12) if bandwidth else '–'} TB/s (read and written), "
        f"matrix product {number(rate / 1e12) if rate else '–'} TFLOP/s. "
        f"A token reads {memory(roofline['weight_bytes_per_token'])} of weights.\n"
    )


def _memory_check(done: Any) -> str:
    known = done[done["reserved_memory_bytes"].notna() & done["device_used_bytes"].notna()]
    if known.empty:
        return "No memory of an accelerator was gauged.\n"
    beyond = (known["device_used_bytes"] - known["reserved_memory_bytes"]).median()
    inside = (known["peak_memory_bytes"] <= known["reserved_memory_bytes"]).all()
    return (
        f"Memory: NVML shows {memory(beyond)} more in use than torch has reserved (context, other processes); "
        f"allocated never exceeds reserved: {'yes' if inside else 'NO'}.\n"
    )


def _engines_page(run: Run | None) -> str:
    if run is None:
        return "The run of engines is missing.\n"
    rows = [
        (
            str(engine),
            number(turns["decode_tokens_per_s"].median()),
            ms(turns["tpot_s"].median()),
            percent(turns["bandwidth_utilisation"].median()),
            number(run.launches.loc[run.launches["model"] == engine, "compile_s"].median()),
        )
        for engine, turns in run.turns[run.turns["state"] == "done"].groupby("model", sort=False)
    ]
    return _table(("engine", "tok/s", "TPOT ms", "share of copy bandwidth", "compile s"), rows)


def _throughput_page(run: Run | None) -> str:
    if run is None:
        return "The run of throughput is missing.\n"
    rows = [
        (
            str(row["concurrency"]),
            number(row["output_tokens_per_s_p50"]),
            ms(row["ttft_s_p50"]),
            ms(row["tpot_s_p50"]),
        )
        for row in throughput(run).to_dict("records")
    ]
    engine = run.plan["models"][0]["engine"]
    return f"Engine `{engine}`:\n\n" + _table(("at a time", "tok/s in all", "TTFT ms", "TPOT ms"), rows)


# --- the host's clock against the device's ----------------------------------------------------------------------------


def clock_against_events(model: str, dtype: str) -> dict[str, float]:
    """Ratios of host to device: time to the first id, and the median gap between ids.

    An event is recorded on the stream at the start of the turn and after every forward; the host stamps ids as they
    arrive. The first id arrives after the first forward, its sampling and a copy of eight bytes.
    """
    import torch

    from harness.backends.open import open_backend
    from harness.chat import Rules, replay
    from harness.config.schema import ModelSpec
    from harness.conversations.script import Conversation, Turn
    from harness.records import Cell, Circumstances
    from harness.runner.drive import drive

    loaded: Any = open_backend(
        ModelSpec(model=model, dtype=dtype, engine="decode"), chat_format="auto", template_now="2026-01-01T00:00:00"
    )
    events: list[torch.cuda.Event] = []

    def mark(*_: Any) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        events.append(event)

    circumstances = Circumstances(Cell("m", "s", "c", 0, 0), "generated", "fixed", "decode", "reuse")
    talk = Conversation("c", (Turn(_text(1500)),))
    for _ in range(3):  # the last one counts, the others warm up
        events.clear()
        hooks = [loaded.model.register_forward_pre_hook(lambda *_: mark() if not events else None)]
        hooks.append(loaded.model.register_forward_hook(mark))
        rules = Rules({"max_new_tokens": 256, "do_sample": False})
        (record,) = drive(replay(talk, circumstances, rules), loaded.open_session(), loaded.gauges)
        for hook in hooks:
            hook.remove()
    torch.cuda.synchronize()
    stamps = record.stamps
    device_gaps = [one.elapsed_time(other) for one, other in pairwise(events[1:])]
    host_gaps = [(other - one) / 1e6 for one, other in pairwise(stamps.tick_ns)]
    assert stamps.tokenized_ns is not None
    return {
        "first id": (stamps.tick_ns[0] - stamps.tokenized_ns) / 1e6 / events[0].elapsed_time(events[1]),
        "gap between ids": statistics.median(host_gaps) / statistics.median(device_gaps),
    }


def _clock_page(checks: dict[str, float] | None) -> str:
    if checks is None:
        return "## Clocks\n\nNo device, no second clock.\n"
    rows = [(name, f"{ratio:.4f}") for name, ratio in checks.items()]
    return "## Clocks\n\n" + _table(("host over CUDA events", "ratio"), rows)


if __name__ == "__main__":
    main()
