"""Which kernel attends on a card is what the deployment declares; nothing is substituted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from liveavatar_core.deployment import Deployment
from liveavatar_core.errors import InvalidRecipe
from liveavatar_core.model.attention import attention_over_both, choose_cuda_kernel
from liveavatar_core.torch_private import FakeTensorMode, TorchDispatchMode


class Kernels(TorchDispatchMode):
    """Takes note of what attends."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "attention" in func.name():
            self.seen.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def chosen() -> Iterator[None]:
    yield
    choose_cuda_kernel("flash")


@pytest.mark.parametrize(
    ("kernel", "operation"),
    [
        ("flash", "aten::_scaled_dot_product_flash_attention"),
        ("cudnn", "aten::_scaled_dot_product_cudnn_attention"),
    ],
)
def test_a_card_attends_with_the_declared_kernel(kernel: str, operation: str):
    choose_cuda_kernel(kernel)
    with FakeTensorMode(), torch.no_grad(), Kernels() as kernels:
        q, k, v, sink_k, sink_v = (torch.empty(1, 4, 32, 64, dtype=torch.bfloat16, device="cuda") for _ in range(5))
        out = attention_over_both(q, (k, v), (sink_k, sink_v))
    assert kernels.seen == [operation] * 2
    assert (out.shape, out.dtype) == (q.shape, torch.bfloat16)


def test_cudnn_is_refused_where_it_cannot_compute():
    with pytest.raises(InvalidRecipe, match="cudnn computes bfloat16"):
        Deployment(attention="cudnn", compute_dtype="float32", storage_dtype="float32")
