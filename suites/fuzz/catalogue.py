"""Which rules there are and how much is tried. Free of torch and of hypothesis, so that collecting stays quick."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule; `rules.CHECKS` checks it."""

    says: str
    """In one line."""
    draw: str = "no_change"
    """Of `strategies`: what is drawn beside the recipe."""
    share: float = 1
    """Of the numbers of cases in a profile: less where a case takes long, more where it takes none."""


RULES = {
    "holdings": Rule(says="weights, keys and values take what closed forms say", share=2),
    "whole": Rule(says="so they do in the 14B with all its layers", share=0.5),
    "card": Rule(says="a card passes if and only if what was predicted fits", draw="shares_of_need"),
    "less": Rule(says="less work or more cards never need more", draw="smaller", share=0.5),
    "clips": Rule(says="more clips, decoded as they come, need no more", draw="more_clips", share=0.5),
    "tracker": Rule(says="what really runs holds what was predicted, to the byte, and makes every frame", share=0.5),
    "video": Rule(says="every deployment makes the video that one process makes"),
    "shortcut": Rule(says="repeating what units did gives what executing them gives", share=0.5),
    "seed": Rule(says="the same seed gives the same frames, another one others", share=0.5),
    "quality": Rule(says="the tiny avatar's film is as good as baselines ask", share=0.25),
    "refusal": Rule(says="a broken recipe is refused at construction", draw="breaks", share=60),
}
"""By name."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A budget for each rule."""

    seconds: float
    """After so many no further case is begun, once there have been `least`."""
    least: int
    """Cases, however slow the machine is."""
    most: int
    """Cases, however quick it is. As many as `least`: the machine decides nothing."""
    shrink_seconds: float
    """For making a failure smaller."""
    random: bool
    """False: the same cases each time, so that a change is to blame for a failure."""


PROFILES = {
    "dev": Profile(seconds=5, least=2, most=20, shrink_seconds=30, random=True),
    "ci": Profile(seconds=0, least=8, most=8, shrink_seconds=60, random=False),
    "nightly": Profile(seconds=1200, least=50, most=2000, shrink_seconds=600, random=True),
}
"""By name."""
