"""What must hold of every recipe: a check for each rule of the catalogue.

A check returns how full the fullest card was, in bytes, which draws are steered to; it raises Broken where the rule
does not hold. Simulated rules look at `thin` models, but for `whole`; real ones run `small` ones, a process a rank.
"""

from __future__ import annotations

from collections.abc import Callable

from liveavatar_core.config import Recipe
from liveavatar_core.errors import InvalidRecipe
from suites.fuzz.bounds import cache_bytes, computing_ranks, least_transformer_bytes
from suites.fuzz.case import FuzzCase, changed
from suites.fuzz.models import thin
from suites.fuzz.prediction import MemoryPrediction, predict, predict_every_rank
from suites.fuzz.real_rules import Broken, check_quality, check_seed, check_tracker, check_video, first_difference

__all__ = ["CHECKS", "Broken"]

READ_LAYERS = 3
"""Layers of one cache that may stand on the card beside the caches themselves while they are read."""
ROUNDING = 0.02
"""The share that closed forms leave out: time embeddings, rotary tables, rounding of each storage."""
GIB = 2**30


def _is_too_much(what: str, held: float, allowed: float, unit: str = "GiB") -> None:
    if held > allowed:
        raise Broken(f"{what}: {held / GIB:.3f} {unit}, at most {allowed / GIB:.3f} allowed")


def _is_too_little(what: str, held: float, least: float) -> None:
    if held < least:
        raise Broken(f"{what}: {held / GIB:.3f} GiB, at least {least / GIB:.3f} needed")


def check_holdings(case: FuzzCase) -> float:
    """Keys, values and weights of each computing rank have the bytes that closed forms say."""
    return _holdings(thin(case.recipe))


def check_whole(case: FuzzCase) -> float:
    """Closed forms hold for the 14B with every layer, as `check_holdings` has it for fewer."""
    return _holdings(case.recipe)


def _holdings(recipe: Recipe) -> float:
    predicted = predict(recipe)
    for rank in set(computing_ranks(recipe)) & set(predicted.peaks):
        _check_caches(recipe, rank, predicted)
        held = predicted.peaks[rank]["load"].by_category.get("parameters", 0)  # none where all stand in host memory
        _is_too_little(f"rank {rank}, weights", held, least_transformer_bytes(recipe) * (1 - ROUNDING))
    return predicted.needed_bytes


def _check_caches(recipe: Recipe, rank: int, predicted: MemoryPrediction) -> None:
    known, peak = cache_bytes(recipe, rank), predicted.peaks[rank]["denoise"]
    on_host = recipe.deployment.offload_kv_cache
    if on_host:
        _is_too_little(f"rank {rank}, caches in host memory", peak.host_allocated, known.caches)
    held = peak.by_category["kv_cache"]
    least = known.sink + (0 if on_host else known.caches)
    _is_too_little(f"rank {rank}, keys and values", held, least)
    most = least + known.modulations + READ_LAYERS * known.layer_read
    _is_too_much(f"rank {rank}, keys and values", held, most * (1 + ROUNDING))


def check_card(case: FuzzCase) -> float:
    """A card that is large enough passes, one that is not gives a typed error; none holds more than it has."""
    recipe = thin(case.recipe)
    needed = predict(recipe).needed_bytes
    usable = int(needed * case.change["card_share"])
    found = predict(recipe, usable)
    error = found.out_of_memory
    _is_too_much("held by a card", found.needed_bytes, usable)
    if error is None and (usable < needed or found.clips != recipe.clip.num_clip):
        raise Broken(f"it needs {needed} bytes and passed on {usable}, {found.clips} clips")
    if error is not None and usable >= needed:
        raise Broken(f"it needs {needed} bytes and ran out of memory on {usable}: {error.what}")
    if error is not None and (error.shortage.shortfall or 0) <= 0:
        raise Broken(f"out of memory although {error.shortage.requested} bytes fit: {error.what}")
    return needed


def check_less(case: FuzzCase) -> float:
    """No phase needs more with fewer frames, steps or clips, a smaller size or more cards to share."""
    before, after = predict(thin(case.recipe)), predict(thin(changed(case.recipe, case.change)))
    for phase in before.peaks[0]:
        _is_too_much(f"{phase} after {dict(case.change)}", after.most_bytes(phase), before.most_bytes(phase))
    return before.needed_bytes


def check_clips(case: FuzzCase) -> float:
    """Decoded as it is made, a video of many clips needs what one of three does: voice and encoders aside."""
    many = thin(changed(case.recipe, case.change))
    few = thin(changed(case.recipe, {**case.change, "num_clip": 3}))
    for phase in ("load", "prefill", "denoise", "decode"):
        before, after = predict(few).most_bytes(phase), predict(many).most_bytes(phase)
        if before != after:
            raise Broken(f"{phase} of {many.clip.num_clip} clips: {after} bytes, of 3 {before}")
    return predict(many).needed_bytes


def check_shortcut(case: FuzzCase) -> float:
    """The simulation holds the same whether repeated units are executed or not."""
    recipe = thin(case.recipe)
    quick, slow = predict_every_rank(recipe), predict_every_rank(recipe, execute_everything=True)
    for rank, (ours, theirs) in enumerate(zip(quick, slow, strict=True)):
        if ours != theirs:
            raise Broken(f"rank {rank}: {first_difference(ours, theirs)}")
    return predict(recipe).needed_bytes


def check_refusal(case: FuzzCase) -> float:
    """A broken recipe is refused at construction, in two lines."""
    try:
        changed(case.recipe, case.change)
    except InvalidRecipe as error:
        if not error.what or not error.next_step:
            raise Broken(f"{case.change} is refused without a reason or a next step") from error
        return 0
    raise Broken(f"{case.change} is not refused")


CHECKS: dict[str, Callable[[FuzzCase], float]] = {
    "holdings": check_holdings,
    "whole": check_whole,
    "card": check_card,
    "less": check_less,
    "clips": check_clips,
    "tracker": check_tracker,
    "video": check_video,
    "shortcut": check_shortcut,
    "seed": check_seed,
    "quality": check_quality,
    "refusal": check_refusal,
}
"""The function that checks a rule, by the rule's name."""
