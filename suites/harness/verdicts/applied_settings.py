"""Whether the settings of a recipe acted: what was declared against what ranks were seen to do. Free of torch.

This is how precision, steps, sharding and places cannot fall back unseen: a run that made a fine video with other
settings than its recipe declares is no pass.
"""

from __future__ import annotations

from collections.abc import Iterator

from liveavatar_core import strict
from liveavatar_core.config import PIXELS_PER_LATENT, Recipe
from liveavatar_core.deployment import Deployment
from liveavatar_core.parallel.ranks import role_of
from liveavatar_core.video_geometry import num_clips_in
from suites.harness.records.measurements import ObservedSettings
from suites.harness.records.record import RunRecord
from suites.harness.verdicts.verdict import Finding, Verdict

BYTES = {"float32": 4, "bfloat16": 2, "float8_e4m3fn": 1, "int8": 1}
ATTENTION_OF_A_BLOCK = {"prefill": 2, "denoise": 3}
"""To other tokens and to the text; denoising, to the sink as well. Injectors of audio come beside it."""
CPU_ATTENTION = "flash"
"""The kernel of attention where no card computes, whatever the type."""
SCALES = "float32"
"""The type of the scales beside 8-bit weights and caches."""
MOST_SCALES = 1 / 8
"""Of the bytes in 8 bits: a scale for each 32 numbers. No layer of the model is narrower than that."""


def unapplied(record: RunRecord) -> list[Finding]:
    """A finding for each rank of a run that passed and whose settings did not act as declared."""
    if record.outcome != "pass" or not record.recipe.declared:
        return []
    recipe = strict.build(Recipe, record.recipe.declared | {"name": record.recipe.name}, "declared recipe")
    observed = {each.rank: each for each in record.observed}
    where = f"{record.tier}/{record.case} on {record.hardware} cards"
    found = []
    for rank in range(recipe.deployment.num_cards):
        told = observed.get(rank)
        wrong = list(differences(recipe, rank, told)) if told else ["it told nothing of what its settings did"]
        if told and record.hardware != "simulated":  # which computes nothing
            wrong += attention_differences(recipe, rank, told, record.machine.attention_backend or CPU_ATTENTION)
        found += [_finding(f"{where}: rank {rank}: {each}") for each in wrong]
    return found


def differences(recipe: Recipe, rank: int, observed: ObservedSettings) -> Iterator[str]:
    """Each setting of `recipe` that did not act on `rank`: what was seen against what was declared."""
    yield from _types(recipe.deployment, observed)
    yield from _text_encoder(recipe.deployment, rank, observed)
    yield from _resolution(recipe, rank, observed)
    if role_of(recipe.deployment, rank) == "decode":
        if observed.transformer_forwards:
            yield f"transformer forwards {observed.transformer_forwards} on a rank that only decodes"
        return
    yield from _forwards(recipe, observed)
    yield from _caches(recipe.deployment, observed)
    yield from _amounts(recipe, observed)
    yield from _places(recipe, observed)


def _resolution(recipe: Recipe, rank: int, observed: ObservedSettings) -> Iterator[str]:
    """Sizes of latents and frames: the largest of the portrait's shape that the declared area holds."""
    role, pixels = role_of(recipe.deployment, rank), recipe.workload.output_size(recipe.clip.max_area)
    latents, frames = (f"{height}x{width}" for height, width in (_latent_size(pixels), pixels))
    for what, seen, size, idle in (
        ("latents", set(observed.latent_sizes), latents, "decode"),
        ("frames", set(observed.frame_sizes), frames, "transformer"),
    ):
        wanted = set() if role == idle else {size}
        if seen != wanted:
            yield f"{what} of {_words(seen)} against {_words(wanted)} (size {recipe.clip.size})"


def _latent_size(pixels: tuple[int, int]) -> tuple[int, int]:
    height, width = pixels
    return height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT


def attention_differences(recipe: Recipe, rank: int, observed: ObservedSettings, wanted: str) -> Iterator[str]:
    """Kernels of attention other than the one that is `wanted`, and blocks that had none."""
    if role_of(recipe.deployment, rank) == "decode":
        return
    seen = observed.attention_kernels
    calls = seen.get(wanted, 0)
    if set(seen) != {wanted}:
        yield f"attention by {_words(set(seen))} against {wanted} (attention, compute_dtype)"
    forwards = observed.transformer_forwards
    a_block = sum(forwards.get(kind, 0) * least for kind, least in ATTENTION_OF_A_BLOCK.items())
    least = a_block * recipe.model.transformer.num_layers
    if calls < least:
        yield f"{wanted} attention {calls} times against {least} or more, {a_block} a block of the model"


def _forwards(recipe: Recipe, observed: ObservedSettings) -> Iterator[str]:
    """Blocks times steps for each clip; a rank of a timestep pipeline takes one step of each block."""
    clip = recipe.clip
    steps = 1 if recipe.deployment.timestep_pipeline else clip.sample_steps
    a_clip = clip.blocks_per_clip * steps
    forwards, prefills = (observed.transformer_forwards.get(kind, 0) for kind in ("denoise", "prefill"))
    voice = recipe.workload.voice_length(clip.num_clip * clip.infer_frames)
    clips = min(clip.num_clip, num_clips_in(voice, clip.infer_frames))
    if forwards != a_clip * clips:
        yield f"{forwards} denoising forwards against {a_clip} a clip (sample_steps {steps}), for {clips} clips"
    if not 1 <= prefills <= 2:
        yield f"{prefills} prefills against 1, or 2 where the reference is renewed"


