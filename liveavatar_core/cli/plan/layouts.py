"""Which layouts of the model fit on given cards: what is tried, and what a simulation says of each. Free of torch."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

from liveavatar_core.config import ClipSpec, Recipe
from liveavatar_core.deployment import SHORTEST_AUDIO_WINDOW_SECONDS, Deployment
from liveavatar_core.errors import GIB, BadInput, InvalidRecipe
from liveavatar_core.hardware.cards import CARDS_FILE, Card, find_card, read_cards
from liveavatar_core.simulation.voice_limit import VoiceLimit, voice_limit
from liveavatar_core.workload import LEAST_CLIPS, Workload

_COUNTED = re.compile(r"(?:(?P<count>\d+)\s*[x*]\s*)?(?P<what>.+)")
_BY_SIZE = {24: "RTX 4090", 32: "RTX 5090", 40: "A100 40GB PCIe", 48: "L40S", 80: "A100 80GB PCIe"}
"""Which card a bare size in GB stands for: a common one, on PCIe."""
BREAKDOWN = ("compute", "memory", "communication", "host")
"""What a clip's seconds are made of."""


@dataclass(frozen=True, kw_only=True)
class Cards:
    """Some cards of one kind."""

    count: int
    """How many."""
    card: Card
    """The kind of card."""
    host_gib: float | None = None
    """Memory of the machine that they are in; None: not known, and so no limit."""

    def __str__(self) -> str:
        return f"{self.count} x {self.card.name}"


@dataclass(frozen=True, kw_only=True)
class FeasibleLayout:
    """What one layout comes to on the cards. Seconds are predicted."""

    name: str
    """What the layout is called here."""
    command: str
    """Runs it."""
    quality: str
    """What it costs in precision."""
    peaks_gib: dict[str, float]
    """Most that each rank's card holds, by rank."""
    headroom_gib: float
    """What tensors leave on the fullest card."""
    reserved_gib: float
    """Most that the allocator of any card holds: tensors, and pieces between them."""
    retries: int
    """How often the allocator of one card gives cached segments back to make room; each time stops the card."""
    next_step: str = ""
    """What would spare it retries; empty: nothing does, or there are none."""
    longest_voice: VoiceLimit | None = None
    """How long the voice may be; None: there was no time to find out."""
    host_gib: float
    """Most that a rank holds in host memory."""
    machine_host_gib: float
    """What all ranks together hold there."""
    seconds_per_clip: float
    """The slowest rank's, nothing overlapping."""
    least_seconds_per_clip: float
    """The seconds of that rank, with gathers of weights hidden behind kernels as far as these last."""
    breakdown: dict[str, float]
    """What that rank spends: compute, memory, communication, host seconds."""


@dataclass(frozen=True, kw_only=True)
class InfeasibleLayout:
    """A layout that does not fit."""

    name: str
    """What the layout is called here."""
    why: str
    """Which rank ran out of memory, when, for what."""
    next_step: str = ""
    """What would make it fit without another layout; empty: nothing does."""


def parse_cards(text: str) -> Cards:
    """`4x24`, `RTX 4090` or `2xL40S`: a count and a card's name or its GB. Raises BadInput."""
    match = _COUNTED.fullmatch(text.strip())
    count = int(match["count"] or 1) if match else 0
    if match is None or not 1 <= count <= 64:
        raise BadInput(f"--cards {text!r} is not a card, or 1 to 64 of them", 'give --cards 4x24, "RTX 4090" or 2xL40S')
    what = match["what"].strip().strip("\"'")
    return Cards(count=count, card=_card_of_size(int(what)) if what.isdigit() else find_card(what))


def _card_of_size(size: int) -> Card:
    if size not in _BY_SIZE:
        names = ", ".join(read_cards(CARDS_FILE))
        raise BadInput(f"no card of {size} GB; sizes: {', '.join(map(str, _BY_SIZE))}", f"name the card: {names}")
    return find_card(_BY_SIZE[size])


