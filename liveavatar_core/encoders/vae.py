"""Video <-> latents: the network of diffusers' AutoencoderKLWan, its causal caches held outside of the
module.

Shapes: B batch, C channels (3, or 16 for latents), T frames, H and W pixels; latents are T/4, H/8 and W/8.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from liveavatar_core.config import PIXELS_PER_LATENT, VIDEO_FRAMES_PER_LATENT
from liveavatar_core.encoders.params import VaeParams
from liveavatar_core.errors import BadInput, InvalidRecipe
from liveavatar_core.scopes import category


class VideoVae(nn.Module):
    """The four networks of the VAE; parameter names are those of diffusers' AutoencoderKLWan.

    It has no forward of its own: `encode_video` and `StreamingDecoder` call the networks, so that each of
    the four can be gathered by itself where they are sharded.
    """

    def __init__(self, params: VaeParams) -> None:
        from diffusers import AutoencoderKLWan

        super().__init__()
        wan: Any = AutoencoderKLWan(
            base_dim=params.base_dim,
            z_dim=params.z_dim,
            dim_mult=list(params.dim_mult),
            num_res_blocks=params.num_res_blocks,
        )
        self.latents_mean = tuple(params.latents_mean or wan.config.latents_mean)
        self.latents_std = tuple(params.latents_std or wan.config.latents_std)
        if not len(self.latents_mean) == len(self.latents_std) == params.z_dim:
            raise InvalidRecipe(
                f"{len(self.latents_mean)} latents_mean, {len(self.latents_std)} latents_std for z_dim {params.z_dim}",
                "give one value of each for every latent channel",
            )
        self.encoder: nn.Module = wan.encoder
        self.quant_conv: nn.Module = wan.quant_conv
        self.post_quant_conv: nn.Module = wan.post_quant_conv
        self.decoder: nn.Module = wan.decoder
        self.eval()

    def latent_statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latent channels, each [1, z, 1, 1, 1], float32."""
        mean = torch.tensor(self.latents_mean, dtype=torch.float32, device=device).view(1, -1, 1, 1, 1)
        deviation = torch.tensor(self.latents_std, dtype=torch.float32, device=device).view(1, -1, 1, 1, 1)
        return mean, deviation


class FeatureCache:
    """The last frames that each causal convolution saw, by position; what diffusers calls feat_cache.

    No list, on purpose: FSDP copies lists among a module's arguments, and changes to the copy would be lost.
    A slot keeps its tensor and is overwritten in place, so a run's cache is allocated once.
    """

    def __init__(self, module: nn.Module, kind: str) -> None:
        """Empty, for passes over `module` (the VAE's encoder or decoder); tensors are of category `kind`."""
        from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

        convolutions = sum(isinstance(layer, WanCausalConv3d) for layer in module.modules())
        self._slots: list[Any] = [None] * convolutions
        self._kind = kind

    def __getitem__(self, slot: int) -> Any:
        return self._slots[slot]

    def __setitem__(self, slot: int, value: Any) -> None:
        held = self._slots[slot]
        if not isinstance(value, Tensor):
            self._slots[slot] = value
        elif isinstance(held, Tensor) and held.shape == value.shape:
            held.copy_(value)
        else:
            with category(self._kind):
                self._slots[slot] = value.clone()

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def nbytes(self) -> int:
        """Bytes that the cached frames take."""
        return sum(held.nbytes for held in self._slots if isinstance(held, Tensor))


class _Cursor:
    """Which convolution is next; diffusers' feat_idx. A class for the same reason as FeatureCache."""

    def __init__(self) -> None:
        self._slot = 0

    def __getitem__(self, _: int) -> int:
        return self._slot

    def __setitem__(self, _: int, slot: int) -> None:
        self._slot = slot


@torch.no_grad()
def encode_video(vae: VideoVae, video_BCTHW: Tensor) -> Tensor:
    """Scaled latents [B, z, 1 + (T - 1) / 4, H / 8, W / 8] of a video in -1..1, float32.

    The mean of the posterior is taken, nothing is sampled. `video_BCTHW` must be in the type that the VAE
    computes in. Raises BadInput unless T is 1 + 4k.
    """
    later, rest = divmod(video_BCTHW.shape[2] - 1, VIDEO_FRAMES_PER_LATENT)
    if rest:
        raise BadInput(
            f"{video_BCTHW.shape[2]} frames to encode; the VAE takes 1 + 4k of them",
            "give 1, 5, 9, ... frames",
        )
    cache = FeatureCache(vae.encoder, "activations")
    chunks = video_BCTHW.split([1] + [VIDEO_FRAMES_PER_LATENT] * later, dim=2)
    moments = torch.cat([vae.encoder(chunk, feat_cache=cache, feat_idx=_Cursor()) for chunk in chunks], dim=2)
    posterior_mean = vae.quant_conv(moments).float().chunk(2, dim=1)[0]
    mean, deviation = vae.latent_statistics(posterior_mean.device)
    return (posterior_mean - mean) / deviation


class StreamingDecoder:
    """Decodes latents as they come; two calls give what one call with both would have given, to the bit."""

    def __init__(self, vae: VideoVae) -> None:
        """An empty cache, for one video."""
        self.cache = FeatureCache(vae.decoder, "decoder_cache")
        self._vae = vae

    def frames(self, latents_BCTHW: Tensor, dtype: torch.dtype = torch.float32) -> Iterator[Tensor]:
        """The frames [B, 3, 1 or 4, H, W] of each latent frame in turn, not clamped to -1..1.

        The very first latent frame gives one video frame, each later one four. A latent is decoded when the
        iterator asks for its frames: exhaust one call before the next. `dtype` is what the VAE computes in.
        """
        for latent_BC1HW in latents_BCTHW.split(1, dim=2):
            yield self._frames_of(latent_BC1HW, dtype)

    @torch.no_grad()
    def _frames_of(self, latent_BC1HW: Tensor, dtype: torch.dtype) -> Tensor:
        mean, deviation = self._vae.latent_statistics(latent_BC1HW.device)
        unscaled = (latent_BC1HW.float() * deviation + mean).to(dtype)
        frames: Tensor = self._vae.decoder(
            self._vae.post_quant_conv(unscaled), feat_cache=self.cache, feat_idx=_Cursor()
        )
        return frames


def decode_video(vae: VideoVae, latents_BCTHW: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The whole video [B, 3, 1 + 4 (T - 1), 8 H, 8 W] of scaled latents, not clamped to -1..1."""
    batch, _, latent_frames, *latent_size = latents_BCTHW.shape
    total = 1 + VIDEO_FRAMES_PER_LATENT * (latent_frames - 1)
    size = [PIXELS_PER_LATENT * side for side in latent_size]
    video = torch.empty(batch, 3, total, *size, dtype=dtype, device=latents_BCTHW.device)
    start = 0
    for frames in StreamingDecoder(vae).frames(latents_BCTHW, dtype):
        video[:, :, start : start + frames.shape[2]] = frames
        start += frames.shape[2]
    return video
