"""A card computes what the CPU computes: kernels one by one, caches, offload, a whole clip of the tiny avatar."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from deployments import small
from torch import Tensor, nn

from liveavatar_core.deployment import Deployment
from liveavatar_core.model.attention import attention_over_both, choose_cuda_kernel
from liveavatar_core.model.cache import Float8KVCache, HostKVCache, KVCache
from liveavatar_core.model.layers import Float32Conv1d, RMSNorm
from liveavatar_core.model.params import TransformerParams
from liveavatar_core.parallel.quantize import Float8Linear, Float8MultipliedLinear, Int8Linear
from liveavatar_core.pipeline import open_avatar
from liveavatar_core.recipes import TINY, miniature, single
from liveavatar_core.simulation.estimate import simulated_inputs
from liveavatar_core.weights.shipped import shipped_weights

pytestmark = pytest.mark.cuda

PARAMS = TransformerParams(dim=256, ffn_dim=512, num_heads=2, num_layers=2, audio_inject_layers=(0,))


def drawn(*shape: int, dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def error_of(found: Tensor, wanted: Tensor) -> float:
    """Length of the difference as a share of what is wanted."""
    found, wanted = found.cpu().double(), wanted.double()
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.bfloat16, 0.01), (torch.float32, 1e-5)])
@pytest.mark.parametrize("kernel", ["flash", "cudnn"])
def test_attention_over_both_caches(card, kernel, dtype, allowed):
    q, *parts = (drawn(1, 2, length, 128, dtype=dtype, seed=length) for length in (48, 96, 97, 32, 33))
    parts[1], parts[3] = parts[1][:, :, :96], parts[3][:, :, :32]
    wanted = attention_over_both(q.float(), *pairs([part.float() for part in parts]))
    choose_cuda_kernel(kernel)
    try:
        found = attention_over_both(q.to(card), *pairs([part.to(card) for part in parts]))
    finally:
        choose_cuda_kernel("flash")
    assert error_of(found, wanted) < allowed


def pairs(parts: list[Tensor]) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return (parts[0], parts[1]), (parts[2], parts[3])


def test_root_mean_square_norm(card):
    norm, x = RMSNorm(256).bfloat16(), drawn(64, 256)
    wanted = norm(x)
    assert error_of(norm.to(card)(x.to(card)), wanted) < 0.005


def test_a_float32_convolution_has_all_its_bits(card):
    layer, x = Float32Conv1d(64, 64, 3), drawn(1, 64, 40, dtype=torch.float32)
    wanted = nn.functional.conv1d(x.double(), layer.weight.double(), layer.bias.double())
    assert error_of(layer.to(card)(x.to(card)), wanted) < 1e-6


@pytest.mark.parametrize("kind", [Float8MultipliedLinear, Float8Linear, Int8Linear])
def test_products_in_8_bits(card, kind):
    with torch.device("meta"):
        layer = kind(nn.Linear(256, 512, dtype=torch.bfloat16))
    layer = layer.to_empty(device="cpu")
    layer.load_(drawn(512, 256) / 16)
    layer.bias.copy_(drawn(512, seed=2))
    x = drawn(64, 256, seed=1)
    wanted = layer(x)
    assert error_of(layer.to(card)(x.to(card)), wanted) < 0.01


@pytest.mark.parametrize("rounded", [False, True])
def test_a_cache_in_host_memory_gives_back_what_was_written(card, rounded):
    kept: HostKVCache | Float8KVCache = HostKVCache.allocate(PARAMS, 1, 64, 2, torch.bfloat16, card)
    if rounded:
        values = HostKVCache.allocate(PARAMS, 1, 64, 2, torch.float8_e4m3fn, card)
        scales = HostKVCache.allocate(PARAMS, 1, 64, 2, torch.float32, card, width=1)
        kept = Float8KVCache(values, scales, torch.bfloat16)
    plain = KVCache.allocate(PARAMS, 1, 64, 2, torch.bfloat16, "cpu")
    for start in (0, 16, 48, 16):
        k, v = drawn(1, 2, 16, 128, seed=start), drawn(1, 2, 16, 128, seed=start + 1)
        for cache, place in ((kept, card), (plain, "cpu")):
            cache.write(1, k.to(place), v.to(place), start)
        found = kept.read(1, start + 16)
        for ours, theirs in zip(found, plain.read(1, start + 16), strict=True):
            assert error_of(ours, theirs) < (0.04 if rounded else 1e-9)


LAYOUTS = {
    "whole": Deployment(),
    "blocks and caches in host memory": Deployment(offload_blocks=True, offload_kv_cache=True),
    "parts in turn": Deployment(offload_model=True),
    "compiled": Deployment(compile=True),
    "int8": Deployment(int8=True),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_of_one_card_makes_the_cpus_video(card, layout):
    recipe = small(layout)
    assert error_of(latents(recipe, card), latents(replace(recipe, deployment=on_cpu(recipe.deployment)), "cpu")) < 0.01


def on_cpu(deployment: Deployment) -> Deployment:
    """The same numbers without the places."""
    return replace(deployment, offload_blocks=False, offload_kv_cache=False, offload_model=False, compile=False)


def test_a_clip_of_the_avatar_that_ships(card):
    recipe = miniature(single(1))
    wide = replace(recipe.deployment, storage_dtype="float32", compute_dtype="float32")
    recipe = replace(recipe, deployment=wide, clip=replace(recipe.clip, infer_frames=24), model=TINY)
    weights = shipped_weights(recipe)
    assert error_of(latents(recipe, card, weights), latents(recipe, "cpu", weights)) < 0.01


def latents(recipe, device, weights=None) -> Tensor:
    """The latents of all blocks, on the CPU."""
    avatar, seen = open_avatar(recipe, weights=weights, device=device), []
    for _ in avatar.generate(simulated_inputs(recipe), watch=lambda block: seen.append(block.latents_BCTHW.cpu())):
        pass
    return torch.cat(seen, dim=2)


def test_nccl_alone(card, tmp_path: Path):
    backend = "nccl" if card.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        x = torch.ones(1024, device=card)
        dist.all_reduce(x)
        assert float(x.sum()) == 1024
    finally:
        dist.destroy_process_group()
