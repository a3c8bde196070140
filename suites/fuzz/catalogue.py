"""Which rules there are and how much is tried. Free of torch and of hypothesis, so that collecting stays quick."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule; `rules.CHECKS` checks it."""

    says: str
    """The rule in one line."""
    draw: str = "no_change"
    """Name of the function in `strategies` that draws the change beside the recipe."""
    share: float = 1
    """How many of a profile's cases it gets: less than 1 where a case takes long, more where it takes none."""


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
    "quality": Rule(says="the tiny avatar's video is as good as baselines ask", share=0.25),
    "refusal": Rule(says="a broken recipe is refused at construction", draw="breaks", share=60),
}
"""Every rule by its name."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A budget for each rule."""

    seconds: float
    """Seconds after which no further case is begun, once there have been `least`."""
    least: int
    """The number of cases that are tried however slow the machine is."""
    most: int
    """The number of cases that are tried at most. As many as `least`: the machine decides nothing."""
    shrink_seconds: float
    """Seconds for making a failure smaller."""
    random: bool
    """Whether cases differ from run to run. False: the same each time, so that a change is to blame for a failure."""


PROFILES = {
    "dev": Profile(seconds=5, least=2, most=20, shrink_seconds=30, random=True),
    "ci": Profile(seconds=0, least=8, most=8, shrink_seconds=60, random=False),
    "nightly": Profile(seconds=1200, least=50, most=2000, shrink_seconds=600, random=True),
}
"""Every profile by the name that `--fuzz-profile` takes."""
