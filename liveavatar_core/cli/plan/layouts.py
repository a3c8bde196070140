"""Which layouts of the model fit on given cards: what is tried, and what a simulation says of each. Free of torch."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

from liveavatar_core.config import ClipSpec, Deployment, Recipe
from liveavatar_core.errors import BadInput, InvalidRecipe
from liveavatar_core.hardware.cards import CARDS_FILE, Card, find_card, read_cards
from liveavatar_core.parallel.ranks import distinct_ranks

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
    """Which."""
    host_gib: float | None = None
    """Memory of the machine that they are in; None: not known, and so no limit."""

    def __str__(self) -> str:
        return f"{self.count} x {self.card.name}"


@dataclass(frozen=True, kw_only=True)
class Fit:
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
    host_gib: float
    """Most that a rank holds in host memory."""
    machine_host_gib: float
    """What all ranks together hold there."""
    seconds_per_clip: float
    """The slowest rank's, nothing overlapping."""
    least_seconds_per_clip: float
    """The same rank's, with gathers of weights hidden behind kernels as far as these last."""
    breakdown: dict[str, float]
    """Of that rank: compute, memory, communication, host seconds."""


@dataclass(frozen=True, kw_only=True)
class Misfit:
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


def candidates(cards: Cards, clip: ClipSpec) -> list[Recipe]:
    """Every layout that is tried: first what is likely to fit, of that what is likely to be fast."""
    layouts = list(_on_one(cards.card) if cards.count == 1 else _on_several(cards))
    if cards.count == 1:
        layouts.sort(key=lambda layout: _estimated_gib(layout[1]) > cards.card.usable_gib)
    recipes = []
    for name, settings in layouts:
        try:
            deployment = Deployment(**settings)
            steps = deployment.num_gpus_dit if deployment.timestep_pipeline else clip.sample_steps
            recipes.append(Recipe(name=name, clip=replace(clip, sample_steps=steps), deployment=deployment))
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
    yield "bf16 shards, encoders given up", {**apart, "shard": "flat", "free_encoders": True, **caches}
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


def judge(recipe: Recipe, card: Card, host_gib: float | None = None) -> Fit | Misfit:
    """Simulate each distinct rank of `recipe`; the first that does not fit speaks for all. Imports torch.

    host_gib: memory of the machine, which all ranks share; None: it is no limit.
    """
    from liveavatar_core.simulation.cost.roofline import estimate_time
    from liveavatar_core.simulation.estimate import simulate_rank, with_expandable_segments
    from liveavatar_core.simulation.memory_account import Capacity

    peaks: dict[str, float] = {}
    host, machine, slowest = 0.0, 0.0, None
    reserved, retries, advice = 0, 0, ""
    for rank, alike in distinct_ranks(recipe.deployment).items():
        capacity = Capacity(card=card.usable_bytes_in(recipe.deployment))
        result = simulate_rank(recipe, rank, capacity)
        better = with_expandable_segments(recipe, result, capacity)
        advice = f"--expandable_segments: {better}" if better else advice
        if result.out_of_memory:
            return Misfit(name=recipe.name, why=result.out_of_memory.what, next_step=advice)
        reserved, retries = (
            max(reserved, result.allocator.reserved_peak_bytes),
            max(retries, result.allocator.retries),
        )
        prediction = estimate_time(result.work, card, ("denoise", "decode"))
        peak = max(phase.allocated for phase in result.peaks.values()) / 2**30
        peaks |= {str(other): round(peak, 2) for other in alike}
        most = max(phase.host_allocated for phase in result.peaks.values()) / 2**30
        host, machine = max(host, most), machine + most * len(alike)
        if slowest is None or prediction.seconds > slowest[0].seconds:
            slowest = prediction, result.clips
    assert slowest is not None
    if host_gib is not None and machine > host_gib:
        why = f"host-oom: {recipe.deployment.num_cards} ranks hold {machine:.1f} GiB of {host_gib:.1f} in host memory"
        return Misfit(name=recipe.name, why=why, next_step="add memory, or say how much there is: --host-gib")
    return Fit(
        name=recipe.name,
        command=command_of(recipe),
        quality=quality_of(recipe.deployment),
        peaks_gib=dict(sorted(peaks.items())),
        headroom_gib=round(card.usable_bytes_in(recipe.deployment) / 2**30 - max(peaks.values()), 2),
        reserved_gib=round(reserved / 2**30, 2),
        retries=retries,
        next_step=advice,
        host_gib=round(host, 1),
        machine_host_gib=round(machine, 1),
        seconds_per_clip=round(slowest[0].seconds / slowest[1], 2),
        least_seconds_per_clip=round(slowest[0].least_seconds / slowest[1], 2),
        breakdown={name: round(getattr(slowest[0], f"{name}_seconds") / slowest[1], 2) for name in BREAKDOWN},
    )
