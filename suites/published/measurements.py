"""What published figures are compared with: numbers read from run records. Free of torch."""

from __future__ import annotations

from collections.abc import Callable

from liveavatar_core.errors import GIB, MemoryShortage
from liveavatar_core.hardware.cards import find_card
from suites.harness.records.record import RunRecord

Reading = Callable[[RunRecord], float | None]
"""A number of a record, None where the run did not come to it."""


def load_gib(record: RunRecord) -> float | None:
    """GiB allocated on the fullest card once weights are in place."""
    return _gib(record.peak_bytes(phase="load"))


def all_cards_load_gib(record: RunRecord) -> float | None:
    """GiB of weights in place, summed over all cards: the whole system where everything is sharded."""
    sizes = [record.peak_bytes(rank=rank, phase="load") for rank in record.ranks]
    return _gib(sum(size or 0 for size in sizes))


def peak_gib(record: RunRecord) -> float | None:
    """GiB allocated at the fullest moment of the fullest card."""
    return _gib(record.peak_bytes()) if record.outcome == "pass" else None


def last_card_peak_gib(record: RunRecord) -> float | None:
    """GiB allocated at the fullest moment of the last card, which decodes."""
    return _gib(record.peak_bytes(rank=record.ranks[-1])) if record.outcome == "pass" else None


def load_share(record: RunRecord) -> float | None:
    """Loaded weights as part of the card's memory, 0 to 1."""
    loaded = load_gib(record)
    return None if loaded is None else loaded / find_card(record.machine.card).capacity_gib


def peak_share(record: RunRecord) -> float | None:
    """The fullest moment as part of the card's memory, 0 to 1."""
    peak = peak_gib(record)
    return None if peak is None else peak / find_card(record.machine.card).capacity_gib


def requested_gib(record: RunRecord) -> float | None:
    """GiB of the request that ran out of memory."""
    return _of_shortage(record, lambda details: details.requested)


def needed_gib(record: RunRecord) -> float | None:
    """Memory that was held when the card was full, and what was asked for beside it, in GiB."""
    short = record.out_of_memory
    if short is None or short.requested is None:
        return None
    return _gib(short.capacity - short.free + short.requested)


def kv_cache_gib(record: RunRecord) -> float | None:
    """GiB of KV caches on the fullest card."""
    return _category_gib(record, "kv_cache")


def kv_cache_per_step_gib(record: RunRecord) -> float | None:
    """GiB of one KV cache: there is one a denoising step."""
    size = kv_cache_gib(record)
    return None if size is None else size / int(record.recipe.declared["clip"]["sample_steps"])


def kv_cache_and_activations_gib(record: RunRecord) -> float | None:
    """GiB that one card holds beside weights while denoising."""
    return _category_gib(record, "kv_cache", "activations", "decoder_cache")


def seconds_per_clip(record: RunRecord) -> float | None:
    """Seconds of a clip; predicted from data sheets where no card is present."""
    return record.timing.predicted_seconds_per_clip


def seconds_per_frame(record: RunRecord) -> float | None:
    """A clip's seconds over its frames."""
    seconds = seconds_per_clip(record)
    return None if seconds is None else seconds / int(record.recipe.declared["clip"]["infer_frames"])


def least_communication_share(record: RunRecord) -> float | None:
    """Part of the seconds that collectives take, with gathers hidden behind computing as far as it lasts."""
    return record.timing.least_communication_share


READINGS: dict[str, Reading] = {
    reading.__name__: reading
    for reading in (
        *(load_gib, all_cards_load_gib, peak_gib, last_card_peak_gib, load_share, peak_share),
        *(requested_gib, needed_gib, kv_cache_gib, kv_cache_per_step_gib, kv_cache_and_activations_gib),
        *(seconds_per_clip, seconds_per_frame, least_communication_share),
    )
}
"""Every reading by the name that claim_checks.toml uses."""


def _gib(size: int | None) -> float | None:
    return None if size is None else size / GIB


def _of_shortage(record: RunRecord, size: Callable[[MemoryShortage], int | None]) -> float | None:
    return None if record.out_of_memory is None else _gib(size(record.out_of_memory))


def _category_gib(record: RunRecord, *categories: str) -> float | None:
    """The most that these categories held together at the fullest moment of a phase."""
    held = [reading.by_category for reading in record.memory if reading.by_category is not None]
    sizes = [sum(each.get(category, 0) for category in categories) for each in held]
    return _gib(max(sizes, default=None)) if record.outcome == "pass" else None
