"""A case of pipeline goldens: its recipe, weights and inputs, and what its stages must give, in order."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from dit import read_params as read_transformer
from PIL import Image
from safetensors.torch import load_file
from test_audio import read_params as read_audio
from test_text import read_params as read_text
from torch import Tensor

from liveavatar_core.config import ORIGINAL_SINGLE, ClipSpec, ModelParams, Quirks, Recipe
from liveavatar_core.deployment import Deployment
from liveavatar_core.encoders.params import VaeParams
from liveavatar_core.encoders.text import Tokens
from liveavatar_core.parallel.load import Weights
from liveavatar_core.pipeline import Inputs
from liveavatar_core.weights.names import module_name
from liveavatar_core.weights.source import RenamedSource, TensorSource

PARTS = {
    "transformer": "dit_tiny/state_dict",
    "text_encoder": "t5_tiny/state_dict",
    "audio_encoder": "audio_tiny/wav2vec2_state_dict",
    "vae": "vae_tiny/state_dict",
}
"""Files of the weights, beside the case."""

WHOLE = Deployment(storage_dtype="float32", compute_dtype="float32", lora="none")
LATENTS, FRAMES = 5e-5, 1e-4


@dataclass(frozen=True, kw_only=True)
class PipelineCase:
    """One folder laid out like golden/pipeline_tiny, and the folder of a run if that is another one."""

    folder: Path

    @cached_property
    def meta(self) -> dict[str, Any]:
        return json.loads((self.folder / "meta.json").read_text())

    @cached_property
    def given(self) -> dict[str, Tensor]:
        return load_file(self.folder / "conditioning.safetensors")

    @property
    def inputs(self) -> Inputs:
        return Inputs(
            image=Image.fromarray(self.given["image"].numpy()),
            waveform=(self.given["waveform_int16"].float() / 32768).numpy(),
            prompt="stored as ids",
        )

    def tokenizer(self, prompt: str) -> Tokens:
        """The stored ids, whatever the prompt."""
        missing = self.model.transformer.text_len - self.given["prompt_ids"].shape[1]
        ids, mask = (torch.nn.functional.pad(self.given[f"prompt_{kind}"], (0, missing)) for kind in ("ids", "mask"))
        return Tokens(ids_BL=ids, mask_BL=mask.bool())

    def noise(self, clip: int, shape: tuple[int, ...]) -> Tensor:
        """The stored noise."""
        return self.given[f"noise_clip{clip}"].float().reshape(shape)

    @cached_property
    def model(self) -> ModelParams:
        def config(part: str) -> Any:
            return json.loads((self.folder.parent / part / "meta.json").read_text())["config"]

        vae = config("vae_tiny")
        return ModelParams(
            transformer=read_transformer(config("dit_tiny")),
            text_encoder=read_text(self.folder.parent / "t5_tiny"),
            audio_encoder=read_audio(self.folder.parent / "audio_tiny"),
            vae=VaeParams(
                base_dim=vae["dim"],
                z_dim=vae["z_dim"],
                dim_mult=tuple(vae["dim_mult"]),
                num_res_blocks=vae["num_res_blocks"],
            ),
        )

    def weights(self) -> Weights:
        """Every part's, float32."""

        def source(part: str) -> RenamedSource:
            tensors = load_file(self.folder.parent / f"{PARTS[part]}.safetensors")
            stored = TensorSource({name: x.float() for name, x in tensors.items()})
            return RenamedSource(stored, lambda name: module_name(part, name))  # type: ignore[arg-type]

        return {part: source(part) for part in PARTS}

    def recipe(self, run: dict[str, Any], quirks: Quirks = ORIGINAL_SINGLE, deployment: Deployment = WHOLE) -> Recipe:
        """The recipe of an entry of meta.json's runs."""
        asked = self.meta["generate_kwargs"]
        clip = ClipSpec(
            size=asked["generate_size"],
            infer_frames=asked["infer_frames"],
            num_clip=asked["num_repeat"],
            sample_steps=run["sample_steps"],
            base_seed=asked["seed"],
            enable_online_decode=run["enable_online_decode"],
            quirks=replace(quirks, relative_dist=run["relative_dist"]),
        )
        return Recipe(name=run["file"], clip=clip, model=self.model, deployment=deployment)


@dataclass(frozen=True)
class Stage:
    """A stage's name, what it gave, what the reference gave, and how far they may differ."""

    name: str
    have: Tensor
    expected: Tensor
    atol: float

    @classmethod
    def of_frames(cls, video_CJHW: Tensor, golden: dict[str, Tensor]) -> list[Self]:
        """Float frames in -1..1 against those that a golden file holds."""
        stages = [cls("frames", video_CJHW[:, golden["frame_ids"]], golden["frames_f32"], FRAMES)]
        if "frame_mean" in golden:
            stages.append(cls("mean of every frame", video_CJHW.mean(dim=(2, 3)), golden["frame_mean"], FRAMES))
            stages.append(cls("deviation of every frame", video_CJHW.std(dim=(2, 3)), golden["frame_std"], FRAMES))
        return stages

    @property
    def difference(self) -> str | None:
        """How it differs, if it does."""
        if self.have.shape != self.expected.shape:
            return f"{list(self.have.shape)}, not {list(self.expected.shape)}"
        off = (self.have.double() - self.expected.double()).abs().max().item()
        return None if off <= self.atol else f"{off:.3g} off, {self.atol:g} allowed"


def assert_stages(stages: Iterable[Stage]) -> None:
    """Fails with the first stage that differs, and the names of the others that do."""
    wrong = {stage.name: text for stage in stages if (text := stage.difference)}
    if wrong:
        (first, text), *others = wrong.items()
        raise AssertionError(f"the first stage that differs is {first}: {text}; then {[name for name, _ in others]}")


def latent_stages(latents: dict[tuple[int, int], Tensor], expected_RCTHW: Tensor, first_clip: int = 0) -> list[Stage]:
    """Latents CTHW by clip and block against whole clips from `first_clip` on."""
    stages = []
    for clip, index in sorted(latents):
        if clip >= first_clip:
            frames = latents[clip, index].shape[1]
            expected = expected_RCTHW[clip - first_clip][:, 3 * index : 3 * index + frames]
            stages.append(Stage(f"latents of clip {clip} block {index}", latents[clip, index], expected, LATENTS))
    return stages
