"""The original's single-card pipeline, from files to frames: every run that a case stores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pipeline import PipelineCase, Stage, assert_stages, latent_stages
from safetensors.torch import load_file
from torch import Tensor

from liveavatar_core.pipeline import Avatar, Conditioning, LatentBlock, open_avatar
from liveavatar_core.pipeline import avatar as avatar_module
from liveavatar_core.pipeline.conditioning import encode
from liveavatar_core.pipeline.decoding import ClipwiseDecoder
from liveavatar_core.pipeline.denoising import BlockDenoiser, seeded_noise
from liveavatar_core.video_geometry import fit_portrait


class Made:
    """What the stages of one run of `generate` gave, seen while it ran."""

    def __init__(self, avatar: Avatar, case: PipelineCase, patch: pytest.MonkeyPatch) -> None:
        self.latents: dict[tuple[int, int], Tensor] = {}
        self.motion: dict[int, Tensor] = {}
        pieces: list[Tensor] = []

        def encoded(*args: Any) -> tuple[Conditioning, Tensor]:
            self.conditioning, motion = encode(*args)
            self.at_start = (self.conditioning.reference_BCTHW, motion)
            return self.conditioning, motion

        def denoised(denoiser: BlockDenoiser, number: int, motion: Tensor) -> Iterator[LatentBlock]:
            self.motion[number] = motion
            for block in original_clip(denoiser, number, motion):
                self.latents[block.clip, block.index] = block.latents_BCTHW[0]
                yield block

        def decoded(*args: Any) -> Iterator[Tensor]:
            for piece in original_pieces(*args):
                pieces.append(piece[0])
                yield piece

        original_pieces, original_clip = ClipwiseDecoder.pieces, BlockDenoiser.clip
        patch.setattr(avatar_module, "encode", encoded)
        patch.setattr(BlockDenoiser, "clip", denoised)
        patch.setattr(ClipwiseDecoder, "pieces", decoded)
        blocks = [block.frames_JHWC for block in avatar.generate(case.inputs, case.noise)]
        self.written_JHWC = torch.cat([frames for frames in blocks if frames is not None])
        self.video_CJHW = torch.cat(pieces, dim=1)


def conditioning_stages(case: PipelineCase, made: Made) -> list[Stage]:
    given, have = case.given, made.conditioning
    assert have.context_BLD is not None
    assert have.audio_BAEJ is not None
    height, width = given["image_resized_cropped"].shape[:2]
    fitted = fit_portrait(case.inputs.image, height, width, letterbox=True)
    reference, motion = made.at_start
    words = len(given["context"])
    return [
        Stage("portrait", torch.tensor(list(fitted.tobytes())), given["image_resized_cropped"].flatten(), 0),
        Stage("prompt", have.context_BLD[0, :words], given["context"], 1e-5),
        Stage("prompt's padding", have.context_BLD[0, words:], torch.zeros_like(have.context_BLD[0, words:]), 0),
        Stage("voice", have.audio_BAEJ, given["audio_emb"], 5e-5),
        Stage("reference latent", reference, given["ref_latents"], 1e-5),
        Stage("oldest motion latents", motion[:, :, :4], given["motion_latents_first4"], 1e-5),
        Stage("newest motion latents", motion[:, :, -19:], given["motion_latents_last19"], 1e-5),
    ]


def denoising_stages(made: Made, golden: dict[str, Tensor]) -> list[Stage]:
    if "latents" in golden:
        return latent_stages(made.latents, golden["latents"])
    reference, motion = golden["ref_latents_clip1"], golden["motion_latents_clip1_last19"]
    return [
        Stage("reference of clip 1", made.latents[0, 0][None, :, :1], reference, 5e-5),
        Stage("motion of clip 1", made.motion[1][:, :, -19:], motion, 1e-4),
        *latent_stages(made.latents, golden["latents_clip1"][None], first_clip=1),
    ]


def frame_stages(made: Made, golden: dict[str, Tensor]) -> list[Stage]:
    stages = Stage.of_frames(made.video_CJHW, golden)
    if "video_u8_every3" in golden:
        expected_JHWC = golden["video_u8_every3"].permute(1, 2, 3, 0)
        stages.append(Stage("frames as written", made.written_JHWC[golden["u8_frame_ids"]], expected_JHWC, 1))
    return stages


def test_every_run_equals_the_reference_stage_by_stage(pipeline_run: tuple[Path, str], monkeypatch: pytest.MonkeyPatch):
    folder, name = pipeline_run
    case = PipelineCase(folder=folder)
    run = case.meta["runs"][name]
    golden, recipe = load_file(folder / run["file"]), case.recipe(run)
    avatar = open_avatar(recipe, weights=case.weights(), tokenizer=case.tokenizer)
    made = Made(avatar, case, monkeypatch)
    assert_stages([*conditioning_stages(case, made), *denoising_stages(made, golden), *frame_stages(made, golden)])


def test_the_seed_gives_the_stored_noise(pipeline_case: Path):
    case = PipelineCase(folder=pipeline_case)
    clip = case.recipe(next(iter(case.meta["runs"].values()))).clip
    for number in range(2):
        stored = case.given[f"noise_clip{number}"]
        assert torch.equal(seeded_noise(clip)(number, tuple(stored.shape)), stored)


def test_a_difference_is_told_by_its_first_stage():
    same, other = torch.zeros(2), torch.ones(2)
    with pytest.raises(AssertionError, match=r"first stage that differs is voice: 1 off.*\['latents'\]"):
        assert_stages(
            [Stage("prompt", same, same, 0), Stage("voice", other, same, 0.5), Stage("latents", same, other, 0)]
        )
