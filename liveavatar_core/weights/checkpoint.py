"""Open and write checkpoints in the published layout.

A checkpoint is opened without reading weights: names and shapes are checked against the model first, and
each rank then reads the rows that it holds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import ByT5Tokenizer

from liveavatar_core.config import ModelParams
from liveavatar_core.encoders.audio import AudioEncoder
from liveavatar_core.encoders.text import PublishedTokenizer, TextEncoder
from liveavatar_core.encoders.vae import VideoVae
from liveavatar_core.errors import CheckpointError
from liveavatar_core.model.transformer import LiveAvatarTransformer
from liveavatar_core.weights import layout
from liveavatar_core.weights.lora import AdapterSource, Lora, MergedSource
from liveavatar_core.weights.names import COMPONENTS, Component, module_name, published_name
from liveavatar_core.weights.source import RenamedSource, WeightSource, validate

SHARD_BYTES = 10 * 1000**3
"""Most bytes in a shard of the transformer, as published."""

Shapes = Mapping[str, tuple[int, ...]]


def open_checkpoint(directory: Path, model: ModelParams) -> dict[Component, WeightSource]:
    """The weights of every component, named as in the modules, checked against `model`.

    Raises CheckpointError naming file and key where something is missing, damaged or of another model.
    """
    return {
        component: _checked(open_component(directory, component), component, directory, model)
        for component in COMPONENTS
    }


def open_component(directory: Path, component: Component) -> WeightSource:
    """The weights of one component, named as in its module; not checked."""
    published = layout.open_published(directory, component)
    return RenamedSource(published, lambda name: module_name(component, name))


def _checked(source: WeightSource, component: Component, directory: Path, model: ModelParams) -> WeightSource:
    validate(source, expected_shapes(component, model), f"{directory} ({component.replace('_', ' ')})")
    return source


def with_lora(
    weights: Mapping[Component, WeightSource], lora: Lora, form: str, rank: int | None = None
) -> dict[Component, WeightSource]:
    """`weights` with a LoRA, `merged` or as an `adapter` of the `rank` that the recipe declares."""
    transformer = weights["transformer"]
    adapted: WeightSource = (
        MergedSource(transformer, lora) if form == "merged" else AdapterSource(transformer, lora, rank)
    )
    return {**weights, "transformer": adapted}


def open_tokenizer(directory: Path, text_len: int) -> PublishedTokenizer:
    """The tokenizer of a checkpoint. Raises CheckpointError."""
    return PublishedTokenizer(directory / layout.TOKENIZER, text_len)


def expected_shapes(component: Component, model: ModelParams) -> Shapes:
    """Name and shape of every weight of a component; takes no memory."""
    makers: dict[Component, Callable[[], nn.Module]] = {
        "transformer": lambda: LiveAvatarTransformer(model.transformer),
        "text_encoder": lambda: TextEncoder(model.text_encoder),
        "audio_encoder": lambda: AudioEncoder(model.audio_encoder),
        "vae": lambda: VideoVae(model.vae),
    }
    with torch.device("meta"):
        module = makers[component]()
    return {name: tuple(weight.shape) for name, weight in module.named_parameters()}


def write_checkpoint(
    directory: Path,
    model: ModelParams,
    weights: Mapping[Component, WeightSource],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write the published layout, with a tokenizer of bytes, at any size; weights keep their type.

    The folder appears whole or not at all. Raises CheckpointError if it exists or the layout has no place for
    something in `model`.
    """
    if directory.exists():
        raise CheckpointError(f"{directory} exists already", "give a new folder, or remove that one")
    if model.vae.latents_mean is not None or model.vae.latents_std is not None:
        raise CheckpointError("the published layout has no place for latents_mean and latents_std", "leave them out")
    partial = directory.with_name(f".{directory.name}.part")
    (partial / layout.AUDIO_ENCODER).mkdir(parents=True)
    _write_json(partial / layout.CONFIG, layout.transformer_config(model.transformer))
    _write_json(partial / layout.AUDIO_ENCODER / layout.CONFIG, layout.audio_encoder_config(model.audio_encoder))
    _write_transformer(partial, weights["transformer"], shard_bytes)
    torch.save(_published("text_encoder", weights), partial / layout.TEXT_ENCODER)
    torch.save(_published("vae", weights), partial / layout.VAE)
    save_file(_published("audio_encoder", weights), partial / layout.AUDIO_ENCODER / layout.AUDIO_WEIGHTS[0])
    ByT5Tokenizer(extra_ids=0).save_pretrained(partial / layout.TOKENIZER)
    partial.rename(directory)


def _published(component: Component, weights: Mapping[Component, WeightSource]) -> dict[str, Tensor]:
    """All weights of a component under their published names, each with memory of its own."""
    source = weights[component]
    return {published_name(component, name): source.read(name).clone() for name in source.names()}


def _write_transformer(directory: Path, source: WeightSource, shard_bytes: int) -> None:
    shards = list(_shards(source, shard_bytes))
    weight_map, total = {}, 0
    for number, names in enumerate(shards, start=1):
        file = layout.SHARD.format(number=number, count=len(shards))
        tensors = {name: source.read(name).clone() for name in names}
        save_file(tensors, directory / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(names, file))
        total += sum(tensor.nbytes for tensor in tensors.values())
    _write_json(directory / layout.INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _shards(source: WeightSource, shard_bytes: int) -> Iterator[list[str]]:
    """Names in order, cut where a shard would become too large."""
    names: list[str] = []
    size = 0
    for name in source.names():
        weight = torch.Size(source.shape(name)).numel() * source.dtype(name).itemsize
        if names and size + weight > shard_bytes:
            yield names
            names, size = [], 0
        names.append(name)
        size += weight
    yield names


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
