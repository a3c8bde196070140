"""What the tracker counts: every storage once, from its allocation to its free, for what it was allocated."""

import pickle

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard

from liveavatar_core import scopes
from liveavatar_core.errors import OutOfMemory
from liveavatar_core.simulation.memory_account import Capacity
from liveavatar_core.simulation.memory_tracker import MemoryTracker
from liveavatar_core.torch_private import FakeStore

KIB = 1024


def kib(n, **kwargs):
    return torch.empty(n * KIB, dtype=torch.uint8, **kwargs)


def test_a_tensor_counts_from_birth_to_death():
    with MemoryTracker() as tracker:
        first = kib(4)
        assert tracker.allocated["card"] == 4 * KIB
        second = kib(2)
        assert tracker.allocated["card"] == 6 * KIB
        del first
        assert tracker.allocated["card"] == 2 * KIB
        del second
    assert tracker.allocated["card"] == 0
    assert tracker.peaks["load"].allocated == 6 * KIB


def test_each_request_is_rounded_up_to_512():
    held, expected = [], 0
    with MemoryTracker() as tracker:
        for size in range(5 * 512):
            held.append(torch.empty(size, dtype=torch.uint8))
            expected += (size + 511) // 512 * 512
            assert tracker.allocated["card"] == expected


def test_views_and_operations_in_place_take_nothing():
    with MemoryTracker() as tracker:
        whole = torch.zeros(64, 64)
        before = tracker.allocated["card"]
        views = [whole[3], whole.t(), whole.view(-1), whole.split(16), whole.detach()]
        whole.add_(1)
        whole[0].mul_(2)
        assert tracker.allocated["card"] == before
        del whole
        assert tracker.allocated["card"] == before, "a view keeps its storage"
        del views
        assert tracker.allocated["card"] == 0


def test_what_an_operation_needs_at_once_is_the_peak():
    with MemoryTracker() as tracker:
        one = torch.zeros(1024)
        two = one + one
        del one, two
    assert tracker.peaks["load"].allocated == 2 * 4096


def test_a_resized_storage_counts_anew():
    with MemoryTracker() as tracker:
        tensor = kib(8)
        tensor.untyped_storage().resize_(0)
        assert tracker.allocated["card"] == 0
        with scopes.category("unsharded_parameters"):
            tensor.untyped_storage().resize_(4 * KIB)
        assert tracker.totals["card"]["unsharded_parameters"] == 4 * KIB
        del tensor
        assert tracker.allocated["card"] == 0


def test_bytes_belong_to_the_scope_they_were_born_in():
    with MemoryTracker() as tracker:
        with scopes.phase("prefill"), scopes.category("kv_cache"):
            cache = kib(4)
        with scopes.phase("denoise"):
            work = kib(1)
            with scopes.place("host"), scopes.category("parameters"):
                aside = kib(16)
        assert tracker.totals["card"]["kv_cache"] == 4 * KIB
        assert tracker.totals["card"]["activations"] == 1 * KIB
        assert tracker.totals["host"]["parameters"] == 16 * KIB
        assert tracker.place_of(aside) == "host"
        assert tracker.place_of(cache) == "card"
        del cache, work, aside
    assert tracker.peaks["prefill"].by_category["kv_cache"] == 4 * KIB
    assert tracker.peaks["denoise"].allocated == 5 * KIB
    assert tracker.peaks["denoise"].host_allocated == 16 * KIB


def test_out_of_memory_says_what_was_asked_for_and_who_holds_the_rest():
    with MemoryTracker(rank=3, capacity=Capacity(card=10 * KIB)) as tracker:
        with scopes.category("parameters"):
            weights = kib(6)
        with pytest.raises(OutOfMemory) as caught, scopes.phase("encode"):
            kib(5)
        assert tracker.allocated["card"] == 6 * KIB, "what was refused is not counted"
        kib(4)
    short = caught.value.shortage
    assert (short.rank, short.phase, short.category) == (3, "encode", "activations")
    assert (short.requested, short.free, short.capacity) == (5 * KIB, 4 * KIB, 10 * KIB)
    assert short.holders == {"parameters": 6 * KIB}
    assert pickle.loads(pickle.dumps(caught.value)).shortage == short, "crosses a process border whole"
    del weights


def test_growing_a_storage_beyond_capacity_is_refused():
    with MemoryTracker(capacity=Capacity(card=4 * KIB)):
        tensor = kib(2)
        with pytest.raises(OutOfMemory):
            tensor.untyped_storage().resize_(5 * KIB)


def test_the_host_has_a_capacity_of_its_own():
    with MemoryTracker(capacity=Capacity(card=1 * KIB, host=8 * KIB)), scopes.place("host"):
        kib(8)
        with pytest.raises(OutOfMemory) as caught:
            kib(9)
    assert caught.value.shortage.category == "host"


def test_meta_tensors_take_nothing_and_stay_plain():
    with MemoryTracker() as tracker:
        meta = torch.empty(1 << 40, device="meta")
        half = meta.view(2, -1)[0].to(torch.bfloat16)
        assert half.is_meta
        assert tracker.allocated == {"card": 0, "host": 0}
        real = torch.empty_like(torch.empty(256, device="meta"), device="cpu")
        assert real.device.type == "cpu"
        assert tracker.allocated["card"] == 1024


@pytest.fixture
def mesh():
    dist.init_process_group("fake", store=FakeStore(), rank=1, world_size=4)
    mesh = init_device_mesh("cpu", (4,))
    DTensor.from_local(torch.zeros(4), mesh, [Shard(0)])  # the first loads modules, and leaves a cycle that keeps it
    yield mesh
    dist.destroy_process_group()


def test_a_dtensor_counts_as_its_local_shard_and_its_shapes_as_nothing(mesh):
    with MemoryTracker() as tracker:
        shard = DTensor.from_local(torch.zeros(8, 64), mesh, [Shard(0)])
        assert shard.shape == (32, 64)
        assert tracker.allocated["card"] == 8 * 64 * 4
        doubled = shard * 3.5  # the first of its kind: its shape is worked out on the whole
        assert tracker.allocated["card"] == 2 * 8 * 64 * 4
        assert tracker.peaks["load"].allocated == 2 * 8 * 64 * 4
        whole = doubled.redistribute(mesh, [Replicate()])
        assert tracker.peaks["load"].allocated >= (8 + 8 + 32) * 64 * 4
        del shard, doubled, whole
        assert tracker.allocated["card"] == 0
