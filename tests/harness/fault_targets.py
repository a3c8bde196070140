"""Ranks of the miniature mode to which something happens, once they are in a phase.

The environment says what: LIVEAVATAR_FAULT is `fault rank phase`.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from liveavatar_core.config import ModelParams, Recipe
from liveavatar_core.encoders.params import AudioEncoderParams, TextEncoderParams, VaeParams
from liveavatar_core.model.params import TransformerParams
from suites.harness.messages import ClipJob, RankReport
from suites.harness.processes.link import Link

SMALLEST = ModelParams(
    transformer=TransformerParams(
        dim=32,
        ffn_dim=64,
        num_heads=4,
        num_layers=2,
        freq_dim=16,
        text_dim=32,
        text_len=16,
        audio_dim=16,
        audio_inject_layers=(0,),
    ),
    text_encoder=TextEncoderParams(vocab_size=300, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4),
    audio_encoder=AudioEncoderParams(
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    ),
    vae=VaeParams(base_dim=4),
)
WIDE = replace(SMALLEST, transformer=replace(SMALLEST.transformer, ffn_dim=1024, num_layers=6))
"""As in the published model, most parameters are in the blocks."""
SLOW_SECONDS = 2.0
HAPPENED = "fault_happened_at"
FAULT = "LIVEAVATAR_FAULT"


def smallest(recipe: Recipe) -> Recipe:
    """The same layout over a model that makes a clip in a second."""
    clip = replace(recipe.clip, size="64*64", infer_frames=12, sample_steps=1)
    return replace(recipe, model=SMALLEST, clip=clip, deployment=replace(recipe.deployment, lora_rank=4))


def run(link: Link) -> None:
    """A rank of the miniature mode, with the fault that the environment names."""
    from suites.harness.workers import miniature

    fault, rank, phase = os.environ.get(FAULT, "none 0 load").split()
    if fault == "clock":
        turn_back_the_clock()
    if fault != "none" and int(rank) == link.rank:
        tell = link.report

        def told(report: RankReport) -> None:
            tell(report)
            if report.phase == phase:
                mark_time(Path(link.job(ClipJob).folder))
                FAULTS[fault]()

        link.report = told  # type: ignore[method-assign]
    miniature.run(link)


def mark_time(folder: Path) -> None:
    """Note that the fault happened, and when, on the clock that all processes of a machine share."""
    with suppress(FileExistsError), (folder / HAPPENED).open("x") as file:
        file.write(repr(time.monotonic()))


def turn_back_the_clock() -> None:
    """From now on the wall clock goes back by an hour whenever it is read."""
    start = time.time()
    readings = iter(range(10**9))
    time.time = lambda: start - 3600 * next(readings)


def _signal(number: int):
    return lambda: os.kill(os.getpid(), number)


def _babble() -> None:
    for _ in range(4000):
        print("x" * 1023)


def _limit_files() -> None:
    """As a full disk: no file can grow beyond four kilobytes. The kernel refuses with EFBIG."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def _limit_descriptors() -> None:
    """No file or socket can be opened any more."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def _limit_memory() -> None:
    """A mebibyte more than what is mapped now."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 2**20, resource.getrlimit(resource.RLIMIT_AS)[1]))


FAULTS = {
    "few-files": _limit_descriptors,
    "little-memory": _limit_memory,
    "sigkill": _signal(signal.SIGKILL),
    "sigstop": _signal(signal.SIGSTOP),
    "slow": lambda: time.sleep(SLOW_SECONDS),
    "babble": _babble,
    "full-disk": _limit_files,
    "clock": lambda: None,
}
