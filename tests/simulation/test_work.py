"""What is counted as work, and what it costs: against figures worked out by hand."""

from collections import Counter

import pytest
import torch
import torch.distributed as dist

from liveavatar_core import scopes
from liveavatar_core.hardware.cards import find_card
from liveavatar_core.simulation.cost.operation_counter import WorkCounter
from liveavatar_core.simulation.cost.roofline import (
    HOST_FLOPS_PER_SECOND,
    HOST_MEMORY_BYTES_PER_SECOND,
    Operation,
    estimate_time,
)
from liveavatar_core.simulation.memory_tracker import MemoryTracker
from liveavatar_core.torch_private import FakeStore, foreach_copy

RANKS, RANK = 4, 1


@pytest.fixture
def group():
    dist.init_process_group("fake", store=FakeStore(), rank=RANK, world_size=RANKS)
    yield
    dist.destroy_process_group()


def counted(work):
    """The operations that `work` executes."""
    tracker = MemoryTracker()
    tracker.work = WorkCounter(tracker.place_of, RANK)
    with tracker, torch.no_grad():
        work()
    return tracker.work.operations


def sent(work):
    return [operation.nbytes for operation in counted(work) if operation.kind == "link"]


def test_all_gather_sends_all_but_one_share(group):
    out, share = torch.zeros(RANKS * 100), torch.zeros(100)
    assert sent(lambda: dist.all_gather_into_tensor(out, share)) == [3 * 400]


def test_a_list_gathered_counts_the_same(group):
    share = torch.zeros(100)
    assert sent(lambda: dist.all_gather([torch.zeros(100) for _ in range(RANKS)], share)) == [3 * 400]


def test_all_to_all_keeps_this_ranks_own_part(group):
    given, out = torch.zeros(100), torch.zeros(40)
    received, given_away = [10, 10, 10, 10], [10, 60, 20, 10]
    assert sent(lambda: dist.all_to_all_single(out, given, received, given_away)) == [4 * 40]
    received, given_away = [5, 5, 25, 5], [10, 70, 10, 10]
    assert sent(lambda: dist.all_to_all_single(out, given, received, given_away)) == [4 * 35]
    assert sent(lambda: dist.all_to_all_single(torch.zeros(100), given)) == [4 * 75]


def test_what_one_rank_sends_to_another_passes_whole(group):
    assert sent(lambda: dist.send(torch.zeros(100), dst=0)) == [400]
    assert sent(lambda: dist.broadcast(torch.zeros(100), src=0)) == [400]


def test_a_product_counts_flops_and_bytes():
    one, other = torch.zeros(8, 16), torch.zeros(16, 32)
    (operation,) = counted(lambda: one @ other)
    assert operation.flops == 2 * 8 * 16 * 32
    assert operation.nbytes == 4 * (8 * 16 + 16 * 32 + 8 * 32)
    assert operation.kind == "card"


def test_a_view_is_no_work():
    whole = torch.zeros(8, 16)
    assert not counted(lambda: whole.view(-1)[:4].unsqueeze(0))


def test_a_copy_reads_its_source_and_writes_its_target():
    source, target = torch.zeros(100), torch.zeros(100, dtype=torch.bfloat16)
    (operation,) = counted(lambda: target.copy_(source))
    assert operation.nbytes == 100 * 4 + 100 * 2
    (operation,) = counted(target.zero_)
    assert operation.nbytes == 100 * 2


def test_what_is_done_in_place_reads_what_it_writes_into():
    one, other = torch.zeros(100), torch.zeros(100)
    (operation,) = counted(lambda: one.add_(other))
    assert operation.nbytes == 3 * 400


