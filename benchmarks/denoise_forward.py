"""How close one noisy forward comes to the time of its own matrix products and attention.

    python benchmarks/denoise_forward.py [--rounds 9] [--threads 2]

The yardstick model is small enough for a laptop and large enough that products dominate. Each round times one
forward and, right after it, its products and attention calls alone, on the same operands; the median of the
ratios is printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from liveavatar_core.model.cache import KVCache
from liveavatar_core.model.params import TransformerParams
from liveavatar_core.model.state import BlockContext
from liveavatar_core.model.transformer import Denoise, LiveAvatarTransformer, Prefill
from liveavatar_core.torch_private import TorchDispatchMode, flash_attention_cpu, tree_leaves

YARDSTICK = TransformerParams(
    dim=512,
    ffn_dim=1408,
    num_heads=8,
    num_layers=8,
    audio_inject_layers=(0, 3, 6),
)
LATENT_HEIGHT, LATENT_WIDTH = 32, 48
FRAME_TOKENS = LATENT_HEIGHT * LATENT_WIDTH // 4
PRODUCTS = {
    torch.ops.aten.addmm.default,
    torch.ops.aten.mm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.convolution.default,
    flash_attention_cpu.default,
}


class Meter(TorchDispatchMode):
    """Counts operations and the bytes of the tensors that they make; keeps the products on request."""

    def __init__(self, *, keep_products: bool = False) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.bytes_written = 0
        self.products: list[Callable[[], Any]] = []
        self.keep_products = keep_products

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run and count `func`."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self.operations[str(func)] += 1
        given = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        fresh = [x for x in tree_leaves(out) if isinstance(x, Tensor) and x.untyped_storage().data_ptr() not in given]
        self.bytes_written += sum(x.numel() * x.element_size() for x in fresh)
        if self.keep_products and func in PRODUCTS:
            self.products.append(lambda: func(*args, **kwargs))
        return out


@torch.no_grad()
def prepare_forward() -> Callable[[], Tensor]:
    """One noisy forward with a full cache, as a call: the first step of a block, audio encoder included."""
    torch.manual_seed(0)
    model = LiveAvatarTransformer(YARDSTICK).eval().requires_grad_(False)
    size = (LATENT_HEIGHT, LATENT_WIDTH)
    state = model(
        Prefill(
            reference_BCFHW=torch.randn(1, 16, 1, *size),
            motion_BCFHW=torch.randn(1, 16, 19, *size),
            text_BKE=torch.randn(1, YARDSTICK.text_len, YARDSTICK.text_dim),
            timesteps=(1000.0,),
        )
    )
    cache = KVCache.allocate(YARDSTICK, 1, 12 * FRAME_TOKENS, YARDSTICK.num_heads, torch.float32, "cpu")
    for stored in (*cache.k_layers, *cache.v_layers):
        stored.normal_()
    latents = torch.randn(1, 16, 3, *size)
    audio = torch.randn(1, YARDSTICK.audio_layers, YARDSTICK.audio_dim, 12)

    @torch.no_grad()
    def forward() -> Tensor:
        block = BlockContext(audio_BAET=audio, frame=24)
        return model(Denoise(latents_BCFHW=latents, step=0, block=block, cache=cache, state=state))

    return forward


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@torch.no_grad()
def main() -> None:
    """Print operations, bytes and the ratio of times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="rounds to time (9)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (2)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    forward = prepare_forward()
    with Meter(keep_products=True) as meter:
        forward()
    ratios, forwards = [], []
    for _ in range(options.rounds):
        forwards.append(_seconds(forward))
        ratios.append(forwards[-1] / _seconds(lambda: [product() for product in meter.products]))
    print(f"operations {meter.operations.total()}  written {meter.bytes_written / 1e9:.3f} GB")
    seconds, ratio = statistics.median(forwards), statistics.median(ratios)
    print(f"forward {seconds:.3f} s  {ratio:.3f} x bare products (medians)")
    print("all rounds: " + " ".join(f"{value:.3f}" for value in ratios))


if __name__ == "__main__":
    main()
