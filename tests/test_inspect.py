"""Looking at a model without its weights: what it takes in memory is held against models that were really loaded."""

from __future__ import annotations

import ctypes
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import transformers as hf

from harness.backends import shapes
from harness.backends.fit import Footprint, judge
from harness.backends.hf.dry_run import footprint, on_meta, prefill, weight_bytes
from harness.backends.hf.engines import demand_engine
from harness.backends.hf.source import open_source
from harness.backends.inspection import Inspection
from harness.backends.open import inspect, open_backend
from harness.cli import main
from harness.cli.models import bytes_of
from harness.config.schema import Engine, ModelSpec
from harness.errors import ModelError, UsageError
from harness.hub.card import Card, card_of
from harness.meters import capacity
from harness.meters.capacity import Capacity, imagined
from harness.report.inspection import as_text, size
from tests import zoo
from tests.conftest import TEMPLATE_NOW
from tests.fake_hub import fake_hub, reached

GIB = 2**30


def look(model: Path | str, **changes: Any) -> Inspection:
    fields = {key: changes.pop(key) for key in list(changes) if key in ModelSpec.model_fields}
    seen = inspect(
        ModelSpec(model=str(model), **fields),
        **{
            "conversations": (), "new_tokens": 64, "concurrency": 1, "chat_format": "auto",
            "template_now": TEMPLATE_NOW, "places": [imagined(24 * GIB)], **changes,
        },
    )  # fmt: skip
    assert seen is not None
    return seen


def estimate(model: Path | str, **fields: Any) -> Footprint:
    spec = ModelSpec(model=str(model), **fields)
    name = str(shapes.path(spec.model.removeprefix("shape:"))) if spec.model.startswith("shape:") else str(model)
    return footprint(open_source(spec, name))


