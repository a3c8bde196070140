"""Stage 1: the video VAE, on drawn heads.

Legend: B batch, C channels, T frames, H W pixels, z latent channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from liveavatar_core.recipes import TINY
from tiny_avatar.heads import LIGHTS, MOODS, Face, Motion, draw
from tiny_avatar.training.loop import Losses, Stage, train

_NOISE = 0.1
"""Latents are disturbed before they are decoded, so that near latents make near pictures."""
_DETAILS = 2.0
"""Weight of busy places, once the large shapes stand."""
_MOUTHS = 6.0
"""Weight of what an open mouth changes, at last."""
_PADS = ((2, (0, 0, 0, 1)), (3, (0, 1)))
_PICTURES = ((16, 1),)
_VIDEOS = ((4, 5), (16, 1), (3, 9), (16, 1))
"""Videos and frames of a batch; a batch has one of them."""

FrameSizes = Sequence[tuple[int, int]]


def train_vae(folder: Path, pictures: int, videos: int, mouths: int) -> Any:
    """Trained by so many steps on pictures, then on videos, then with an eye on mouths.

    Its latents have Wan2.1's mean and deviation, as the published layout has no place for others.
    """
    torch.manual_seed(0)
    vae: Any = AutoencoderKLWan(base_dim=TINY.vae.base_dim, z_dim=TINY.vae.z_dim)
    _start_without_time(vae)
    pictures_stage = Stage(name="vae_pictures", folder=folder, steps=pictures, rate=0.02)
    train(pictures_stage, vae, lambda random: _losses(vae, _videos(random, _PICTURES)))
    videos_stage = Stage(name="vae", folder=folder, steps=videos, rate=0.01)
    train(videos_stage, vae, lambda random: _losses(vae, _videos(random, _VIDEOS), details=_DETAILS))
    mouths_stage = Stage(name="vae_mouths", folder=folder, steps=mouths, rate=0.008)
    train(mouths_stage, vae, lambda random: _mouth_losses(vae, random))
    _standardise(vae)
    return vae


@torch.no_grad()
def _start_without_time(vae: Any) -> None:
    """Convolutions see the present frame alone at first, and frames are dropped or doubled: pictures come first."""
    for module in vae.modules():
        if isinstance(module, nn.Conv3d) and module.kernel_size[1] == 1 and module.kernel_size[0] > 1:
            outs, ins = module.weight.shape[:2]
            module.weight.zero_()[:, :, -1, 0, 0] = torch.eye(ins).repeat(outs // ins, 1)
        elif isinstance(module, nn.Conv3d | nn.Conv2d):
            times = module.weight.shape[2] if module.weight.ndim == 5 else 1
            module.weight.normal_(std=(module.weight[0].numel() // times) ** -0.5)
            if module.weight.ndim == 5:
                module.weight[:, :, :-1] = 0
        else:
            continue
        if module.bias is not None:
            module.bias.zero_()


def _mouth_losses(vae: Any, random: np.random.Generator) -> Losses:
    count, frames = _VIDEOS[int(random.integers(len(_VIDEOS)))]
    videos, mouths = zip(*(_decoder_video(random, frames) for _ in range(count)), strict=True)
    weight_B1THW = torch.from_numpy(np.stack(mouths))[:, None] * _MOUTHS
    return _losses(vae, to_pixels(np.stack(videos)), details=_DETAILS, also=weight_B1THW)


def _losses(vae: Any, video_BCTHW: Tensor, details: float = 0.0, also: Tensor | float = 0.0) -> Losses:
    """`details`: weight of busy places; `also`: weights B1THW of places that matter."""
    latents = vae.encode(video_BCTHW).latent_dist.mean
    made = vae.decode(latents + _NOISE * torch.randn_like(latents)).sample
    error, weight = made - video_BCTHW, 1 + details * _busy(video_BCTHW) + also
    edges = sum((error.diff(dim=dim).abs() * weight.narrow(dim, 0, error.shape[dim] - 1)).mean() for dim in (3, 4))
    spread = latents.square().mean()
    psnr = -10 * torch.log10(error.detach().square().mean() / 4)
    loss = (error.abs() * weight).mean() + edges + (error.square() * weight).mean()
    return {"loss": loss + 0.01 * F.relu(spread - 1) + 0.01 * F.relu(0.7 - spread), "psnr_db": psnr, "spread": spread}


def _busy(video_BCTHW: Tensor) -> Tensor:
    """How much happens around a pixel, 1 on average: eyes and mouths are small and matter most."""
    frames = video_BCTHW.transpose(1, 2).flatten(0, 1)
    down, right = (F.pad(frames.diff(dim=dim).abs().mean(dim=1, keepdim=True), pad) for dim, pad in _PADS)
    around = F.avg_pool2d(down + right, 5, stride=1, padding=2)
    share = around / around.mean(dim=(2, 3), keepdim=True)
    return share.unflatten(0, (len(video_BCTHW), -1)).transpose(1, 2)


def _videos(random: np.random.Generator, shapes: FrameSizes) -> Tensor:
    """A batch in -1..1."""
    count, frames = shapes[int(random.integers(len(shapes)))]
    return to_pixels(np.stack([_video(random, frames) for _ in range(count)]))


def to_pixels(videos_BTHWC: np.ndarray) -> Tensor:
    """uint8 frames as the VAE takes them, BCTHW in -1..1."""
    return torch.from_numpy(videos_BTHWC).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def _video(random: np.random.Generator, frames: int) -> np.ndarray:
    return draw(Face.drawn_by(random), _any_motion(random, frames))


def _decoder_video(random: np.random.Generator, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """A video as decoders see it, sometimes behind a portrait that rests; and 1 wherever the mouth is open, THW."""
    face, motion = Face.drawn_by(random), _any_motion(random, frames)
    video, shut = draw(face, motion), draw(face, replace(motion, opening=np.zeros(frames)))
    mouths = (np.abs(video.astype(int) - shut).max(axis=-1) > 8).astype(np.float32)
    if frames > 1 and random.uniform() < 0.5:
        rest = int(random.choice([1, min(5, frames - 4)]))
        video[:rest], mouths[:rest] = draw(face, Motion.still(rest)), 0.0
    return video, mouths


def _any_motion(random: np.random.Generator, frames: int) -> Motion:
    return Motion(
        opening=_wander(random, frames, 0.35).clip(0, 1),
        width=_wander(random, frames, 0.4).clip(-1, 1),
        sway=_wander(random, frames, 0.006) * 0.05,
        nod=_wander(random, frames, 0.006) * 0.05,
        mood=float(random.choice([*MOODS.values()])),
        light=LIGHTS[str(random.choice([*LIGHTS]))],
    )


def _wander(random: np.random.Generator, frames: int, stride: float) -> np.ndarray:
    """A value that starts anywhere and changes by about `stride` a frame."""
    return random.uniform(-0.4, 1.0) + np.cumsum(random.normal(scale=stride, size=frames))


@torch.no_grad()
def _standardise(vae: Any) -> None:
    """Fold into the outermost convolutions what gives each latent channel Wan2.1's mean and deviation."""
    random = np.random.default_rng(1)
    latents = torch.cat([_flat(vae.encode(_videos(random, _VIDEOS)).latent_dist.mean) for _ in range(24)], dim=1)
    scale_z = torch.tensor(vae.config.latents_std) / latents.std(dim=1)
    shift_z = torch.tensor(vae.config.latents_mean) - latents.mean(dim=1) * scale_z
    out, back, z_dim = vae.quant_conv, vae.post_quant_conv, len(scale_z)
    back.bias -= (back.weight * (shift_z / scale_z).view(1, -1, 1, 1, 1)).sum(dim=(1, 2, 3, 4))
    back.weight /= scale_z.view(1, -1, 1, 1, 1)
    out.weight[:z_dim] *= scale_z.view(-1, 1, 1, 1, 1)
    out.bias[:z_dim].mul_(scale_z).add_(shift_z)


def _flat(latents_BzTHW: Tensor) -> Tensor:
    """A tensor with channels first and all else flattened: [z, everything else]."""
    return latents_BzTHW.transpose(0, 1).flatten(1)
