"""Variants of a model: dtypes, quantisations, adapters, tokenizers, GGUF files; loaded for real where possible."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from harness.backends.hf.stored import bytes_by_dtype, plain, stored_bytes
from harness.config.labels import labelled
from harness.config.load import parse_config
from harness.config.plan import plan
from harness.config.schema import ModelSpec
from harness.config.variants import VARIANTS, expanded, name_and_revision
from harness.errors import DocumentError, ModelError
from harness.runner.messages import at_commit, commits_of
from tests import zoo
from tests.asking import ask, open_folder, preview_folder
from tests.fake_hub import FakeHub, fake_hub, reached
from tests.gguf_files import write_gguf

PROMPTS = "prompts/physics-professor.yaml"
INT8, INT4 = ({"quant_method": "torchao", "quant_type": f"int{bits}_weight_only"} for bits in (8, 4))


def said(backend: Any) -> str:
    reply = ask(backend.open_session(), sampling={"do_sample": False, "max_new_tokens": 12}).reply
    assert reply.failure is None
    return str(reply.text)


def refused(model: Path | str, **spec: Any) -> str:
    with pytest.raises(ModelError) as caught:
        preview_folder(model, **spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torchao")
    changes = {"hidden_size": 128, "intermediate_size": 192, "head_dim": 16}
    return zoo.save(tmp_path_factory.mktemp("wide"), "qwen3", **changes)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    peft = pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(1)
    base = hf.AutoModelForCausalLM.from_pretrained(zoo.save(tmp_path_factory.mktemp("base")))
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    peft.get_peft_model(base, config).save_pretrained(folder)
    return folder


class TestExpansion:
    """One model, several labelled specs."""

    def test_the_first_variant_is_the_baseline_and_labels_say_which_is_which(self) -> None:
        config = parse_config({"models": ["builtin:pico"], "variants": ["bf16", "int8"], "conversations": [PROMPTS]})
        models = plan(config).models
        assert [spec.label for spec in models] == ["pico bf16", "pico int8"]
        assert [spec.dtype for spec in models] == ["bfloat16", "bfloat16"]
        assert [spec.quantization for spec in models] == [None, INT8]
        assert "variants" not in plan(config).resolved()

    def test_a_model_s_own_variants_win_over_those_of_the_run(self) -> None:
        models = [ModelSpec(model="builtin:pico", label="p", variants=["saved", {"label": "e", "kv_cache": "fresh"}]),
                  ModelSpec(model="builtin:nano")]  # fmt: skip
        specs, problems = labelled(models, ["fp16"])
        assert not problems
        assert [(spec.label, spec.dtype, spec.kv_cache) for spec in specs] == [
            ("p saved", "auto", "reuse"), ("p e", "auto", "fresh"), ("nano fp16", "float16", "reuse"),
        ]  # fmt: skip

    def test_a_run_that_is_gone_on_with_has_the_same_variants(self) -> None:
        first = parse_config({"models": ["builtin:pico"], "variants": ["bf16", "int8"], "conversations": [PROMPTS]})
        again = parse_config(plan(first).config.model_dump(mode="json"))
        assert plan(again).config_hash == plan(first).config_hash

    @pytest.mark.parametrize(
        ("variants", "said"),
        [
            (["int9"], "int9 is no variant – did you mean int8?"),
            ([{"dtype": "float16"}], "a variant that is a mapping needs a label"),
            ([{"label": "x", "dtyp": "float16"}], "variant x: dtyp: unknown key – did you mean dtype?"),
            ([{"label": "x", "model": "other"}], "variant x cannot set model – list another model"),
            (["bf16", "bf16"], "variant bf16 is there twice"),
            ([3], "should be the name of a variant"),
        ],
    )
    def test_what_means_nothing_is_a_mistake(self, variants: list[Any], said: str) -> None:
        for where in ({"variants": variants}, {"models": [{"model": "builtin:pico", "variants": variants}]}):
            with pytest.raises(DocumentError) as caught:
                parse_config({"models": ["builtin:pico"], "conversations": [PROMPTS], **where})
            assert said in str(caught.value)

    @pytest.mark.parametrize("name", VARIANTS)
    def test_every_named_variant_is_a_spec(self, name: str) -> None:
        (found,), problems = expanded([ModelSpec(model="org/name")], [name])
        assert not problems
        assert found.name == name
        spec = found.spec
        assert {key: getattr(spec, key) for key in VARIANTS[name]} == dict(VARIANTS[name])


class TestTorchao:
    """Weights in 8 and 4 bits, on the CPU."""

    @pytest.mark.parametrize(("quantization", "per_weight"), [(INT8, 1), (INT4, 0.5)], ids=["int8", "int4"])
    def test_weights_take_what_their_bits_say(self, folder: Path, quantization: Any, per_weight: float) -> None:
        whole = open_folder(folder, dtype="bfloat16")
        small = open_folder(folder, dtype="bfloat16", quantization=quantization)
        linear = [
            one for name, one in whole.model.named_modules()
            if isinstance(one, torch.nn.Linear) and name != "lm_head"
        ]  # fmt: skip
        matrices = sum(one.weight.numel() for one in linear)
        facts = small.report.facts
        stored = facts["weights_bytes_by_dtype"]
        if per_weight == 1:  # with a zero point for every row
            assert stored["int8"] == matrices + sum(one.out_features for one in linear)
        else:
            assert stored["uint8"] == matrices // 2
        assert (
            facts["weights_bytes"]
            == sum(stored.values())
            == stored_bytes(*small.model.parameters(), *small.model.buffers())
        )
        assert facts["weights_bytes"] < whole.report.facts["weights_bytes"] - matrices * (2 - per_weight) * 0.9
        assert facts["parameters"] == whole.report.facts["parameters"]
        assert facts["dtype"] == "bfloat16"
        assert small.report.roofline.weight_bytes_per_token < whole.report.roofline.weight_bytes_per_token
        assert not small.report.notices
        json.dumps(facts)
        assert isinstance(said(small), str)

    @pytest.mark.parametrize("engine", ["decode", "batched"])
    def test_other_engines_say_the_same(self, folder: Path, engine: str) -> None:
        stock, ours = (
            open_folder(folder, quantization=INT8, engine=one, dtype="float32") for one in ("generate", engine)
        )
        assert said(stock) == said(ours)

    def test_int8_is_near_what_it_stands_for(self, folder: Path) -> None:
        ids = torch.arange(3, 40).unsqueeze(0)
        with torch.inference_mode():
            exact, near, coarse = (
                open_folder(folder, dtype="float32", quantization=one).model(input_ids=ids).logits
                for one in (None, INT8, INT4)
            )
        eight, four = ((other - exact).norm() / exact.norm() for other in (near, coarse))
        assert 0 < eight < four

    def test_a_quantization_that_changes_nothing_is_an_error(self, saved_model: Callable[..., Path]) -> None:
        pytest.importorskip("torchao")
        with pytest.raises(ModelError, match="changed none of its 14 matrices"):
            open_folder(saved_model(), quantization=INT4)

    def test_matrices_that_were_passed_over_are_told(self, tmp_path: Path) -> None:
        pytest.importorskip("torchao")
        mixed = zoo.save(tmp_path, "qwen3", hidden_size=128)
        notices = open_folder(mixed, quantization=INT4).report.notices
        assert any("4 of 14 matrices are not quantised (model.layers.0.self_attn.o_proj" in one for one in notices)

    def test_a_quant_type_that_has_no_name_here(self) -> None:
        pytest.importorskip("torchao")
        wrong = {"quant_method": "torchao", "quant_type": "int8_weight"}
        assert "did you mean int8_weight_only?" in refused("builtin:pico", quantization=wrong)


class TestFoundBeforeTheRun:
    """`harness plan` tells, without weights and without a GPU."""

    @pytest.mark.parametrize(
        ("quantization", "said"),
        [
            ({"quant_method": "magic"}, "unknown quant_method magic"),
            ({"bits": 4}, "quantization needs its quant_method"),
            ({"quant_method": "hqq", "nbits": 4}, "a library that is missing – pip install hqq"),
            ({"quant_method": "gptq", "bits": 4}, "a library that is missing – pip install gptqmodel"),
            ({"quant_method": "compressed-tensors"}, "missing – pip install compressed-tensors"),
            ({"quant_method": "fbgemm_fp8"}, "its quantization cannot be used here: "),
        ],
    )
    def test_a_quantization_that_cannot_be(self, quantization: Any, said: str) -> None:
        assert said in refused("builtin:pico", quantization=quantization)

    def test_bitsandbytes_has_to_say_how_many_bits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("harness.backends.hf.quantization.find_spec", lambda name: object())
        assert "set load_in_4bit or load_in_8bit" in refused(
            "builtin:pico", quantization={"quant_method": "bitsandbytes"}
        )

    def test_weights_that_are_stored_quantised_need_their_library(
        self, saved_model: Callable[..., Path], tmp_path: Path
    ) -> None:
        folder = shutil.copytree(saved_model(), tmp_path / "gptq")
        config = json.loads((folder / "config.json").read_text())
        stored = {"quant_method": "gptq", "bits": 4, "group_size": 32}
        (folder / "config.json").write_text(json.dumps({**config, "quantization_config": stored}))
        assert "pip install gptqmodel" in refused(folder)


class TestAdapters:
    """PEFT adapters, made and put on for real."""

    def test_an_adapter_is_merged_and_changes_what_is_said(
        self, adapter: Path, saved_model: Callable[..., Path]
    ) -> None:
        plain_one, tuned = open_folder(saved_model()), open_folder(saved_model(), adapter=str(adapter))
        assert tuned.report.facts["adapter"] == str(adapter)
        assert tuned.report.facts["adapter_merged"] is True
        assert tuned.report.facts["adapter_commit"] is None, "a directory has none"
        assert plain_one.report.facts["adapter_merged"] is None
        assert tuned.report.facts["class"] == plain_one.report.facts["class"]
        assert tuned.report.facts["weights_bytes"] == plain_one.report.facts["weights_bytes"]
        assert said(tuned) != said(plain_one)

    def test_on_quantised_weights_it_stays_beside_them(self, adapter: Path, saved_model: Callable[..., Path]) -> None:
        pytest.importorskip("torchao")
        facts = open_folder(saved_model(), adapter=str(adapter), quantization=INT8).report.facts
        assert facts["adapter_merged"] is False

    def test_what_is_no_adapter(
        self, adapter: Path, saved_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        base = saved_model()
        assert "is a directory without a adapter_config.json" in refused(base, adapter=str(base))
        assert "no such directory" in refused(base, adapter="./missing")
        pickled = shutil.copytree(adapter, tmp_path / "pickled")
        (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
        assert "has only pickled weights" in refused(base, adapter=str(pickled))
        monkeypatch.setattr("harness.backends.hf.parts.find_spec", lambda name: None)
        assert "pip install instruct-harness[peft]" in refused(base, adapter=str(adapter))


class TestOtherTokenizer:
    def test_it_is_used_instead_and_told(self, saved_model: Callable[..., Path], tmp_path: Path) -> None:
        zoo.tokenizer("{% for m in messages %}<{{ m.content }}>{% endfor %}").save_pretrained(tmp_path)
        assert preview_folder(saved_model(), tokenizer=str(tmp_path)).prompt == "<What?>"
        facts = open_folder(saved_model(), tokenizer=str(tmp_path)).report.facts
        assert (facts["tokenizer"], facts["tokenizer_commit"]) == (str(tmp_path), None)

    def test_one_with_ids_that_the_model_does_not_know(self, saved_model: Callable[..., Path], tmp_path: Path) -> None:
        larger = zoo.tokenizer()
        larger.add_tokens(["<more>"])
        larger.save_pretrained(tmp_path)
        assert "has 385 ids, and the model knows 384" in refused(saved_model(), tokenizer=str(tmp_path))


class TestGguf:
    def test_a_gguf_file_says_what_the_model_says(self, saved_model: Callable[..., Path], tmp_path: Path) -> None:
        pytest.importorskip("gguf")
        write_gguf(saved_model(), tmp_path / "tiny.gguf", zoo.CHATML)
        from_file = open_folder(tmp_path, gguf_file="tiny.gguf", dtype="float32")
        assert from_file.report.facts["gguf_file"] == "tiny.gguf"
        assert from_file.report.facts["parameters"] == open_folder(saved_model()).report.facts["parameters"]
        assert said(from_file) == said(open_folder(saved_model()))

    def test_a_file_that_is_not_there_names_those_that_are(self, tmp_path: Path) -> None:
        (tmp_path / "tiny.gguf").touch()
        assert "has no file other.gguf – there is tiny.gguf" in refused(tmp_path, gguf_file="other.gguf")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"model": "scripted:x.yaml", "adapter": "a"}, "recites lines: leave adapter out"),
        ({"model": "org/m", "gguf_file": "a.gguf", "quantization": INT8}, "leave quantization out"),
        ({"model": "shape:qwen3-4b", "adapter": "a"}, "leave adapter out"),
        ({"model": "org/m", "weights": "random", "gguf_file": "a.gguf"}, "leave weights out"),
        ({"model": "openai:http://h/v1#m", "adapter": "a"}, "leave adapter out"),
    ],
)
def test_what_goes_ill_together_is_a_mistake_of_the_config(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_config({"models": [spec], "conversations": [PROMPTS]})
    assert said in str(caught.value)


class TestCommits:
    """What lies on the Hub is loaded at one commit in every launch."""

    @pytest.fixture
    def hub(self, tmp_path: Path) -> Iterator[FakeHub]:
        with fake_hub() as server, reached(server, tmp_path / "cache"):
            yield server

    def test_an_adapter_and_a_tokenizer_come_at_their_own_commits(
        self, hub: FakeHub, adapter: Path, saved_model: Callable[..., Path], tmp_path: Path
    ) -> None:
        zoo.tokenizer().save_pretrained(tmp_path / "words")
        lora, words = hub.publish("org/lora", adapter), hub.publish("org/words", tmp_path / "words")
        named = {"adapter": "org/lora", "tokenizer": f"org/words@{words}"}
        assert preview_folder(saved_model(), **named).commits == {"adapter": lora, "tokenizer": words}
        assert not hub.requests("adapter_model"), "weights are for loading"
        report = open_folder(saved_model(), **named).report
        assert (report.facts["commit"], report.facts["adapter_commit"], report.facts["tokenizer_commit"]) == (
            None, lora, words,
        )  # fmt: skip
        assert report.download_bytes >= (adapter / "adapter_model.safetensors").stat().st_size
        asked = len(hub.requests(""))
        again = open_folder(saved_model(), adapter=f"org/lora@{lora}", tokenizer=f"org/words@{words}").report
        assert len(hub.requests("")) == asked, "what is here at a commit is not asked for"
        assert again.download_bytes == 0

    def test_a_gguf_file_is_fetched_at_a_commit(
        self, hub: FakeHub, saved_model: Callable[..., Path], tmp_path: Path
    ) -> None:
        pytest.importorskip("gguf")
        (tmp_path / "folder").mkdir()
        write_gguf(saved_model(), tmp_path / "folder" / "tiny.gguf", zoo.CHATML)
        commit = hub.publish("org/tiny-gguf", tmp_path / "folder")
        facts = open_folder("org/tiny-gguf", gguf_file="tiny.gguf").report.facts
        assert (facts["commit"], facts["gguf_file"]) == (commit, "tiny.gguf")
        assert "has no other.gguf – it has tiny.gguf" in refused("org/tiny-gguf", gguf_file="other.gguf")

    def test_what_is_no_adapter_on_the_hub(self, hub: FakeHub, saved_model: Callable[..., Path]) -> None:
        hub.publish("org/whole", saved_model())
        assert "org/whole: has no adapter_config.json" in refused(saved_model(), adapter="org/whole")

    def test_parts_are_pinned_with_the_model(self) -> None:
        spec = ModelSpec(model="org/m", label="m", adapter="org/lora@main", tokenizer="org/tok")
        found = commits_of(spec, {"model": "a" * 40, "adapter": "b" * 40, "tokenizer": "c" * 40})
        assert set(found) == {"m", "m/adapter", "m/tokenizer"}
        pinned = at_commit(spec, found)
        assert (pinned.revision, pinned.adapter, pinned.tokenizer) == (
            "a" * 40, f"org/lora@{'b' * 40}", f"org/tok@{'c' * 40}",
        )  # fmt: skip
        assert at_commit(spec, {}) == spec

    def test_a_directory_may_have_any_name(self, tmp_path: Path) -> None:
        (tmp_path / "a@b").mkdir()
        assert name_and_revision(str(tmp_path / "a@b")) == (str(tmp_path / "a@b"), None)
        assert name_and_revision("org/a@v1") == ("org/a", "v1")


def test_what_is_stored_is_counted_inside_and_once() -> None:
    tied = torch.nn.Linear(4, 8, bias=False)
    both = torch.nn.ModuleList([tied, torch.nn.Linear(4, 8, dtype=torch.bfloat16)])
    both[1].weight = torch.nn.Parameter(both[1].weight.detach())
    both.append(tied)
    assert bytes_by_dtype(both) == {"float32": 4 * 32, "bfloat16": 2 * (32 + 8)}
    assert [part.shape for part in plain(tied.weight)] == [(8, 4)]


def test_the_command_line_makes_variants(command: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = command("plan", "-m", "builtin:pico", "-p", PROMPTS, "--variants", "bf16,eager,fp16", "--greedy")
    assert code == 0
    assert "models              pico bf16, pico eager, pico fp16" in out
