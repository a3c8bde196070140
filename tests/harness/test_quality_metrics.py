"""Metrics of picture and sound, on videos whose answer is known beforehand."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image, ImageFilter

from liveavatar_core.errors import BadInput
from liveavatar_core.media import VideoWriter
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
from suites.harness.probes.video.lip_sync import lip_sync, loudness
from suites.harness.probes.video.measured_video import MeasuredVideo, read_video
from suites.harness.probes.video.quality import compared, picture_beyond_sound_ms, quality_of
from suites.harness.probes.video.reference import latent_cosine, psnr_db, ssim
from suites.harness.probes.video.sketch import Sketch, sketch
from suites.harness.probes.video.vmaf import PROGRAM, vmaf_score
from suites.harness.records.measurements import Timing
from suites.harness.records.run_times import FrameArrivals
from suites.harness.verdicts.metrics import METRICS, metric_kind
from suites.harness.verdicts.timings import time_samples

RANDOM = np.random.default_rng(0)
PICTURE = RANDOM.integers(60, 180, (64, 64, 3)).astype(np.float32)
"""Noise: sharp everywhere."""


def video(*levels: float, picture: np.ndarray = PICTURE, factor: float = 1.0) -> np.ndarray:
    """A frame for each of `levels`: the picture, brighter by that much."""
    return np.stack([(picture * factor + level).clip(0, 255).round().astype(np.uint8) for level in levels])


def sketched(*levels: float, **options) -> Sketch:
    return sketch(video(*levels, **options))


def blurred(picture: np.ndarray, radius: float) -> np.ndarray:
    return np.asarray(Image.fromarray(picture.astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius)), np.float32)


def test_psnr_of_a_known_error():
    assert psnr_db(video(0), video(5)) == pytest.approx(10 * np.log10(255**2 / 25))
    assert psnr_db(video(0), video(0)) == 100


def test_ssim_is_1_for_equal_videos_and_low_for_inverted_ones():
    assert ssim(video(0, 3), video(0, 3)) == pytest.approx(1)
    assert ssim(video(0), 255 - video(0)) < 0
    assert 0.5 < ssim(video(0), video(0, factor=0.9)) < 1


def test_videos_of_other_sizes_are_not_compared():
    with pytest.raises(NotMeasured, match=r"\(1, 64, 64, 3\) against \(2, 64, 64, 3\)"):
        psnr_db(video(0), video(0, 0))


@pytest.mark.parametrize(
    ("first", "second", "cosine"), [([1, 0], [0, 2], 0), ([1, 1], [3, 3], 1), ([1, 0], [1, 1], 0.5**0.5)]
)
def test_latent_cosine_of_known_angles(first, second, cosine):
    assert latent_cosine(np.array(first), np.array(second)) == pytest.approx(cosine)


def test_latents_of_nothing_have_no_angle():
    with pytest.raises(NotMeasured, match="all 0"):
        latent_cosine(np.zeros(3), np.ones(3))


def test_vmaf_takes_a_program_that_somebody_names():
    with pytest.raises(NotMeasured, match="nobody asked"):
        vmaf_score(video(0), video(0), {})
    with pytest.raises(BadInput, match="gave no VMAF"):
        vmaf_score(video(0), video(0), {PROGRAM: "/bin/false"})


@pytest.mark.skipif(PROGRAM not in os.environ, reason=f"{PROGRAM} names no ffmpeg")
def test_vmaf_sees_blur():
    sharp = video(0, 2, picture=blurred(PICTURE, 1))
    assert vmaf_score(sharp, sharp) > 90
    assert vmaf_score(video(0, 2, picture=blurred(PICTURE, 2)), sharp) < 70


def test_black_is_dark_and_empty():
    frames = video(*range(8))
    frames[2:4] = 5
    assert black_frames_share(sketch(frames)) == 2 / 8
    frames[2:4, 8:16, 8:16] = 90
    assert black_frames_share(sketch(frames)) == 0, "dark, but something is to be seen"


def test_frozen_repeats_the_frame_before():
    assert frozen_frames_share(sketched(0, 0, 1, 1, 1, 1, 2)) == 3 / 6
    assert frozen_frames_share(sketched(0, 0, 0, 1, 1, 1, 2)) == 0, "two repeats are a coder's doing"
    with pytest.raises(NotMeasured, match="show anything"):
        frozen_frames_share(sketched(-255, -255, -255))


def test_a_jump_is_measured_against_the_frames_around_it():
    levels = [*range(12), *range(21, 33), *range(33, 45)]
    assert clip_jump_ratio(sketched(*levels), 12) == pytest.approx(10, rel=0.01)
    assert clip_jump_ratio(sketched(*range(36)), 12) == pytest.approx(1, rel=0.01)
    with pytest.raises(NotMeasured, match="one clip"):
        clip_jump_ratio(sketched(*range(12)), 12)


def test_a_jump_within_the_first_frames():
    assert first_frame_jump_ratio(sketched(0, *range(7, 30))) == pytest.approx(7, rel=0.01)
    assert first_frame_jump_ratio(sketched(*range(30))) == pytest.approx(1, rel=0.01)


def test_flicker_swings_and_fading_does_not():
    assert flicker_levels(sketched(*[0, 10] * 12), 48) == pytest.approx(10, abs=0.1)
    assert flicker_levels(sketched(*range(24)), 48) == pytest.approx(0, abs=0.1)


def test_what_moves_does_not_flicker():
    frames = video(*[0] * 24)
    for at, frame in enumerate(frames):
        frame[:, 8 * (at % 4) : 8 * (at % 4) + 24] = 230
    assert flicker_levels(sketch(frames), 48) == 0


def test_a_camera_that_sways_does_not_flicker():
    picture = blurred(np.repeat(np.repeat(PICTURE[::8, ::8], 8, axis=0), 8, axis=1), 2)
    shifts = np.random.default_rng(1).integers(-2, 3, (24, 2))
    swaying = np.stack([np.roll(picture, shift, axis=(0, 1)) for shift in shifts]).astype(np.uint8)
    together = np.median(np.diff(sketch(swaying).brightness_NRC.reshape(24, -1), axis=0), axis=1)
    assert np.abs(np.diff(together)).mean() / 2 > 0.1, "without the floor it would be flicker"
    assert flicker_levels(sketch(swaying), 48) < 0.01


def test_black_frames_are_no_jump():
    frames = video(*range(36))
    frames[[0, 12]] = 0
    assert clip_jump_ratio(sketch(frames), 12) == pytest.approx(1, rel=0.01)
    assert first_frame_jump_ratio(sketch(frames)) == pytest.approx(1, rel=0.01)


def test_sharpness_sees_blur_and_neither_brightness_nor_contrast_nor_colour():
    sharp = sharpness_ratio(sketched(0))
    assert sharpness_ratio(sketched(30)) == pytest.approx(sharp, rel=0.01)
    assert sharpness_ratio(sketched(0, factor=0.5)) == pytest.approx(sharp, rel=0.02)
    assert sharpness_ratio(sketch(video(0)[..., ::-1])) == pytest.approx(sharp, rel=0.1)
    assert sharpness_ratio(sketched(0, picture=blurred(PICTURE, 1))) < sharp / 2


def test_sharpness_is_kept_or_not():
    sharp, soft = (MeasuredVideo(frames=video(0, picture=blurred(PICTURE, radius))) for radius in (0, 1))
    assert compared(soft, sharp).values["sharpness_kept_ratio"] < 0.5
    assert compared(sharp, sharp).values["sharpness_kept_ratio"] == 1


def test_a_video_of_lower_resolution_is_enlarged():
    half = MeasuredVideo(frames=video(0)[:, ::2, ::2])
    found = compared(half, MeasuredVideo(frames=video(0))).values
    assert found["sharpness_kept_ratio"] < 0.5
    assert found["psnr_db"] < 20


def test_sharpness_lost_per_clip():
    clips = [video(*range(4), picture=blurred(PICTURE, radius)) for radius in (0.3, 0.4, 0.5)]
    details = [sharpness_ratio(sketch(clip)) for clip in clips]
    lost = (details[0] - details[2]) / 2 / details[0]
    assert sharpness_loss_share_per_clip(sketch(np.concatenate(clips)), 4) == pytest.approx(lost)
    assert lost > 0.05


def test_colour_drift_of_a_known_cast():
    red = np.array([1, 0, 0]) * 6
    frames = np.concatenate([video(0, 0, picture=PICTURE + red * clip) for clip in range(4)])
    assert colour_drift_levels_per_clip(sketch(frames), 2) == pytest.approx(6 / 3**0.5, rel=0.01)


def test_identity_drifts_with_contours_and_not_with_light():
    other = RANDOM.integers(60, 180, PICTURE.shape).astype(np.float32)
    assert identity_drift_per_clip(sketched(0, 0, 20, 20), 2) == pytest.approx(0, abs=1e-3)
    changed = np.concatenate([video(0, 0), video(0, 0, picture=other)])
    assert identity_drift_per_clip(sketch(changed), 2) > 0.05


def voice(frames: int, seed: int = 0) -> np.ndarray:
    """Noise in syllables."""
    random = np.random.default_rng(seed)
    level = np.convolve(random.uniform(0, 1, frames) > 0.5, np.ones(3) / 3, mode="same")
    return (np.repeat(level, 640) * random.normal(scale=0.1, size=640 * frames)).astype(np.float32)


def talking(sound: np.ndarray, late: int, place: int = 44) -> np.ndarray:
    """A still picture with a dark spot that is as high as the sound is loud, `late` frames after it."""
    frames = len(sound) // 640
    heights = np.roll(loudness(sound, frames) * 25, late).round().astype(int)
    frames_NHW3 = video(*[0] * frames)
    for frame, height in zip(frames_NHW3, heights, strict=True):
        frame[place : place + height, 26:38] = 20
    return frames_NHW3


@pytest.mark.parametrize("late", [-5, -1, 0, 1, 4])
def test_lag_is_positive_where_the_picture_is_late(late):
    sound = voice(96)
    found = lip_sync(sketch(talking(sound, late)), sound)
    assert found.lag_ms == pytest.approx(40 * late, abs=10)
    assert found.strength > 0.8


def test_a_mouth_whose_place_is_known_may_be_anywhere():
    sound = voice(96)
    found = lip_sync(sketch(talking(sound, 2, place=4)), sound, region=(2, 20, 20, 44))
    assert found.lag_ms == pytest.approx(80, abs=10)


@pytest.mark.parametrize("frames", [48, 96, 144])
def test_unrelated_videos_have_no_lag(frames):
    moving = [np.random.default_rng(seed).integers(0, 255, (frames, 64, 64, 1), dtype=np.uint8) for seed in range(8)]
    for seed, noise in enumerate(moving):
        found = lip_sync(sketch(noise.repeat(3, axis=3)), voice(frames, seed=100 + seed))
        with pytest.raises(NotMeasured, match="by chance"):
            found.lag_ms  # noqa: B018 - raises


def test_silence_has_no_lip_sync():
    still = sketched(*[0] * 48)
    with pytest.raises(NotMeasured, match="silent"):
        lip_sync(still, np.zeros(48 * 640, np.float32))
    with pytest.raises(NotMeasured, match="nothing moves"):
        lip_sync(still, voice(48))
    with pytest.raises(NotMeasured, match="36 are the least"):
        lip_sync(still, voice(20))


def test_picture_beyond_sound():
    assert picture_beyond_sound_ms(50, np.zeros(16_000 * 19 // 10, np.float32)) == pytest.approx(100)


def test_every_metric_is_a_number_or_has_a_reason():
    quality = quality_of(MeasuredVideo(frames=video(*range(12))), reference=MeasuredVideo(frames=video(*range(12))))
    assert quality.values.keys().isdisjoint(quality.missing)
    assert quality.values["psnr_db"] == 100
    assert quality.missing["latent_cosine"] == "latents were not kept"
    assert quality.missing["lip_sync_lag_ms"] == "the video has no sound"
    assert all(quality.missing.values())


def test_every_metric_of_quality_has_a_row_of_its_own():
    quality = quality_of(MeasuredVideo(frames=video(0)), reference=MeasuredVideo(frames=video(0)))
    names = quality.values.keys() | quality.missing.keys()
    assert all(metric_kind(name).name == name for name in names)
    rows = {kind.name for kind in METRICS if not kind.is_amount}
    cadence = time_samples(Timing(arrivals=FrameArrivals(seconds=(1.0, 2.0), frames=(12, 12)))).keys()
    assert rows - cadence == names | {"vmaf_score"}


CONTENTS = {
    "black": lambda shape, random: np.zeros(shape),
    "white": lambda shape, random: np.full(shape, 255),
    "noise": lambda shape, random: random.integers(0, 256, shape),
    "still": lambda shape, random: np.broadcast_to(random.integers(0, 256, shape[1:]), shape),
}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("frames", [1, 2, 3, 8, 40, 97])
@pytest.mark.parametrize("size", [(16, 256), (50, 67), (64, 64)])
def test_whatever_the_video_no_number_is_nan(content, frames, size):
    random = np.random.default_rng(frames)
    made = CONTENTS[content]((frames, *size, 3), random).astype(np.uint8)
    sound = random.normal(scale=0.1, size=frames * 640).astype(np.float32)
    found = quality_of(
        MeasuredVideo(frames=made, sound=sound), reference=MeasuredVideo(frames=made[::-1].copy()), clip_frames=12
    )
    assert all(np.isfinite(value) for value in found.values.values())
    assert all(found.missing.values())


def test_a_written_video_is_read_back_with_its_sound_in_place(tmp_path):
    sound, path = voice(60), tmp_path / "video.mp4"
    frames = talking(sound, 0)
    with VideoWriter(path, 64, 64, audio=sound) as writer:
        writer.write(frames)
    read = quality_of(read_video(path, nan_blocks=0))
    assert read.values["lip_sync_lag_ms"] == pytest.approx(0, abs=10)
    assert read.values["picture_beyond_sound_ms"] == 0
    assert read.values["sharpness_ratio"] == pytest.approx(sharpness_ratio(sketch(frames)), rel=0.05)


def test_a_video_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "video.mp4").write_bytes(b"no video")
    with pytest.raises(BadInput, match=r"video\.mp4"):
        quality_of(read_video(tmp_path / "video.mp4"))
