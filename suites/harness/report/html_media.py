"""A run's video inside a page: some of its frames in one picture, and the video itself where it is small."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from suites.harness.report.html_markup import Markup, tag

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_VIDEO_BYTES = 1_500_000
"""A larger video stays beside the page: pages are sent by mail."""
FRAMES, FRAME_HEIGHT = 6, 160


def video_figure(path: Path) -> Markup | None:
    """Frames, and the video if it is small; None where there is no video, or none that can be read."""
    frames = _chosen_frames(path)
    if not frames:
        return None
    picture, poster = contact_sheet(frames), _jpeg(frames[len(frames) // 2])
    return tag(
        "figure",
        tag("figcaption", tag("b", "Video"), tag("span", f" {FRAMES} frames, evenly spaced", class_="quiet")),
        tag("img", src=_data("image/png", picture), alt="Frames of the video, from its start to its end"),
        _player(path, poster),
        class_="video",
    )


def _player(path: Path, poster: bytes) -> Markup:
    """The video, if it is small enough to be sent around; else where it lies."""
    size = path.stat().st_size
    if size > MOST_VIDEO_BYTES:
        return tag("p", f"The video itself, {size / 1e6:.0f} MB: {path}")
    source, still = _data("video/mp4", path.read_bytes()), _data("image/jpeg", poster)
    return tag("video", src=source, controls="", preload="metadata", poster=still)


def _chosen_frames(path: Path) -> list[Image]:
    """FRAMES frames, evenly spaced; none if `path` is no video that can be read."""
    import av  # imported here: only a page with a video pays for it

    try:
        with av.open(str(path)) as container:
            pictures = [frame.to_image() for frame in container.decode(video=0)]
    except (av.FFmpegError, IndexError, OSError):
        return []
    return [pictures[round(at * (len(pictures) - 1) / (FRAMES - 1))] for at in range(FRAMES)] if pictures else []


def contact_sheet(frames: Sequence[Image]) -> bytes:
    """A PNG of frames beside each other."""
    from PIL import Image

    width = max(1, round(frames[0].width * FRAME_HEIGHT / frames[0].height))
    sheet = Image.new("RGB", (width * len(frames), FRAME_HEIGHT))
    for at, picture in enumerate(frames):
        sheet.paste(picture.resize((width, FRAME_HEIGHT)), (at * width, 0))
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _jpeg(picture: Image) -> bytes:
    """What a player shows before it plays."""
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=80)
    return buffer.getvalue()


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
