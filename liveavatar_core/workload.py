"""What a run is given: portrait, voice and prompt, with the sizes that follow from them. Free of torch."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

from liveavatar_core.errors import InvalidRecipe

LEAST_CLIPS = 3
"""Clips of a run at full size: in the last one the caches are full, and the second prefill lies behind it."""
MANY_CLIPS = 1000
"""Clips of a video that stands for one of any length: 32 minutes of voice. What grows with clips shows by then."""
GRID = 64
"""Sides of videos are multiples of this, in pixels."""
WIDEST_ASPECT = 21 / 9
"""Long side over short side of the widest portrait that people give: a cinema picture."""
PIXELS_PER_TOKEN_SIDE = 16
"""The VAE shrinks each side by 8, the transformer's patches by 2 more."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Portrait, voice and prompt of one run. Without files it is what a simulation takes: sizes, and no content."""

    portrait_height: int = 768
    """Height of the portrait in pixels, upright as EXIF says."""
    portrait_width: int = 512
    """Width of the portrait in pixels."""
    voice_seconds: float | None = None
    """How long the voice is, in seconds; said again from its start where clips last longer. None: as long as they."""
    prompt: str = "a person talks to the camera"
    """What the video shows."""
    digest: str = ""
    """Sixteen hex digits over the contents of portrait and voice; empty without files."""
    image: str = field(default="", compare=False)
    """Path of the portrait; where a file lies is no part of what is declared."""
    audio: str = field(default="", compare=False)
    """Path of the voice."""

    def __post_init__(self) -> None:
        if min(self.portrait_height, self.portrait_width) < 1:
            raise InvalidRecipe(
                f"a portrait of {self.portrait_width}x{self.portrait_height} pixels has no pixels",
                "give a portrait of at least 64x64",
            )

    @classmethod
    def of_files(cls, image: Path, audio: Path, prompt: str) -> Workload:
        """The workload of two files and a prompt, which are read whole.

        Raises:
            BadInput: a file is missing, damaged, silent or shorter than 0.1 s.
        """
        from liveavatar_core.config import AUDIO_SAMPLES_PER_SECOND
        from liveavatar_core.media import read_audio, read_image  # here: codecs are loaded where files are given

        portrait, voice = read_image(image), read_audio(audio)
        return cls(
            portrait_height=portrait.height,
            portrait_width=portrait.width,
            voice_seconds=len(voice) / AUDIO_SAMPLES_PER_SECOND,
            prompt=prompt,
            digest=hashlib.sha256(image.read_bytes() + audio.read_bytes()).hexdigest()[:16],
            image=str(image.resolve()),
            audio=str(audio.resolve()),
        )

    @classmethod
    def of_portrait(cls, size: str) -> Workload:
        """No files; a portrait of `size`, WIDTHxHEIGHT in pixels. Raises InvalidRecipe for what is no such size."""
        match = re.fullmatch(r"(\d{2,5})[x*](\d{2,5})", size)
        if match is None or min(map(int, match.groups())) < GRID:
            raise InvalidRecipe(
                f"portrait {size!r} is not WIDTHxHEIGHT of {GRID} pixels or more", "give pixels, such as 720x400"
            )
        return cls(portrait_width=int(match[1]), portrait_height=int(match[2]))

    @classmethod
    def largest(cls, max_area: int) -> Workload:
        """No files; the portrait that makes the most tokens of all that a video of `max_area` pixels allows.

        Among portraits of equally many tokens the one that is least wide; taller than wide or not makes no difference.
        Raises InvalidRecipe where not even one of 64x64 pixels fits.
        """
        cells = max_area // GRID**2
        sizes = [
            (width * height, -width / height, height, width)
            for height in range(1, cells + 1)
            for width in range(height, min(cells // height, int(height * WIDEST_ASPECT)) + 1)
        ]
        if not sizes:
            raise InvalidRecipe(f"{max_area} pixels are less than {GRID}x{GRID}", "give a larger --size")
        _, _, height, width = max(sizes)
        return cls(portrait_height=height * GRID, portrait_width=width * GRID)

    def voice_length(self, video_frames: int) -> int:
        """Samples at 16 kHz of the voice for a video of that many frames: all of it, or as long as the frames last."""
        from liveavatar_core.config import AUDIO_SAMPLES_PER_SECOND, FRAMES_PER_SECOND  # here: recipes hold workloads

        frames = video_frames * AUDIO_SAMPLES_PER_SECOND // FRAMES_PER_SECOND
        return max(frames, int((self.voice_seconds or 0) * AUDIO_SAMPLES_PER_SECOND))

    def output_size(self, max_area: int) -> tuple[int, int]:
        """Height and width of the video in pixels, multiples of 64 that cover at most `max_area` together."""
        from liveavatar_core.video_geometry import output_size  # here: it takes its rates from config, as recipes do

        return output_size(self.portrait_height, self.portrait_width, max_area)

    def tokens_per_frame(self, max_area: int) -> int:
        """Tokens of one latent frame in the transformer."""
        height, width = self.output_size(max_area)
        return (height // PIXELS_PER_TOKEN_SIDE) * (width // PIXELS_PER_TOKEN_SIDE)
