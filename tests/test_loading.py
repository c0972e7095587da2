"""Loading: what is found out, what is refused, and in how many words."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from harness.backends.failures import OutOfMemory
from harness.backends.hf import load as loading
from harness.backends.hf.source import context_tokens
from harness.backends.seam import Backend
from harness.errors import ModelError
from tests import zoo
from tests.asking import ask, open_folder, preview_folder


@pytest.mark.parametrize("architecture", zoo.ARCHITECTURES)
def test_a_saved_model_needs_no_flags(architecture: str, open_model: Callable[..., Backend]) -> None:
    backend = open_model(architecture)
    assert ask(backend.open_session()).reply.failure is None


def test_the_report_says_what_was_loaded(open_model: Callable[..., Backend]) -> None:
    report = open_model("llama").report
    facts = report.facts
    assert facts["class"] == "LlamaForCausalLM"
    assert facts["parameters"] == hf.AutoModelForCausalLM.from_config(zoo.CONFIGS["llama"]()).num_parameters()
    assert facts["weights_bytes"] >= 4 * facts["parameters"]
    assert facts["dtype"] == "float32"
    assert facts["attention"] == "sdpa"
    assert facts["commit"] is None, "a directory has no commit"
    assert facts["devices"] == ["cpu"]
    assert facts["quantization"] is None
    assert facts["vocabulary"] == 384
    assert min(report.import_s, report.weights_s, report.first_forward_s) > 0
    json.dumps(facts)


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [("llama", 512), ("gpt2", 512), ("falcon", 512), ("falcon_alibi", None), ("mamba2", None), ("falcon_h1", 512)],
)
def test_the_context_is_known_where_positions_end(architecture: str, expected: int | None) -> None:
    assert context_tokens(zoo.CONFIGS[architecture]()) == expected


def test_dtype_attention_and_device_are_passed_on(open_model: Callable[..., Backend]) -> None:
    spec = {"dtype": "bfloat16", "attn_implementation": "eager", "device_map": "cpu"}
    facts = open_model("llama", spec=spec).report.facts
    assert (facts["dtype"], facts["attention"]) == ("bfloat16", "eager")
    assert open_model("llama", spec={"device_map": None}).report.facts["dtype"] == "float32"


def test_every_page_of_the_weights_is_touched_before_the_first_turn(open_model: Callable[..., Backend]) -> None:
    backend: Any = open_model("mixtral")
    seen: list[int] = []
    original = torch.Tensor.detach
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "detach", lambda self: (seen.append(self.numel()), original(self))[1])
        loading._first_forward(backend.model)
    assert sum(seen) >= sum(parameter.numel() for parameter in backend.model.parameters())


class TestRefusals:
    """Each in one line that says what to do; `harness plan` finds them without the weights."""

    @pytest.fixture(params=[open_folder, preview_folder], ids=["open", "preview"])
    def attempt(self, request: pytest.FixtureRequest) -> Callable[..., str]:
        def try_it(*arguments: Any, **spec: Any) -> str:
            with pytest.raises(ModelError) as caught:
                request.param(*arguments, **spec)
            assert len(caught.value.mistakes) == 1
            assert "\n" not in str(caught.value)
            return str(caught.value)

        return try_it

    def test_an_encoder_decoder_model(self, attempt: Callable[..., str], tmp_path: Path) -> None:
        assert "is an encoder-decoder model (t5) – use a decoder-only" in attempt(zoo.save_t5(tmp_path))

    def test_a_model_that_is_no_language_model(self, attempt: Callable[..., str], tmp_path: Path) -> None:
        hf.ViTConfig().save_pretrained(tmp_path)
        assert "transformers has no causal language model for its architecture (vit)" in attempt(tmp_path)

    def test_an_unknown_architecture(self, attempt: Callable[..., str], tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"model_type": "alien"}')
        assert "has an architecture that this version of transformers does not know" in attempt(tmp_path)

    def test_a_directory_that_is_not_there(self, attempt: Callable[..., str], tmp_path: Path) -> None:
        assert attempt(tmp_path / "missing").endswith("missing: no such directory")

    def test_a_directory_without_a_model(self, attempt: Callable[..., str], tmp_path: Path) -> None:
        assert "is a directory without a config.json" in attempt(tmp_path)

    def test_pickled_weights(
        self, attempt: Callable[..., str], tmp_path: Path, saved_model: Callable[..., Path]
    ) -> None:
        folder = shutil.copytree(saved_model(), tmp_path / "pickled")
        model = hf.AutoModelForCausalLM.from_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        assert (
            "has only pickled weights, which can run code – if you trust them, set use_safetensors: false"
            in attempt(folder)
        )
        assert ask(open_folder(folder, use_safetensors=False).open_session()).reply.failure is None

    def test_remote_code(self, attempt: Callable[..., str], tmp_path: Path) -> None:
        auto_map = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": auto_map}))
        assert "needs code that comes with it – if you trust that code, set trust_remote_code: true" in attempt(
            tmp_path
        )

    def test_a_built_in_model_that_does_not_exist(self, attempt: Callable[..., str]) -> None:
        assert "builtin:mega: 'mega' is no built-in model" in attempt("builtin:mega")

    def test_what_a_library_raises(
        self, attempt: Callable[..., str], saved_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: Any, **__: Any) -> None:
            raise KeyError("surprise")

        monkeypatch.setattr(hf.AutoConfig, "from_pretrained", refuse)
        assert "cannot be loaded: KeyError: 'surprise'" in attempt(saved_model())


def test_an_unknown_quantisation_is_refused(open_model: Callable[..., Backend]) -> None:
    with pytest.raises(ModelError, match=r"unknown quant_method magic – one of .*bitsandbytes,"):
        open_model(spec={"quantization": {"quant_method": "magic"}})
    with pytest.raises(ModelError, match="quantization needs its quant_method"):
        open_model(spec={"quantization": {"bits": 4}})


def test_a_quantisation_whose_library_is_missing_is_one_line(open_model: Callable[..., Backend]) -> None:
    with pytest.raises(ModelError, match="needs a library that is missing – pip install bitsandbytes") as caught:
        open_model(spec={"quantization": {"quant_method": "bitsandbytes", "load_in_8bit": True}})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_a_model_that_does_not_fit_is_told_apart(
    error: Exception, open_model: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(loading, "_first_forward", refuse)
    with pytest.raises(OutOfMemory, match="does not fit into memory"):
        open_model()


def test_missing_weights_are_loudly_noted(tmp_path: Path, open_model: Callable[..., Backend]) -> None:
    torch.manual_seed(0)
    hf.Qwen3Model(zoo.CONFIGS["qwen3"]()).save_pretrained(tmp_path)  # a body without the head that says ids
    zoo.tokenizer().save_pretrained(tmp_path)
    (notice,) = open_folder(tmp_path).report.notices
    assert notice.startswith("WARNING: the checkpoint lacks 1 weights (lm_head.weight")


def test_offloaded_weights_are_loudly_noted(
    open_model: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend: Any = open_model()
    backend.model.hf_device_map = {"model.layers.0": 0, "model.layers.1": "cpu", "lm_head": "disk"}
    (alone,) = loading._notices(backend.spec, backend.model, [])
    assert alone.startswith("WARNING: 1 parts of the model are offloaded to disk"), (
        "without an accelerator, cpu is home"
    )
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    (notice,) = loading._notices(backend.spec, backend.model, [])
    assert notice.startswith("WARNING: 2 parts of the model are offloaded to cpu and disk")


def test_weights_offloaded_to_disk_still_answer(open_model: Callable[..., Backend]) -> None:
    plain = ask(open_model("qwen3").open_session()).reply
    parts = ("embed_tokens", "layers.0", "norm", "rotary_emb")
    device_map = {**{f"model.{part}": "cpu" for part in parts}, "lm_head": "cpu", "model.layers.1": "disk"}
    backend = open_model("qwen3", spec={"device_map": device_map})
    assert ask(backend.open_session()).reply.completion_ids == plain.completion_ids


def test_opening_the_door_imports_nothing_heavy() -> None:
    code = (
        "import sys; import harness.backends.open, harness.backends.scripted;"
        "print(sorted({'torch', 'transformers', 'tokenizers', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_model_of_the_hub_is_known_by_its_commit_and_loading_says_nothing(
    saved_model: Callable[..., Path], tmp_path: Path
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--someone--tiny"
    shutil.copytree(saved_model("gpt2"), cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    code = (
        "from tests.test_loading import open_folder; from tests.asking import ask;"
        "backend = open_folder('someone/tiny');"
        "print(backend.report.facts['commit']);"
        "print(ask(backend.open_session(), sampling={'top_k': 5, 'max_length': 600}).reply.finish_reason)"
    )
    offline = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=offline)
    assert done.stdout.split() in ([commit, "context"], [commit, "eos"])
    assert done.stderr == ""
