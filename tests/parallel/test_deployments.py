"""Options of a deployment: what goes together, what stands where, and what rounding does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from deployments import SMALL, small
from torch import nn

from liveavatar_core.config import Recipe
from liveavatar_core.deployment import Deployment
from liveavatar_core.errors import InvalidRecipe
from liveavatar_core.model.cache import Float8KVCache, KVCache
from liveavatar_core.parallel.load import build_part
from liveavatar_core.parallel.quantize import (
    Float8Linear,
    Float8MultipliedLinear,
    Int8Linear,
    QuantizedLinear,
    quantize,
)
from liveavatar_core.pipeline import open_avatar
from liveavatar_core.simulation.estimate import simulate_rank, simulated_inputs
from liveavatar_core.simulation.memory_account import Capacity

TWO = {"num_gpus_dit": 2, "ulysses_size": 2}


@pytest.mark.parametrize(
    ("settings", "number"),
    [
        ({"fp8": True, "int8": True}, "8 bits"),
        ({"fp8_multiply": False}, "none"),
        ({"fp8": True, "lora": "adapter"}, "rank 128"),
        ({**TWO, "fp8": True, "shard": "flat"}, "16 bits"),
        ({**TWO, "offload_blocks": True, "shard": "flat"}, "1/2"),
        ({**TWO, "offload_model": True, "shard": "per_parameter"}, "1/2"),
        ({**TWO, "offload_shards": True, "shard": "flat"}, "flat"),
        ({"reshard_after_forward": False}, "False"),
        ({**TWO, "t5_on_decode_rank": True}, "all 2"),
        ({**TWO, "enable_vae_parallel": True, "t5_on_decode_rank": True, "t5_cpu": True}, "t5_cpu"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict, number: str) -> None:
    with pytest.raises(InvalidRecipe) as refusal:
        Deployment(**settings)
    assert number in refusal.value.what
    assert refusal.value.next_step


def test_new_options_change_no_hash() -> None:
    """Recipes of before them keep their baselines."""
    assert Recipe(name="a", deployment=Deployment(fp8=False)).hash == Recipe(name="b").hash
    assert Recipe(name="a", deployment=Deployment(fp8=True)).hash != Recipe(name="b").hash


@pytest.mark.parametrize(("kind", "close"), [(Float8Linear, 0.04), (Float8MultipliedLinear, 0.06), (Int8Linear, 0.015)])
def test_rounded_layers_come_close(kind: type[QuantizedLinear], close: float) -> None:
    """Relative to the size of the output; weights of one channel are a hundred times those of the others."""
    generator = torch.Generator().manual_seed(0)
    whole = nn.Linear(64, 32)
    with torch.no_grad():
        whole.weight[0] *= 100
        rounded = kind(whole.to("meta")).to_empty(device="cpu")
        weight, bias = torch.randn(32, 64, generator=generator), torch.randn(32, generator=generator)
        rounded.load_(weight)
        rounded.bias.copy_(bias)
        x = torch.randn(3, 5, 64, generator=generator)
        expected = x @ weight.T + bias
        error = (rounded(x) - expected).norm() / expected.norm()
    assert rounded.weight.element_size() == 1
    assert 0 < error < close


def test_only_the_layers_that_the_original_rounds_are_rounded() -> None:
    recipe = small(Deployment(fp8=True))
    transformer = build_part("transformer", recipe, torch.float32)
    quantize(transformer, recipe.deployment)
    kept = {name.split(".")[0] for name, layer in transformer.named_modules() if isinstance(layer, nn.Linear)}
    assert kept == {"text_embedding", "time_embedding", "time_projection", "head", "casual_audio_encoder"}
    rounded = {name.split(".")[0] for name, layer in transformer.named_modules() if isinstance(layer, QuantizedLinear)}
    assert rounded == {"blocks", "audio_injector"}


def test_a_float8_cache_keeps_what_was_written_before() -> None:
    """A later, much larger block takes nothing from an earlier one."""
    allocate = {"batch": 1, "tokens": 8, "heads": 2, "device": "cpu"}
    params = SMALL.transformer
    values = KVCache.allocate(params, dtype=torch.float8_e4m3fn, **allocate)
    cache = Float8KVCache(values, KVCache.allocate(params, dtype=torch.float32, width=1, **allocate), torch.float32)
    first = torch.randn(1, 2, 4, params.head_dim, generator=torch.Generator().manual_seed(0))
    cache.write(1, first, 2 * first, 0)
    cache.write(1, 1000 * first, first, 4)
    k, v = cache.read(1, 8)
    torch.testing.assert_close(k, torch.cat([first, 1000 * first], dim=2), rtol=0.07, atol=1e-2)
    torch.testing.assert_close(v[:, :, :4], 2 * first, rtol=0.07, atol=1e-2)


def test_two_blocks_stand_on_the_card() -> None:
    """Of many; all of them would be more than the difference."""
    deep = replace(SMALL, transformer=replace(SMALL.transformer, num_layers=12))
    whole, streamed = (_held(replace(small(Deployment(offload_blocks=b)), model=deep)) for b in (False, True))
    assert whole - streamed == pytest.approx(10 / 12 * _blocks_bytes(deep), rel=0.02)


def _held(recipe: Recipe) -> int:
    result = simulate_rank(recipe, 0, Capacity())
    return result.peaks["denoise"].by_category["parameters"]


def _blocks_bytes(model) -> int:
    transformer = build_part("transformer", Recipe(name="deep", model=model), torch.float32)
    return sum(512 * -(-weight.nbytes // 512) for weight in transformer.get_submodule("blocks").parameters())


def test_freed_encoders_are_gone_and_say_so() -> None:
    recipe = small(Deployment(free_encoders=True), sample_steps=1, num_clip=1)
    avatar = open_avatar(recipe)
    assert list(avatar.generate(simulated_inputs(recipe)))
    assert "text_encoder" not in avatar.system.parts
    with pytest.raises(InvalidRecipe, match="given up"):
        next(avatar.generate(simulated_inputs(recipe)))
