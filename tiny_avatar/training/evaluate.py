"""How well the avatar that ships does what it was trained for, on faces, voices and prompts that it never saw.

    python -m tiny_avatar.training.evaluate [--videos 40] [--pictures FILE.png]

Every video has a drawn truth: the same face, moved by the same sound. `vae` columns are the truth, encoded and decoded:
no transformer can do better.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from liveavatar_core.encoders.vae import VideoVae, decode_video, encode_video
from liveavatar_core.pipeline import Avatar, Inputs, open_avatar
from liveavatar_core.recipes import miniature, single
from liveavatar_core.weights.shipped import shipped_weights
from tiny_avatar.heads import LIGHTS, MOODS, draw
from tiny_avatar.prompts import prompt
from tiny_avatar.training.data import STILL_FRAMES, Video, drawn_video, motion_to
from tiny_avatar.training.vae import to_pixels

SEED = 9_000


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One video that was made, beside what should have been."""

    truth: Video
    """The video as drawn."""
    made_JHWC: np.ndarray
    """The video as the avatar makes it, uint8."""
    moods: list[np.ndarray]
    """The face of the video in each of heads.MOODS, drawn and put through the VAE, JHWC uint8 each."""

    @property
    def vae_JHWC(self) -> np.ndarray:
        """The truth through the VAE."""
        return self.moods[self.truth.mood]


def main() -> None:
    """Print the avatar's metrics as JSON; write frames to look at."""
    parser = argparse.ArgumentParser(prog="python -m tiny_avatar.training.evaluate", description=__doc__)
    parser.add_argument("--videos", type=int, default=40, help="How many. (default: 40)")
    parser.add_argument("--pictures", type=Path, help="Where to put frames: portrait, then made above truth.")
    options = parser.parse_args()
    shown = evaluate(options.videos)
    print(json.dumps(metrics(shown), indent=2))
    if options.pictures:
        Image.fromarray(contact_sheet(shown[:6])).save(options.pictures)


@torch.no_grad()
def evaluate(count: int) -> list[Shown]:
    """Make that many videos of one clip."""
    recipe = miniature(single(1))
    torch.set_num_threads(1)
    avatar = open_avatar(recipe, weights=shipped_weights(recipe))
    return [_show(avatar, np.random.default_rng((SEED, number))) for number in range(count)]


def _show(avatar: Avatar, random: np.random.Generator) -> Shown:
    truth = drawn_video(random, avatar.system.recipe.clip.infer_frames)
    inputs = Inputs(
        image=Image.fromarray(truth.portrait_HWC),
        waveform=truth.wave_S,
        prompt=prompt(random, [*MOODS][truth.mood], [*LIGHTS][truth.light]),
    )
    blocks = [block.frames_JHWC for block in avatar.generate(inputs)]
    made = torch.cat([block for block in blocks if block is not None]).numpy()
    return Shown(
        truth=truth, made_JHWC=made, moods=[_through(avatar.system.vae, truth, mood) for mood in MOODS.values()]
    )


def _through(vae: VideoVae, truth: Video, mood: float) -> np.ndarray:
    dtype = next(vae.parameters()).dtype
    drawn = draw(truth.face, motion_to(truth.face, truth.wave_S, mood, [*LIGHTS][truth.light]))
    frames = np.concatenate([np.repeat(truth.portrait_HWC[None], STILL_FRAMES, axis=0), drawn])
    video = decode_video(vae, encode_video(vae, to_pixels(frames[None]).to(dtype)), dtype)
    levels = ((video[0, :, STILL_FRAMES:].float().clamp(-1, 1) + 1) * 127.5).byte()
    return levels.permute(1, 2, 3, 0).numpy()


def metrics(shown: Sequence[Shown]) -> dict[str, float]:
    """Means over the videos."""
    portraits = [one.truth.portrait_HWC for one in shown]
    return {
        "psnr_db": _mean(_psnr_db(one.made_JHWC, one.truth.frames_JHWC) for one in shown),
        "psnr_vae_db": _mean(_psnr_db(one.vae_JHWC, one.truth.frames_JHWC) for one in shown),
        "portrait_recognised_share": _mean(_nearest(one, portraits) == n for n, one in enumerate(shown)),
        "mouth_correlation": _mean(mouth_correlation(one.made_JHWC, one.truth) for one in shown),
        "mouth_correlation_truth": _mean(mouth_correlation(one.truth.frames_JHWC, one.truth) for one in shown),
        "mouth_correlation_vae": _mean(mouth_correlation(one.vae_JHWC, one.truth) for one in shown),
        "mood_recognised_share": _mean(_nearest_mood(one) == one.truth.mood for one in shown),
        "light_recognised_share": _mean(_nearest_light(one) == one.truth.light for one in shown),
    }


def _mean(values: object) -> float:
    return round(float(np.mean(list(values))), 3)  # type: ignore[call-overload]


def _psnr_db(made: np.ndarray, truth: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(made.astype(float) - truth).mean()))


def _nearest(one: Shown, portraits: Sequence[np.ndarray]) -> int:
    """The portrait whose colours, each scaled to the same mean so that light does not count, are closest."""
    made = _without_light(one.made_JHWC.mean(axis=0))
    return int(np.argmin([np.square(made - _without_light(portrait)).mean() for portrait in portraits]))


def _without_light(picture: np.ndarray) -> np.ndarray:
    return picture / (picture.mean(axis=(0, 1)) + 1)


def mouth_correlation(frames: np.ndarray, truth: Video) -> float:
    """Correlation of how far the sound opens a mouth with how dark it is where the drawn mouth would be open."""
    motion = motion_to(truth.face, truth.wave_S, *asked_for(truth))
    wide, shut = (draw(truth.face, replace(motion, opening=np.full(len(frames), x))).astype(int) for x in (1.0, 0.0))
    mouth_JHW = np.abs(wide - shut).max(axis=-1) > 40
    dark_J = -(frames.mean(axis=-1) * mouth_JHW).sum(axis=(1, 2)) / mouth_JHW.sum(axis=(1, 2))
    return float(np.corrcoef(motion.opening, dark_J)[0, 1]) if dark_J.std() > 0 and motion.opening.std() > 0 else 0.0


def asked_for(truth: Video) -> tuple[float, str]:
    """The mood (-1 sad, 1 happy) and the name of the light that a video was asked for."""
    return [*MOODS.values()][truth.mood], [*LIGHTS][truth.light]


def _nearest_mood(one: Shown) -> int:
    return _nearest_of(one.made_JHWC, one.moods)


def _nearest_light(one: Shown) -> int:
    truth, mood = one.truth, asked_for(one.truth)[0]
    return _nearest_of(
        one.made_JHWC, [draw(truth.face, motion_to(truth.face, truth.wave_S, mood, light)) for light in LIGHTS]
    )


def _nearest_of(made_JHWC: np.ndarray, choices: Sequence[np.ndarray]) -> int:
    return int(np.argmin([np.square(made_JHWC.astype(float) - choice).mean() for choice in choices]))


def contact_sheet(shown: Sequence[Shown], scale: int = 3) -> np.ndarray:
    """A row for each video: the portrait, every sixth frame made, and below what was wanted."""
    rows = []
    for one in shown:
        videos = (one.made_JHWC, one.truth.frames_JHWC)
        rows += [np.concatenate([one.truth.portrait_HWC, *frames[::6]], axis=1) for frames in videos]
    return np.concatenate(rows).repeat(scale, axis=0).repeat(scale, axis=1)


if __name__ == "__main__":
    main()
