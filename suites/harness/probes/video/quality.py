"""All metrics of a video: a number each, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from liveavatar_core.config import AUDIO_SAMPLES_PER_SECOND, FRAMES_PER_SECOND
from suites.harness.probes.video.broken import black_frames_share, frozen_frames_share
from suites.harness.probes.video.drift import (
    colour_drift_levels_per_clip,
    identity_drift_per_clip,
    sharpness_loss_share_per_clip,
    sharpness_ratio,
)
from suites.harness.probes.video.errors import NotMeasured
from suites.harness.probes.video.flicker import flicker_levels
from suites.harness.probes.video.jumps import clip_jump_ratio, first_frame_jump_ratio
from suites.harness.probes.video.lip_sync import Region, Sound, lip_sync
from suites.harness.probes.video.measured_video import MeasuredVideo
from suites.harness.probes.video.reference import latent_cosine, psnr_db, ssim
from suites.harness.probes.video.sketch import Pixels, sketch
from suites.harness.probes.video.vmaf import vmaf_score

Measure = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The metrics of a video that could be measured, and those that could not. Names carry the unit."""

    values: dict[str, float]
    """The number of each metric, by its name."""
    missing: dict[str, str]
    """The reason why a metric has no number, by its name."""

    def __or__(self, other: Quality) -> Quality:
        return Quality(values=self.values | other.values, missing=self.missing | other.missing)


def quality_of(
    video: MeasuredVideo, reference: MeasuredVideo | None = None, clip_frames: int = 48, mouth: Region | None = None
) -> Quality:
    """Every metric of `video`.

    Args:
        video: with its sound. Its frames pass once.
        reference: the same recipe at full precision in one process; frames of both must be arrays then.
        clip_frames: frames of a clip.
        mouth: where the mouth is, in pixels of the sketch's small picture; by default it is looked for.
    """
    alone = _measured(_measures(video, clip_frames, mouth))
    return alone if reference is None else alone | compared(video, reference)


def compared(video: MeasuredVideo, reference: MeasuredVideo) -> Quality:
    """The metrics that take a reference; frames of both are arrays. A video of smaller frames is enlarged first."""
    theirs = _array(reference)
    ours = _enlarged(_array(video), theirs.shape)
    measures: dict[str, Measure] = {
        "latent_cosine": partial(_latent_cosine, video, reference),
        "psnr_db": partial(psnr_db, ours, theirs),
        "ssim": partial(ssim, ours, theirs),
        "vmaf_score": partial(vmaf_score, ours, theirs),
        "sharpness_kept_ratio": lambda: sharpness_ratio(sketch(ours)) / sharpness_ratio(sketch(theirs)),
    }
    return _measured(measures.items())


def _measured(measures: Iterable[tuple[str, Measure]]) -> Quality:
    values: dict[str, float] = {}
    missing: dict[str, str] = {}
    for name, measure in measures:
        try:
            values[name] = measure()
        except NotMeasured as reason:
            missing[name] = str(reason)
    return Quality(values=values, missing=missing)


def _measures(video: MeasuredVideo, clip_frames: int, mouth: Region | None) -> Iterator[tuple[str, Measure]]:
    seen = sketch(video.frames)
    yield "nan_blocks_count", partial(_nan_blocks, video)
    yield "black_frames_share", partial(black_frames_share, seen)
    yield "frozen_frames_share", partial(frozen_frames_share, seen)
    yield "first_frame_jump_ratio", partial(first_frame_jump_ratio, seen)
    yield "clip_jump_ratio", partial(clip_jump_ratio, seen, clip_frames)
    yield "flicker_levels", partial(flicker_levels, seen, clip_frames)
    yield "sharpness_ratio", partial(sharpness_ratio, seen)
    yield "sharpness_loss_share_per_clip", partial(sharpness_loss_share_per_clip, seen, clip_frames)
    yield "colour_drift_levels_per_clip", partial(colour_drift_levels_per_clip, seen, clip_frames)
    yield "identity_drift_per_clip", partial(identity_drift_per_clip, seen, clip_frames)
    yield "lip_sync_strength", lambda: lip_sync(seen, video.sound, mouth).strength
    yield "lip_sync_lag_ms", lambda: lip_sync(seen, video.sound, mouth).lag_ms
    yield "picture_beyond_sound_ms", partial(picture_beyond_sound_ms, seen.frames, video.sound)


def picture_beyond_sound_ms(frames: int, sound: Sound | None) -> float:
    """Milliseconds that the picture lasts longer than the sound; less than 0: shorter."""
    if sound is None:
        raise NotMeasured("the video has no sound")
    return 1000 * (frames / FRAMES_PER_SECOND - len(sound) / AUDIO_SAMPLES_PER_SECOND)


def _nan_blocks(video: MeasuredVideo) -> float:
    if video.nan_blocks is None:
        raise NotMeasured("nobody looked at the latents")
    return float(video.nan_blocks)


def _latent_cosine(video: MeasuredVideo, reference: MeasuredVideo) -> float:
    if video.latents is None or reference.latents is None:
        raise NotMeasured("latents were not kept")
    return latent_cosine(video.latents, reference.latents)


def _enlarged(frames_NHW3: Pixels, shape: tuple[int, ...]) -> Pixels:
    """Frames enlarged as a player shows a smaller video (bicubic); those as large, or larger, as they are."""
    height, width = shape[1:3]
    if frames_NHW3.shape[1] >= height and frames_NHW3.shape[2] >= width:
        return frames_NHW3
    resized = [Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC) for frame in frames_NHW3]
    return np.stack([np.asarray(each) for each in resized])


def _array(video: MeasuredVideo) -> Pixels:
    if not isinstance(video.frames, np.ndarray):
        raise TypeError("frames that are compared must be one array")
    return video.frames
