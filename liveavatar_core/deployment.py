"""How weights and work lie over cards, as it can be asked for. Free of torch.

Fields that Live Avatar's own scripts have keep their names and meaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from liveavatar_core.declared_types import check_types
from liveavatar_core.errors import InvalidRecipe

MOST_CARDS = 1024
"""Cards over which a model with 40 heads and 40 blocks could lie in any way."""
MOST_RANK = 5120
"""Highest rank of a LoRA: the width of the model, at which it is no longer low."""

AUDIO_MARGIN_SECONDS = 5
"""Seconds on each side of an audio window that what lies between hears, and that are given up."""
SHORTEST_AUDIO_WINDOW_SECONDS = 4 * AUDIO_MARGIN_SECONDS

Dtype = Literal["float32", "bfloat16"]

_PER_PARAMETER = "give --shard per_parameter"
_SHARD = "give --shard per_parameter or flat, or leave it True"


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
    attention: Literal["flash", "cudnn", "flash3"] = "flash"
    """Kernel of attention in bfloat16 on a card: torch's own flash attention, cuDNN's, or FlashAttention 3 where it is
    installed (Hopper)."""

    def __post_init__(self) -> None:
        check_types(self)
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
        if self.attention != "flash" and self.compute_dtype == "float32":
            raise InvalidRecipe(
                f"attention {self.attention} computes bfloat16, not float32",
                "leave attention out, or compute in bfloat16",
            )

    @property
    def quantized(self) -> bool:
        """Whether linear layers are kept in 8 bits."""
        return self.fp8 or self.int8

    @property
    def num_cards(self) -> int:
        """Cards, and so processes, that this takes."""
        return self.num_gpus_dit + int(self.enable_vae_parallel)
