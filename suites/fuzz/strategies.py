"""What hypothesis draws: whole recipes, valid by construction, and valid ones with a change that breaks one rule.

The rules are written here a second time, as what may be drawn; a recipe that the core refuses is a failure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from liveavatar_core.config import ClipSpec, Quirks, Recipe
from liveavatar_core.deployment import Deployment
from suites.fuzz.case import FuzzCase

MOST_CARDS = 5
SIZES = ("384*256", "512*320", "480*480", "688*368", "704*384", "960*544")
"""Common ones; others are drawn as well."""
DTYPES = ("bfloat16", "float32")
Change = dict[str, Any]


def flags() -> SearchStrategy[bool]:
    """Booleans, of which False is the simpler one."""
    return st.booleans()


@st.composite
def clips(draw: DrawFn, *, steps: int | None = None, streaming: bool = True) -> ClipSpec:
    """Clips of all sizes and lengths. `steps`: no other number. `streaming`: no other decoder."""
    return ClipSpec(
        size=draw(st.sampled_from(SIZES) | st.builds("{}*{}".format, st.integers(64, 960), st.integers(64, 544))),
        infer_frames=4 * draw(st.integers(3, 24)),
        num_clip=draw(st.sampled_from((2, 1, 3))),  # two are simplest: one has no second prefill
        sample_steps=steps or draw(st.integers(1, 6)),
        base_seed=draw(st.integers(0, 2**31)),
        enable_online_decode=draw(flags()),
        quirks=draw(quirks(streaming=streaming)),
    )


@st.composite
def quirks(draw: DrawFn, *, streaming: bool) -> Quirks:
    """Oddities of the original; mostly none."""
    if draw(st.integers(0, 3)) < 3:
        return Quirks()
    return Quirks(
        relative_dist=draw(st.integers(4, 30)),
        reference_frames=draw(st.sampled_from((1, 5))),
        motion_frames=1 + 4 * draw(st.integers(1, 24)),
        streaming_decode=streaming or draw(flags()),
        first_frames_dropped=draw(st.integers(0, 3)),
        letterbox=draw(flags()),
        float16_rotary_tables=draw(flags()),
    )


@st.composite
def deployments(draw: DrawFn) -> Deployment:
    """Layouts over 1 to 5 cards, every one valid."""
    decode_rank = draw(flags())
    ranks = draw(st.integers(1, MOST_CARDS - decode_rank))
    shard = draw(st.sampled_from(("none", "flat", "per_parameter")))  # even if not used: what is simple stays short
    in_turn = decode_rank and draw(flags())
    shard = "none" if in_turn or ranks + decode_rank == 1 else shard
    weights = draw(_shards(shard, decode_rank) if shard != "none" else _whole())
    return Deployment(
        num_gpus_dit=ranks,
        ulysses_size=1 if in_turn else ranks,
        timestep_pipeline=in_turn,
        enable_vae_parallel=decode_rank,
        **draw(_text_places(decode_rank)),
        **weights,
        compile=draw(flags()),
        offload_kv_cache=draw(flags()),
        fp8_kv_cache=draw(flags()),
        free_encoders=draw(flags()),
    )


def _text_places(decode_rank: bool) -> SearchStrategy[Change]:
    places: list[Change] = [{}, {"t5_cpu": True}]
    return st.sampled_from([*places, {"t5_on_decode_rank": True}] if decode_rank else places)


@st.composite
def _shards(draw: DrawFn, shard: str, decode_rank: bool) -> Change:
    compute = draw(st.sampled_from(DTYPES))
    chosen: Change = {
        "shard": shard,
        "compute_dtype": compute,
        "storage_dtype": compute if shard == "flat" else draw(st.sampled_from(DTYPES)),
        "shard_scope": "transformer" if decode_rank else draw(st.sampled_from(("transformer", "everything"))),
        "shard_units": draw(st.sampled_from(("blocks", "fine"))),
        "lora": draw(st.sampled_from(("merged", "adapter", "none"))),
        "reshard_after_forward": draw(flags()) is False,
    }
    if shard == "per_parameter" and chosen["reshard_after_forward"]:
        chosen["offload_shards"] = draw(flags())
    return chosen


@st.composite
def _whole(draw: DrawFn) -> Change:
    eight = draw(st.sampled_from(({}, {"fp8": True}, {"fp8": True, "fp8_multiply": False}, {"int8": True})))
    loras = ("merged", "none") if eight else ("merged", "adapter", "none")
    return {
        **eight,
        "compute_dtype": draw(st.sampled_from(DTYPES)),
        "lora": draw(st.sampled_from(loras)),
        "offload_model": draw(flags()),
        "offload_blocks": draw(flags()),
    }


@st.composite
def recipes(draw: DrawFn) -> Recipe:
    """Whole recipes of the 14B."""
    deployment = draw(deployments())
    clip = draw(
        clips(
            steps=deployment.num_gpus_dit if deployment.timestep_pipeline else None,
            streaming=deployment.enable_vae_parallel,
        )
    )
    return Recipe(name="fuzz", clip=clip, deployment=deployment)


STARTERS = (
    Deployment(
        num_gpus_dit=3,
        ulysses_size=3,
        shard="per_parameter",
        shard_scope="everything",
        storage_dtype="float32",
        compute_dtype="float32",
        lora="adapter",
        offload_kv_cache=True,
    ),
    Deployment(
        num_gpus_dit=2,
        timestep_pipeline=True,
        enable_vae_parallel=True,
        t5_on_decode_rank=True,
        fp8=True,
        fp8_kv_cache=True,
        lora="none",
    ),
    Deployment(
        offload_model=True,
        offload_blocks=True,
        offload_kv_cache=True,
        int8=True,
        free_encoders=True,
        compile=True,
    ),
    Deployment(
        num_gpus_dit=4,
        ulysses_size=4,
        enable_vae_parallel=True,
        shard="flat",
        shard_units="fine",
        reshard_after_forward=False,
        t5_cpu=True,
        fp8_kv_cache=True,
    ),
)
"""Every switch once: what is drawn comes after these, as chance leaves some out for a long time."""


def starters(name: str) -> list[FuzzCase]:
    """Cases for the rule `name`, whose change is none, that are tried before any is drawn."""
    clip = ClipSpec(size="384*256", infer_frames=28, num_clip=2, sample_steps=2)
    return [FuzzCase(rule=name, recipe=Recipe(name="fuzz", clip=clip, deployment=layout)) for layout in STARTERS]


def cases(name: str, changes: Callable[[Recipe], SearchStrategy[Change]]) -> SearchStrategy[FuzzCase]:
    """Recipes for the rule `name`, each with a change that `changes` draws for it."""
    return recipes().flatmap(
        lambda recipe: changes(recipe).map(lambda change: FuzzCase(rule=name, recipe=recipe, change=change))
    )


def no_change(recipe: Recipe) -> SearchStrategy[Change]:
    """No change: an empty table for any recipe."""
    return st.just({})


def shares_of_need(recipe: Recipe) -> SearchStrategy[Change]:
    """How large the card is, as a share of what is predicted to be needed: too small, just enough, ample."""
    return st.builds(lambda share: {"card_share": share}, st.sampled_from((0.95, 1.0, 1.05)) | st.floats(0.3, 1.2))


def more_clips(recipe: Recipe) -> SearchStrategy[Change]:
    """A number of clips beyond 3, decoded as they come."""
    return st.builds(lambda more: {"num_clip": 3 + more, "enable_online_decode": True}, st.integers(1, 4))


def smaller(recipe: Recipe) -> SearchStrategy[Change]:
    """One thing less of what takes memory."""
    clip, layout = recipe.clip, recipe.deployment
    found: list[SearchStrategy[Change]] = []
    if clip.infer_frames > 12:
        found.append(st.builds(lambda n: {"infer_frames": 4 * n}, st.integers(3, clip.infer_frames // 4 - 1)))
    if clip.sample_steps > 1 and not layout.timestep_pipeline:
        found.append(st.builds(lambda n: {"sample_steps": n}, st.integers(1, clip.sample_steps - 1)))
    if clip.num_clip > 1:
        found.append(st.builds(lambda n: {"num_clip": n}, st.integers(1, clip.num_clip - 1)))
    if clip.max_area > 64 * 64:
        found.append(st.builds(lambda n: {"size": f"{n}*64"}, st.integers(64, clip.max_area // 64)))
    if layout.ulysses_size > 1 and layout.num_cards < MOST_CARDS:
        found.append(st.just({"num_gpus_dit": layout.num_gpus_dit + 1, "ulysses_size": layout.num_gpus_dit + 1}))
    return st.one_of(found) if found else st.just({"base_seed": clip.base_seed})


def breaks(recipe: Recipe) -> SearchStrategy[Change]:
    """A change that no recipe survives, or that this one does not."""
    return _broken_fields() | st.sampled_from(_broken_rules(recipe))


def _broken_fields() -> SearchStrategy[Change]:
    """Values that a field never has, of the right type and of others."""
    below = st.integers(-5, 0)
    words = st.text(alphabet="abcxyz_", min_size=1, max_size=9)
    one = {
        "size": st.sampled_from(("0*64", "64", "64x64", "-64*64", "63*65", "64*64*64", "")) | words,
        "infer_frames": st.integers(-4, 11) | st.integers(3, 30).map(lambda n: 4 * n + 1),
        "num_clip": below | st.sampled_from((1.5, "2", None)),
        "sample_steps": below | st.sampled_from((2.5, "4", None)),
        "sample_guide_scale": st.floats(0.1, 9),
        "base_seed": st.sampled_from((1.5, "420", None)),
        "num_gpus_dit": below,
        "ulysses_size": below,
        "shard": words,
        "shard_scope": words,
        "shard_units": words,
        "storage_dtype": words | st.just("float16"),
        "compute_dtype": words | st.just("float16"),
        "attention": words,
        "compile": words,
        "lora": words,
        "lora_rank": below,
        "quirks.relative_dist": below,
        "quirks.reference_frames": below | st.sampled_from((2, 3, 4, 6)),
        "quirks.motion_frames": below | st.sampled_from((2, 72, 74)),
        "quirks.first_frames_dropped": st.integers(-5, -1),
    }
    return st.one_of([st.fixed_dictionaries({name: values}) for name, values in one.items()])


def _broken_rules(recipe: Recipe) -> list[Change]:
    """Values that exclude each other."""
    layout = recipe.deployment
    found: list[Change] = [
        {"ulysses_size": layout.num_gpus_dit + 1},
        {"num_gpus_dit": 3, "ulysses_size": 2},
        {"num_gpus_dit": 2, "ulysses_size": 1, "timestep_pipeline": False},
        {"timestep_pipeline": True, "enable_vae_parallel": False},
        {"t5_on_decode_rank": True, "enable_vae_parallel": False},
        {"t5_on_decode_rank": True, "t5_cpu": True},
        {"shard_scope": "everything", "enable_vae_parallel": True},
        {"shard": "flat", "storage_dtype": "float32", "compute_dtype": "bfloat16"},
        {"shard": "none", "offload_shards": True},
        {"shard": "none", "reshard_after_forward": False},
        {"offload_shards": True, "reshard_after_forward": False},
        {"offload_model": True, "shard": "per_parameter"},
        {"offload_blocks": True, "shard": "flat"},
        {"attention": "cudnn", "compute_dtype": "float32", "storage_dtype": "float32"},
        {"fp8": True, "int8": True},
        {"fp8": False, "fp8_multiply": False},
        {"fp8": True, "shard": "per_parameter"},
        {"int8": True, "lora": "adapter"},
        {"quirks.streaming_decode": False, "enable_vae_parallel": True},
        {"num_gpus_dit": 41, "ulysses_size": 41},
        {"num_gpus_dit": 1, "ulysses_size": 1, "enable_vae_parallel": False, "shard": "per_parameter"},
    ]
    if layout.timestep_pipeline:
        found.append({"sample_steps": layout.num_gpus_dit + 1})
    return found
