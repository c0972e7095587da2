"""Random weights of real shapes: speed and memory of a model without its weights."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

import harness
from harness.analysis.summary import by_conversation, by_setting, by_turn
from harness.backends import shapes
from harness.backends.hf.synthetic import LEAST, synthetic_tokenizer
from harness.backends.open import open_backend, preview
from harness.backends.seam import Backend, Preview
from harness.config.schema import ModelSpec
from harness.errors import DocumentError, ModelError
from harness.records import Cell, Persona, TurnRecord
from harness.report.markdown import markdown
from harness.studies.replay import resolve
from tests import commands, zoo
from tests.asking import ask, converse, dialog
from tests.builders import checks, every_turn, failed, plan, store, turn
from tests.conftest import TEMPLATE_NOW

PUBLISHED = {
    # numbers of parameters on the models' pages; tied weights, which some pages list twice, counted once
    "falcon-7b": 6_921_720_704,
    "gemma-3-1b": 999_885_952,
    "gemma-3-4b": 3_880_263_168,  # 4 300 079 472 less what looks at pictures
    "llama-100m": 100_092_672,
    "llama-3.1-8b": 8_030_261_248,
    "mistral-7b": 7_248_023_552,
    "phi-4-mini": 3_836_021_760,
    "qwen3-0.6b": 596_049_920,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "smollm2-1.7b": 1_711_376_384,
    "smollm2-135m": 134_515_008,
}


def open_random(model: Path | str, **spec: Any) -> Any:
    return open_backend(
        ModelSpec(model=str(model), **{"weights": "random", **spec}), chat_format="auto", template_now=TEMPLATE_NOW
    )


def look_at(model: Path | str, **spec: Any) -> Preview:
    return preview(
        ModelSpec(model=str(model), **{"weights": "random", **spec}),
        samplings={"greedy": {"max_new_tokens": 5}},
        length="natural",
        messages=dialog("What?"),
        persona=Persona(),
        chat_format="auto",
        template_now=TEMPLATE_NOW,
    )


def lone_config(path: Path, architecture: str = "llama", **changes: Any) -> Path:
    config = zoo.CONFIGS[architecture]().to_dict() | changes
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(config))
    return path


class TestShapes:
    def test_each_has_a_known_size(self) -> None:
        assert shapes.names() == sorted(PUBLISHED)

    @pytest.mark.parametrize("name", sorted(PUBLISHED))
    def test_it_has_as_many_parameters_as_the_model(self, name: str) -> None:
        config = hf.AutoConfig.from_pretrained(shapes.path(name))
        with torch.device("meta"):
            model = hf.AutoModelForCausalLM.from_config(config)
        assert model.num_parameters() == PUBLISHED[name]

    @pytest.mark.parametrize("name", sorted(PUBLISHED))
    def test_it_holds_numbers_and_names_of_classes_only(self, name: str) -> None:
        config = json.loads(shapes.path(name).read_text())
        texts = {key for key, value in config.items() if isinstance(value, str)}
        assert texts <= {"model_type", "hidden_act", "hidden_activation", "dtype"}
        assert shapes.path(name).stat().st_size < 1500

    def test_each_is_documented(self) -> None:
        page = (Path(__file__).parent.parent / "docs" / "config.md").read_text(encoding="utf-8")
        table = page.split("| shape | parameters | |")[1].split("\n\n")[0]
        assert sorted(re.findall(r"`([^`]+)`", table)) == shapes.names()

    def test_an_unknown_one_is_one_line(self) -> None:
        with pytest.raises(
            ModelError, match=r"lama-100m: there is no such shape – did you mean llama-100m\?"
        ) as caught:
            look_at("shape:lama-100m")
        assert len(caught.value.mistakes) == 1
        with pytest.raises(ModelError, match="known: falcon-7b, gemma-3-1b, "):
            open_random("shape:../shapes/x")

    def test_a_plan_needs_no_weights(self) -> None:
        seen = look_at("shape:qwen3-30b-a3b")
        assert seen.context_tokens == 40960
        assert "<|im_start|>user\nWhat?" in seen.prompt
        assert [notice.split(":")[0] for notice in seen.notices] == ["WARNING", "there is no tokenizer"]


class TestWeights:
    @pytest.mark.parametrize("architecture", zoo.ARCHITECTURES)
    def test_every_architecture_answers(self, architecture: str, tmp_path: Path) -> None:
        backend = open_random(lone_config(tmp_path / "config.json", architecture))
        assert ask(backend.open_session()).reply.failure is None
        for name, parameter in backend.model.named_parameters():
            assert torch.isfinite(parameter).all(), name
        assert not backend.model.training

    def test_they_are_the_same_each_time(self, tmp_path: Path) -> None:
        config = lone_config(tmp_path / "config.json")
        torch.manual_seed(17)
        one, other = (open_random(config).model.state_dict() for _ in range(2))
        assert all(torch.equal(one[name], other[name]) for name in one)

    def test_they_are_not_those_that_were_saved(self, saved_model: Callable[..., Path]) -> None:
        folder = saved_model("llama")
        saved = open_random(folder, weights="saved").model.state_dict()
        random = open_random(folder).model.state_dict()
        assert saved.keys() == random.keys()
        assert not torch.equal(saved["lm_head.weight"], random["lm_head.weight"])

    def test_norms_are_one_and_matrices_as_the_config_wants_them(self, tmp_path: Path) -> None:
        state = open_random(lone_config(tmp_path / "config.json", initializer_range=0.1)).model.state_dict()
        assert (state["model.norm.weight"] == 1).all()
        assert state["model.layers.0.mlp.up_proj.weight"].std().item() == pytest.approx(0.1, rel=0.1)

    def test_tied_weights_are_tied(self, tmp_path: Path) -> None:
        tied = open_random(lone_config(tmp_path / "config.json", tie_word_embeddings=True)).model
        assert tied.lm_head.weight is tied.model.embed_tokens.weight

    def test_their_dtype_is_the_configs_unless_another_is_wanted(self, tmp_path: Path) -> None:
        config = lone_config(tmp_path / "config.json", dtype="bfloat16")
        assert open_random(config).model.dtype == torch.bfloat16
        assert open_random(config, dtype="float32").model.dtype == torch.float32
        assert open_random(lone_config(tmp_path / "config.json", dtype=None)).model.dtype == torch.float32

    def test_nothing_is_made_in_another_dtype_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        made = []
        initialise = torch.Tensor.normal_

        def watched(tensor: torch.Tensor, *arguments: Any, **named: Any) -> torch.Tensor:
            made.append(tensor.dtype)
            return initialise(tensor, *arguments, **named)

        monkeypatch.setattr(torch.Tensor, "normal_", watched)
        open_random(lone_config(tmp_path / "config.json"), dtype="bfloat16")
        assert set(made) == {torch.bfloat16}

    def test_attention_and_device_are_passed_on(self, tmp_path: Path) -> None:
        facts = open_random(
            lone_config(tmp_path / "config.json"), attn_implementation="eager", device_map=None
        ).report.facts
        assert (facts["attention"], facts["devices"]) == ("eager", ["cpu"])

    def test_they_are_told_of(self, tmp_path: Path) -> None:
        report = open_random(lone_config(tmp_path / "config.json")).report
        facts = report.facts
        assert (facts["weights"], facts["weights_seed"], facts["tokenizer"]) == ("random", 0, "synthetic")
        assert facts["commit"] is None
        assert report.notices[0].startswith("WARNING: random weights")
        assert report.roofline is not None
        assert facts["kv_bytes_per_token"] == report.roofline.kv_bytes_per_token
        assert facts["flops_per_token"] == report.roofline.flops_per_token
        json.dumps(facts)

    def test_saved_weights_are_not(self, open_model: Callable[..., Backend]) -> None:
        report = open_model("llama").report
        assert (report.facts["weights"], report.facts["weights_seed"]) == ("saved", None)
        assert report.facts["tokenizer"] == "own"
        assert report.roofline is not None
        assert report.notices == ()


class TestWhereTheyComeFrom:
    def test_a_directory_lends_its_tokenizer_and_its_settings(self, saved_model: Callable[..., Path]) -> None:
        folder = saved_model("llama", generation={"top_k": 7, "do_sample": True, "eos_token_id": 2})
        for model in (folder, folder / "config.json"):
            backend = open_random(model)
            assert backend.report.facts["tokenizer"] == "own"
            assert backend.effective({"max_new_tokens": 4}, "natural").values["top_k"] == 7
            assert look_at(model).effective["greedy"].values["top_k"] == 7

    def test_a_directory_needs_no_weights(self, saved_model: Callable[..., Path], tmp_path: Path) -> None:
        folder = shutil.copytree(saved_model("llama"), tmp_path / "bare")
        (folder / "model.safetensors").unlink()
        assert ask(open_random(folder).open_session()).reply.failure is None

    def test_any_json_file_may_be_a_config(self, tmp_path: Path) -> None:
        backend = open_random(lone_config(tmp_path / "wide.json", eos_token_id=[5, 6], bos_token_id=4))
        assert backend.effective({"max_new_tokens": 4}, "natural").values["eos_token_id"] == [5, 6]

    def test_a_model_of_the_hub_whose_config_is_all_there_is(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import huggingface_hub.constants

        commit = "0123456789abcdef0123456789abcdef01234567"
        cached = tmp_path / "models--someone--tiny"
        (cached / "snapshots" / commit).mkdir(parents=True)
        lone_config(cached / "snapshots" / commit / "config.json")
        (cached / "refs").mkdir()
        (cached / "refs" / "main").write_text(commit)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        facts = open_random("someone/tiny").report.facts
        assert (facts["commit"], facts["tokenizer"]) == (commit, "synthetic")

    @pytest.mark.parametrize("attempt", [open_random, look_at])
    def test_what_cannot_be_is_refused_in_one_line(self, attempt: Callable[..., Any], tmp_path: Path) -> None:
        def refusal(*arguments: Any, **spec: Any) -> str:
            with pytest.raises(ModelError) as caught:
                attempt(*arguments, **spec)
            assert "\n" not in str(caught.value)
            return str(caught.value)

        config = lone_config(tmp_path / "alone" / "config.json")
        assert "is a file without weights – name its directory" in refusal(config, weights="saved")
        small = lone_config(tmp_path / "small.json", vocab_size=100)
        assert f"needs a vocabulary of {LEAST} ids, and there are 100" in refusal(small)
        packed = lone_config(tmp_path / "packed.json", quantization_config={"quant_method": "fp8"})
        assert "its config is of quantised weights" in refusal(packed)
        assert "no such directory" in refusal(tmp_path / "nowhere.json")


class TestConfigs:
    def spec(self, tmp_path: Path, *models: Any) -> Any:
        (tmp_path / "prompts.yaml").write_text("conversations: [{id: a, turns: [{user: Hello}]}]\n")
        return resolve({"models": list(models), "conversations": [str(tmp_path / "prompts.yaml")]}, []).models

    def test_a_shape_means_random_weights(self, tmp_path: Path) -> None:
        short, long = self.spec(tmp_path, "shape:llama-100m", {"model": "shape:qwen3-4b", "weights": "random"})
        assert (short.weights, long.weights) == ("random", "random")

    def test_labels_say_so(self, tmp_path: Path) -> None:
        models = [
            "shape:llama-100m",
            {"model": "org/some-7b", "weights": "random"},
            "org/some-7b",
            {"model": "models/wide/config.json", "weights": "random"},
            {"model": "shape:qwen3-4b", "label": "mine"},
        ]
        assert [spec.label for spec in self.spec(tmp_path, *models)] == [
            "llama-100m (random weights)",
            "some-7b (random weights)",
            "some-7b",
            "wide (random weights)",
            "mine",
        ]

    @pytest.mark.parametrize(
        ("model", "expected"),
        [
            ({"model": "shape:qwen3-4b", "weights": "saved"}, "weights: shape:qwen3-4b is a shape, which has no saved"),
            ({"model": "builtin:pico", "weights": "random"}, "models.0.weights: builtin:pico comes with what it says"),
            ({"model": "scripted:a.yaml", "weights": "random"}, "weights: scripted:a.yaml comes with what it says"),
            ({"model": "shape:qwen3-4b", "revision": "main"}, "models.0.revision: a shape has no revisions"),
            (
                {"model": "shape:qwen3-4b", "quantization": {"quant_method": "bitsandbytes"}},
                "models.0: random weights cannot be quantised",
            ),
        ],
    )  # fmt: skip
    def test_what_contradicts_them_is_a_mistake(self, model: Any, expected: str, tmp_path: Path) -> None:
        with pytest.raises(DocumentError) as caught:
            self.spec(tmp_path, model)
        (mistake,) = caught.value.mistakes
        assert expected in str(mistake)


@pytest.fixture(scope="module")
def tokenizer() -> hf.PreTrainedTokenizerBase:
    return synthetic_tokenizer(hf.AutoConfig.from_pretrained(shapes.path("llama-3.1-8b")))


class TestSyntheticTokenizer:
    def test_a_prompt_has_an_id_for_every_byte(self, tokenizer: hf.PreTrainedTokenizerBase) -> None:
        text = "Grüße, 世界! 🙂\n\tÎle"
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert len(tokenizer("plain text")["input_ids"]) == len("plain text")

    def test_every_id_says_something(self, tokenizer: hf.PreTrainedTokenizerBase) -> None:
        assert len(tokenizer) == 128256
        assert all(tokenizer.decode([one]) for one in range(len(tokenizer)))

    def test_what_was_generated_reads_back_as_the_same_ids(self, tokenizer: hf.PreTrainedTokenizerBase) -> None:
        ids = list(range(300, 128000, 97))
        text = tokenizer.decode(ids)
        assert text == text.strip()
        assert tokenizer(text)["input_ids"] == ids

    def test_special_ids_are_the_configs(self, tokenizer: hf.PreTrainedTokenizerBase) -> None:
        assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (128000, 128001, None)
        assert tokenizer.decode([128001, 128008, 128009, 300], skip_special_tokens=True) == tokenizer.decode([300])
        shared = synthetic_tokenizer(hf.AutoConfig.from_pretrained(shapes.path("smollm2-135m")))
        assert (shared.bos_token_id, shared.eos_token_id, shared.pad_token_id) == (1, 2, 2)

    def test_a_config_without_special_ids_will_do(self) -> None:
        config = hf.LlamaConfig(vocab_size=LEAST, bos_token_id=None, eos_token_id=None, pad_token_id=None)
        tokenizer = synthetic_tokenizer(config)
        assert len(tokenizer) == LEAST
        assert tokenizer.decode(tokenizer("any text")["input_ids"]) == "any text"

    def test_it_is_the_same_everywhere(self, tokenizer: hf.PreTrainedTokenizerBase) -> None:
        again = synthetic_tokenizer(hf.AutoConfig.from_pretrained(shapes.path("llama-3.1-8b")))
        assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
        assert again.chat_template == tokenizer.chat_template

    def test_the_next_turn_finds_its_history_in_the_cache(self, tmp_path: Path) -> None:
        backend = open_random(lone_config(tmp_path / "config.json", vocab_size=32000, initializer_range=0.02))
        turns = converse(backend.open_session(), {"max_new_tokens": 8, "do_sample": True, "top_k": 0})
        for before, after in pairwise(turns):
            whole = (before.reply.prompt_tokens or 0) + (before.reply.completion_tokens or 0)
            assert (after.reply.cached_tokens or 0) >= whole - 1


class TestReports:
    """What a model with random weights says is in no figure and no transcript, whoever else is in the run."""

    @pytest.fixture
    def run(self, tmp_path: Path) -> Any:
        of = plan(models=("pico", "noise"), checks=[1, 1])
        of["models"][1] |= {"model": "shape:llama-100m", "weights": "random"}

        def make(of: Cell, index: int) -> TurnRecord:
            said = {"reply": "Motion."} if of.model == "pico" else {"reply": "babble " * 9}
            return turn(of, index, **said, checks=checks(True))

        records = every_turn(of, make)
        return harness.load(store(tmp_path, records, of))

    @pytest.mark.parametrize("table", [by_setting, by_turn, by_conversation])
    def test_quality_is_absent(self, table: Callable[..., Any], run: Any) -> None:
        rows = table(run).set_index("model")
        for column in {"checks_rate", "truncated_rate", "repetition_mean"} & set(rows.columns):
            assert rows.loc[["pico"], column].notna().all(), column
            assert rows.loc[["noise"], column].isna().all(), column
        assert rows["tpot_s_p50"].notna().all() if "tpot_s_p50" in rows else True

    def test_rows_say_so_and_count_no_checks(self, run: Any) -> None:
        noise = run.turns[run.turns["model"] == "noise"]
        assert set(noise["weights"]) == {"random"}
        assert noise[["checks_passed", "checks_total", "repetition"]].isna().all(axis=None)
        assert set(run.turns.loc[run.turns["model"] == "pico", "weights"]) == {"saved"}

    def test_replies_are_not_shown(self, run: Any) -> None:
        page = markdown(run)
        assert "babble" not in page
        assert "Motion." in page
        assert "Random weights: replies mean nothing, and are not shown." in page
        assert "random weights: noise" in page

    def test_a_failure_is_shown(self, tmp_path: Path) -> None:
        of = plan(models=("noise",), conversations={"physics": 1})
        of["models"][0] |= {"model": "shape:llama-100m", "weights": "random"}
        run = harness.load(store(tmp_path, every_turn(of, failed), of))
        assert "OutOfMemoryError" in markdown(run).split("## Transcripts")[1]


def test_the_command_runs_a_shape_and_goes_on_with_the_same_weights(tmp_path: Path) -> None:
    lone_config(tmp_path / "tiny.json", vocab_size=2000)
    (tmp_path / "prompts.yaml").write_text(
        "conversations: [{id: a, turns: [{user: Hello, expect: [{contains: a}]}]}]\n"
    )
    command = ["run", "-m", "tiny.json", "--set", "models.0.weights=random", "-p", "prompts.yaml"]
    done = commands.harness(
        *command, "--max-new-tokens", "8", "--launches", "2", "--set", "warmup=0", "--run-id", "x", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    run = harness.load(tmp_path / "results" / "x")
    assert list(run.turns["model"]) == ["tiny (random weights)"] * 2
    assert run.turns["reply"].nunique() == 1
    assert [facts["weights_seed"] for facts in run.launches["facts"]] == [0, 0]
    assert run.manifest["launches"][0]["roofline"]["kv_bytes_per_token"] == 256
    assert run.turns["bandwidth_utilisation"].notna().all()
    assert any("random weights" in warning for warning in run.manifest["warnings"])
