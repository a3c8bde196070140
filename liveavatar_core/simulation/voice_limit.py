"""The longest voice that a layout holds, found by simulating videos of different lengths. Free of torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from liveavatar_core.config import FRAMES_PER_SECOND, Recipe
from liveavatar_core.workload import MANY_CLIPS


@dataclass(frozen=True, kw_only=True)
class VoiceLimit:
    """How long a voice may be. Memory must hold it while it is encoded, its features, and the video's clips."""

    clips: int
    """Clips of the longest video that fits, all of its voice heard; MANY_CLIPS: any does."""
    seconds: float
    """How long its voice is."""
    why: str = ""
    """What runs out with a clip more; empty where any voice fits."""

    @property
    def is_any(self) -> bool:
        """Whether no length was found that does not fit."""
        return self.clips >= MANY_CLIPS

    def __str__(self) -> str:
        return "any" if self.is_any else f"{self.seconds:.1f} s ({self.clips} clips); beyond, {self.why}"


def voice_limit(recipe: Recipe, why_not: Callable[[Recipe], str | None]) -> VoiceLimit:
    """The longest voice for which `recipe` fits: any, where MANY_CLIPS do; otherwise found by halving, to a clip.

    why_not: simulates a recipe, and says what does not fit; None: all does.
    """
    fits, fails = 0, MANY_CLIPS
    why = why_not(with_voice(recipe, MANY_CLIPS))
    if why is None:
        fits = MANY_CLIPS
    while why is not None and fails - fits > 1:
        middle = (fits + fails) // 2
        found = why_not(with_voice(recipe, middle))
        fits, fails, why = (middle, fails, why) if found is None else (fits, middle, found)
    return VoiceLimit(clips=fits, seconds=fits * recipe.clip.infer_frames / FRAMES_PER_SECOND, why=why or "")


def with_voice(recipe: Recipe, clips: int) -> Recipe:
    """`recipe` with a voice of `clips`, all of which are made."""
    workload = replace(recipe.workload, voice_seconds=None)
    return replace(recipe, clip=replace(recipe.clip, num_clip=clips), workload=workload)
