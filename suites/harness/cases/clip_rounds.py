"""How many clips of a run are timed, and how many come before them. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from liveavatar_core.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class ClipRounds:
    """The clips of one run, by what their seconds are good for."""

    warm_up: int
    """The first clips, in which caches fill, kernels are chosen and code is compiled: on record, never counted."""
    measured: int
    """The clips behind them, whose median is the seconds of a clip."""

    def __post_init__(self) -> None:
        if self.warm_up < 0 or self.measured < 0:
            raise BadInput(f"{self.warm_up} clips to warm up and {self.measured} to measure", "give 0 or more of each")

    @property
    def total(self) -> int:
        """All of them."""
        return self.warm_up + self.measured

    def of(self, made: int) -> ClipRounds:
        """What it comes to where only `made` clips could be made: those that warm up come first."""
        warm_up = min(self.warm_up, made)
        return ClipRounds(warm_up=warm_up, measured=made - warm_up)


ON_CARDS = ClipRounds(warm_up=2, measured=5)
"""What is declared where cards compute, unless somebody asks for more."""


def check_for_cards(rounds: ClipRounds) -> ClipRounds:
    """`rounds`, where they are enough for seconds of cards to be compared. Raises BadInput."""
    if rounds.warm_up < ON_CARDS.warm_up or rounds.measured < ON_CARDS.measured:
        raise BadInput(
            f"{rounds.warm_up} clips to warm up and {rounds.measured} to measure; seconds of cards take"
            f" {ON_CARDS.warm_up} and {ON_CARDS.measured} at least",
            f"give --warm-up-clips {ON_CARDS.warm_up} --measured-clips {ON_CARDS.measured}, or more, or neither",
        )
    return rounds


def asked_rounds(warm_up: int | None, measured: int | None) -> ClipRounds | None:
    """What somebody asked for; None where they said nothing. Raises BadInput where nothing would be measured."""
    if warm_up is None and measured is None:
        return None
    if measured is not None and measured < 1:
        raise BadInput(f"--measured-clips {measured} measures nothing", "give 1 or more")
    asked = {"warm_up": warm_up, "measured": measured}
    return replace(ON_CARDS, **{name: value for name, value in asked.items() if value is not None})
