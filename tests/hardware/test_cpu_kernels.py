"""Where a CPU has no bfloat16 units, products are computed in float32 and rounded once, unseen by any tracker."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from liveavatar_core.hardware.cpu_kernels import has_bfloat16_units, install_cpu_kernels
from liveavatar_core.simulation.memory_tracker import MemoryTracker

AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
"""Make torch treat any x86 processor as one without bfloat16 units."""

WITHOUT_UNITS = os.environ.get("ATEN_CPU_CAPABILITY") == "avx2"

without_units = pytest.mark.skipif(not WITHOUT_UNITS, reason="runs in a process of its own, see below")


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).bfloat16()


PRODUCTS = {
    "linear": (F.linear, (normal(7, 64), normal(32, 64), normal(32))),
    "scaled addmm": (partial(torch.addmm, beta=0.5, alpha=2), (normal(5), normal(7, 64), normal(64, 5))),
    "linear without bias": (F.linear, (normal(7, 64), normal(32, 64))),
    "matmul": (torch.matmul, (normal(4, 7, 64), normal(4, 64, 5))),
    "conv1d in narrow groups": (F.conv1d, (normal(1, 32, 40), normal(32, 8, 5), normal(32), 1, 2, 1, 4)),
    "conv2d": (F.conv2d, (normal(1, 6, 16, 16), normal(12, 6, 3, 3), normal(12), 2, 1)),
    "conv3d": (F.conv3d, (normal(1, 6, 3, 16, 16), normal(12, 6, 3, 3, 3), None, 1, (0, 1, 1))),
    "conv3d of one pixel": (F.conv3d, (normal(1, 6, 3, 16, 16), normal(12, 6, 1, 1, 1), normal(12))),
    "transposed": (F.conv_transpose2d, (normal(1, 6, 8, 8), normal(6, 4, 3, 3), normal(4), 2)),
}


@without_units
@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_is_the_rounded_product_in_float32(name: str) -> None:
    assert install_cpu_kernels() == "float32, rounded"
    operation, arguments = PRODUCTS[name]
    wide = [each.float() if isinstance(each, Tensor) else each for each in arguments]
    expected = operation(*wide)
    made = operation(*arguments)
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(made, expected.bfloat16(), rtol=2**-7, atol=1e-4)
    assert (made == expected.bfloat16()).float().mean() > 0.99  # another order of adding up moves a few roundings


@without_units
def test_no_ledger_sees_what_a_kernel_holds_for_a_moment() -> None:
    install_cpu_kernels()
    x, weight = normal(8, 64), normal(64, 64)
    with MemoryTracker() as tracker, torch.no_grad():
        made = F.linear(x, weight)
    known = weight.nbytes  # from its transposed view
    assert [peak.allocated for peak in tracker.peaks.values()] == [known + made.nbytes]


@without_units
def test_gradients_pass_through() -> None:
    install_cpu_kernels()
    weight = normal(8, 16).requires_grad_()
    F.linear(normal(4, 16), weight).sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.bfloat16


def test_lengths_over_any_axis() -> None:
    install_cpu_kernels()
    for dtype in (torch.float32, torch.bfloat16):
        x = normal(2, 6, 4, 5).to(dtype)
        for dims in ((1,), (0, 2), (-1,), (1, -1)):
            expected = torch.linalg.vector_norm(x.double(), dim=dims, keepdim=True).to(dtype)
            torch.testing.assert_close(torch.linalg.vector_norm(x, dim=dims, keepdim=True), expected)
    assert torch.linalg.vector_norm(x, dim=1, dtype=torch.float32).dtype == torch.float32
    torch.testing.assert_close(torch.linalg.vector_norm(x.float(), 1), x.float().abs().sum())


def test_narrow_groups_in_bfloat16_are_right() -> None:
    """OneDNN's AMX kernels are wrong for 3 to 15 channels a group."""
    install_cpu_kernels()
    x, weight = normal(1, 64, 50), normal(64, 4, 16)
    expected = F.conv1d(x.float(), weight.float(), None, 1, 8, 1, 16)
    made = F.conv1d(x, weight, None, 1, 8, 1, 16)
    torch.testing.assert_close(made, expected.bfloat16(), rtol=2**-7, atol=1e-3)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sets torch's variables for x86")
def test_all_of_it_on_a_processor_without_units() -> None:
    """This file once more, in a process that takes itself for one on AVX2."""
    if WITHOUT_UNITS:
        assert not has_bfloat16_units()
        return
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, env=os.environ | AVX2, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout
