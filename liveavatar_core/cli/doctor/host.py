"""The machine around the cards: memory for what is offloaded, disk for checkpoints."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from math import prod
from pathlib import Path

from liveavatar_core.cli.doctor.checks import CheckGroup, CheckResult, bad, good, limited
from liveavatar_core.config import ClipSpec, ModelParams
from liveavatar_core.errors import GIB

CHECKPOINT_BYTES = 50 * 1000**3
"""What has to be downloaded: 49.2 GB of Wan2.2-S2V-14B and 1.4 of the LoRA, as published, in 10**9 bytes; the
checkpoint's wav2vec2 is counted in."""
BYTES_PER_WEIGHT = 2
"""bfloat16, as offloaded weights are kept."""


PIXELS_PER_TOKEN = 16 * 16
"""The VAE makes one of 8 x 8, the transformer one of 2 x 2 of those."""


def host_branch(folder: Path, *, checkpoint_is_there: bool) -> CheckGroup:
    """Memory and disk. `folder`: where checkpoints lie, or will."""
    needs = offload_bytes(ModelParams())
    memory = judge_memory(available_memory(), needs)
    return CheckGroup(name="host", results=(_processor(), memory, _disk(folder, checkpoint_is_there)))


def _processor() -> CheckResult:
    from liveavatar_core.hardware.cpu_kernels import has_bfloat16_units

    units = "kernels for bfloat16" if has_bfloat16_units() else "no bfloat16 units: multiplies in float32 and rounds"
    return good("processor", f"{os.cpu_count()} cores, {units}")


def offload_bytes(model: ModelParams) -> dict[str, int]:
    """Host memory that each option takes, in bytes."""
    from liveavatar_core.weights.checkpoint import expected_shapes

    sizes = {
        component: sum(prod(shape) for shape in expected_shapes(component, model).values()) * BYTES_PER_WEIGHT
        for component in ("transformer", "text_encoder")
    }
    shapes = expected_shapes("transformer", model).items()
    blocks = sum(prod(shape) for name, shape in shapes if name.startswith("blocks.")) * BYTES_PER_WEIGHT
    return {
        "t5_cpu": sizes["text_encoder"],
        "offload_kv_cache": _kv_cache_bytes(model, ClipSpec()),
        "offload_blocks": blocks,
        "offload_model": sizes["transformer"] + sizes["text_encoder"],
    }


def _kv_cache_bytes(model: ModelParams, clip: ClipSpec) -> int:
    """Keys and values of every layer, head and denoising step, at the largest frames that a size allows."""
    tokens = clip.latent_frames_per_clip * clip.max_area // PIXELS_PER_TOKEN
    return 2 * model.transformer.num_layers * model.transformer.dim * tokens * clip.sample_steps * BYTES_PER_WEIGHT


def judge_memory(available: int, needs: Mapping[str, int]) -> CheckResult:
    """Which of the options have room."""
    texts = ", ".join(f"{option} takes {size / GIB:.1f}" for option, size in needs.items())
    found = f"{available / GIB:.1f} GiB available; {texts}"
    lacking = [option for option, size in needs.items() if size > available]
    if not lacking:
        return good("memory for offloading", found)
    step = f"leave out {', '.join(lacking)}, which end in host-oom here, or add memory"
    return limited("memory for offloading", found, step)


def available_memory() -> int:
    """Bytes that a process may still take: of the machine, or of the container where that is less."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no container, or `max`: no limit
        return free
    return min(free, max(limit - used, 0))


def _disk(folder: Path, checkpoint_is_there: bool) -> CheckResult:
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if checkpoint_is_there:
        return good("disk", f"{free / 1e9:.0f} GB free, and the checkpoint is there")
    return judge_disk(free, there)


def judge_disk(free: int, folder: Path) -> CheckResult:
    """Whether the checkpoint can be downloaded."""
    found = f"{free / 1e9:.0f} GB free in {folder}; the checkpoint takes {CHECKPOINT_BYTES / 1e9:.0f}"
    if free < CHECKPOINT_BYTES:
        return bad("disk", found, "free some, or give --ckpt_dir a folder on a larger disk")
    return good("disk", found)
