"""The causal speech-to-video transformer. One entry, `forward`, takes one of two requests.

Legend: B batch, C latent channels, F latent frames, H W latent height and width, K text tokens, E text width,
S tokens of a frame, s this rank's part of them, N sink tokens, D token width, T rows of the schedule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from liveavatar_core.errors import InvalidRecipe
from liveavatar_core.model.audio import AudioInjection, AudioInjector, CausalAudioEncoder
from liveavatar_core.model.block import EPS, Conditions, NoisyAttend, SinkAttend, TransformerBlock
from liveavatar_core.model.cache import Cache
from liveavatar_core.model.layers import Float32Linear, PatchEmbedding
from liveavatar_core.model.motion import FramePacker
from liveavatar_core.model.params import TransformerParams
from liveavatar_core.model.rope import (
    Positions,
    noisy_positions,
    reference_shift,
    rotary_table,
    sink_positions,
)
from liveavatar_core.model.sequence import SequenceLayout, WholeSequence
from liveavatar_core.model.state import BlockContext, BlockRotary, ConditionState

NOISY, REFERENCE, MOTION = 0, 1, 2
"""Rows of `trainable_cond_mask`."""


@dataclass(frozen=True, kw_only=True)
class Prefill:
    """Compute what every later forward attends to."""

    reference_BCFHW: Tensor
    """Latent of the portrait, one frame."""
    motion_BCFHW: Tensor
    """Latents before the video, oldest first; the last 19 count."""
    text_BKE: Tensor | None = None
    """Text encoder's output, padded with zeros to text_len. None with `state`."""
    timesteps: tuple[float, ...] = ()
    """The schedule, 0..1000. Empty with `state`."""
    state: ConditionState | None = None
    """State to renew in place: prompt and schedule stay, reference and motion are replaced."""
    relative_dist: int = 30
    """Latent frames between a block and the reference image, at most; see config.Quirks."""
    float16_rotary_tables: bool = False
    """Round rotary tables to float16; see config.Quirks."""
    sequence: SequenceLayout = field(default_factory=WholeSequence)
    """How tokens lie over ranks."""

    def __post_init__(self) -> None:
        if (self.text_BKE is None) == (self.state is None):
            raise InvalidRecipe(
                "a prefill makes a state of a text or renews one;"
                f" this asks for {'neither' if self.state is None else 'both'}",
                "give text_BKE and timesteps, or state",
            )


@dataclass(frozen=True, kw_only=True)
class Denoise:
    """Predict the flow of one block at one noise level."""

    latents_BCFHW: Tensor
    """The block, noised."""
    step: int
    """Row of the state's schedule; len(timesteps) is t = 0."""
    block: BlockContext
    """Audio and place of the block; the same object for all its steps."""
    cache: Cache
    """The cache of this noise level; the block's keys and values are written into it."""
    state: ConditionState
    """From a prefill."""
    pose_BCFHW: Tensor | None = None
    """Pose latents like the block; None is zero."""


class Head(nn.Module):
    """Tokens back to patches of flow. float32."""

    def __init__(self, params: TransformerParams) -> None:
        super().__init__()
        self.head = Float32Linear(params.dim, params.out_dim * 4)
        self.modulation = nn.Parameter(torch.zeros(1, 2, params.dim))

    def forward(self, x_BFsD: Tensor, time_D: Tensor) -> Tensor:
        """[B, F, s, 4 * out_dim]: 2 x 2 positions, channels last."""
        shift_D, scale_D = (self.modulation[0].float() + time_D).unbind()
        return self.head(F.layer_norm(x_BFsD.float(), (x_BFsD.shape[-1],), scale_D + 1, shift_D, EPS))