def candidates(cards: Cards, clip: ClipSpec, portrait: str | None = None) -> list[Recipe]:
    """Every layout that is tried: first what is likely to fit, of that what is likely to be fast.

    portrait: WIDTHxHEIGHT in pixels; None: the one that makes the most tokens at the clip's size.
    """
    workload = Workload.of_portrait(portrait) if portrait else Workload.largest(clip.max_area)
    layouts = list(_on_one(cards.card) if cards.count == 1 else _on_several(cards))
    if cards.count == 1:
        layouts.sort(key=lambda layout: _estimated_gib(layout[1]) > cards.card.usable_gib)
    recipes = []
    for name, settings in layouts:
        try:
            deployment = Deployment(**settings)
            steps = deployment.num_gpus_dit if deployment.timestep_pipeline else clip.sample_steps
            recipes.append(
                Recipe(name=name, clip=replace(clip, sample_steps=steps), deployment=deployment, workload=workload)
            )
        except InvalidRecipe:  # a width that this model or these cards have not
            continue
    return recipes


def _estimated_gib(settings: dict[str, Any]) -> float:
    """The 14B's transformer and its four KV caches on one card; decides what is simulated first, and nothing else."""
    weights = 15.8 if "fp8" in settings or "int8" in settings else 30.4
    caches = 0.3 if "offload_kv_cache" in settings else 18.7 if "fp8_kv_cache" in settings else 36.4
    return caches + (5.0 if "offload_blocks" in settings else weights)


def _eight_bits(card: Card) -> tuple[str, dict[str, Any]]:
    """8-bit weights as the card can use them."""
    return ("fp8", {"fp8": True}) if card.fp8_tflops else ("int8", {"int8": True})


def _on_one(card: Card) -> Iterator[tuple[str, dict[str, Any]]]:
    name, eight = _eight_bits(card)
    resting, caches = {"offload_model": True}, {"offload_kv_cache": True}
    yield "bf16", {}
    yield "bf16, parts in turn", resting
    yield f"{name}, parts in turn", {**resting, **eight}
    yield f"{name}, fp8 caches, parts in turn", {**resting, **eight, "fp8_kv_cache": True}
    yield f"{name}, host caches, parts in turn", {**resting, **eight, **caches}
    yield "bf16, host caches, parts in turn", {**resting, **caches}
    yield f"{name} block by block, host caches", {**resting, **eight, **caches, "offload_blocks": True, "t5_cpu": True}
    yield "bf16 block by block, host caches", {**resting, **caches, "offload_blocks": True, "t5_cpu": True}


def _on_several(cards: Cards) -> Iterator[tuple[str, dict[str, Any]]]:
    count, (name, eight) = cards.count, _eight_bits(cards.card)
    alike = {"num_gpus_dit": count, "ulysses_size": count}
    apart = {"num_gpus_dit": count - 1, "ulysses_size": count - 1, "enable_vae_parallel": True}
    caches, host_text = {"offload_kv_cache": True}, {"t5_cpu": True}
    pipe = {"num_gpus_dit": count - 1, "timestep_pipeline": True, "enable_vae_parallel": True}
    if count in (4, 5):
        yield f"timestep pipeline, {name}", {**pipe, **eight, "t5_on_decode_rank": True}
        yield "timestep pipeline, bf16", {**pipe, "t5_on_decode_rank": True}
    yield f"{name} whole on each, fp8 caches", {**alike, **eight, **host_text, "fp8_kv_cache": True}
    yield f"{name} whole on each, host caches", {**alike, **eight, **host_text, **caches}
    yield "bf16 whole on each", {**alike, **host_text}
    yield "bf16 shards, text on the decode rank", {**apart, "shard": "flat", "t5_on_decode_rank": True, **caches}
    short = {"free_encoders": True, "audio_window_seconds": SHORTEST_AUDIO_WINDOW_SECONDS}
    yield "bf16 shards, encoders given up", {**apart, "shard": "flat", **short, **caches}
    everything = {"shard": "per_parameter", "shard_scope": "everything", "shard_units": "fine"}
    yield "bf16, everything in shards", {**alike, **everything, **caches}


def quality_of(deployment: Deployment) -> str:
    """What a layout costs in precision, as far as it is known."""
    rounded = [name for name in ("fp8", "int8", "fp8_kv_cache") if getattr(deployment, name)]
    return f"rounded ({', '.join(rounded)})" if rounded else "none"


