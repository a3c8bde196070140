"""What can be asked for: the clip, the model, and how it lies over cards. Free of torch.

Fields that Live Avatar's own scripts have keep their names and meaning.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any

from liveavatar_core.declared_types import check_types
from liveavatar_core.deployment import Deployment
from liveavatar_core.encoders.params import AudioEncoderParams, TextEncoderParams, VaeParams
from liveavatar_core.errors import InvalidRecipe
from liveavatar_core.model.params import TransformerParams
from liveavatar_core.weight_files import SEEDED, WeightFiles
from liveavatar_core.workload import Workload

FRAMES_PER_SECOND = 25
AUDIO_SAMPLES_PER_SECOND = 16_000
LATENT_FRAMES_PER_BLOCK = 3
VIDEO_FRAMES_PER_LATENT = 4
PIXELS_PER_LATENT = 8
"""Height and width of what one latent stands for."""
FRAMES_PER_BLOCK = LATENT_FRAMES_PER_BLOCK * VIDEO_FRAMES_PER_LATENT

MOST_PIXELS = 3840 * 2160
"""Most pixels of a frame. The model was trained at 0.3 million; beyond this the size is a slip of the keyboard."""
MOST_FRAMES = 4800
"""Most frames of a clip: a hundred usual clips."""
MOST_CLIPS = 100_000
"""Two days of video."""
MOST_STEPS = 1000
"""Noise levels that the model was trained on."""
MOST_SEED = 2**63 - 1 - MOST_CLIPS
"""Seeds of all clips are whole numbers of 63 bits."""


@dataclass(frozen=True, kw_only=True)
class Quirks:
    """Where the original is random or odd. Defaults are the better behaviour; `original_*` below set the original's."""

    relative_dist: int = 30
    """Latent frames between a block and the reference image in rotary time. The original draws 4..30 each forward."""
    reference_frames: int = 1
    """Frames the portrait is repeated to before encoding. The original's single-card pipeline takes 5 and keeps
    the second latent."""
    motion_frames: int = 73
    """Frames of the portrait that stand for the motion before the video. The original's single-card pipeline
    takes 365, of which the transformer sees the last 73."""
    streaming_decode: bool = True
    """Decode with one cache from start to end. The original's single-card pipeline starts anew with every clip, behind
    the last frames encoded again; its second prefill, which it has with enable_online_decode alone, sees them too."""
    first_frames_dropped: int = 0
    """Frames dropped at the start. The original drops 3, so that its picture leads the sound by 0.12 s."""
    letterbox: bool = False
    """Black bars where the portrait is too narrow for the size. False: scale until the size is covered."""
    float16_rotary_tables: bool = False
    """Round cosines and sines to float16, as the original does."""

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("reference_frames", "motion_frames"):
            frames = getattr(self, name)
            if frames < 1 or frames % VIDEO_FRAMES_PER_LATENT != 1:
                raise InvalidRecipe(
                    f"quirks.{name} {frames} is not 1 + {VIDEO_FRAMES_PER_LATENT}k, which the VAE encodes",
                    f"give {name} 1, 5, 9, ...",
                )
        for name, least in (("relative_dist", 1), ("first_frames_dropped", 0)):
            if getattr(self, name) < least:
                raise InvalidRecipe(
                    f"quirks.{name} {getattr(self, name)} is less than {least}", f"give {name} {least} or more"
                )


ORIGINAL_SINGLE = Quirks(
    reference_frames=5,
    motion_frames=365,
    streaming_decode=False,
    first_frames_dropped=3,
    letterbox=True,
    float16_rotary_tables=True,
)
"""The original's single-card pipeline, but for its random distance."""

