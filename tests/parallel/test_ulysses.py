"""A sequence split over real processes gives what one process gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from liveavatar_core.errors import InvalidRecipe
from liveavatar_core.model.cache import KVCache
from liveavatar_core.model.params import TransformerParams
from liveavatar_core.model.sequence import SequenceLayout, WholeSequence
from liveavatar_core.model.transformer import LiveAvatarTransformer, Prefill
from liveavatar_core.parallel.ulysses import Ulysses, shares
from liveavatar_core.sampling import denoise_block
from suites.harness.processes.link import Done, Link
from suites.harness.processes.rank_group import Job, RankGroup

PRELOAD = ("torch", "liveavatar_core.pipeline")

HEIGHT, WIDTH = 8, 20  # 40 tokens a frame and 98 in the sink: no multiple of 3, the sink none of 5


def params(heads: int) -> TransformerParams:
    return TransformerParams(
        dim=12 * heads,
        ffn_dim=64,
        num_heads=heads,
        num_layers=2,
        text_dim=16,
        text_len=8,
        audio_dim=8,
        audio_layers=3,
        freq_dim=16,
        audio_inject_layers=(0,),
    )


@torch.no_grad()
def latents_of_two_blocks(heads: int, sequence: SequenceLayout) -> torch.Tensor:
    """Two blocks, two steps, batch of two; the same random weights and inputs in every process."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = LiveAvatarTransformer(params(heads))
    for weight in model.parameters():
        weight.normal_(std=0.1)
    draw = torch.Generator().manual_seed(1)
    state = model(
        Prefill(
            reference_BCFHW=torch.randn(2, 16, 1, HEIGHT, WIDTH, generator=draw),
            motion_BCFHW=torch.randn(2, 16, 19, HEIGHT, WIDTH, generator=draw),
            text_BKE=torch.randn(2, 8, 16, generator=draw),
            timesteps=(1000.0, 500.0),
            sequence=sequence,
        )
    )
    local = sequence.heads(heads)
    caches = [KVCache.allocate(params(heads), 2, 12 * 40, local, torch.float32, "cpu") for _ in range(2)]
    blocks = []
    for frame in (0, 3):
        audio = torch.randn(2, 3, 8, 12, generator=draw)
        noise = torch.randn(2, 16, 3, HEIGHT, WIDTH, generator=draw)
        blocks.append(denoise_block(model, state, caches, audio, noise, frame))
    return torch.cat(blocks, dim=2)


@dataclass(frozen=True, kw_only=True)
class Given:
    """What every rank is given."""

    heads: int
    file: str


def run_rank(link: Link) -> None:
    dist.init_process_group("gloo", init_method=link.rendezvous, rank=link.rank, world_size=link.world_size)
    given = link.job(Given)
    for _ in link.commands():
        torch.save(latents_of_two_blocks(given.heads, Ulysses()), f"{given.file}.{link.rank}")
        link.reply(Done())
    dist.destroy_process_group()


@pytest.mark.parametrize(("ranks", "heads"), [(2, 4), (3, 4), (5, 8)])
def test_every_rank_has_the_result_of_one_process(ranks: int, heads: int, tmp_path: Path):
    given = Given(heads=heads, file=str(tmp_path / "latents"))
    job = Job(target="test_ulysses:run_rank", given=given, world_size=ranks, preload=PRELOAD)
    with RankGroup.start(job, tmp_path) as group:
        group.command("run", answer=Done)
    expected = latents_of_two_blocks(heads, WholeSequence())
    for rank in range(ranks):
        torch.testing.assert_close(torch.load(tmp_path / f"latents.{rank}"), expected, atol=1e-5, rtol=0)


def test_heads_that_ranks_do_not_divide():
    assert shares(40, 3) == [14, 13, 13]
    assert shares(40, 5) == [8] * 5


def test_more_ranks_than_heads_is_refused(tmp_path: Path):
    dist.init_process_group("fake", rank=0, world_size=5)
    try:
        with pytest.raises(InvalidRecipe, match="4 attention heads cannot be split over 5 ranks"):
            Ulysses().heads(4)
    finally:
        dist.destroy_process_group()
