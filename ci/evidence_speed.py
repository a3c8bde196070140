"""Seconds a clip on this card, with the share of its measured peak and the kernels that take longest.

    python -m ci.evidence_speed --recipe single [--compile] [--dry-run | --rehearse]

The peak is that of a large bfloat16 product, timed in the same process before the clips. A rehearsal makes the clips of
the tiny model on the CPU, and times nothing that takes a card.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from liveavatar_core.errors import LiveAvatarError
from liveavatar_core.recipes import named_recipe

if TYPE_CHECKING:
    from liveavatar_core.config import Recipe
    from liveavatar_core.pipeline import Avatar

PRODUCT = 16384
"""Side of the square matrices that are multiplied."""
COPIED_BYTES = 8 * 1024**3
REPEATS = 10
KERNELS = 10


def product_tflops() -> float:
    """10**12 operations a second of a large bfloat16 product."""
    import torch

    a, b = (torch.randn(PRODUCT, PRODUCT, device="cuda", dtype=torch.bfloat16) for _ in "ab")
    return 2 * PRODUCT**3 / _seconds(lambda: a @ b) / 1e12


def copy_gb_s() -> float:
    """10**9 bytes a second of a copy on the card, read and written."""
    import torch

    source = torch.empty(COPIED_BYTES, device="cuda", dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * COPIED_BYTES / _seconds(lambda: target.copy_(source)) / 1e9


def _seconds(work) -> float:  # type: ignore[no-untyped-def]
    """Mean seconds of `work`, warmed up."""
    import torch

    work()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(REPEATS):
        work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000 / REPEATS


def rehearse(recipe: Recipe) -> None:
    """Make the clips that `measure` times, small and without a card."""
    from liveavatar_core.pipeline import open_avatar
    from liveavatar_core.recipes import miniature
    from liveavatar_core.simulation.estimate import simulated_inputs

    small = miniature(replace(recipe, clip=replace(recipe.clip, infer_frames=12, sample_steps=1)))
    avatar, inputs = open_avatar(small), simulated_inputs(small)
    for clip in ("first", "second"):
        first, seconds = _generate(avatar, inputs)
        print(f"{clip} clip of {small.name}, on the CPU: {seconds:.2f} s, first frame {first:.2f} s")


def measure(recipe: Recipe) -> None:
    """Print rates, seconds of a warm clip, its share of the product's rate, and the longest kernels."""
    import torch
    from torch.profiler import ProfilerActivity, profile
    from torch.utils.flop_counter import FlopCounterMode

    from liveavatar_core.pipeline import open_avatar
    from liveavatar_core.simulation.estimate import simulated_inputs

    peak = product_tflops()
    print(f"bfloat16 product {peak:.0f} TFLOP/s, copy {copy_gb_s():.0f} GB/s")
    avatar = open_avatar(recipe, device="cuda")
    inputs = simulated_inputs(recipe)
    _generate(avatar, inputs)
    with FlopCounterMode(display=False) as counter:
        _generate(avatar, inputs)
    first, seconds = _generate(avatar, inputs)
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        _generate(avatar, inputs)
    rate = counter.get_total_flops() / seconds / 1e12
    print(f"{recipe.name}, {_kind(recipe)}: {seconds:.2f} s a clip, first frame {first:.2f} s")
    print(f"{rate:.0f} TFLOP/s over the whole run: {rate / peak:.0%} of the product's rate")
    print(profiled.key_averages().table(sort_by="self_cuda_time_total", row_limit=KERNELS))
    print(f"most allocated {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB")


def _generate(avatar: Avatar, inputs) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    """Seconds to the first frames and to the last."""
    started, first = time.monotonic(), 0.0
    for block in avatar.generate(inputs):
        if block.frames_JHWC is not None:
            first = first or time.monotonic() - started
    return first, time.monotonic() - started


def main(arguments: list[str] | None = None) -> int:
    """Measure, or with --dry-run say what would be; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="single", help="of liveavatar_core/recipes.py, for one card (single)")
    parser.add_argument("--compile", action="store_true", help="compile the transformer first")
    parser.add_argument("--dry-run", action="store_true", help="say what would be measured")
    parser.add_argument("--rehearse", action="store_true", help="make the clips of the tiny model, without a card")
    options = parser.parse_args(arguments)
    try:
        recipe = named_recipe(options.recipe, 1)
    except LiveAvatarError as error:
        print(error, file=sys.stderr)
        return 2
    deployment = replace(recipe.deployment, compile=options.compile)
    recipe = replace(recipe, clip=replace(recipe.clip, size="704*384"), deployment=deployment)
    if options.dry_run:
        print(f"{recipe.name} {recipe.hash}, {_kind(recipe)}, {recipe.clip.size}")
    elif options.rehearse:
        rehearse(recipe)
    else:
        measure(recipe)
    return 0


def _kind(recipe: Recipe) -> str:
    return "compiled" if recipe.deployment.compile else "eager"


if __name__ == "__main__":
    sys.exit(main())
