"""Voice -> a feature vector a video frame for each hidden state of wav2vec2.

The whole recording is encoded at once here, as the original does: its normalisation and its attention span the
file. Memory grows in proportion to the length (attention is computed without a score matrix), time with its
square; audio_windows encodes long ones.

Shapes: S samples at 16 kHz, N hidden states (layers + 1), T wav2vec2 frames (50 Hz), F features (30 Hz),
J video frames (25 Hz), D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad
from transformers import Wav2Vec2Config, Wav2Vec2Model

from liveavatar_core.encoders.params import AudioEncoderParams
from liveavatar_core.hardware.cpu_kernels import install_cpu_kernels
from liveavatar_core.video_geometry import audio_frame_of, feature_frames_of, num_clips_of


class AudioEncoder(nn.Module):
    """wav2vec2, layer norms in its feature extractor. Parameter names are the published ones."""

    def __init__(self, params: AudioEncoderParams) -> None:
        super().__init__()
        config = Wav2Vec2Config(
            hidden_size=params.hidden_size,
            num_hidden_layers=params.num_hidden_layers,
            num_attention_heads=params.num_attention_heads,
            intermediate_size=params.intermediate_size,
            conv_dim=params.conv_dim,
            conv_bias=True,
            feat_extract_norm="layer",
            do_stable_layer_norm=True,
            num_conv_pos_embeddings=params.num_conv_pos_embeddings,
            num_conv_pos_embedding_groups=params.num_conv_pos_embedding_groups,
        )
        self.wav2vec2 = Wav2Vec2Model(config)
        self.wav2vec2.set_attn_implementation("sdpa")
        install_cpu_kernels()  # torch's own may be wrong for grouped convolutions in bfloat16
        self.eval()

    def forward(self, input_BS: Tensor) -> Tensor:
        """Hidden states [N, T, D] of one normalised recording [1, S].

        The last one is taken behind the encoder's final norm: transformers 5 hands it over in front of it,
        the version that the model was trained with behind it.
        """
        output = self.wav2vec2(input_BS, output_hidden_states=True)
        return torch.cat([*output.hidden_states[:-1], output.last_hidden_state])


def normalise(waveform_S: Tensor) -> Tensor:
    """The recording with mean 0 and variance 1, float32."""
    waveform_S = waveform_S.float()
    variance = waveform_S.var(correction=0)
    return (waveform_S - waveform_S.mean()) / torch.sqrt(variance + 1e-7)


def to_feature_rate(hidden_NTD: Tensor) -> Tensor:
    """Hidden states at 30 Hz instead of 50, linearly interpolated: [N, D, F]."""
    frames = feature_frames_of(hidden_NTD.shape[1])
    return interpolate(hidden_NTD.transpose(1, 2), size=frames, mode="linear", align_corners=True)


def to_video_frames(features_NDF: Tensor, infer_frames: int) -> Tensor:
    """The feature next to each video frame of whole clips: [N, D, J]; frames behind the end get zeros."""
    available = features_NDF.shape[-1]
    total = num_clips_of(available, infer_frames) * infer_frames
    indices = [audio_frame_of(frame) for frame in range(total)]
    inside = [index for index in indices if index < available]
    picked = features_NDF.index_select(-1, torch.tensor(inside, device=features_NDF.device))
    return pad(picked, (0, total - len(inside)))


@torch.no_grad()
def encode_audio(
    encoder: nn.Module, waveform_S: Tensor, infer_frames: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Audio features [1, N, D, infer_frames * clips] of a 16 kHz recording.

    `dtype` is the type that the encoder computes in; the recording is normalised in float32 before.
    """
    hidden_NTD: Tensor = encoder(normalise(waveform_S).to(dtype)[None])
    return to_video_frames(to_feature_rate(hidden_NTD), infer_frames)[None]
