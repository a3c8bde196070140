"""One rank of a timestep pipeline over golden data; writes down all that left it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from liveavatar_core.config import Quirks
from liveavatar_core.deployment import Deployment
from suites.harness.processes.link import Done

if TYPE_CHECKING:
    from suites.harness.processes.link import Link


@dataclass(frozen=True, kw_only=True)
class Given:
    """What every rank is given."""

    case: str
    """Folder of the golden case."""
    steps: int
    deployment: Deployment
    quirks: Quirks
    folder: str
    """Takes the files `rank0.safetensors`, ..."""


def run(link: Link) -> None:
    """Command `video`."""
    import torch
    import torch.distributed as dist
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=link.rendezvous, rank=link.rank, world_size=link.world_size)
    given = link.job(Given)
    for _ in link.commands():
        with torch.no_grad():
            save_file(_generate(given), Path(given.folder) / f"rank{link.rank}.safetensors")
        link.reply(Done())
    dist.destroy_process_group()


def _generate(given: Given) -> dict[str, Any]:
    import torch
    from pipeline import PipelineCase

    from liveavatar_core.pipeline import open_avatar
    from liveavatar_core.pipeline.conditioning import encode
    from liveavatar_core.pipeline.decoding import open_decoder
    from liveavatar_core.pipeline.denoising import denoise, open_denoiser

    case = PipelineCase(folder=Path(given.case))
    run = {"file": "tpp", "relative_dist": 30, "sample_steps": given.steps, "enable_online_decode": True}
    recipe = case.recipe(run, given.quirks, given.deployment)
    avatar = open_avatar(recipe, weights=case.weights(), tokenizer=case.tokenizer)
    conditioning, motion = encode(avatar.system, avatar.tokenizer, case.inputs)
    made = {"reference": conditioning.reference_BCTHW, "motion": motion}
    decoder, pieces = open_decoder(avatar.system, conditioning, motion), []
    denoiser = open_denoiser(avatar.system, conditioning, case.noise)
    for block in denoise(denoiser, conditioning.num_clip, motion):
        made[f"clip{block.clip}.block{block.index}"] = block.latents_BCTHW[0].clone()
        pieces += [piece[0] for piece in decoder.pieces(block)] if decoder else []
    return made | ({"video": torch.cat(pieces, dim=1)} if pieces else {})
