"""The VAE reproduces the reference on every case of the golden directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from liveavatar_core.encoders.params import VaeParams
from liveavatar_core.encoders.vae import StreamingDecoder, VideoVae, decode_video, encode_video
from liveavatar_core.errors import BadInput, InvalidRecipe
from liveavatar_core.weights.names import module_name, published_name

ATOL = 2e-5


class VaeCase:
    def __init__(self, folder: Path) -> None:
        self.meta = json.loads((folder / "meta.json").read_text())
        self.io = {name: x.float() for name, x in load_file(folder / "io.safetensors").items()}
        config = self.meta["config"]
        self.vae = VideoVae(
            VaeParams(
                base_dim=config["dim"],
                z_dim=config["z_dim"],
                dim_mult=tuple(config["dim_mult"]),
                num_res_blocks=config["num_res_blocks"],
                latents_mean=tuple(self.io["mean"].tolist()),
                latents_std=tuple(self.io["std"].tolist()),
            )
        )
        weights = load_file(folder / "state_dict.safetensors")
        self.vae.load_state_dict({module_name("vae", name): x.float() for name, x in weights.items()})

    @property
    def small_latents(self) -> Tensor:
        """Latents for tests that compare the decoder with itself."""
        return self.io["z_stream"][..., :4, :4]


@pytest.fixture(scope="module")
def case(vae_case: Path) -> VaeCase:
    return VaeCase(vae_case)


def near(have: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(have, expected, atol=ATOL, rtol=0)


def test_encode_a_video(case: VaeCase):
    near(encode_video(case.vae, case.io["video"]), case.io["mu_scaled"])


def test_encode_one_frame(case: VaeCase):
    near(encode_video(case.vae, case.io["video"][:, :, :1]), case.io["mu_scaled_1frame"])


def test_encode_a_frame_repeated(case: VaeCase):
    still = case.io["video"][:, :, :1].expand(-1, -1, 5, -1, -1)
    near(encode_video(case.vae, still), case.io["mu_scaled_first_frame_repeated5"])


def test_decode(case: VaeCase):
    near(decode_video(case.vae, case.io["z"]), case.io["decoded_scaled"])


def test_stream_reproduces_the_reference_chunk_by_chunk(case: VaeCase):
    decoder, latents = StreamingDecoder(case.vae), case.io["z_stream"]
    for number, (start, stop) in enumerate(case.meta["streaming"]["chunks"]):
        chunk = torch.cat(list(decoder.frames(latents[:, :, start:stop])), dim=2)
        expected = case.io[f"stream_chunk{number}"]
        near(chunk[:, :, -expected.shape[2] :], expected)


@pytest.mark.parametrize("pieces", [[1] * 8, [3, 3, 2], [7, 1]])
def test_stream_equals_one_decode_to_the_bit(case: VaeCase, pieces: list[int]):
    decoder, latents = StreamingDecoder(case.vae), case.small_latents
    streamed = [frames for piece in latents.split(pieces, dim=2) for frames in decoder.frames(piece)]
    assert [frames.shape[2] for frames in streamed] == [1] + [4] * 7
    assert torch.equal(torch.cat(streamed, dim=2), decode_video(case.vae, latents))


def test_the_cache_does_not_grow(case: VaeCase):
    decoder, latents = StreamingDecoder(case.vae), case.small_latents
    held = []
    for latent in latents.split(1, dim=2):
        list(decoder.frames(latent))
        held.append(decoder.cache.nbytes)
    assert held[0] < held[2] == held[3] == held[-1]


def test_two_videos_do_not_mix(case: VaeCase):
    first, second = StreamingDecoder(case.vae), StreamingDecoder(case.vae)
    latents = case.small_latents
    list(first.frames(latents[:, :, :4]))
    assert torch.equal(torch.cat(list(second.frames(latents)), dim=2), decode_video(case.vae, latents))


@pytest.mark.parametrize("frames", [2, 4, 6])
def test_other_frame_counts_are_refused(case: VaeCase, frames: int):
    with pytest.raises(BadInput, match=f"^{frames} frames"):
        encode_video(case.vae, torch.zeros(1, 3, frames, 16, 16))


def test_statistics_must_fit_the_latent_channels():
    with pytest.raises(InvalidRecipe, match="z_dim 4"):
        VideoVae(VaeParams(base_dim=8, z_dim=4))


def test_names_have_the_published_ones_and_back(case: VaeCase):
    renamed = case.meta["key_map"]
    assert {name: module_name("vae", name) for name in renamed} == renamed
    assert {published_name("vae", new): new for new in renamed.values()} == renamed


def test_real_size_has_the_published_names_shapes_and_statistics(golden: Path):
    manifest = json.loads((golden / "manifest_other.json").read_text())["wan21_vae"]
    with torch.device("meta"):
        vae = VideoVae(VaeParams())
    have = {published_name("vae", name): list(x.shape) for name, x in vae.named_parameters()}
    assert have == manifest["params"]
    assert list(vae.latents_mean) == manifest["latent_mean"]
    assert list(vae.latents_std) == manifest["latent_std"]