ORIGINAL_TIMESTEP = Quirks(first_frames_dropped=3, letterbox=True, float16_rotary_tables=True)
"""The original's five-rank timestep pipeline, but for its random distance."""


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """What to make."""

    size: str = "704*384"
    """Largest area in pixels, as `A*B`; the portrait's aspect decides the height and width."""
    infer_frames: int = 48
    """Video frames a clip; a multiple of 4, 12 at least. The last block of a clip has what is left of 12."""
    num_clip: int = 1
    """Clips at most; the sound ends the video earlier."""
    sample_steps: int = 4
    """Denoising steps; each has a KV cache of its own."""
    sample_guide_scale: float = 0.0
    """Kept for the scripts' sake: the distilled model uses no guidance, so only 0 is accepted."""
    base_seed: int = 420
    """Seed of clip r's noise is base_seed + r."""
    enable_online_decode: bool = True
    """Decode each block as soon as it is denoised. False: when all clips are, so that memory grows with num_clip."""
    quirks: Quirks = Quirks()
    """Where to follow the original's oddities."""

    def __post_init__(self) -> None:
        check_types(self)
        if not re.fullmatch(r"[1-9][0-9]{0,9}\*[1-9][0-9]{0,9}", self.size):
            raise InvalidRecipe(f"size {self.size!r} is not two numbers", 'give --size "704*384"')
        if self.max_area > MOST_PIXELS:
            raise InvalidRecipe(
                f"size {self.size} is {self.max_area} pixels; {MOST_PIXELS} (3840*2160) is the most",
                'give --size "704*384"',
            )
        if self.max_area < 64 * 64:
            raise InvalidRecipe(
                f"size {self.size} is {self.max_area} pixels; 4096 (64*64) is the least",
                'give --size "384*256" or more',
            )
        if self.infer_frames < FRAMES_PER_BLOCK or self.infer_frames % VIDEO_FRAMES_PER_LATENT:
            raise InvalidRecipe(
                f"infer_frames {self.infer_frames} is not 12 (one block) or more, in steps of 4 (one latent frame)",
                "give --infer_frames 48 (or 32, 80)",
            )
        for name in ("num_clip", "sample_steps"):
            if getattr(self, name) < 1:
                raise InvalidRecipe(f"{name} {getattr(self, name)} is less than 1", f"give --{name} 1 or more")
        most = {"infer_frames": MOST_FRAMES, "num_clip": MOST_CLIPS, "sample_steps": MOST_STEPS, "base_seed": MOST_SEED}
        for name, largest in most.items():
            if getattr(self, name) > largest:
                raise InvalidRecipe(f"{name} {getattr(self, name)} is more than {largest}", f"give --{name} less")
        if self.base_seed < 0:
            raise InvalidRecipe(f"base_seed {self.base_seed} is less than 0", "give --base_seed 0 or more")
        if self.sample_guide_scale != 0:
            raise InvalidRecipe(
                f"sample_guide_scale {self.sample_guide_scale:g} has no effect on this model; only 0 is allowed",
                "leave --sample_guide_scale out",
            )

    @property
    def max_area(self) -> int:
        """Most pixels a frame may have."""
        first, second = self.size.split("*")
        return int(first) * int(second)

    @property
    def blocks_per_clip(self) -> int:
        """Blocks of 3 latent frames in a clip; the last may be shorter."""
        return -(-self.infer_frames // FRAMES_PER_BLOCK)

    @property
    def latent_frames_per_clip(self) -> int:
        """Latent frames in a clip; also the length of a KV cache in frames."""
        return self.infer_frames // VIDEO_FRAMES_PER_LATENT


@dataclass(frozen=True, kw_only=True)
class ModelParams:
    """Dimensions of every part of the model; defaults are the published 14B."""

    transformer: TransformerParams = TransformerParams()
    """The diffusion transformer."""
    text_encoder: TextEncoderParams = TextEncoderParams()
    """Dimensions of umt5."""
    audio_encoder: AudioEncoderParams = AudioEncoderParams()
    """Dimensions of wav2vec2."""
    vae: VaeParams = VaeParams()
    """The video VAE."""

    def __post_init__(self) -> None:
        transformer = self.transformer
        for name, given, made in (
            ("text_dim", transformer.text_dim, self.text_encoder.d_model),
            ("audio_dim", transformer.audio_dim, self.audio_encoder.hidden_size),
            ("audio_layers", transformer.audio_layers, self.audio_encoder.num_hidden_layers + 1),
            ("in_dim", transformer.in_dim, self.vae.z_dim),
            ("out_dim", transformer.out_dim, self.vae.z_dim),
        ):
            if given != made:
                what = f"{name} {given} of the transformer, {made} come from or go to the part beside it"
                raise InvalidRecipe(what, f"set {name} to {made}, or take the parts of one model")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything declared about a run."""

    name: str
    """How people call it; no part of the hash."""
    clip: ClipSpec = ClipSpec()
    """What to make."""
    model: ModelParams = ModelParams()
    """Dimensions of the model."""
    deployment: Deployment = Deployment()
    """Laid out how."""
    workload: Workload = Workload()
    """From which portrait, voice and prompt."""
    weights: WeightFiles = SEEDED
    """With which weights."""

    def __post_init__(self) -> None:
        steps, ranks = self.clip.sample_steps, self.deployment.num_gpus_dit
        if self.deployment.timestep_pipeline and steps != ranks:
            raise InvalidRecipe(
                f"a timestep pipeline over {ranks} ranks makes {ranks} steps, not sample_steps {steps}",
                f"give --sample_steps {ranks}, or --num_gpus_dit {steps}",
            )
        if not self.clip.quirks.streaming_decode and self.deployment.enable_vae_parallel:
            raise InvalidRecipe(
                "without streaming_decode the second prefill wants what the decode rank of enable_vae_parallel encodes",
                "decode where the transformer is, or with streaming_decode",
            )
        heads, width = self.model.transformer.num_heads, self.deployment.ulysses_size
        if width > heads:
            raise InvalidRecipe(
                f"ulysses_size {width} is more than the {heads} attention heads",
                f"give --ulysses_size {heads} or less",
            )

    @property
    def hash(self) -> str:
        """Eight hex digits over the declared inputs. Defaults are left out, so that a new field changes no hash."""
        parts = [self.clip, self.model, self.deployment, self.workload]
        weights = [] if self.weights == SEEDED else [self.weights]
        text = json.dumps(_declared([*parts, *weights]), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def _declared(value: Any) -> Any:
    """`value` as JSON types; fields that have their default, or are no part of equality, left out."""
    if is_dataclass(value):
        pairs = ((item, getattr(value, item.name)) for item in fields(value) if item.compare)
        return {item.name: _declared(inner) for item, inner in pairs if inner != _default(item)}
    if isinstance(value, list | tuple):
        return [_declared(inner) for inner in value]
    return value


def _default(item: Any) -> Any:
    if item.default is not MISSING:
        return item.default
    return item.default_factory() if item.default_factory is not MISSING else MISSING