def test_shards_are_cast_copied_in_and_copied_out():
    """Two shards of 100 and 50 in float32, gathered in bfloat16 over 4 ranks, by the operations of `fully_shard`."""
    shards = [torch.zeros(100), torch.zeros(50)]
    cast = [torch.zeros(100, dtype=torch.bfloat16), torch.zeros(50, dtype=torch.bfloat16)]
    gathered = torch.zeros(RANKS * 150, dtype=torch.bfloat16)
    whole = [torch.zeros(RANKS, size, dtype=torch.bfloat16) for size in (100, 50)]

    def bytes_of(work):
        (operation,) = counted(work)
        assert operation.kind == "card"
        return operation.nbytes

    assert bytes_of(lambda: foreach_copy(cast, shards)) == 150 * (4 + 2)
    copy_in = torch.ops.fsdp.all_gather_copy_in
    assert bytes_of(lambda: copy_in(cast, gathered, [100, 50], 150, RANK)) == 150 * (2 + 2)
    copy_out = torch.ops.fsdp.split_with_sizes_copy
    assert bytes_of(lambda: copy_out(gathered.view(RANKS, -1), [100, 50], 1, out=whole)) == RANKS * 150 * (2 + 2)


def test_a_copy_between_memories_passes_the_host_bus():
    def work():
        with scopes.place("host"):
            aside = torch.empty(256)
        aside.clone()

    (operation,) = counted(work)
    assert (operation.kind, operation.nbytes) == ("host", 1024)


def operation(kind, flops=0, nbytes=0, dtype="bfloat16"):
    return Operation(phase="denoise", kind=kind, dtype=dtype, flops=flops, nbytes=nbytes)


def test_prices_are_those_of_the_data_sheet():
    card = find_card("RTX 4090")
    work = Counter(
        {
            operation("card", flops=10**12, nbytes=1): 2,
            operation("card", nbytes=10**9): 3,
            operation("link", nbytes=10**9): 1,
            operation("host", nbytes=10**9): 1,
            operation("cpu", nbytes=10**9): 1,
            operation("cpu", flops=10**12, nbytes=1): 1,
        }
    )
    prediction = estimate_time(work, card, ("denoise",))
    assert prediction.compute_seconds == pytest.approx(2 / 165.2)
    assert prediction.memory_seconds == pytest.approx(3 / 1008)
    assert prediction.communication_seconds == pytest.approx(1 / 32)
    host = 1 / 32 + 1e9 / HOST_MEMORY_BYTES_PER_SECOND + 1e12 / HOST_FLOPS_PER_SECOND
    assert prediction.host_seconds == pytest.approx(host)
    assert prediction.communication_share == pytest.approx((1 / 32) / prediction.seconds)
    assert estimate_time(work, card, ("decode",)).seconds == 0


def test_gathers_of_weights_may_hide_behind_kernels_and_other_collectives_not():
    card = find_card("RTX 4090")
    kernels = operation("card", flops=10**12, nbytes=1)
    kernel_seconds, gather_seconds = 1 / 165.2, 1 / 32
    for times in (1, 100):  # less than the gather lasts, and more
        work = Counter({kernels: times, operation("gather", nbytes=10**9): 1, operation("link", nbytes=10**9): 1})
        prediction = estimate_time(work, card, ("denoise",))
        hidden = min(times * kernel_seconds, gather_seconds)
        assert prediction.communication_seconds == pytest.approx(2 * gather_seconds)
        assert prediction.least_seconds == pytest.approx(prediction.seconds - hidden)
        exposed = 2 * gather_seconds - hidden
        assert prediction.least_communication_share == pytest.approx(exposed / prediction.least_seconds)


def test_only_gathers_of_weights_have_a_stream_of_their_own(group):
    def gather():
        dist.all_gather_into_tensor(torch.zeros(400), torch.zeros(100))

    def gather_weights():
        with scopes.category("unsharded_parameters"):
            gather()

    assert [operation.kind for operation in counted(gather) if operation.nbytes == 1200] == ["link"]
    assert [operation.kind for operation in counted(gather_weights) if operation.nbytes == 1200] == ["gather"]
