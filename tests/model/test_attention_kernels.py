"""Which kernel attends on a card is what the deployment declares; nothing is substituted."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch
from torch.nn.attention import current_flash_attention_impl

from liveavatar_core.config import Recipe
from liveavatar_core.deployment import Deployment
from liveavatar_core.errors import InvalidRecipe
from liveavatar_core.model.attention import attention_over_both, choose_cuda_kernel
from liveavatar_core.torch_private import FakeTensorMode, TorchDispatchMode
from suites.harness.hardware.on_cards import kernels


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
    sys.modules.pop("flash_attn_interface", None)


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


@pytest.mark.parametrize("kernel", ["cudnn", "flash3"])
def test_kernels_are_refused_where_they_cannot_compute(kernel: str):
    with pytest.raises(InvalidRecipe, match=f"{kernel} computes bfloat16"):
        Deployment(attention=kernel, compute_dtype="float32", storage_dtype="float32")


FLASH3 = """
import torch
library = torch.library.Library("flash_attn_3", "DEF")
for name in ("fwd", "bwd"):
    library.define(f"{name}(Tensor x) -> Tensor")
"""
"""What torch looks for in FlashAttention 3 before it takes its kernels."""


def test_flash3_stands_in_for_flash_until_another_is_chosen(tmp_path, monkeypatch):
    (tmp_path / "flash_attn_interface.py").write_text(FLASH3)
    monkeypatch.syspath_prepend(tmp_path)
    choose_cuda_kernel("flash3")
    assert current_flash_attention_impl() == "FA3"
    choose_cuda_kernel("flash")
    assert current_flash_attention_impl() is None


def test_a_deployment_that_declares_it_is_another_one():
    recipes = [Recipe(name="any", deployment=Deployment(attention=name)) for name in ("flash", "cudnn", "flash3")]
    assert len({recipe.hash for recipe in recipes}) == 3
    assert [kernels(recipe.deployment)["attention_backend"] for recipe in recipes] == ["flash", "cudnn", "flash3"]
