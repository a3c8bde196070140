"""What a run keeps between forwards: conditions that never change, and what the steps of one block share.

Legend: B batch, T timesteps of the schedule and one row more for t = 0, C token width, H heads of this rank,
D head width or its pairs, S sink tokens, L tokens of a block, K text tokens, A audio layers, E audio width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Self

from torch import Tensor

from liveavatar_core.model.audio import AudioInjection
from liveavatar_core.model.sequence import SequenceLayout


class Modulation(NamedTuple):
    """How one noise level shifts, scales and gates a layer's tokens; each C, float32."""

    shift: Tensor
    scale: Tensor
    gate: Tensor
    ffn_shift: Tensor
    ffn_scale: Tensor
    ffn_gate: Tensor


@dataclass(frozen=True, kw_only=True)
class LayerConstants:
    """What a layer makes of prompt and schedule, once a run."""

    modulations: tuple[Modulation, ...]
    """One a row of the schedule; scales have their 1 added."""
    text_k_BHKD: Tensor
    """Keys of the prompt, all heads."""
    text_v_BHKD: Tensor
    """Values of the prompt, all heads."""


@dataclass(frozen=True, kw_only=True)
class LayerState:
    """What a layer keeps of all conditions."""

    constants: LayerConstants
    """Prompt and schedule."""
    sink_k_BHSD: Tensor
    """Keys of reference and motion before rotation, since the reference moves along; this rank's heads."""
    sink_v_BHSD: Tensor
    """Values of reference and motion, this rank's heads."""

    @classmethod
    def of(cls, constants: LayerConstants, sink: tuple[Tensor, Tensor]) -> Self:
        """The state of `constants` and keys and values of the sink."""
        return cls(constants=constants, sink_k_BHSD=sink[0], sink_v_BHSD=sink[1])


@dataclass(kw_only=True)
class ConditionState:
    """Everything prefilled. A second prefill replaces layer by layer: old and new never both stand whole."""

    timesteps: tuple[float, ...]
    """The schedule, 0..1000; row len(timesteps) of every table is t = 0."""
    time_TC: Tensor
    """Time embedding; float32."""
    layers: list[LayerState] = field(default_factory=list)
    """One a block."""
    latent_size: tuple[int, int]
    """Latent height and width."""
    sequence: SequenceLayout
    """How tokens lie over ranks."""
    relative_dist: int
    """Latent frames between a block and the reference image, at most."""
    float16_rotary_tables: bool
    """Round rotary tables as the original does."""

    @property
    def frame_tokens(self) -> int:
        """Tokens of a latent frame, over all ranks."""
        return (self.latent_size[0] // 2) * (self.latent_size[1] // 2)


class BlockContext:
    """What the steps of one block share. Audio and frame are given, the first forward fills the rest."""

    def __init__(self, *, audio_BAET: Tensor, frame: int) -> None:
        """`audio_BAET`: features of its video frames. `frame`: its first latent frame since the start."""
        self.audio_BAET = audio_BAET
        self.frame = frame
        self.rotary: BlockRotary | None = None
        self.injections: list[AudioInjection] = []


@dataclass(frozen=True, kw_only=True)
class BlockRotary:
    """Rotary tables of one block, complex64."""

    noisy_LD: Tensor
    """Rotations of the block's own tokens, in the sequence layout's order; D pairs."""
    sink_SD: Tensor
    """Rotations of the sink, whose reference follows the block; D pairs."""
