"""Stages 2 and 3: the text encoder tells moods and lights apart, the audio encoder hears how a mouth stands.

Each is trained with a linear probe that is thrown away: what the probe can read, the transformer can.
Legend: B batch, L text tokens, N audio layers, D width, J video frames.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from liveavatar_core.encoders.audio import AudioEncoder, normalise, to_feature_rate, to_video_frames
from liveavatar_core.encoders.text import ByteTokenizer, TextEncoder, Tokenizer
from liveavatar_core.recipes import TINY
from tiny_avatar.heads import LIGHTS, MOODS
from tiny_avatar.prompts import prompt
from tiny_avatar.training.loop import Losses, Stage, train
from tiny_avatar.voices import mouth, sound

_PROMPTS = 24
_SOUNDS, _SECONDS = 4, 2.4


def tokenizer() -> ByteTokenizer:
    """The tokenizer that reads prompts."""
    return ByteTokenizer(TINY.text_encoder.vocab_size, TINY.transformer.text_len)


def train_text_encoder(folder: Path, steps: int) -> TextEncoder:
    """Every token of its output tells mood and light."""
    torch.manual_seed(0)
    encoder, read = TextEncoder(TINY.text_encoder), tokenizer()
    with torch.no_grad():
        encoder.encoder.embed_tokens.weight[3 + 256 :].zero_()  # no byte asks for these
    probe = nn.Linear(TINY.text_encoder.d_model, len(MOODS) + len(LIGHTS))
    both = nn.ModuleList([encoder, probe])
    train(Stage(name="text_encoder", folder=folder, steps=steps, rate=0.01), both, lambda r: _read(both, read, r))
    return encoder


def _read(both: nn.ModuleList, tokenizer: Tokenizer, random: np.random.Generator) -> Losses:
    moods, lights = random.integers(len(MOODS), size=_PROMPTS), random.integers(len(LIGHTS), size=_PROMPTS)
    texts = [prompt(random, [*MOODS][m], [*LIGHTS][g]) for m, g in zip(moods, lights, strict=True)]
    tokens = [tokenizer(text) for text in texts]
    ids_BL, mask_BL = (torch.cat([getattr(t, name) for t in tokens]) for name in ("ids_BL", "mask_BL"))
    encoder, probe = both
    scores_ML = probe(encoder(ids_BL, mask_BL)[mask_BL])
    owner_M = torch.nonzero(mask_BL)[:, 0]
    loss, right = torch.zeros(()), torch.ones(())
    for scores, truth in zip(scores_ML.split([len(MOODS), len(LIGHTS)], dim=-1), (moods, lights), strict=True):
        truth_M = torch.from_numpy(truth)[owner_M]
        loss = loss + F.cross_entropy(scores, truth_M)
        right = right * (scores.argmax(dim=-1) == truth_M).float().mean()
    return {"loss": loss, "right": right}


def train_audio_encoder(folder: Path, steps: int) -> AudioEncoder:
    """Every layer of its output tells opening and width of the mouth."""
    torch.manual_seed(0)
    encoder = AudioEncoder(TINY.audio_encoder)
    probes = nn.Parameter(torch.zeros(TINY.transformer.audio_layers, 2, TINY.audio_encoder.hidden_size))
    both = _WithProbes(encoder, probes)
    train(Stage(name="audio_encoder", folder=folder, steps=steps, rate=0.01), both, lambda r: _hear(both, r))
    return encoder


class _WithProbes(nn.Module):
    def __init__(self, encoder: AudioEncoder, probes_N2D: nn.Parameter) -> None:
        super().__init__()
        self.encoder, self.probes_N2D = encoder, probes_N2D

    def forward(self, wave_S: Tensor) -> Tensor:
        """Opening and width that each layer tells, [N, 2, J]."""
        features_NDJ = audio_features(self.encoder, wave_S)
        return torch.einsum("nkd,ndj->nkj", self.probes_N2D, features_NDJ)


def audio_features(encoder: AudioEncoder, wave_S: Tensor, infer_frames: int = 12) -> Tensor:
    """Features of one recording, [N, D, J], as the pipeline makes them; J is a multiple of infer_frames."""
    return to_video_frames(to_feature_rate(encoder(normalise(wave_S)[None])), infer_frames)


def _hear(both: _WithProbes, random: np.random.Generator) -> Losses:
    errors = []
    for _ in range(_SOUNDS):
        wave = sound(random, _SECONDS)
        truth_2J = torch.from_numpy(np.stack(mouth(wave))).float() - torch.tensor([[0.5], [0.0]])
        heard_N2J = both(torch.from_numpy(wave))[..., : truth_2J.shape[1]]
        frames = heard_N2J.shape[-1]
        errors.append((heard_N2J - truth_2J[:, :frames]).square().mean(dim=(0, 2)))
    error_2 = torch.stack(errors).mean(dim=0)
    return {"loss": error_2.sum(), "opening_rmse": error_2[0].sqrt(), "width_rmse": error_2[1].sqrt()}
