"""A case of transformer goldens: reads its files, builds the model from its JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from liveavatar_core.model.cache import KVCache
from liveavatar_core.model.params import TransformerParams
from liveavatar_core.model.state import BlockContext, ConditionState
from liveavatar_core.model.transformer import Denoise, LiveAvatarTransformer, Prefill


class DitCase:
    """One folder laid out like golden/dit_tiny."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
        self.inputs = self.file("inputs")
        self.timesteps = tuple(self.meta["timesteps"])
        self.frames = self.meta["num_frames_per_block"]
        self.clip_frames = self.meta["latent_frames_per_clip"]

    def file(self, name: str) -> dict[str, Tensor]:
        """Tensors of a golden file, float32."""
        tensors = load_file(self.folder / f"{name}.safetensors")
        return {key: x.float() if x.is_floating_point() else x for key, x in tensors.items()}

    @cached_property
    def params(self) -> TransformerParams:
        return read_params(self.meta["config"])

    @cached_property
    def model(self) -> LiveAvatarTransformer:
        model = LiveAvatarTransformer(self.params)
        model.load_state_dict(self.file("state_dict"))
        return model.eval().requires_grad_(False)

    def prefill(self, **changes: Any) -> ConditionState:
        """The state of the case's prompt, portrait and motion, float16 rotary tables unless changed."""
        text_KE = self.inputs["context"]
        text_BKE = torch.nn.functional.pad(text_KE, (0, 0, 0, self.params.text_len - len(text_KE)))[None]
        request = {
            "reference_BCFHW": self.inputs["ref_latents"],
            "motion_BCFHW": self.inputs["motion_latents"],
            "text_BKE": text_BKE,
            "timesteps": self.timesteps,
            "float16_rotary_tables": True,
            "relative_dist": self.meta["relative_dist"],
        }
        return self.model(Prefill(**request | changes))

    def cache(self) -> KVCache:
        return KVCache.allocate(self.params, 1, self.meta["kv_cache_size"], self.params.num_heads, torch.float32, "cpu")

    def noise(self, call: dict[str, Any]) -> Tensor:
        """The noisy block of an entry of meta.json's calls."""
        first = call["block"] * self.frames
        return self.inputs[f"noise_clip{call['clip']}"][None, :, first : first + self.frames]

    def audio(self, call: dict[str, Any]) -> Tensor:
        first = 4 * self._frame(call)
        return self.inputs["audio"][..., first : first + 4 * self.frames]

    def pose(self, call: dict[str, Any]) -> Tensor:
        first = call["block"] * self.frames
        return self.inputs["cond_states"][:, :, first : first + self.frames]

    def context(self, call: dict[str, Any]) -> BlockContext:
        return BlockContext(audio_BAET=self.audio(call), frame=self._frame(call))

    def denoise(self, call: dict[str, Any], **changes: Any) -> Tensor:
        """The flow [C, F, H, W] of one call; `state` and `cache` must be among `changes`."""
        request = {
            "latents_BCFHW": self.noise(call),
            "step": 0,
            "block": self.context(call),
            "pose_BCFHW": self.pose(call),
        }
        return self.model(Denoise(**request | changes))[0]

    def _frame(self, call: dict[str, Any]) -> int:
        return call["clip"] * self.clip_frames + call["block"] * self.frames


def read_params(config: dict[str, Any]) -> TransformerParams:
    """The parameters that a golden JSON's config names; what it has beyond is fixed in this model."""
    names = {item.name for item in fields(TransformerParams)}
    known = {key: tuple(x) if isinstance(x, list) else x for key, x in config.items() if key in names}
    return TransformerParams(**known)


def assert_near(actual: Tensor, expected: Tensor, atol: float) -> None:
    """Same shape, and no value further than `atol` away."""
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0)


@contextmanager
def hidden_states(model: LiveAvatarTransformer) -> Iterator[dict[int, Tensor]]:
    """Collects the tokens [B, L, D] that leave each block, audio injection included."""
    seen: dict[int, Tensor] = {}
    hooks = [
        block.register_forward_hook(
            lambda _module, _args, out, index=index: seen.update({index: out[0].flatten(1, 2).clone()})
        )
        for index, block in enumerate(model.blocks)
    ]
    for number, index in enumerate(model.params.audio_inject_layers):
        hooks.append(
            model.audio_injector.injector[number].register_forward_hook(
                lambda _module, _args, out, index=index: seen.update({index: out.flatten(1, 2).clone()})
            )
        )
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
