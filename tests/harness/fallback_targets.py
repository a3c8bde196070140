"""Ranks of the miniature mode that fall back to less than was asked for, and tell nobody.

The environment says to what: LIVEAVATAR_FALLBACK is `fallback rank`.
"""

from __future__ import annotations

import math
import os
from typing import Any

from suites.harness.processes.link import Link

FALLBACK = "LIVEAVATAR_FALLBACK"


def run(link: Link) -> None:
    """A rank of the miniature mode, with the fallback that the environment names."""
    from suites.harness.workers import miniature

    fallback, rank = os.environ[FALLBACK].split()
    if int(rank) == link.rank:
        FALLBACKS[fallback]()
    miniature.run(link)


def _written_out() -> None:
    """Attention by its formula, as where no kernel takes it."""
    from liveavatar_core.model import attention

    def formula(q_BHLD: Any, k_BHTD: Any, v_BHTD: Any) -> tuple[Any, Any]:
        scores_BHLT = q_BHLD.float() @ k_BHTD.float().transpose(-1, -2) / math.sqrt(q_BHLD.shape[-1])
        return (scores_BHLT.softmax(-1) @ v_BHTD.float()).to(q_BHLD.dtype), scores_BHLT.logsumexp(-1)

    attention._attention_lse = formula


def _disguised() -> None:
    """The same for the text alone, by operations that nobody takes for attention."""
    from liveavatar_core.model import projections

    def formula(q_BHLD: Any, k_BHTD: Any, v_BHTD: Any) -> Any:
        weights_BHLT = (q_BHLD.float() @ k_BHTD.float().transpose(-1, -2) / math.sqrt(q_BHLD.shape[-1])).exp()
        return (weights_BHLT / weights_BHLT.sum(-1, keepdim=True) @ v_BHTD.float()).to(q_BHLD.dtype)

    projections.attention = formula


def _chosen_by_torch() -> None:
    """That for the text by what scaled_dot_product_attention takes, which is no kernel here."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from liveavatar_core.model import projections

    def chosen(q_BHLD: Any, k_BHTD: Any, v_BHTD: Any) -> Any:
        with sdpa_kernel(SDPBackend.MATH):
            return torch.nn.functional.scaled_dot_product_attention(q_BHLD, k_BHTD, v_BHTD)

    projections.attention = chosen


def _smaller() -> None:
    """Half of each side, from the portrait to the file."""
    from liveavatar_core import video_geometry
    from liveavatar_core.pipeline import conditioning
    from suites.harness.workers import clips

    conditioning.output_size = clips.output_size = lambda height, width, area: video_geometry.output_size(
        height, width, area // 4
    )


def _smaller_frames() -> None:
    """Half of each side, once frames are decoded."""
    from liveavatar_core.pipeline import decoding
    from liveavatar_core.video_geometry import output_size
    from suites.harness.workers import clips

    pixels = decoding._pixels
    decoding._pixels = lambda pieces, memory: pixels(pieces, memory)[:, ::2, ::2].contiguous()
    clips.output_size = lambda *given: tuple(side // 2 for side in output_size(*given))


FALLBACKS = {
    "written-out": _written_out,
    "disguised": _disguised,
    "chosen-by-torch": _chosen_by_torch,
    "smaller": _smaller,
    "smaller-frames": _smaller_frames,
}
