"""What ranks were seen to do with the settings of their recipe: counted while they worked, not copied from it."""

from __future__ import annotations

from dataclasses import dataclass, field

from liveavatar_core import strict
from suites.harness.records.record import RunRecord


@dataclass(frozen=True, kw_only=True)
class ObservedSettings:
    """What one rank was seen to do. Types are torch's names without `torch.`; a place is `card` or `host`."""

    transformer_forwards: dict[str, int] = field(default_factory=dict)
    """Forwards of the transformer by kind: prefill, denoise."""
    parameter_bytes: dict[str, dict[str, int]] = field(default_factory=dict)
    """Bytes of weights that the rank held once they were loaded, its shard where a part is sharded: by part of the
    model, then by type and place, as `bfloat16 card`."""
    kv_caches: tuple[str, ...] = ()
    """Types and places of what its KV caches keep."""

    def bytes_of(self, part: str, *, dtype: str | None = None, place: str | None = None) -> int:
        """Bytes of weights of a part of the model, of that type and in that place where they are given."""
        found = 0
        for kind, size in self.parameter_bytes.get(part, {}).items():
            its_dtype, its_place = kind.split()
            found += size if dtype in (None, its_dtype) and place in (None, its_place) else 0
        return found


def observed_by_rank(record: RunRecord) -> dict[int, ObservedSettings]:
    """What each rank of `record` was seen to do; a rank that ended before anything acted is left out.

    Raises:
        BadData: an observation has unknown keys or wrong types.
    """
    told = record.knobs.get("proven_by_rank", {})
    return {int(rank): strict.build(ObservedSettings, each, f"observed by rank {rank}") for rank, each in told.items()}
