"""From a published figure and a run record to agree or disagree. Free of torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from liveavatar_core.errors import GIB
from suites.harness.records.record import RunRecord
from suites.published.figures import ClaimCheck, ClaimVerdict, Figure
from suites.published.measurements import READINGS

Records = Callable[[str, str], RunRecord]
"""A function that gives the record of `TIER.CASE` in a hardware mode."""
FLAT = 0.01
"""Part by which a peak may grow with one more clip and still be called flat: features of a longer voice are kept."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A published figure beside our value of it."""

    figure: Figure
    settlement: ClaimCheck
    ours: str
    """Our value, with its unit."""
    verdict: ClaimVerdict
    """Whether our value agrees."""

    @property
    def mode(self) -> str:
        """Hardware mode of our value."""
        return "" if self.settlement.run is None else self.settlement.hardware

    @property
    def as_settled(self) -> bool:
        """Whether it says what claim_checks.toml says."""
        return self.verdict == self.settlement.verdict


def answer(figure: Figure, settlement: ClaimCheck, records: Records) -> Answer:
    """Read what the settlement names, and compare."""
    ours, agrees = "", None
    if settlement.run is not None:
        record = records(settlement.run, settlement.hardware)
        other = None if settlement.against is None else records(settlement.against, settlement.hardware)
        ours, agrees = _compare(figure, settlement, record, other)
    verdict: ClaimVerdict = "not testable" if agrees is None else "agree" if agrees else "disagree"
    return Answer(figure=figure, settlement=settlement, ours=ours, verdict=verdict)


def _compare(figure: Figure, settlement: ClaimCheck, record: RunRecord, other: RunRecord | None) -> tuple[str, bool]:
    """Our value, and whether it agrees."""
    if settlement.reading == "outcome":
        return _ending(record), _ends_so(figure, record)
    if settlement.reading == "growth" and other is not None:
        return _growth(record, other)
    value = READINGS[str(settlement.reading)](record)
    if other is not None and value is not None:
        below = READINGS[str(settlement.reading)](other)
        value = value / below if below else None
    if value is None:
        return _ending(record), False
    value *= settlement.clips
    return f"{value:.4g} {figure.unit}", _is_close(value, figure, settlement)


def _is_close(value: float, figure: Figure, settlement: ClaimCheck) -> bool:
    interval = settlement.between or figure.range
    if interval is not None:
        return interval[0] <= value <= interval[1]
    wanted = figure.value or 0.0
    if settlement.bound == "at most":
        return value <= wanted
    return max(value, wanted) <= (1 + settlement.within) * min(value, wanted)


def _ends_so(figure: Figure, record: RunRecord) -> bool:
    """Whether it ended as claimed; an unshard is where parameters are gathered, whatever phase needs them."""
    if figure.outcome == "never silent here":
        return record.outcome == "oom"
    gathered = record.out_of_memory is not None and record.out_of_memory.category == "unsharded_parameters"
    return record.outcome == figure.outcome and (figure.phase != "unshard" or gathered)


def _growth(record: RunRecord, fewer: RunRecord) -> tuple[str, bool]:
    peaks = record.peak_bytes(), fewer.peak_bytes()
    if None in peaks or "pass" not in (record.outcome, fewer.outcome):
        return _ending(record), False
    more, less = (peak or 0 for peak in peaks)
    text = f"{more / GIB:.6f} GiB with more clips, {less / GIB:.6f} with fewer"
    return text, more <= less * (1 + FLAT)


def _ending(record: RunRecord) -> str:
    details = record.out_of_memory
    if details is None:
        return record.outcome if record.failure is None else f"{record.outcome}: {record.failure.message}"
    asked = "an unknown size" if details.requested is None else f"{details.requested / GIB:.2f} GiB"
    return f"oom in {details.phase}: {asked} for {details.category}, {details.free / GIB:.2f} free"
