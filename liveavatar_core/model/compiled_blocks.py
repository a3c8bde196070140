"""The transformer's blocks as one compiled graph, the same for every block, step and place in the video.

What differs from call to call (layer, first token, tokens that are visible) is no number in the graph: attention over
caches, with its exchanges between ranks, is one operation that dynamo does not look into.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from liveavatar_core.model.block import Attend, Heard, TransformerBlock
from liveavatar_core.model.state import Modulation

_attend: ContextVar[Attend] = ContextVar("attend")
"""How the block that works lets its tokens attend."""


@torch.library.custom_op("liveavatar::attend", mutates_args=())
def attend(q_BHlD: Tensor, k_BHlD: Tensor, v_BHlD: Tensor) -> Tensor:
    """What the tokens of the block that works heard, BlHD."""
    return _attend.get()(q_BHlD, k_BHlD, v_BHlD)[0].transpose(1, 2).contiguous()


@attend.register_fake
def _(q_BHlD: Tensor, k_BHlD: Tensor, v_BHlD: Tensor) -> Tensor:
    batch, heads, tokens, width = q_BHlD.shape
    return q_BHlD.new_empty(batch, tokens, heads, width)


def _attend_outside(q_BHlD: Tensor, k_BHlD: Tensor, v_BHlD: Tensor) -> Heard:
    return attend(q_BHlD, k_BHlD, v_BHlD).transpose(1, 2), None


def _mix(block: TransformerBlock, x: Tensor, modulation: Modulation, k_BHKD: Tensor, v_BHKD: Tensor) -> Tensor:
    return block.mix(x, modulation, k_BHKD, v_BHKD, _attend_outside)[0]


def compile_blocks(transformer: nn.Module, backend: str | Callable[..., Any] = "inductor") -> None:
    """Have every block compute its noisy passes in one graph. A break of the graph is an error."""
    graph = torch.compile(_mix, backend=backend, fullgraph=True, dynamic=False)

    def compiled(
        block: TransformerBlock, x: Tensor, modulation: Modulation, k_BHKD: Tensor, v_BHKD: Tensor, attend: Attend
    ) -> Tensor:
        token = _attend.set(attend)
        try:
            return graph(block, x, modulation, k_BHKD, v_BHKD)
        finally:
            _attend.reset(token)

    for block in transformer.modules():
        if isinstance(block, TransformerBlock):
            block.compiled = compiled
