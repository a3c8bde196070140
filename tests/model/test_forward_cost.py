"""A noisy forward stays within its budget of operations and bytes; both are exact on every machine."""

from __future__ import annotations

from benchmarks.denoise_forward import Meter, prepare_forward

OPERATIONS = 900
BYTES_WRITTEN = 1_500_000_000


def test_first_forward_of_a_block_stays_within_its_budget():
    forward = prepare_forward()
    with Meter() as meter:
        forward()
    assert meter.operations.total() <= OPERATIONS
    assert meter.bytes_written <= BYTES_WRITTEN
