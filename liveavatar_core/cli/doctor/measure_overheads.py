"""Measures what takes memory of a card and is no tensor: `python -m liveavatar_core.cli.doctor.measure_overheads`.

Prints GiB by item as JSON. In a process of its own, as a context is made once and stays.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pynvml
import torch
from torch import Tensor
from torch.nn.functional import conv3d

from liveavatar_core.errors import GIB

FEATURES_BCTHW = (1, 96, 6, 386, 706)
"""Shapes of the VAE's last convolutions, at the largest frames; padded by one, two frames of the past before it."""


def main() -> None:
    """Make a context, multiply and convolve; after each, see what is gone."""
    pynvml.nvmlInit()
    card = torch.device("cuda", 0)
    before = _used()
    matrix = torch.zeros(4096, 4096, dtype=torch.bfloat16, device=card)
    features = torch.zeros(FEATURES_BCTHW, dtype=torch.bfloat16, device=card)
    kernel = torch.zeros(96, 96, 3, 3, 3, dtype=torch.bfloat16, device=card)
    items = {
        "cublas": _workspace(lambda: matrix @ matrix),
        "cudnn": _workspace(lambda: conv3d(features, kernel)),
    }
    torch.cuda.synchronize()
    items["context"] = _used() - before - torch.cuda.memory_reserved()  # last: kernels are loaded when they are used
    print(json.dumps({name: round(nbytes / GIB, 4) for name, nbytes in sorted(items.items())}))


def _used() -> int:
    """Bytes of the first card that anybody holds, as the driver tells without a context."""
    return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).used)


def _workspace(work: Callable[[], Tensor]) -> int:
    """Bytes that torch's allocator hands out while `work` computes, beyond what comes of it: workspaces are its too."""
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    made = work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - held - made.nbytes


if __name__ == "__main__":
    main()
