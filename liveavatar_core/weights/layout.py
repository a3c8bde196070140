"""The published checkpoint folder: what lies where, and the model's dimensions as its files tell them."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from liveavatar_core.config import ModelParams
from liveavatar_core.encoders.params import AudioEncoderParams, TextEncoderParams, VaeParams
from liveavatar_core.errors import CheckpointError
from liveavatar_core.model.params import TransformerParams
from liveavatar_core.weights.files import SafetensorsSource, TorchFileSource, open_weights_file
from liveavatar_core.weights.names import Component
from liveavatar_core.weights.source import WeightSource

CONFIG = "config.json"
INDEX = "diffusion_pytorch_model.safetensors.index.json"
SHARD = "diffusion_pytorch_model-{number:05d}-of-{count:05d}.safetensors"
TEXT_ENCODER = "models_t5_umt5-xxl-enc-bf16.pth"
VAE = "Wan2.1_VAE.pth"
AUDIO_ENCODER = "wav2vec2-large-xlsr-53-english"
AUDIO_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Either holds the audio encoder; the first that exists is taken."""
TOKENIZER = "google/umt5-xxl"

ARCHITECTURE = {
    "model_type": "s2v",
    "enable_adain": True,
    "adain_mode": "attn_norm",
    "enable_motioner": False,
    "enable_framepack": True,
    "add_last_motion": True,
    "zero_timestep": True,
}
"""Switches of the published config.json that this project has built in."""


def open_published(directory: Path, component: Component) -> WeightSource:
    """The weights of a component under their published names. Raises CheckpointError."""
    if component == "transformer":
        return SafetensorsSource.from_index(directory / INDEX)
    if component == "audio_encoder":
        return open_weights_file(audio_weights_file(directory))
    return TorchFileSource(directory / (TEXT_ENCODER if component == "text_encoder" else VAE))


def audio_weights_file(directory: Path) -> Path:
    """The file with the audio encoder's weights; the preferred one where there is none."""
    candidates = [directory / AUDIO_ENCODER / name for name in AUDIO_WEIGHTS]
    return next((path for path in candidates if path.is_file()), candidates[0])


def read_model_params(directory: Path) -> ModelParams:
    """The dimensions of every component: from its configuration, or where it has none from its weights'
    shapes.

    Raises CheckpointError for a folder that is no checkpoint, or one of another architecture.
    """
    return ModelParams(
        transformer=_read_transformer(directory / CONFIG),
        text_encoder=_text_encoder_of(open_published(directory, "text_encoder"), directory / TEXT_ENCODER),
        audio_encoder=_dataclass_of(AudioEncoderParams, _read_json(directory / AUDIO_ENCODER / CONFIG)),
        vae=_vae_of(open_published(directory, "vae"), directory / VAE),
    )


def _read_transformer(path: Path) -> TransformerParams:
    config = _read_json(path)
    for switch, built_in in ARCHITECTURE.items():
        if config.get(switch, built_in) != built_in:
            raise CheckpointError(
                f"{path}: {switch} is {config[switch]!r}; this model has {built_in!r}",
                "take the checkpoint Wan2.2-S2V-14B",
            )
    return _dataclass_of(TransformerParams, config)


def _text_encoder_of(source: WeightSource, path: Path) -> TextEncoderParams:
    blocks = {name.split(".")[1] for name in source.names() if name.startswith("blocks.")}
    try:
        vocab_size, d_model = source.shape("token_embedding.weight")
        num_heads = source.shape("blocks.0.pos_embedding.embedding.weight")[1]
        return TextEncoderParams(
            vocab_size=vocab_size,
            d_model=d_model,
            d_kv=source.shape("blocks.0.attn.q.weight")[0] // num_heads,
            d_ff=source.shape("blocks.0.ffn.fc1.weight")[0],
            num_layers=len(blocks),
            num_heads=num_heads,
        )
    except KeyError as error:
        raise CheckpointError(f"{path} has no {error}, so it is no umt5 encoder", f"give {TEXT_ENCODER}") from error


def _vae_of(source: WeightSource, path: Path) -> VaeParams:
    try:
        return VaeParams(base_dim=source.shape("encoder.conv1.weight")[0], z_dim=source.shape("conv2.weight")[0])
    except KeyError as error:
        raise CheckpointError(f"{path} has no {error}, so it is no Wan2.1 VAE", f"give {VAE}") from error


def _dataclass_of(kind: Any, config: dict[str, Any]) -> Any:
    """A dataclass from those of its fields that `config` has."""
    known = {item.name for item in fields(kind)} & config.keys()
    return kind(**{name: tuple(v) if isinstance(v := config[name], list) else v for name in known})


def _read_json(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", "give the folder of Wan2.2-S2V-14B") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} is no table of settings", "fetch this file again")
    return config


def transformer_config(params: TransformerParams) -> dict[str, Any]:
    """The config.json of a transformer."""
    return {"_class_name": "WanModel_S2V", **ARCHITECTURE, **asdict(params)}


def audio_encoder_config(params: AudioEncoderParams) -> dict[str, Any]:
    """The config.json of an audio encoder."""
    architecture = {"model_type": "wav2vec2", "do_stable_layer_norm": True, "feat_extract_norm": "layer"}
    return {**architecture, "conv_bias": True, **asdict(params)}
