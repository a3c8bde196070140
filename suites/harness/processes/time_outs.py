"""How long ranks wait for each other, against how long they are waited for. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass

from liveavatar_core.errors import BadInput

GROUP_SHARE, HEARTBEAT_SHARE = 0.5, 0.75


@dataclass(frozen=True, kw_only=True)
class TimeOuts:
    """Time-outs of a group, each shorter than the next: who waits in vain says so before everything is ended.

    The ranks that say so are not to blame: the one that stays silent is.
    """

    command_seconds: float
    """Seconds for all ranks to answer a command; then the group is ended."""

    def __post_init__(self) -> None:
        if not 0 < self.command_seconds < float("inf"):
            raise BadInput(f"a command may take {self.command_seconds} s", "give a number above 0")

    @property
    def group_seconds(self) -> float:
        """Seconds that a rank waits in a collective: the time-out of torch's process groups."""
        return GROUP_SHARE * self.command_seconds

    @property
    def heartbeat_seconds(self) -> float:
        """Seconds after which torch ends a process whose NCCL watchdog is stuck (TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC).

        Beyond that of the group, as the watchdog has to have its say first.
        """
        return HEARTBEAT_SHARE * self.command_seconds
