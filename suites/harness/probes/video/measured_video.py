"""A video as metrics take it, from arrays or from a file, frame by frame: a long one never stands in memory whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file

from liveavatar_core.config import AUDIO_SAMPLES_PER_SECOND
from liveavatar_core.errors import BadInput
from liveavatar_core.frame_folder import pictures
from suites.harness.cases.run_plan import frame_folder
from suites.harness.probes.video.lip_sync import Sound
from suites.harness.probes.video.sketch import Pixels


@dataclass(frozen=True, kw_only=True)
class MeasuredVideo:
    """Frames and sound of one video; its latents too, where they were kept."""

    frames: Iterable[Pixels]
    """Each uint8 [H, W, 3], 25 a second. As one array [N, H, W, 3] where it is compared with another video."""
    sound: Sound | None = None
    """Samples at 16 kHz, mono, from the moment of the first frame; None: the video has none."""
    latents: NDArray[np.float32] | None = None
    """The latents of all blocks, where they were kept; else None."""
    nan_blocks: int | None = None
    """Blocks with a latent value that is not finite; None: nobody looked."""


def read_video(path: Path, nan_blocks: int | None = None) -> MeasuredVideo:
    """The video in a file. Raises BadInput where there is none that can be read."""
    if not path.exists() and (frames := pictures(frame_folder(path))):
        return MeasuredVideo(frames=(np.asarray(Image.open(frame)) for frame in frames), nan_blocks=nan_blocks)
    return MeasuredVideo(frames=_frames(path), sound=_sound(path), nan_blocks=nan_blocks)


def read_kept(path: Path) -> MeasuredVideo:
    """The video that the decode rank kept (a safetensors file): frames that no coder has touched, and latents."""
    arrays = load_file(path)
    return MeasuredVideo(frames=arrays["frames"], latents=arrays["latents"])


def _frames(path: Path) -> Iterator[Pixels]:
    import av

    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    except (av.FFmpegError, IndexError, OSError) as error:
        raise BadInput(f"{path}: {error}", "make the video again") from error


def _sound(path: Path) -> Sound | None:
    import av
    from av.audio.resampler import AudioResampler

    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                return None
            stream = container.streams.audio[0]
            resampler = AudioResampler(format="flt", layout="mono", rate=AUDIO_SAMPLES_PER_SECOND)
            pieces = [made.to_ndarray()[0] for frame in container.decode(stream) for made in resampler.resample(frame)]
            late, lasts = (_seconds(time, stream.time_base) for time in (stream.start_time, stream.duration))
    except (av.FFmpegError, OSError) as error:
        raise BadInput(f"{path}: {error}", "make the video again") from error
    return _placed(np.concatenate(pieces) if pieces else np.zeros(0), late, lasts)


def _seconds(ticks: int | None, tick: Fraction | None) -> float:
    return float((ticks or 0) * (tick or 0))


def _placed(samples: NDArray, late: float, lasts: float) -> Sound:
    """The sound from the first frame on, without what the coder filled its last block with."""
    samples = samples[: round(lasts * AUDIO_SAMPLES_PER_SECOND)]
    return np.pad(samples, (round(late * AUDIO_SAMPLES_PER_SECOND), 0)).astype(np.float32)
