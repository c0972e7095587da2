"""The roofline of a model: bytes and operations per token, counted by hand, by the cache itself, and by torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers as hf
from torch.utils.flop_counter import FlopCounterMode

from harness.backends import shapes
from harness.backends.hf import roofline as counting
from harness.backends.hf.roofline import roofline
from harness.meters.machine import Ceilings
from harness.metrics import METRICS
from harness.records import Roofline, Stamps
from tests import zoo
from tests.builders import MS, turn

NO_CEILINGS = Ceilings(None, None, None)
V, H, M, L = 384, 32, 48, 2  # the zoo's vocabulary, hidden size, size of the MLP, layers
NORMS = (2 * L + 1) * H
ATTENTION = L * (2 * H * H + 2 * H * 16)  # q and o; k and v with two heads of 8
MLP = L * 3 * H * M
F32 = 4


def made(architecture: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    config = zoo.CONFIGS[architecture]()
    for name, value in changes.items():
        setattr(config, name, value)
    return hf.AutoModelForCausalLM.from_config(config).eval()


def counted(architecture: str, **changes: Any) -> Roofline:
    return roofline(made(architecture, **changes), NO_CEILINGS)


class TestByHand:
    def test_a_llama_that_shares_its_table_reads_it_as_the_head(self) -> None:
        roof = counted("llama")
        assert roof.weight_bytes_per_token == F32 * (ATTENTION + MLP + NORMS + V * H)
        assert roof.flops_per_token == 2 * (ATTENTION + MLP + V * H)
        assert roof.head_flops_per_token == 2 * V * H
        assert roof.kv_bytes_per_token == L * 2 * 2 * 8 * F32  # layers, keys and values, heads, size
        assert roof.attention_flops_per_token_pair == L * 4 * 4 * 8  # layers, two products of two, heads, size
        assert roof.window_tokens is None

    def test_a_table_of_its_own_is_not_read(self) -> None:
        assert counted("qwen3").weight_bytes_per_token == F32 * (
            ATTENTION + MLP + NORMS + 2 * L * 8 + V * H  # norms of queries and keys; the head
        )

    def test_of_the_experts_only_the_chosen_count(self) -> None:
        roof = counted("mixtral")
        experts, router = L * 4 * 3 * H * M, L * 4 * H
        assert roof.weight_bytes_per_token == F32 * (ATTENTION + experts // 2 + router + NORMS + V * H)
        assert roof.flops_per_token == 2 * (ATTENTION + experts // 2 + router + V * H)

    def test_shared_experts_are_always_read(self) -> None:
        model = made("qwen3_next")
        block = model.model.layers[1].mlp
        names = {
            name: is_expert for module, is_expert in counting._modules(block)
            for name, other in block.named_modules() if other is module
        }  # fmt: skip
        assert names["experts"]
        assert not any(is_expert for name, is_expert in names.items() if name.startswith("shared"))
        assert counting._active_share(model.config) == 0.5

    def test_multi_query_attention_keeps_one_head(self) -> None:
        assert counted("falcon").kv_bytes_per_token == L * 2 * 1 * 8 * F32

    def test_layers_with_a_window_are_counted_apart(self) -> None:
        roof = counted("gemma3")  # a sliding layer, then a full one
        assert roof.window_tokens == 24
        assert roof.windowed_kv_bytes_per_token * 2 == roof.kv_bytes_per_token
        assert roof.windowed_attention_flops_per_token_pair * 2 == roof.attention_flops_per_token_pair
        mistral = counted("mistral")
        assert mistral.windowed_kv_bytes_per_token == mistral.kv_bytes_per_token

    def test_a_recurrent_state_does_not_grow(self) -> None:
        assert (counted("mamba2").kv_bytes_per_token, counted("mamba2").attention_flops_per_token_pair) == (0, 0)
        assert counted("lfm2").kv_bytes_per_token == 2 * 2 * 8 * F32  # the one layer of two that attends

    def test_positions_that_are_looked_up_are_not_read(self) -> None:
        model = made("gpt2")
        tables = model.transformer.wpe.weight.numel()
        assert roofline(model, NO_CEILINGS).weight_bytes_per_token == F32 * (model.num_parameters() - tables)

    def test_weights_count_as_they_are_stored(self) -> None:
        half = roofline(made("llama").to(torch.bfloat16), NO_CEILINGS)
        assert half.weight_bytes_per_token * 2 == counted("llama").weight_bytes_per_token
        assert half.kv_bytes_per_token == L * 2 * 2 * 8 * 2
        assert half.flops_per_token == counted("llama").flops_per_token

    def test_a_quantised_matrix_multiplies_like_the_one_it_stands_for(self) -> None:
        class Packed(torch.nn.Module):  # four bits a weight, as bitsandbytes and GPTQ pack them
            in_features, out_features = H, M

            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("qweight", torch.zeros(H * M // 2, dtype=torch.uint8))
                self.register_buffer("table", torch.zeros(9), persistent=False)

        packed = Packed()
        assert sum(tensor.numel() for tensor in counting._stored(packed)) == H * M // 2
        assert counting._matrix_size(packed, []) == H * M


@pytest.mark.parametrize("architecture", zoo.ARCHITECTURES)
def test_the_cache_takes_what_the_roofline_says(architecture: str) -> None:
    model = made(architecture)
    roof = roofline(model, NO_CEILINGS)
    if architecture == "mamba2":
        return  # its state has another name and does not grow
    held = []
    for tokens in (6, 16):
        cache = hf.DynamicCache(config=model.config)
        with torch.inference_mode():
            model(input_ids=torch.ones((1, tokens), dtype=torch.long), past_key_values=cache, use_cache=True)
        tensors = [
            tensor
            for layer in cache.layers
            for tensor in (getattr(layer, "keys", None), getattr(layer, "values", None))
        ]
        held.append(sum(tensor.nbytes for tensor in tensors if isinstance(tensor, torch.Tensor)))
    assert (held[1] - held[0]) // 10 == roof.kv_bytes_per_token


@pytest.mark.parametrize("architecture", sorted(set(zoo.ARCHITECTURES) - {"mamba2", "falcon_h1", "qwen3_next"}))
def test_torch_counts_the_same_operations(architecture: str) -> None:
    """Within 4 %; recurrent states, which the roofline leaves out, are a larger part of such tiny models."""
    # The fused kernels of experts are not among those that torch counts.
    model = made(architecture, _attn_implementation="eager", _experts_implementation="eager")
    roof = roofline(model, NO_CEILINGS)
    tokens = 16  # fewer than any window
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(input_ids=torch.ones((1, tokens), dtype=torch.long))
    pairs = tokens * tokens  # without a mask that skips anything, every id is multiplied with every other
    expected = tokens * roof.flops_per_token + pairs * (roof.attention_flops_per_token_pair or 0)
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.04)


def test_of_a_model_that_also_sees_only_the_language_counts() -> None:
    text = zoo.CONFIGS["gemma3"]()
    eye = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = hf.Gemma3Config(
        text_config=text.to_dict(), vision_config={**eye, "image_size": 28, "patch_size": 14}, mm_tokens_per_image=4
    )
    seeing = hf.MODEL_FOR_CAUSAL_LM_MAPPING[hf.Gemma3Config](config).eval()
    reading = hf.Gemma3ForCausalLM(config.text_config).eval()
    assert roofline(seeing, NO_CEILINGS) == roofline(reading, NO_CEILINGS)
    assert seeing.num_parameters() > reading.num_parameters()


def test_latent_attention_is_counted_as_it_is_cached_and_multiplied() -> None:
    config = hf.DeepseekV3Config(
        **zoo.SIZES | {"num_key_value_heads": 4}, moe_intermediate_size=16, n_routed_experts=8, num_experts_per_tok=2,
        n_group=2, topk_group=1, first_k_dense_replace=1, kv_lora_rank=20, q_lora_rank=16, qk_nope_head_dim=8,
        qk_rope_head_dim=4, v_head_dim=16,
    )  # fmt: skip
    model = hf.AutoModelForCausalLM.from_config(config).eval()
    model.config._attn_implementation = model.config._experts_implementation = "eager"
    roof = roofline(model, NO_CEILINGS)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(input_ids=torch.ones((1, 16), dtype=torch.long))
    assert roof.attention_flops_per_token_pair == L * 2 * 4 * (12 + 16)
    assert counter.get_total_flops() == pytest.approx(
        16 * roof.flops_per_token + 256 * roof.attention_flops_per_token_pair, rel=0.01
    )
    cache = hf.DynamicCache(config=config)
    model(input_ids=torch.ones((1, 8), dtype=torch.long), past_key_values=cache)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert roof.kv_bytes_per_token == held // 8


class TestCeilings:
    def test_they_are_those_of_the_device(self) -> None:
        roof = roofline(made("llama"), Ceilings(1e11, 2e12, 32 * 2**20))
        assert (roof.copy_bytes_per_s, roof.matrix_flops_per_s, roof.fits_in_cache) == (1e11, 2e12, True)
        assert not roofline(made("llama"), Ceilings(1e11, 2e12, 1000)).fits_in_cache

    def test_a_device_that_tells_nothing_has_none(self) -> None:
        roof = roofline(made("llama"), None)
        assert (roof.copy_bytes_per_s, roof.matrix_flops_per_s, roof.fits_in_cache) == (None, None, False)


class TestTheWindowInMetrics:
    """A token in a layer with a window reads, and is multiplied with, no more of the context than the window holds."""

    ROOF = Roofline(
        weight_bytes_per_token=1000, kv_bytes_per_token=10, flops_per_token=100, attention_flops_per_token_pair=8,
        copy_bytes_per_s=1e6, matrix_flops_per_s=1e6, head_flops_per_token=30,
        window_tokens=16, windowed_kv_bytes_per_token=6, windowed_attention_flops_per_token_pair=2,
    )  # fmt: skip
    RECORD = replace(
        turn(prompt_tokens=20, cached_tokens=12), stamps=Stamps(1 * MS, 3 * MS, 20 * MS, 21 * MS, (10 * MS, 12 * MS))
    )

    def test_of_bytes(self) -> None:
        # context 20 + 2/2; beyond the window 5 tokens of 6 bytes are not read; 500 tokens a second
        assert METRICS["bandwidth_utilisation"].formula(self.RECORD, self.ROOF) == pytest.approx(
            (1000 + 21 * 10 - 5 * 6) * 500 / 1e6
        )

    def test_of_operations(self) -> None:
        pairs = sum(range(13, 21))
        unseen = sum(max(0, position - 16) for position in range(13, 21))
        assert METRICS["prefill_flop_utilisation"].formula(self.RECORD, self.ROOF) == pytest.approx(
            (8 * 70 + 30 + 8 * pairs - 2 * unseen) / 0.007 / 1e6
        )

    def test_unknown_caches_have_no_utilisation(self) -> None:
        unknown = replace(self.ROOF, kv_bytes_per_token=None, attention_flops_per_token_pair=None)
        assert METRICS["bandwidth_utilisation"].formula(self.RECORD, unknown) is None
        assert METRICS["prefill_flop_utilisation"].formula(self.RECORD, unknown) is None


@pytest.mark.parametrize(
    ("name", "active", "kv_bytes"),
    [
        ("llama-3.1-8b", 8.03e9 - 128256 * 4096, 32 * 2 * 8 * 128 * 2),
        ("falcon-7b", 6.92e9, 32 * 2 * 1 * 64 * 2),
        ("qwen3-30b-a3b", 3.04e9, None),  # "3.3 B active" in its name counts the table of embeddings
    ],
)
def test_a_shape_reads_what_is_known_of_the_model(
    name: str, active: float, kv_bytes: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = hf.AutoConfig.from_pretrained(str(shapes.path(name)))
    with torch.device("meta"):
        model = hf.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    read, multiplied, _ = counting._weights(model)
    assert read == pytest.approx(2 * active, rel=0.005)
    assert multiplied == pytest.approx(active, rel=0.005)
    if kv_bytes is not None:
        monkeypatch.setattr(counting, "input_device", lambda _: torch.device("meta"))
        assert roofline(model, None).kv_bytes_per_token == kv_bytes
