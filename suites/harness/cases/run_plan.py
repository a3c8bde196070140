"""What one run is to do, decided before anything starts. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from liveavatar_core.config import Recipe
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
    limit_bytes: int | None
    """Bytes that a card may hold; None: no limit is imposed."""
    host_limit_bytes: int | None = None
    """What all ranks together may hold in host memory; None: nothing is imposed."""
    folder: Path
    """The folder for logs and the mp4; it is there, and empty."""

    @classmethod
    def full_size(cls, tier: Tier, case: Case, hardware: HardwareName, folder: Path) -> RunPlan:
        """The tier's own recipe, under what its cards may hold; on real cards with the weights that were given."""
        recipe = tier.recipe(case)
        if hardware in ("physical", "partitioned"):
            recipe = replace(recipe, weights=tier.weights)
        limit = tier.card_model.usable_bytes_in(recipe.deployment)
        return cls(
            tier=tier,
            case=case,
            hardware=hardware,
            recipe=recipe,
            limit_bytes=limit,
            host_limit_bytes=tier.host_limit_bytes,
            folder=folder,
        )

    @property
    def video(self) -> Path:
        """Path of the mp4, where ranks really run."""
        return self.folder / "video.mp4"