class LiveAvatarTransformer(nn.Module):
    """Parameters named as in the published checkpoint. It keeps nothing: state and caches are arguments.

    Every submodule reads its weights inside its own forward and casts its own inputs, so that each can be a
    unit of FSDP (with cast_forward_inputs off).
    """

    def __init__(self, params: TransformerParams) -> None:
        super().__init__()
        self.params = params
        dim = params.dim
        self.patch_embedding = PatchEmbedding(params.in_dim, dim, (1, 2, 2))
        self.cond_encoder = PatchEmbedding(params.cond_dim, dim, (1, 2, 2))
        self.trainable_cond_mask = nn.Embedding(3, dim)
        self.frame_packer = FramePacker(params)
        self.text_embedding = nn.Sequential(
            nn.Linear(params.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(Float32Linear(params.freq_dim, dim), nn.SiLU(), Float32Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), Float32Linear(dim, 6 * dim))
        self.casual_audio_encoder = CausalAudioEncoder(params)
        self.audio_injector = AudioInjector(params)
        self.blocks = nn.ModuleList(TransformerBlock(params) for _ in range(params.num_layers))
        self.head = Head(params)

    @overload
    def forward(self, request: Prefill) -> ConditionState: ...
    @overload
    def forward(self, request: Denoise) -> Tensor: ...
    def forward(self, request: Prefill | Denoise) -> ConditionState | Tensor:
        """Prefill gives the state; Denoise gives the flow, shaped like the latents, float32."""
        return self._prefill(request) if isinstance(request, Prefill) else self._denoise(request)

    def _prefill(self, request: Prefill) -> ConditionState:
        tokens_B1ND = self._sink_tokens(request)
        state, conditions = self._begin(request, tokens_B1ND.dtype)
        rotary = self._rotary(sink_positions(*state.latent_size, shift=0), state, tokens_B1ND.device)
        x_B1nD = state.sequence.split(tokens_B1ND)
        for index, block in enumerate(self.blocks):
            known = conditions or state.layers[index].constants
            attend = SinkAttend(known=known, row=len(state.timesteps), rotary_SD=rotary, sequence=state.sequence)
            x_B1nD, layer = block(x_B1nD, attend)
            state.layers[index : index + 1] = [layer]
        return state

    def _sink_tokens(self, request: Prefill) -> Tensor:
        reference = self.patch_embedding(request.reference_BCFHW).flatten(1, 2)
        motion = self.frame_packer(request.motion_BCFHW)
        reference, motion = reference + self._role(REFERENCE, reference), motion + self._role(MOTION, motion)
        return torch.cat([reference, motion], dim=1).unsqueeze(1)

    def _role(self, row: int, tokens: Tensor) -> Tensor:
        return self.trainable_cond_mask(torch.full((), row, device=tokens.device)).to(tokens.dtype)

    def _begin(self, request: Prefill, dtype: torch.dtype) -> tuple[ConditionState, Conditions | None]:
        """The state to fill, and what layers make their constants of unless they have them."""
        if request.state is not None:
            return request.state, None
        assert request.text_BKE is not None  # by __post_init__
        time_TD = self.time_embedding(self._sinusoids(request))
        text_BKD = self.text_embedding(request.text_BKE.to(dtype))
        time_T6D = self.time_projection(time_TD).unflatten(-1, (6, -1))
        state = ConditionState(
            timesteps=request.timesteps,
            time_TC=time_TD,
            latent_size=(request.reference_BCFHW.shape[-2], request.reference_BCFHW.shape[-1]),
            sequence=request.sequence,
            relative_dist=request.relative_dist,
            float16_rotary_tables=request.float16_rotary_tables,
        )
        return state, Conditions(time_T6C=time_T6D, text_BKC=text_BKD)

    def _sinusoids(self, request: Prefill) -> Tensor:
        """[T, freq_dim]: cosines, then sines of every timestep and of 0; computed in float64."""
        half, device = self.params.freq_dim // 2, request.reference_BCFHW.device
        exponents = torch.arange(half, dtype=torch.float64, device=device) / half
        times_T = torch.tensor([*request.timesteps, 0.0], dtype=torch.float64, device=device)
        angles = times_T[:, None] * torch.exp(-math.log(10000) * exponents)
        return torch.cat([angles.cos(), angles.sin()], dim=-1).float()

    def _denoise(self, request: Denoise) -> Tensor:
        state, context = request.state, request.block
        x_BFsD = self._noisy_tokens(request)
        rotary, injections = self._shared(context, state, x_BFsD)
        frames, tokens, capacity = x_BFsD.shape[1], state.frame_tokens, request.cache.tokens
        for index, block in enumerate(self.blocks):
            attend = NoisyAttend(
                layer=index,
                state=state.layers[index],
                cache=request.cache,
                row=request.step,
                frames=frames,
                start=context.frame * tokens % capacity,
                visible=min((context.frame + frames) * tokens, capacity),
                rotary=rotary,
                sequence=state.sequence,
            )
            x_BFsD, _ = block(x_BFsD, attend)
            x_BFsD = self._inject(index, x_BFsD, injections)
        patches_BFsP = self.head(x_BFsD, state.time_TC[request.step])
        return _unpatch(state.sequence.gather(patches_BFsP, tokens), state.latent_size)

    def _noisy_tokens(self, request: Denoise) -> Tensor:
        x_BFSD = self.patch_embedding(request.latents_BCFHW)
        x_BFSD = x_BFSD + self.cond_encoder(request.pose_BCFHW) + self._role(NOISY, x_BFSD)
        return request.state.sequence.split(x_BFSD)

    def _inject(self, index: int, x_BFsD: Tensor, injections: list[AudioInjection]) -> Tensor:
        layers = self.params.audio_inject_layers
        if index not in layers:
            return x_BFsD
        number = layers.index(index)
        return self.audio_injector.injector[number](x_BFsD, injections[number])

    def _shared(
        self, context: BlockContext, state: ConditionState, x_BFsD: Tensor
    ) -> tuple[BlockRotary, list[AudioInjection]]:
        """What the steps of a block share; made on its first step."""
        if context.rotary is None:
            context.rotary = self._block_rotary(context.frame, x_BFsD.shape[1], state, x_BFsD.device)
            context.injections = self._injections(context.audio_BAET, x_BFsD.dtype)
        return context.rotary, context.injections

    def _block_rotary(self, frame: int, frames: int, state: ConditionState, device: torch.device) -> BlockRotary:
        height, width = state.latent_size
        noisy = self._rotary(noisy_positions(frame, frames, height // 2, width // 2), state, device)
        shift = reference_shift(frame, state.relative_dist)
        sink = self._rotary(sink_positions(height, width, shift), state, device)
        return BlockRotary(noisy_LD=state.sequence.order(noisy, frames), sink_SD=sink)

    def _rotary(self, positions: Positions, state: ConditionState, device: torch.device) -> Tensor:
        float16 = state.float16_rotary_tables
        return rotary_table(positions, self.params.head_dim, float16=float16, device=device)

    def _injections(self, audio_BAET: Tensor, dtype: torch.dtype) -> list[AudioInjection]:
        """The audio restarts with every block: what came before counts as its first frame, held.

        One copy of that frame acts like any number of them, since the convolutions hold their first input.
        """
        held = torch.cat([audio_BAET[..., :1], audio_BAET], dim=-1)
        global_BF1D, local_BFKD = (x[:, 1:].to(dtype) for x in self.casual_audio_encoder(held))
        return [AudioInjection(local_BFKD, *norm(global_BF1D)) for norm in self.audio_injector.injector_adain_layers]


def _unpatch(patches_BFSP: Tensor, latent_size: tuple[int, int]) -> Tensor:
    """Patches (2 x 2 positions, channels last) to BCFHW."""
    height, width = latent_size
    x = patches_BFSP.unflatten(2, (height // 2, width // 2)).unflatten(-1, (2, 2, -1))
    return x.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)