def command_of(recipe: Recipe) -> str:
    """The command line that runs a recipe; the inputs are to be filled in."""
    cards = recipe.deployment.num_cards
    start = ["torchrun", "--nproc-per-node", str(cards), "-m"] if cards > 1 else ["python", "-m"]
    inputs = ["--image", "FACE.png", "--audio", "VOICE.wav", "--prompt", "TEXT", "--ckpt_dir", "DIR"]
    changed = [*_changed(recipe.clip), *_changed(recipe.deployment)]
    return shlex.join([*start, "liveavatar_core", "generate", *inputs, *changed])


def _changed(declared: ClipSpec | Deployment) -> Iterator[str]:
    for item in fields(declared):
        value = getattr(declared, item.name)
        if item.default is not MISSING and value != item.default:
            yield f"--{item.name}"
            if value is not True:
                yield str(value)


def _host_shortage(recipe: Recipe, machine_gib: float, host_gib: float | None) -> str | None:
    if host_gib is None or machine_gib <= host_gib:
        return None
    return f"host-oom: {recipe.deployment.num_cards} ranks hold {machine_gib:.1f} GiB of {host_gib:.1f} in host memory"


def longest_voice(recipe: Recipe, card: Card, host_gib: float | None = None) -> VoiceLimit:
    """How long a voice the cards and their machine hold. Imports torch; arguments as those of `judge`."""
    from liveavatar_core.simulation.distinct_ranks import simulate_distinct_ranks
    from liveavatar_core.simulation.memory_account import Capacity

    capacity = Capacity(card=card.usable_bytes_in(recipe.deployment))

    def why_not(tried: Recipe) -> str | None:
        simulated = simulate_distinct_ranks(tried, capacity)
        if simulated.out_of_memory:
            return simulated.out_of_memory.what
        return _host_shortage(recipe, simulated.machine_host_bytes / GIB, host_gib)

    return voice_limit(recipe, why_not)


def judge(recipe: Recipe, card: Card, host_gib: float | None = None) -> FeasibleLayout | InfeasibleLayout:
    """Simulate each distinct rank of `recipe`; the first that does not fit speaks for all. Imports torch.

    As many clips are made as it takes until caches are full; seconds are those of the last one.

    host_gib: memory of the machine, which all ranks share; None: it is no limit.
    """
    from liveavatar_core.simulation.cost.roofline import estimate_time
    from liveavatar_core.simulation.distinct_ranks import simulate_distinct_ranks
    from liveavatar_core.simulation.memory_account import Capacity

    long = replace(recipe, clip=replace(recipe.clip, num_clip=LEAST_CLIPS))
    capacity = Capacity(card=card.usable_bytes_in(recipe.deployment))
    simulated = simulate_distinct_ranks(long, capacity)
    better = simulated.with_expandable_segments(long, capacity)
    advice = f"--expandable_segments: {better}" if better else ""
    if simulated.out_of_memory:
        return InfeasibleLayout(name=recipe.name, why=simulated.out_of_memory.what, next_step=advice)
    machine_gib = simulated.machine_host_bytes / GIB
    if why := _host_shortage(recipe, machine_gib, host_gib):
        step = "add memory, or say how much there is: --host-gib"
        return InfeasibleLayout(name=recipe.name, why=why, next_step=step)
    peaks = {other: round(made.peak_bytes / GIB, 2) for made in simulated.ranks for other in simulated.alike[made.rank]}
    times = (estimate_time(made.last_clip_work, card, ("denoise", "decode")) for made in simulated.ranks)
    slowest = max(times, key=lambda time: time.seconds)
    return FeasibleLayout(
        name=recipe.name,
        command=command_of(recipe),
        quality=quality_of(recipe.deployment),
        peaks_gib={str(rank): peaks[rank] for rank in sorted(peaks)},
        headroom_gib=round((capacity.card or 0) / GIB - max(peaks.values()), 2),
        reserved_gib=round(simulated.reserved_peak_bytes / GIB, 2),
        retries=simulated.retries,
        next_step=advice,
        host_gib=round(simulated.host_peak_bytes / GIB, 1),
        machine_host_gib=round(machine_gib, 1),
        seconds_per_clip=round(slowest.seconds, 2),
        least_seconds_per_clip=round(slowest.least_seconds, 2),
        breakdown={name: round(getattr(slowest, f"{name}_seconds"), 2) for name in BREAKDOWN},
    )
