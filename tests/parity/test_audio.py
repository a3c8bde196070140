"""The audio encoder reproduces the reference on every case of the golden directory."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import soundfile
import torch
from safetensors.torch import load_file
from torch import Tensor

from liveavatar_core.encoders.audio import (
    AudioEncoder,
    encode_audio,
    normalise,
    to_feature_rate,
    to_video_frames,
)
from liveavatar_core.encoders.params import AudioEncoderParams
from liveavatar_core.media import read_audio
from liveavatar_core.video_geometry import audio_frame_of, num_clips_in, num_clips_of
from liveavatar_core.weights.names import module_name, published_name


def read_params(folder: Path) -> AudioEncoderParams:
    config = json.loads((folder / "meta.json").read_text())["wav2vec2_config"]
    names = AudioEncoderParams.__dataclass_fields__
    return AudioEncoderParams(**{name: _frozen(config[name]) for name in names})


def _frozen(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


class AudioCase:
    def __init__(self, folder: Path) -> None:
        self.meta = json.loads((folder / "meta.json").read_text())
        self.infer_frames: int = self.meta["infer_frames"]
        self.io = load_file(folder / "io.safetensors")
        self.resampled = load_file(folder / "resample.safetensors")
        self.weights = load_file(folder / "wav2vec2_state_dict.safetensors")
        self.encoder = AudioEncoder(read_params(folder))
        renamed = {module_name("audio_encoder", name): x.float() for name, x in self.weights.items()}
        self.encoder.load_state_dict({name: x for name, x in renamed.items() if name})

    @property
    def waveform(self) -> Tensor:
        return self.io["waveform_int16"].float() / 32768

    @property
    def suffix(self) -> str:
        return f"{self.infer_frames}_{self.meta['fps']}"


@pytest.fixture(scope="module")
def case(audio_case: Path) -> AudioCase:
    return AudioCase(audio_case)


def near(have: Tensor, expected: Tensor, atol: float) -> None:
    torch.testing.assert_close(have, expected, atol=atol, rtol=0)


def test_normalised_recording(case: AudioCase):
    near(normalise(case.waveform)[None], case.io["input_values"], 1e-5)


@torch.no_grad()
def test_hidden_states_with_the_last_one_normed(case: AudioCase):
    near(case.encoder(case.io["input_values"]), case.io["hidden_states"], 1e-4)


def test_features_at_30_hz(case: AudioCase):
    features_NDF = to_feature_rate(case.io["hidden_states"])
    near(features_NDF.transpose(1, 2), case.io["features_30hz"], 5e-5)


def test_video_frames_take_the_nearest_feature(case: AudioCase):
    expected_J = case.io[f"frame_index_{case.suffix}"]
    features = case.io["features_30hz"].shape[1]
    indices = [audio_frame_of(frame) for frame in range(len(expected_J))]
    assert [index if index < features else -1 for index in indices] == expected_J.tolist()


def test_embedding_of_the_whole_recording(case: AudioCase):
    embedding = encode_audio(case.encoder, case.waveform, case.infer_frames)
    near(embedding, case.io[f"audio_emb_{case.suffix}"], 5e-5)


def test_clips_are_known_before_encoding(case: AudioCase):
    expected = case.meta["num_repeat"]
    assert num_clips_in(len(case.waveform), case.infer_frames) == expected
    assert num_clips_of(case.io["features_30hz"].shape[1], case.infer_frames) == expected


@pytest.mark.parametrize("samples", [1_600, 16_000, 16_319, 95_999])
def test_clip_count_is_that_of_the_encoded_recording(case: AudioCase, samples: int):
    embedding = encode_audio(case.encoder, torch.randn(samples), 12)
    assert embedding.shape[-1] == 12 * num_clips_in(samples, 12)


def test_frames_behind_the_end_are_silent():
    features_NDF = torch.ones(2, 3, 20)
    frames_NDJ = to_video_frames(features_NDF, infer_frames=48)
    assert frames_NDJ.shape == (2, 3, 48)
    assert (frames_NDJ[..., :17] == 1).all()
    assert (frames_NDJ[..., 17:] == 0).all()


def test_resampling(case: AudioCase, tmp_path: Path):
    """Files of other rates and channel counts, as written by soundfile, give librosa's samples."""

    voice = tmp_path / "voice.wav"
    for name, rate in {"8k_mono": 8000, "24k_mono": 24000, "44k1_stereo": 44100}.items():
        soundfile.write(voice, case.resampled[f"{name}.int16"].T.numpy(), rate, subtype="PCM_16")
        have = torch.from_numpy(read_audio(voice))
        near(have, case.resampled[f"{name}.out16k"], 1e-5)


def test_both_names_of_weight_norm_are_read(case: AudioCase):
    new = [name for name in case.weights if "parametrizations" in name]
    assert len(new) == 2
    old = [published_name("audio_encoder", name) for name in new]
    assert all(re.search(r"conv\.weight_[gv]$", name) for name in old)
    assert [module_name("audio_encoder", name) for name in old] == new


def test_real_size_has_the_published_names_and_shapes(golden: Path):
    manifest = json.loads((golden / "manifest_other.json").read_text())["wav2vec2_large_xlsr53"]
    expected = {name: tuple(shape) for name, shape in manifest["params"].items()}
    for template, part in manifest["templates"].items():
        for number in range(part["count"]):
            for name, shape in part["params"].items():
                expected[name.replace(template, template.replace("{N}", str(number)))] = tuple(shape)
    with torch.device("meta"):
        encoder = AudioEncoder(AudioEncoderParams())
    have = {name: tuple(x.shape) for name, x in encoder.named_parameters()}
    assert have == {name: shape for name, shape in expected.items() if module_name("audio_encoder", name)}
    assert sum(x.numel() for x in encoder.parameters()) == manifest["total_base"]
