"""Every deployment that keeps the precision makes the video that one process makes; 8-bit ones come close to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from deployments import Video, Videos, small

from liveavatar_core.deployment import Deployment
from liveavatar_core.recipes import RECIPES, named_recipe

CLOSE = 1e-5
"""float32, over two clips."""
CARDS_OF = {name: 1 for name in RECIPES if name.startswith(("single", "fp8", "block_offload"))} | {"fp8_ulysses": 4}


def over(ranks: int, **settings) -> Deployment:
    return Deployment(num_gpus_dit=ranks, ulysses_size=ranks, **settings)


LAYOUTS = {
    **{f"per_parameter-{n}": over(n, shard="per_parameter", shard_units="fine") for n in (2, 3, 4, 5)},
    **{f"flat-{n}": over(n, shard="flat") for n in (2, 3, 4, 5)},
    "everything-3": over(3, shard="per_parameter", shard_scope="everything", shard_units="blocks", lora="adapter"),
    "ulysses-3": over(3),
    "decode_rank-2": over(2, enable_vae_parallel=True),
    "decode_rank-1": Deployment(enable_vae_parallel=True),
    "text_on_decode_rank": over(2, enable_vae_parallel=True, t5_on_decode_rank=True, free_encoders=True),
    "gathered_once": over(2, shard="per_parameter", reshard_after_forward=False),
    "gathered_once-flat": over(2, shard="flat", reshard_after_forward=False),
    "offload_shards": over(2, shard="per_parameter", offload_shards=True),
    "offload_shards-all": over(3, shard="per_parameter", shard_scope="everything", offload_shards=True),
    "offload_model": Deployment(offload_model=True),
    "offload_kv_cache": Deployment(offload_kv_cache=True),
    "offload_blocks": Deployment(offload_blocks=True),
    "offload_blocks-2": over(2, offload_blocks=True, offload_model=True, offload_kv_cache=True, t5_cpu=True),
    "t5_cpu": Deployment(t5_cpu=True, free_encoders=True),
}

TIMESTEP = {
    "timestep-3": (3, Deployment(num_gpus_dit=3, timestep_pipeline=True, enable_vae_parallel=True)),
    "timestep-4": (4, Deployment(num_gpus_dit=4, timestep_pipeline=True, enable_vae_parallel=True)),
    "timestep-3-offloaded": (
        3,
        Deployment(num_gpus_dit=3, timestep_pipeline=True, enable_vae_parallel=True, offload_blocks=True),
    ),
}

OTHERS = [name for name in RECIPES if name != "timestep_pipeline"]  # which takes another number of steps
NAMED = {name: named_recipe(name, CARDS_OF.get(name, 4)).deployment for name in OTHERS}
EXACT = {f"recipe-{name}": layout for name, layout in NAMED.items() if not (layout.quantized or layout.fp8_kv_cache)}
ROUNDED = {f"recipe-{name}": layout for name, layout in NAMED.items() if layout.quantized or layout.fp8_kv_cache} | {
    "fp8-storage": Deployment(fp8=True, fp8_multiply=False),
    "int8": Deployment(int8=True),
    "fp8_kv_cache": Deployment(fp8_kv_cache=True),
    "fp8_kv_cache-offloaded": Deployment(fp8_kv_cache=True, offload_kv_cache=True),
}


REFERENCES = {
    f"one-{lora}-{steps}": (steps, Deployment(lora=lora))
    for lora, steps in (("merged", 2), ("adapter", 2), ("merged", 3), ("merged", 4))
}
"""What one process makes of plain weights."""

ALL = REFERENCES | TIMESTEP | {name: (2, layout) for name, layout in (LAYOUTS | EXACT | ROUNDED).items()}


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Iterator[Videos]:
    recipes = {name: small(layout, sample_steps=steps) for name, (steps, layout) in ALL.items()}
    made = Videos(recipes, tmp_path_factory.mktemp("videos"))
    yield made
    made.close()


AT_NIGHT = {
    "per_parameter-4": "of an even number of ranks 2 are as good",
    "flat-4": "of an even number of ranks 2 are as good",
    "timestep-4": "in four steps it is held against the reference: tests/parity/test_pipeline_timestep.py",
}
"""What runs at night alone, and why that is enough."""


def by_cards(names: Iterable[str]) -> list[object]:
    """Those over as many cards behind each other, so that they share ranks."""
    ordered = sorted(names, key=lambda name: ALL[name][1].num_cards)
    return [pytest.param(name, marks=pytest.mark.nightly if name in AT_NIGHT else ()) for name in ordered]


def make_both(name: str, videos: Videos) -> tuple[Video, Video]:
    """What one process makes, and what this layout makes."""
    steps, layout = ALL[name]
    return videos.make(f"one-{layout.lora}-{steps}"), videos.make(name)


@pytest.mark.parametrize("name", by_cards(LAYOUTS | EXACT | TIMESTEP))
def test_a_layout_changes_no_latent(name: str, videos: Videos) -> None:
    """Two clips, a prefill between them. Of a timestep pipeline, what leaves its last rank, in as many steps."""
    assert_same(*make_both(name, videos))


@pytest.mark.parametrize("name", by_cards(ROUNDED))
def test_rounded_weights_come_close(name: str, videos: Videos, record_property) -> None:
    """Close to the unrounded video, and not it: the rounding acted."""
    decibels = psnr(*make_both(name, videos))
    record_property("psnr_db", round(float(decibels), 2))
    assert 15 < decibels < 90


def test_the_adapter_matters(videos: Videos) -> None:
    """Otherwise merged and unmerged recipes would be compared with the same thing."""
    merged, beside = (videos.make(f"one-{lora}-2") for lora in ("merged", "adapter"))
    assert np.abs(np.stack(merged.latents) - np.stack(beside.latents)).max() > 1e-3


def assert_same(expected: Video, made: Video) -> None:
    assert len(made.latents) == len(expected.latents) == 4
    for index, (want, have) in enumerate(zip(expected.latents, made.latents, strict=True)):
        np.testing.assert_allclose(have, want, rtol=0, atol=CLOSE, err_msg=f"block {index}")
    assert made.frames.shape == expected.frames.shape
    assert np.abs(made.frames.astype(int) - expected.frames).max() <= 1  # rounding to levels


def psnr(expected: Video, made: Video) -> float:
    """Of all latents, the signal's peak being its range."""
    want, have = np.stack(expected.latents), np.stack(made.latents)
    error = float(np.mean((want - have) ** 2))
    return float("inf") if error == 0 else 10 * np.log10(float(np.ptp(want)) ** 2 / error)


def test_psnr_falls_with_the_error() -> None:
    video = Video(latents=[np.linspace(-1, 1, 8)], frames=np.empty(0))
    off = [replace(video, latents=[video.latents[0] + error]) for error in (0.02, 0.2)]
    assert [round(psnr(video, other)) for other in off] == [40, 20]
