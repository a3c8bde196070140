"""VMAF, where somebody gives a program that knows it: an ffmpeg that was built with libvmaf.

The environment names it: LIVEAVATAR_VMAF. Packages bring one: the binary of imageio-ffmpeg is such.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from liveavatar_core.config import FRAMES_PER_SECOND
from liveavatar_core.errors import BadInput
from suites.harness.probes.video.errors import NotMeasured
from suites.harness.probes.video.reference import check_same
from suites.harness.probes.video.sketch import Pixels

PROGRAM = "LIVEAVATAR_VMAF"
LEAST_PIXELS = 192
"""Pixels of the shorter side: smaller videos are enlarged, as the model looks for detail at several scales."""


def vmaf_score(frames_NHW3: Pixels, reference_NHW3: Pixels, environment: Mapping[str, str] = os.environ) -> float:
    """Mean VMAF of all frames (model v0.6.1), 0 to 100. To be shown, not to be gated: its model is of 1080 lines.

    Raises NotMeasured where no program was named, BadInput where the named one cannot do it.
    """
    program = environment.get(PROGRAM)
    if not program:
        raise NotMeasured(f"nobody asked: {PROGRAM} names no ffmpeg that has the filter libvmaf")
    check_same("frames", frames_NHW3.shape, reference_NHW3.shape)
    with TemporaryDirectory() as folder:
        videos = [Path(folder, name) for name in ("video.rgb", "reference.rgb")]
        for path, frames in zip(videos, (frames_NHW3, reference_NHW3), strict=True):
            path.write_bytes(frames.tobytes())
        return _run(program, [path.name for path in videos], frames_NHW3.shape[1:3], Path(folder))


def _run(program: str, videos: list[str], size: tuple[int, ...], folder: Path) -> float:
    height, width = size
    larger = -(-LEAST_PIXELS // min(size))
    scale = f"scale={width * larger}:{height * larger}:flags=bicubic,format=yuv420p"
    graph = f"[0:v]{scale}[video];[1:v]{scale}[reference];[video][reference]libvmaf=log_fmt=json:log_path=vmaf.json"
    given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(FRAMES_PER_SECOND), "-i"]
    inputs = [word for path in videos for word in (*given, path)]
    command = [program, "-hide_banner", "-nostdin", "-v", "error", *inputs, "-lavfi", graph, "-f", "null", "-"]
    try:
        subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        return float(json.loads((folder / "vmaf.json").read_text())["pooled_metrics"]["vmaf"]["mean"])
    except (OSError, subprocess.CalledProcessError, KeyError, ValueError) as error:
        raise BadInput(f"{program} gave no VMAF: {_why(error)}", f"name another ffmpeg in {PROGRAM}") from error


def _why(error: Exception) -> str:
    """The program's own last words, in a line."""
    if not isinstance(error, subprocess.CalledProcessError):
        return str(error)
    said = error.stderr.strip().splitlines()
    return str(said[-1]) if said else f"it ended with status {error.returncode}"
