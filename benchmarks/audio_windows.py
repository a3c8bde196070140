"""How much encoding a long voice in windows changes: its features, and the video that the tiny avatar makes of it.

    python -m benchmarks.audio_windows [--clips 36] [--windows 20 30 60]

The voice that ships is said again and again. Features are compared by cosine (mean and least over video frames), videos
by PSNR of the frames that no coder has touched; both against the whole voice at once. Depends on the weights: these are
the tiny avatar's, whose encoder has seven hidden states of 32 where the published one has 25 of 1024.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from liveavatar_core.config import Recipe
from liveavatar_core.pipeline import open_avatar
from liveavatar_core.pipeline.conditioning import encode
from liveavatar_core.recipes import miniature, named_recipe
from liveavatar_core.weights.shipped import shipped_weights
from suites.harness.cases.workloads import miniature_workload
from suites.harness.workers.clips import read_inputs


def made(recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Audio features [B, N, D, J], and frames [J, H, W, 3] of 8 bits."""
    avatar, inputs = open_avatar(recipe, weights=shipped_weights(recipe)), read_inputs(recipe)
    features = encode(avatar.system, avatar.tokenizer, inputs)[0].audio_BAEJ
    assert features is not None
    blocks = [block.frames_JHWC for block in avatar.generate(inputs)]
    return features, torch.cat([frames for frames in blocks if frames is not None])


def main() -> None:
    """Print a line for each window."""
    parser = argparse.ArgumentParser(description="What windows change.")
    parser.add_argument("--clips", type=int, default=36, help="of 48 frames, 1.92 s each (36)")
    parser.add_argument(
        "--windows", type=int, nargs="+", default=[20, 30, 60], help="seconds of each window (20 30 60)"
    )
    options = parser.parse_args()
    small = miniature(named_recipe("single", 1))
    small = replace(small, workload=miniature_workload(), clip=replace(small.clip, num_clip=options.clips))
    whole, video = made(_in_windows(small, 0))
    print(f"{options.clips} clips, a voice of {options.clips * 1.92:.1f} s")
    for window in options.windows:
        features, frames = made(_in_windows(small, window))
        spoken = whole.abs().amax(dim=(0, 1, 2)) > 0  # frames behind the voice's end have no features
        alike = cosine_similarity(features.float(), whole.float(), dim=2)[..., spoken]
        noise = (frames.float() - video.float()).square().mean()
        psnr = float("inf") if noise == 0 else float(10 * torch.log10(255**2 / noise))
        print(f"window {window:3} s: cosine {alike.mean():.5f}, at least {alike.min():.5f}; video {psnr:.1f} dB")


def _in_windows(recipe: Recipe, seconds: int) -> Recipe:
    return replace(recipe, deployment=replace(recipe.deployment, audio_window_seconds=seconds))


if __name__ == "__main__":
    main()