def _types(deployment: Deployment, observed: ObservedSettings) -> Iterator[str]:
    """Weights are kept as declared; the 8-bit ones of the transformer beside what is not kept in 8 bits."""
    for part in sorted(observed.parameter_bytes):
        eight = {_eight_bits(deployment), SCALES} if part == "transformer" and deployment.quantized else set()
        allowed = {deployment.storage_dtype, *eight}
        seen = {kind.split()[0] for kind, size in observed.parameter_bytes[part].items() if size}
        if not seen <= allowed or deployment.storage_dtype not in seen:
            yield f"{part} kept in {_words(seen)} against {_words(allowed)} (storage_dtype, fp8, int8)"
        if eight and deployment.storage_dtype != SCALES:
            yield from _scales(observed, part, _eight_bits(deployment))


def _scales(observed: ObservedSettings, part: str, eight: str) -> Iterator[str]:
    """Scales beside 8-bit weights are few: more of that type are weights that fell back to it."""
    wide, narrow = (observed.bytes_of(part, dtype=dtype) for dtype in (SCALES, eight))
    if wide > narrow * MOST_SCALES:
        yield f"{wide} bytes of the {part} in {SCALES} against {narrow * MOST_SCALES:g}, an eighth of its {eight}"


def _eight_bits(deployment: Deployment) -> str:
    return "float8_e4m3fn" if deployment.fp8 else "int8"


def _caches(deployment: Deployment, observed: ObservedSettings) -> Iterator[str]:
    place = "host" if deployment.offload_kv_cache else "card"
    dtypes = ("float8_e4m3fn", SCALES) if deployment.fp8_kv_cache else (deployment.compute_dtype,)
    wanted, seen = {f"{dtype} {place}" for dtype in dtypes}, set(observed.kv_caches)
    if seen != wanted:
        yield f"KV caches of {_words(seen)} against {_words(wanted)} (fp8_kv_cache, offload_kv_cache, compute_dtype)"


def _amounts(recipe: Recipe, observed: ObservedSettings) -> Iterator[str]:
    """A shard holds less than the linear layers of all blocks, a whole transformer at least those."""
    deployment, layers = recipe.deployment, block_parameters(recipe)
    if deployment.quantized:
        held = observed.bytes_of("transformer", dtype=_eight_bits(deployment))
        if held < layers:
            yield f"{held} bytes in {_eight_bits(deployment)} against {layers} or more, the linear layers of all blocks"
        return
    held, whole = observed.bytes_of("transformer"), layers * BYTES[deployment.storage_dtype]
    if deployment.shard == "none" and held < whole:
        yield f"{held} bytes of the transformer against {whole} or more, all of it (shard none)"
    if deployment.shard != "none" and not 0 < held < whole:
        yield f"{held} bytes of the transformer, no less than the {whole} of all blocks (shard {deployment.shard})"


def block_parameters(recipe: Recipe) -> int:
    """Parameters in the linear layers of the transformer's blocks: most of it, and a lower bound of it."""
    sizes = recipe.model.transformer
    attention, feed_forward = 8 * sizes.dim**2, 2 * sizes.dim * sizes.ffn_dim
    return sizes.num_layers * (attention + feed_forward)


def _places(recipe: Recipe, observed: ObservedSettings) -> Iterator[str]:
    """Where the transformer rests while other parts work."""
    deployment = recipe.deployment
    on_host, held = observed.bytes_of("transformer", place="host"), observed.bytes_of("transformer")
    if deployment.offload_blocks:
        size = BYTES[_eight_bits(deployment) if deployment.quantized else deployment.storage_dtype]
        least = block_parameters(recipe) * size // 2
        if on_host < least:
            yield f"{on_host} bytes of the transformer in host memory against {least} or more (offload_blocks)"
    elif deployment.offload_shards or deployment.offload_model:
        if on_host != held:
            yield f"{held - on_host} bytes of the transformer on the card against 0 (offload_shards, offload_model)"
    elif on_host:
        yield f"{on_host} bytes of the transformer in host memory against 0"


def _text_encoder(deployment: Deployment, rank: int, observed: ObservedSettings) -> Iterator[str]:
    """Which ranks hold it, and where."""
    held = observed.bytes_of("text_encoder")
    elsewhere = deployment.t5_on_decode_rank and role_of(deployment, rank) != "decode"
    if bool(held) == elsewhere:
        yield f"{held} bytes of the text encoder (t5_on_decode_rank {deployment.t5_on_decode_rank})"
    rests = deployment.t5_cpu or deployment.offload_model
    on_host = observed.bytes_of("text_encoder", place="host")
    if rests and on_host != held:
        yield f"{held - on_host} bytes of the text encoder on the card against 0 (t5_cpu, offload_model)"
    if not rests and not deployment.offload_shards and on_host:
        yield f"{on_host} bytes of the text encoder in host memory against 0"


def _words(kinds: set[str]) -> str:
    return ", ".join(sorted(kinds)) or "nothing"


def _finding(what: str) -> Finding:
    step = "find out why the setting did not act, or declare what did: numbers of other settings answer no question"
    return Finding(verdict=Verdict.SETTING_NOT_APPLIED, what=what, next_step=step)
