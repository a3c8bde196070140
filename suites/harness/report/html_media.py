"""A run's video inside a page: some of its frames in one picture, and the film itself where it is small."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from suites.harness.report.html_markup import Markup, tag

MOST_VIDEO_BYTES = 1_500_000
"""A larger film stays beside the page: pages are sent by mail."""
FRAMES, FRAME_HEIGHT = 6, 160


def video_figure(path: Path) -> Markup | None:
    """Frames, and the film if it is small; None where there is no video, or none that can be read."""
    picture = contact_sheet(path)
    if picture is None:
        return None
    size = path.stat().st_size
    return tag(
        "figure",
        tag("figcaption", tag("b", "Video"), tag("span", f" {FRAMES} frames, evenly spaced", class_="quiet")),
        tag("img", src=_data("image/png", picture), alt="Frames of the video, from its start to its end"),
        tag("video", src=_data("video/mp4", path.read_bytes()), controls="", preload="metadata")
        if size <= MOST_VIDEO_BYTES
        else tag("p", f"The film itself, {size / 1e6:.0f} MB: {path}"),
        class_="video",
    )


def contact_sheet(path: Path) -> bytes | None:
    """A PNG of FRAMES frames beside each other; None if `path` is no video that can be read."""
    if not path.exists():
        return None
    import av  # imported here: only a page with a video pays for it
    from PIL import Image

    try:
        with av.open(str(path)) as container:
            pictures = [frame.to_image() for frame in container.decode(video=0)]
    except (av.FFmpegError, IndexError, OSError):
        return None
    if not pictures:
        return None
    chosen = [pictures[round(at * (len(pictures) - 1) / (FRAMES - 1))] for at in range(FRAMES)]
    width = max(1, round(chosen[0].width * FRAME_HEIGHT / chosen[0].height))
    sheet = Image.new("RGB", (width * FRAMES, FRAME_HEIGHT))
    for at, picture in enumerate(chosen):
        sheet.paste(picture.resize((width, FRAME_HEIGHT)), (at * width, 0))
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
