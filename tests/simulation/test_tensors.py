"""The short ways of fake tensors lead where torch's own way leads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from liveavatar_core.simulation.fake_tensors import QuickFakeMode
from liveavatar_core.torch_private import FakeTensor, FakeTensorMode, storage_key, unsafe_view

OPERATIONS: dict[str, Callable[[Tensor], Any]] = {
    "view": lambda x: x.view(8, 6),
    "view of another type": lambda x: x.view(torch.int32),
    "transpose": lambda x: x.transpose(0, 1).t(),
    "permute": lambda x: x[None].permute(2, 0, 1),
    "slice": lambda x: x[1:, ::2],
    "as_strided": lambda x: x.as_strided((2, 2), (1, 3), 5),
    "detach": lambda x: x.detach(),
    "copy_": lambda x: x.copy_(torch.empty(6, 8)),
    "copy_ with broadcast": lambda x: x.copy_(torch.empty(8)),
    "empty": lambda x: torch.empty(3, 5, dtype=torch.float16),
    "matmul": lambda x: x @ x.t(),
    "transposed result": lambda x: torch.empty_like(x.t()),
    "reshape that copies": lambda x: x.t().reshape(-1),
    "reshape that does not": lambda x: x.reshape(-1),
    "unsafe view": lambda x: unsafe_view(x, [48]),
    "in place": lambda x: x.mul_(2),
    "several results": lambda x: torch.aminmax(x),
    "split": lambda x: x.split([1, 5]),
    "attention": lambda x: F.scaled_dot_product_attention(x[None, None], x[None, None], x[None, None]),
    "product with a known value": lambda x: x * torch.tensor(2.0),
    "a known value": lambda x: torch.tensor(3.5).item(),
    "to the same type": lambda x: x.to(torch.float32),
    "to another type": lambda x: x.to(torch.bfloat16),
    "expand": lambda x: x[:1].expand(5, 8),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_they_make_what_torch_makes(name: str) -> None:
    """Twice, as what was made once may be remembered; shape, strides, type, size of the storage, and whose it is."""
    expected = _outcome(FakeTensorMode(allow_non_fake_inputs=True), OPERATIONS[name])
    quick = QuickFakeMode()
    for _ in range(2):
        assert _outcome(quick, OPERATIONS[name]) == expected


def test_what_is_remembered_is_of_equal_arguments_only() -> None:
    """Of the same shape, strides and type, with the same numbers beside them."""
    with QuickFakeMode(), torch.no_grad():
        x = torch.empty(6, 8)
        assert [(given @ x.t()).shape for given in (x, torch.empty(3, 8), x)] == [(6, 6), (3, 6), (6, 6)]
        assert [given.add(1).dtype for given in (x, x.to(torch.bfloat16))] == [torch.float32, torch.bfloat16]
        assert [given.add(1).stride() for given in (x, x.t())] == [(8, 1), (1, 8)]
        assert [x.sum(dim).shape for dim in (0, 1)] == [(8,), (6,)]


def test_a_shape_that_does_not_fit_is_refused() -> None:
    with QuickFakeMode(), torch.no_grad():
        x = torch.empty(6, 8)
        for wrong in (lambda: x.view(7, 7), lambda: x.copy_(torch.empty(5)), lambda: x @ x):
            for _ in range(2):
                with pytest.raises(RuntimeError):
                    wrong()


def _outcome(mode: FakeTensorMode, operation: Callable[[Tensor], Any]) -> Any:
    with mode, torch.no_grad():
        x = torch.empty(6, 8)
        return _described(operation(x), x)


def _described(value: Any, given: Tensor) -> Any:
    if isinstance(value, list | tuple):
        return [_described(part, given) for part in value]
    if not isinstance(value, Tensor):
        return value
    storage = value.untyped_storage()
    geometry = value.shape, value.stride(), value.storage_offset(), value.dtype, value.device
    alike = type(value) is FakeTensor, value.is_contiguous(), value.requires_grad, value is given
    return geometry, alike, storage.nbytes(), storage_key(storage) == storage_key(given.untyped_storage())
