"""What one run is to do, decided before anything starts. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from liveavatar_core.config import Recipe
from suites.harness.cases.clip_rounds import ON_CARDS, ClipRounds, check_for_cards
from suites.harness.cases.tiers import Case, Tier
from suites.harness.records.record import HardwareName


def frame_folder(video: Path) -> Path:
    """The folder that takes the frames of `video` where there is no encoder."""
    return video.with_name("frames")


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """A case of a tier in one hardware mode."""

    tier: Tier
    """The cards that it stands on, or imitates."""
    case: Case
    """The case, which says what must come of it."""
    hardware: HardwareName
    """The hardware mode that runs it."""
    recipe: Recipe
    """The recipe, workload included; in the miniature mode the small twin of the tier's."""
    rounds: ClipRounds
    """The clips that warm up, and those that are measured; a simulation reads no clock and has none."""
    limit_bytes: int | None
    """Bytes that a card may hold; None: no limit is imposed."""
    host_limit_bytes: int | None = None
    """What all ranks together may hold in host memory; None: nothing is imposed."""
    folder: Path
    """The folder for logs and the mp4; it is there, and empty."""

    @classmethod
    def full_size(cls, tier: Tier, case: Case, hardware: HardwareName, folder: Path) -> RunPlan:
        """The tier's own recipe, under what its cards may hold.

        On real cards with the weights that were given, and with as many clips as are declared to be timed. Raises
        BadInput where those are too few.
        """
        recipe, rounds = tier.recipe(case), ClipRounds(warm_up=0, measured=0)
        if hardware in ("physical", "partitioned"):
            rounds = check_for_cards(tier.rounds or ON_CARDS)
            clip = replace(recipe.clip, num_clip=max(recipe.clip.num_clip, rounds.total))
            recipe = replace(recipe, weights=tier.weights, clip=clip)
        limit = tier.card_model.usable_bytes_in(recipe.deployment)
        return cls(
            tier=tier,
            case=case,
            hardware=hardware,
            recipe=recipe,
            rounds=rounds,
            limit_bytes=limit,
            host_limit_bytes=tier.host_limit_bytes,
            folder=folder,
        )

    @property
    def video(self) -> Path:
        """Path of the mp4, where ranks really run."""
        return self.folder / "video.mp4"