class TestAgainstRealLoads:
    @pytest.mark.parametrize("architecture", zoo.ARCHITECTURES)
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_tensors_of_the_zoo(self, architecture: str, dtype: str, saved_model: Callable[..., Path]) -> None:
        """Measured: the bytes of parameters and buffers, and the most bytes of tensors alive in a real forward."""
        folder = saved_model(architecture)
        told = estimate(folder, dtype=dtype)
        model = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()

        assert told.weight_bytes == model.get_memory_footprint()
        assert told.parameters == model.num_parameters()
        rows_together = 3 if told.work_together != told.work else 1  # recurrent models are not batched
        for tokens, rows in ((64, 1), (320, 1), (320, rows_together)):
            _, peak = prefill(model, tokens, rows)
            beside = told.needed_bytes(tokens, rows) - told.weight_bytes
            assert beside == pytest.approx(peak, rel=0.1), (tokens, rows)

    @pytest.mark.skipif(sys.platform != "linux", reason="asks glibc to give memory back")
    def test_the_processs_memory_with_a_shape_of_a_hundred_million(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Measured: how much the resident set grows over a load and a prompt of a thousand ids."""
        from harness.meters.memory import host_rss_bytes

        monkeypatch.setattr("harness.backends.hf.load._ceilings", lambda _: None)  # their probes take memory, too
        trim = ctypes.CDLL(None).malloc_trim  # what other tests have freed would be taken again, and grow nothing
        trim(0)
        before = host_rss_bytes()
        backend: Any = open_backend(ModelSpec(model="shape:llama-100m"), chat_format="auto", template_now=TEMPLATE_NOW)
        cache, _ = prefill(backend.model, 1000)
        trim(0)
        grown = host_rss_bytes() - before
        told = estimate("shape:llama-100m")
        assert grown == pytest.approx(told.weight_bytes + told.cache_bytes(1000), rel=0.1)
        del cache

    @pytest.mark.parametrize(
        ("shape", "published"), [("falcon-7b", 6.92e9), ("qwen3-4b", 4.02e9), ("qwen3-30b-a3b", 30.5e9)]
    )
    def test_shapes_too_large_to_load_have_the_parameters_that_were_published(
        self, shape: str, published: float
    ) -> None:
        spec = ModelSpec(model=f"shape:{shape}")
        model = on_meta(open_source(spec, str(shapes.path(shape))), torch.bfloat16)
        assert model.num_parameters() == pytest.approx(published, rel=0.005)
        assert weight_bytes(model)["bfloat16"] == pytest.approx(2 * published, rel=0.005)

    def test_the_cache_of_a_known_model_by_hand(self) -> None:
        """Llama 3.1 8B: 32 layers × 8 heads × 128 numbers × key and value × 2 bytes."""
        told = estimate("shape:llama-3.1-8b")
        assert told.kv_bytes_per_token == 32 * 8 * 128 * 2 * 2
        assert told.cache_bytes(1000) == 131_072_000
        assert (told.window_tokens, told.state_bytes) == (None, 0)

    def test_a_sliding_window_stops_growing(self) -> None:
        told = estimate("shape:gemma-3-1b")
        assert told.window_tokens == 512
        grown = told.cache_bytes(2000) - told.cache_bytes(1000)
        assert grown == 1000 * (told.kv_bytes_per_token - told.windowed_kv_bytes_per_token)

    def test_four_and_eight_bits_by_hand(self, saved_model: Callable[..., Path]) -> None:
        """Llama of the zoo: per layer q and o 32×32, k and v 16×32, three of 48×32; a tied table stays."""
        matrices = 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 48 * 32)
        rows = 2 * (32 + 32 + 16 + 16 + 48 + 48 + 32)
        told = estimate(saved_model("llama"))
        buffers = told.weight_bytes_as["bfloat16"] - 2 * told.parameters
        rest = 2 * (told.parameters - matrices) + buffers
        assert told.weight_bytes_as["int8"] == rest + matrices + 4 * rows
        assert told.weight_bytes_as["int4"] == rest + matrices // 2 + 4 * (matrices // 64)

    def test_nothing_is_loaded(self, saved_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hf.PreTrainedModel, "from_pretrained", None)
        assert look(saved_model("llama")).fits[0].answer == "fits"


PRINT = Footprint(
    parameters=1, dtype="bfloat16", weight_bytes=1000, weight_bytes_as={}, kv_bytes_per_token=10,
    windowed_kv_bytes_per_token=4, window_tokens=20, state_bytes=7, work=((10, 20 + 50), (20, 40 + 200)),
    work_together=((10, 80), (20, 250)), context_tokens=1000,
)  # fmt: skip


class TestFit:
    def test_the_arithmetic_by_hand(self) -> None:
        assert PRINT.cache_bytes(10) == 7 + 10 * 10
        assert PRINT.cache_bytes(50) == 7 + 6 * 50 + 4 * 20
        assert [PRINT.work_bytes(n) for n in (10, 16, 20, 40)] == [2 * n + n**2 // 2 for n in (10, 16, 20, 40)]
        assert PRINT.work_bytes(5) == 35  # shorter than anything that was tried: as the shortest is, per token
        assert PRINT.needed_bytes(10, 3) == 1000 + 3 * (107 + 80)
        assert PRINT.needed_bytes(10) == 1000 + 107 + 70

    def test_a_rate_that_falls_does_not_fall_for_ever(self) -> None:
        falling = replace(PRINT, work=((10, 100), (20, 150)))
        assert (falling.work_bytes(20), falling.work_bytes(2000)) == (150, 15000)

    @pytest.mark.parametrize(
        ("usable", "accelerator", "host", "answer"),
        [
            (1177, True, 0, "fits"),
            (1176, True, 0, "does not fit"),
            (1176, True, 1, "fits with offload"),
            (1176, False, 10_000, "does not fit"),
            (177, True, 10_000, "does not fit"),
        ],
    )
    def test_the_answer(self, usable: int, accelerator: bool, host: int, answer: str) -> None:
        assert judge(PRINT, Capacity("x", usable, accelerator), 10, 1, host).answer == answer

    def test_how_far_it_goes(self) -> None:
        fit = judge(PRINT, Capacity("x", 1375, True), 10, 1, 0)
        assert fit.largest_concurrency == 2  # 1000 + 2 × 187 = 1374
        assert fit.largest_context is not None
        assert PRINT.needed_bytes(fit.largest_context) <= 1375 < PRINT.needed_bytes(fit.largest_context + 1)
        assert judge(PRINT, Capacity("x", 10**12, True), 10, 1, 0).largest_context == 1000
        nothing = judge(PRINT, Capacity("x", 999, True), 10, 1, 0)
        assert (nothing.largest_context, nothing.largest_concurrency) == (None, None)

    def test_a_device_that_is_not_here_keeps_half_a_gib_for_itself(self) -> None:
        assert imagined(24 * GIB).usable_bytes == 23.5 * GIB

    @pytest.mark.parametrize(
        ("text", "size"), [("24GiB", 24 * GIB), ("24gb", 24 * 10**9), ("1.5 Ki", 1536), ("1000000", 10**6)]
    )
    def test_sizes(self, text: str, size: int) -> None:
        assert bytes_of(text, "x") == size

    @pytest.mark.parametrize("text", ["", "much", "0GiB", "-1GiB", "24 parsecs"])
    def test_what_is_no_size(self, text: str) -> None:
        with pytest.raises(UsageError, match="is no size – write 24GiB"):
            bytes_of(text, "--memory")


class TestTemplates:
    def test_one_that_refuses_a_system_message_and_wants_turns(self, saved_model: Callable[..., Path]) -> None:
        template = look(saved_model("llama", template=zoo.NO_SYSTEM)).template
        assert template is not None
        assert template.system.startswith("the chat template refuses a system message")
        assert (template.alternates, template.tools, template.reasoning, template.dated) == (True, False, "none", False)

    def test_one_that_takes_anything(self, saved_model: Callable[..., Path]) -> None:
        template = look(saved_model("llama")).template
        assert template is not None
        assert (template.system, template.alternates) == ("own turn", False)

    def test_one_that_thinks_when_told_to(self, saved_model: Callable[..., Path]) -> None:
        folder = saved_model("llama", template=zoo.THINKING)
        silent, aloud = look(folder).template, look(folder, template_kwargs={"enable_thinking": True}).template
        assert silent is not None
        assert silent.reasoning == "the template knows a block of reasoning; template_kwargs: enable_thinking"
        assert aloud is not None
        assert aloud.reasoning == "the prompt opens <think>; template_kwargs: enable_thinking"

    def test_one_with_tools_and_a_date(self, saved_model: Callable[..., Path]) -> None:
        tools = "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}"
        template = look(saved_model("llama", template=zoo.DATED + tools)).template
        assert template is not None
        assert (template.tools, template.dated) == (True, True)

    def test_none(self, saved_model: Callable[..., Path]) -> None:
        seen = look(saved_model("gpt2", template=None))
        assert seen.template is None
        assert "none: prompts are transcripts" in as_text(seen)


@pytest.mark.parametrize("architecture", zoo.ARCHITECTURES)
def test_engines_are_told_as_they_are_found_on_loading(architecture: str, saved_model: Callable[..., Path]) -> None:
    folder = saved_model(architecture)
    seen = look(folder)
    for engine in set(get_args(Engine)) - {"server"}:
        spec = ModelSpec(model=str(folder), engine=engine)
        told = next(one for one in seen.engines if one.engine == engine)
        why_not = None
        try:
            demand_engine(spec, open_source(spec, str(folder)).config)
        except ModelError as error:
            why_not = str(error)
        assert (told.why_not is None) == (why_not is None)
        assert (told.why_not or "") in (why_not or "")


def test_what_is_unusual_is_said(saved_model: Callable[..., Path]) -> None:
    assert any("mixture of 4 experts" in line for line in look(saved_model("mixtral")).unusual)
    assert any("look back 24 tokens only" in line for line in look(saved_model("gemma3")).unusual)
    assert any("recurrent state" in line for line in look(saved_model("mamba2")).unusual)
    assert any("no limit of context" in line for line in look(saved_model("falcon_alibi")).unusual)


class TestCards:
    def test_what_a_card_says_is_read_and_no_weights_are_fetched(
        self, saved_model: Callable[..., Path], tmp_path: Path
    ) -> None:
        shutil.copytree(saved_model("llama"), tmp_path / "m")
        (tmp_path / "m" / "README.md").write_text(
            "---\nlanguage: [en, no]\nlicense: other\nlicense_name: own-1.0\ndatasets: [a/b, c/d]\n"
            "base_model: someone/base\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n# \x1b[31mBest\n"
        )
        with fake_hub() as hub, reached(hub, tmp_path / "cache"):
            commit = hub.publish("someone/tiny", tmp_path / "m")
            seen = look("someone/tiny")
            assert hub.requests("cdn") == []
        assert seen.commit == commit
        assert seen.formats == ("safetensors",)
        assert seen.disk_bytes == (tmp_path / "m" / "model.safetensors").stat().st_size
        assert seen.card == Card(
            ("en", "no"), "own-1.0", ("a/b", "c/d"), ("someone/base",), "transformers", "text-generation", ()
        )
        assert "trained on          a/b, c/d\n" in as_text(seen)

    @pytest.mark.parametrize("said", [None, [], "text", {"language": {"a": 1}, "license": ["mit", "x"], "tags": 3}])
    def test_whatever_somebody_wrote_there(self, said: Any) -> None:
        assert card_of(said).datasets == ()

    def test_one_that_is_no_yaml(self, saved_model: Callable[..., Path], tmp_path: Path) -> None:
        shutil.copytree(saved_model("llama"), tmp_path / "m")
        (tmp_path / "m" / "README.md").write_text("---\n: [\n---\n")
        assert look(tmp_path / "m").card is None


class TestCommands:
    @pytest.fixture
    def prompts(self, tmp_path: Path) -> Path:
        path = tmp_path / "prompts.yaml"
        path.write_text(
            "conversations:\n  - id: a\n    turns: [{user: Hello, assistant: Good day}, {user: Who are you?}]\n"
        )
        return path

    def test_inspect_as_text_and_as_json(self, prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = ["models", "inspect", "builtin:pico", "-p", str(prompts), "--memory", "24GiB", "--memory", "1MiB"]
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--max-new-tokens", "32"])
        assert not ended.value.code
        text = capsys.readouterr().out
        assert "architecture        LlamaForCausalLM (llama)" in text
        assert "24 GiB: fits: " in text

        with pytest.raises(SystemExit):
            main([*arguments, "--format", "json"])
        values = json.loads(capsys.readouterr().out)
        assert values["footprint"]["parameters"] == 1820352
        assert [fit["answer"] for fit in values["fits"]] == ["fits", "does not fit"]
        assert values["demands"][0]["conversation_id"] == "a"

    def test_a_mistake_is_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        for arguments, said in (
            (["builtin:picco"], "is no built-in model"),
            (["scripted:x.yaml"], "has no weights here that could be looked at"),
            (["builtin:pico", "--set", "dtype=float8"], "--set dtype=float8: should be one of"),
            (["builtin:pico", "-p", "nowhere/*.yaml"], "--prompts: no file matches"),
        ):
            with pytest.raises(SystemExit) as ended:
                main(["models", "inspect", *arguments])
            assert ended.value.code == 2
            assert said in capsys.readouterr().err

    def test_plan_shows_the_fit_and_refuses_what_cannot_unless_forced(
        self, prompts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plan = ["plan", "-m", "builtin:pico", "-p", str(prompts), "--max-new-tokens", "8"]
        with pytest.raises(SystemExit) as ended:
            main(plan)
        assert not ended.value.code
        assert "fit (estimated): host memory: fits: " in capsys.readouterr().out

        monkeypatch.setattr(capacity, "host", lambda: Capacity("host memory", 2**20, False))
        with pytest.raises(SystemExit) as ended:
            main(plan)
        assert ended.value.code == 2
        assert "pico: does not fit: it needs " in capsys.readouterr().err
        with pytest.raises(SystemExit) as ended:
            main([*plan, "--force"])
        assert not ended.value.code


def test_bytes_in_the_unit_a_reader_would_choose() -> None:
    assert [size(one) for one in (None, 0, 512, 1536, 3 * 2**20, 16 * GIB)] == [
        "unknown", "0 B", "512 B", "1.50 KiB", "3.00 MiB", "16.00 GiB",
    ]  # fmt: skip
