"""What can be asked for: the clip, the model, and how it lies over cards. Free of torch.

Fields that Live Avatar's own scripts have keep their names and meaning.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Hashable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from typing import Any, Literal, get_args, get_type_hints

from liveavatar_core.encoders.params import AudioEncoderParams, TextEncoderParams, VaeParams
from liveavatar_core.errors import InvalidRecipe
from liveavatar_core.model.params import TransformerParams
from liveavatar_core.weight_files import SEEDED, WeightFiles
from liveavatar_core.workload import Workload

FRAMES_PER_SECOND = 25
AUDIO_SAMPLES_PER_SECOND = 16_000
LATENT_FRAMES_PER_BLOCK = 3
VIDEO_FRAMES_PER_LATENT = 4
FRAMES_PER_BLOCK = LATENT_FRAMES_PER_BLOCK * VIDEO_FRAMES_PER_LATENT

MOST_PIXELS = 3840 * 2160
"""Most pixels of a frame. The model was trained at 0.3 million; beyond this the size is a slip of the keyboard."""
MOST_FRAMES = 4800
"""Most frames of a clip: a hundred usual clips."""
MOST_CLIPS = 100_000
"""Two days of video."""
MOST_STEPS = 1000
"""Noise levels that the model was trained on."""
MOST_CARDS = 1024
"""Cards over which a model with 40 heads and 40 blocks could lie in any way."""
MOST_RANK = 5120
"""Highest rank of a LoRA: the width of the model, at which it is no longer low."""
MOST_SEED = 2**63 - 1 - MOST_CLIPS
"""Seeds of all clips are whole numbers of 63 bits."""

AUDIO_MARGIN_SECONDS = 5
"""Seconds on each side of an audio window that what lies between hears, and that are given up."""
SHORTEST_AUDIO_WINDOW_SECONDS = 4 * AUDIO_MARGIN_SECONDS

Dtype = Literal["float32", "bfloat16"]

_PER_PARAMETER = "give --shard per_parameter"
_SHARD = "give --shard per_parameter or flat, or leave it True"


def _check_types(declared: Any) -> None:
    """Raise InvalidRecipe for a field whose value is of another type, or none of its choices: it would fail later."""
    for name, kind in _hints_of(declared.__class__).items():
        value, choices = getattr(declared, name), get_args(kind)
        if choices:
            fits, allowed = value in choices, "one of " + ", ".join(choices)
        else:
            fits, allowed = type(value) in ((int, float) if kind is float else (kind,)), f"of type {kind.__name__}"
        if not fits:
            raise InvalidRecipe(f"{name} {value!r} is not {allowed}", f"give {name} another value")


@cache
def _hints_of(kind: Hashable) -> dict[str, Any]:
    return get_type_hints(kind)


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
        _check_types(self)
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
        _check_types(self)
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
class Deployment:
    """How weights and work lie over cards."""

    num_gpus_dit: int = 1
    """Ranks that compute the transformer."""
    ulysses_size: int = 1
    """Ranks over which a sequence is split: 1, or num_gpus_dit."""
    timestep_pipeline: bool = False
    """Each transformer rank holds one noise level and passes latents on."""
    enable_vae_parallel: bool = False
    """Decode on one more rank, the last, which holds no transformer."""
    shard: Literal["none", "flat", "per_parameter"] = "none"
    """none: whole on every rank; flat: FlatParameter FSDP; per_parameter: fully_shard."""
    shard_scope: Literal["transformer", "everything"] = "transformer"
    """What `shard` is applied to."""
    shard_units: Literal["blocks", "fine"] = "blocks"
    """What is gathered at a time. blocks: each block, the rest together; fine: each block, injector and embedding."""
    storage_dtype: Dtype = "bfloat16"
    """How weights are kept."""
    compute_dtype: Dtype = "bfloat16"
    """What weights are multiplied in."""
    lora: Literal["none", "merged", "adapter"] = "merged"
    """merged: added into the weights; adapter: kept beside them."""
    lora_rank: int = 128
    """Rank of the LoRA; matters with lora = adapter."""
    offload_model: bool = False
    """Text encoder, audio encoder, transformer and VAE are on the card only while they work."""
    offload_kv_cache: bool = False
    """KV caches stand in host memory and are brought in layer by layer."""
    t5_cpu: bool = False
    """The text encoder stays and runs in host memory."""
    t5_on_decode_rank: bool = False
    """The decode rank alone holds and runs the text encoder, and sends what it made to the others."""
    free_encoders: bool = False
    """Text and audio encoder are given up once they have worked; a second video takes loading them again."""
    audio_window_seconds: int = 60
    """A longer voice is cut to what the clips need and encoded in windows of this length, which overlap; 0: all of any
    voice at once, as the original does."""
    reshard_after_forward: bool = True
    """False: what a unit gathered stays, so that it is gathered once a run."""
    offload_shards: bool = False
    """Shards stand in host memory and are brought to the card just before they are gathered."""
    offload_blocks: bool = False
    """The transformer's blocks stand in host memory; each is brought to the card while the one before it works."""
    fp8: bool = False
    """Linear layers of the transformer's blocks and injectors are kept in float8 (e4m3), one scale a layer."""
    fp8_multiply: bool = True
    """False: float8 weights are multiplied in compute_dtype, for cards that cannot multiply float8."""
    int8: bool = False
    """The layers of fp8 in 8-bit integers, one scale an output channel; multiplied in compute_dtype."""
    fp8_kv_cache: bool = False
    """KV caches are kept in float8, one scale for each token of a head."""
    expandable_segments: bool = False
    """torch's allocator grows one segment for each stream and size class, so that less of a card is lost to pieces."""
    compile: bool = False
    """On a card the transformer's blocks are compiled by torch's inductor; without one they run as they are."""
    attention: Literal["flash", "cudnn"] = "flash"
    """Kernel of attention in bfloat16 on a card: torch's own flash attention, or cuDNN's."""

    def __post_init__(self) -> None:
        _check_types(self)
        self._check_ranks()
        self._check_shards()
        self._check_quantized()
        if self.audio_window_seconds and self.audio_window_seconds < SHORTEST_AUDIO_WINDOW_SECONDS:
            raise InvalidRecipe(
                f"audio_window_seconds {self.audio_window_seconds} is less than {SHORTEST_AUDIO_WINDOW_SECONDS}, half"
                " of which overlaps",
                f"give {SHORTEST_AUDIO_WINDOW_SECONDS} or more, or 0 to encode any voice at once",
            )
        self._check_kernels()

    def _check_ranks(self) -> None:
        if self.num_gpus_dit < 1:
            raise InvalidRecipe(f"num_gpus_dit {self.num_gpus_dit} is less than 1", "give 1 or more")
        if self.num_gpus_dit > MOST_CARDS:
            raise InvalidRecipe(f"num_gpus_dit {self.num_gpus_dit} is more than {MOST_CARDS}", "give less")
        if self.ulysses_size not in (1, self.num_gpus_dit):
            raise InvalidRecipe(
                f"ulysses_size {self.ulysses_size} is neither 1 nor num_gpus_dit ({self.num_gpus_dit})",
                f"give --ulysses_size {self.num_gpus_dit}",
            )
        if self.timestep_pipeline and self.ulysses_size > 1:
            raise InvalidRecipe(
                f"timestep_pipeline and ulysses_size {self.ulysses_size} both want the {self.num_gpus_dit} ranks",
                "choose one of them",
            )
        if self.timestep_pipeline and not self.enable_vae_parallel:
            raise InvalidRecipe(
                f"a timestep pipeline over {self.num_gpus_dit} ranks sends its latents to a rank that decodes; there is"
                " none",
                "give --enable_vae_parallel",
            )
        if self.num_gpus_dit > 1 and self.ulysses_size == 1 and not self.timestep_pipeline:
            raise InvalidRecipe(
                f"{self.num_gpus_dit} transformer ranks have no work to share",
                f"give --ulysses_size {self.num_gpus_dit}, or --timestep_pipeline",
            )
        if self.t5_on_decode_rank and not self.enable_vae_parallel:
            raise InvalidRecipe(
                f"t5_on_decode_rank wants a rank that only decodes; all {self.num_cards} compute the transformer",
                "give --enable_vae_parallel, or drop t5_on_decode_rank",
            )
        if self.t5_on_decode_rank and self.t5_cpu:
            raise InvalidRecipe("t5_cpu and t5_on_decode_rank both place the text encoder", "choose one of them")

    def _check_shards(self) -> None:
        if self.shard != "none" and self.num_cards == 1:
            raise InvalidRecipe(
                f"shard {self.shard} has one card to lay shards over",
                "use shard none, with offload_blocks where the card is too small; or give more cards",
            )
        if self.timestep_pipeline and self.shard != "none":
            raise InvalidRecipe(
                f"shard {self.shard} gathers weights on all ranks at once; those of a timestep pipeline work in turn",
                "use shard none, or ulysses_size in place of timestep_pipeline",
            )
        if self.shard_scope == "everything" and self.enable_vae_parallel:
            raise InvalidRecipe(
                "the decode rank of enable_vae_parallel cannot hold a shard of what it does not compute",
                "use shard_scope transformer, or drop enable_vae_parallel",
            )
        if self.shard == "flat" and self.storage_dtype != self.compute_dtype:
            raise InvalidRecipe(
                f"flat sharding stores {self.storage_dtype} and computes {self.compute_dtype}: its root unit would be"
                " allocated once more in the storage type when it starts",
                "use shard per_parameter, or the same type for both",
            )
        if self.offload_shards and self.shard != "per_parameter":
            raise InvalidRecipe(f"offload_shards has no shards to offload with shard {self.shard}", _PER_PARAMETER)
        if not self.reshard_after_forward and self.shard == "none":
            raise InvalidRecipe("reshard_after_forward False keeps what shard none never gathers", _SHARD)
        if not self.reshard_after_forward and self.offload_shards:
            raise InvalidRecipe(
                "offload_shards makes room that reshard_after_forward False would fill with all that was gathered",
                "drop one of them",
            )
        for name in ("offload_model", "offload_blocks"):
            if getattr(self, name) and self.shard != "none":
                raise InvalidRecipe(
                    f"{name} moves whole weights, and shard {self.shard} leaves 1/{self.num_gpus_dit} of each here",
                    "use offload_shards with shard per_parameter, or shard none",
                )

    def _check_quantized(self) -> None:
        if self.fp8 and self.int8:
            raise InvalidRecipe("fp8 and int8 are two ways to keep the same weights in 8 bits", "choose one of them")
        if not self.fp8_multiply and not self.fp8:
            raise InvalidRecipe("fp8_multiply False says how to multiply float8 weights; there are none", "give --fp8")
        if self.quantized and self.shard != "none":
            raise InvalidRecipe(
                f"shard {self.shard} gathers weights in {self.compute_dtype}, 16 bits or more; 8-bit weights are not"
                " gathered",
                "use shard none: 8-bit weights are half as large to begin with",
            )
        if self.lora_rank < 1:
            raise InvalidRecipe(f"lora_rank {self.lora_rank} is less than 1", "give 1 or more, or lora none")
        if self.lora_rank > MOST_RANK:
            raise InvalidRecipe(f"lora_rank {self.lora_rank} is more than {MOST_RANK}", "give the LoRA file's rank")
        if self.quantized and self.lora == "adapter":
            raise InvalidRecipe(
                f"lora adapter adds rank {self.lora_rank} factors beside linear layers, which 8 bits replace",
                "give --lora merged: it is merged before the weights are rounded",
            )

    def _check_kernels(self) -> None:
        if self.attention == "cudnn" and self.compute_dtype == "float32":
            raise InvalidRecipe(
                "attention cudnn computes bfloat16, not float32", "leave attention out, or compute in bfloat16"
            )

    @property
    def quantized(self) -> bool:
        """Whether linear layers are kept in 8 bits."""
        return self.fp8 or self.int8

    @property
    def num_cards(self) -> int:
        """Cards, and so processes, that this takes."""
        return self.num_gpus_dit + int(self.enable_vae_parallel)


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
