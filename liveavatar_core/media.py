"""Portrait and voice from files, the video to a file. Free of torch; codecs are imported where they are used.

Shapes: N frames, H and W pixels, S samples.
"""

from __future__ import annotations

import math
import os
import secrets
import wave
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from liveavatar_core.config import AUDIO_SAMPLES_PER_SECOND, FRAMES_PER_SECOND
from liveavatar_core.errors import BadInput, CannotWrite

SHORTEST_VOICE_SECONDS = 0.1
"""Less makes no frame of audio features."""
LONGEST_VOICE_SECONDS = 3600.0
"""More is asked for in parts: the whole of it is held in memory."""
LOUDEST = 16.0
"""A peak above this (+24 dB over full scale) is no sound but a slip of the file's format."""
SILENCE = 10 ** (-80 / 20)
"""A peak below this (-80 dBFS, a few steps of 16 bits) is no voice."""

_CRF = "10"
"""Constant rate factor of x264: what the original's `quality 8` means to its video writer."""
_AAC_BITS_PER_SECOND = 96_000
"""What AAC takes for mono at 16 kHz."""
_AAC_FRAME = 1024

Samples = NDArray[np.float32]
FramePixels = NDArray[np.uint8]


def read_image(path: Path | str) -> Image.Image:
    """A portrait as an RGB image, turned as its EXIF says; transparent parts become white.

    Raises BadInput for a file that is missing, empty, damaged or no picture.
    """
    path = _readable(path, "portrait")
    try:
        with Image.open(path) as opened:
            opened.load()
            return _to_rgb(ImageOps.exif_transpose(opened), path)
    except BadInput:
        raise
    except Exception as error:  # Pillow's plugins raise what their format's parser happens to meet
        raise BadInput(f"{path} is not a picture that can be read: {error}", "give a PNG, JPEG or WebP file") from error


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode == "F":
        raise BadInput(f"{path} holds floating-point pixels, whose white is unknown", "save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # Pillow would clip 16 bits to 8 instead of scaling
        levels = np.asarray(image, dtype=np.float64) / 257
        return Image.fromarray(levels.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        opaque = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(opaque, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def read_audio(path: Path | str) -> Samples:
    """A voice as float32 [S], mono, 16 kHz: channels averaged, resampled as librosa does (soxr_hq).

    Reads what libsndfile knows (wav, flac, ogg, mp3) and the sound of whatever FFmpeg knows (m4a, mp4, ...).
    Raises BadInput for a file that is missing, unreadable, silent, beyond all loudness, shorter than 0.1 s or longer
    than an hour, which is looked at before it is decoded.
    """
    path = _readable(path, "voice")
    samples_SC, rate = _decode(path)
    seconds = len(samples_SC) / rate
    if seconds < SHORTEST_VOICE_SECONDS:
        raise BadInput(
            f"{path} lasts {seconds:.3f} s; {SHORTEST_VOICE_SECONDS} s is the least",
            "give a longer recording",
        )
    mono = samples_SC.mean(axis=1)
    peak = float(np.abs(mono).max())
    if not math.isfinite(peak):
        raise BadInput(f"{path} has samples that are not finite", "export the recording again")
    if peak > LOUDEST:
        what = f"{path} has samples of {peak:.3g}, where 1 is full scale and {LOUDEST:g} the most"
        raise BadInput(what, "export the recording again, in 16 bits")
    if peak < SILENCE:
        raise BadInput(f"{path} is silent: its peak is {_decibels(peak)}; -80 dBFS is the least", "give a voice")
    return _resample(mono, rate)


def _decode(path: Path) -> tuple[Samples, int]:
    """Samples [S, channels] and their rate."""
    try:
        import soundfile
    except ImportError:
        return _decode_pcm(path)
    try:
        with soundfile.SoundFile(path) as file:
            _check_length(path, file.frames / file.samplerate)
            return np.asarray(file.read(dtype="float32", always_2d=True), np.float32), file.samplerate
    except soundfile.LibsndfileError:
        pass  # not one of libsndfile's formats: FFmpeg knows more
    import av

    try:
        return _decode_with_ffmpeg(path)
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise BadInput(
            f"{path} is not a recording that can be read: {error}", "give a WAV, FLAC, MP3 or M4A file"
        ) from error


def _decode_pcm(path: Path) -> tuple[Samples, int]:
    """What needs no codec: a WAV file of 16 bits, in libsndfile's numbers."""
    try:
        with wave.open(str(path), "rb") as file:
            if file.getsampwidth() != 2:
                raise wave.Error(f"{8 * file.getsampwidth()} bits a sample")
            _check_length(path, file.getnframes() / file.getframerate())
            samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").reshape(-1, file.getnchannels())
            return samples.astype(np.float32) / np.float32(2**15), file.getframerate()
    except (wave.Error, EOFError, ValueError) as error:
        what = f"{path} is no WAV file of 16 bits ({error}), and soundfile, which reads others, is not installed"
        raise BadInput(what, "pip install soundfile, or give a WAV file of 16 bits") from error


def _decode_with_ffmpeg(path: Path) -> tuple[Samples, int]:
    import av

    with av.open(str(path)) as container:
        if not container.streams.audio:
            raise BadInput(f"{path} has no sound", "give a recording, or a video with sound")
        stream = container.streams.audio[0]
        if container.duration is not None:
            _check_length(path, container.duration / av.time_base)
        pieces = list(_pieces(path, container, stream))
        samples_CS = np.concatenate(pieces, axis=1) if pieces else np.zeros((1, 0))
        return samples_CS.T.astype(np.float32), stream.rate


def _pieces(path: Path, container: Any, stream: Any) -> Iterator[Samples]:
    """Samples [channels, S] as they are decoded; counted, as a container may not say how long it is."""
    from av.audio.resampler import AudioResampler

    resampler, count = AudioResampler(format="fltp"), 0
    for frame in container.decode(stream):
        for piece in resampler.resample(frame):
            count += piece.samples
            _check_length(path, count / stream.rate)
            yield np.asarray(piece.to_ndarray(), np.float32)


def _check_length(path: Path, seconds: float) -> None:
    if seconds > LONGEST_VOICE_SECONDS:
        what = f"{path} lasts {seconds:.0f} s or more; {LONGEST_VOICE_SECONDS:.0f} s is the most"
        raise BadInput(what, "cut it into parts, and make a video of each")


def _resample(mono: Samples, rate: int) -> Samples:
    """To 16 kHz; as long as librosa makes it, the last fraction of a sample included."""
    if rate == AUDIO_SAMPLES_PER_SECOND:
        return np.ascontiguousarray(mono)
    try:
        import soxr
    except ImportError as error:
        what = f"a voice of {rate} Hz is to be brought to {AUDIO_SAMPLES_PER_SECOND}, and soxr is not installed"
        raise BadInput(what, f"pip install soxr, or give a voice of {AUDIO_SAMPLES_PER_SECOND} Hz") from error
    length = math.ceil(len(mono) * AUDIO_SAMPLES_PER_SECOND / rate)
    resampled = soxr.resample(mono, rate, AUDIO_SAMPLES_PER_SECOND, quality="soxr_hq")[:length]
    return np.pad(resampled, (0, length - len(resampled)))


def _decibels(peak: float) -> str:
    return f"{20 * math.log10(peak):.0f} dBFS" if peak else "0"


def _readable(path: Path | str, what: str) -> Path:
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"{path}: there is no such {what} file", f"give the path of the {what}")
    if not path.stat().st_size:
        raise BadInput(f"{path} is empty", f"give another {what}")
    return path


class VideoWriter:
    """Writes an mp4 (H.264, AAC) as frames come.

    The file has a temporary name beside the target and gets the target's name once it is whole and on disk,
    so there is never half a video under that name. Leaving through an exception, or without a frame, leaves
    nothing behind; with `keep_partial` set by then, what was made is kept, and plays.
    """

    def __init__(
        self,
        path: Path | str,
        height: int,
        width: int,
        fps: int = FRAMES_PER_SECOND,
        audio: Samples | None = None,
        audio_rate: int = AUDIO_SAMPLES_PER_SECOND,
        keep_partial: bool = False,
    ) -> None:
        """`audio`: float32 [S], mono, at `audio_rate`; cut to the video's length.

        Raises BadInput where `path` is a folder or a side is odd (4:2:0 halves both).
        """
        import av

        if height % 2 or width % 2:
            raise BadInput(f"frames of {width}x{height} have an odd side", "give even sides")
        if Path(path).is_dir():
            raise BadInput(f"{path} is a folder", "give --save_file the name of a file")
        self._av = av
        self.path = Path(path)
        self.keep_partial = keep_partial
        self.frames = 0
        self._size = height, width
        self._fps = fps
        self._audio, self._audio_rate = audio, audio_rate
        self._samples = 0
        self._open_files = ExitStack()
        self._discarded = False
        self._partial = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.part")

    def __enter__(self) -> Self:
        with self._writing():
            self._file = self._open_files.enter_context(self._partial.open("xb"))
            self._container = self._open_files.enter_context(self._av.open(self._file, "w", format="mp4"))
            self._open_streams()
        return self

    def _open_streams(self) -> None:
        height, width = self._size
        self._video: Any = self._container.add_stream("libx264", rate=self._fps, options={"crf": _CRF})
        self._video.height, self._video.width, self._video.pix_fmt = height, width, "yuv420p"
        self._sound: Any = None
        if self._audio is not None:
            self._sound = self._container.add_stream("aac", rate=self._audio_rate, layout="mono")
            self._sound.bit_rate = _AAC_BITS_PER_SECOND

    def write(self, frames_NHW3: FramePixels) -> None:
        """Append frames: uint8 [N, H, W, 3], red green blue. Raises CannotWrite where the disk is full."""
        frames_NHW3 = np.asarray(frames_NHW3)
        if frames_NHW3.dtype != np.uint8 or frames_NHW3.shape[1:] != (*self._size, 3):
            raise ValueError(f"{frames_NHW3.dtype} {frames_NHW3.shape} is not uint8 [N, {self._size}, 3]")
        with self._writing():
            for pixels in frames_NHW3:
                frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                frame.pts, frame.time_base = self.frames, Fraction(1, self._fps)
                self._container.mux(self._video.encode(frame))
                self.frames += 1
            self._write_sound()

    def _write_sound(self) -> None:
        """Sound up to the end of the frames so far, in whole AAC frames."""
        if self._audio is None:
            return
        until = min(self._samples_until_now(), len(self._audio))
        while self._samples + _AAC_FRAME <= until:
            self._write_samples(_AAC_FRAME)

    def _write_samples(self, count: int) -> None:
        assert self._audio is not None
        piece = self._audio[None, self._samples : self._samples + count]
        frame = self._av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), format="fltp", layout="mono")
        frame.rate, frame.pts, frame.time_base = (
            self._audio_rate,
            self._samples,
            Fraction(1, self._audio_rate),
        )
        self._container.mux(self._sound.encode(frame))
        self._samples += count

    def _samples_until_now(self) -> int:
        return self.frames * self._audio_rate // self._fps

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.frames and (kind is None or self.keep_partial) and not self._discarded:
            with self._writing():
                self._finish()
        else:
            self._discard()

    def _finish(self) -> None:
        """The rest of both streams, then the name."""
        if self._audio is not None:
            rest = min(self._samples_until_now(), len(self._audio)) - self._samples
            if rest > 0:
                self._write_samples(rest)
            self._container.mux(self._sound.encode(None))
        self._container.mux(self._video.encode(None))
        self._container.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._open_files.close()
        self._partial.replace(self.path)
        _sync_folder(self.path.parent)

    def _discard(self) -> None:
        self._discarded = True
        self._partial.unlink(missing_ok=True)
        with suppress(OSError, self._av.FFmpegError):  # what could not be written no longer matters
            self._open_files.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Failures to write as CannotWrite that names the file; nothing stays behind."""
        try:
            yield
        except (OSError, self._av.FFmpegError) as error:
            self._discard()
            reason = getattr(error, "strerror", None) or error
            raise CannotWrite(
                f"{self.path} could not be written after {self.frames} frames: {reason}",
                "free space there, or give --save_file another folder",
            ) from error


def _sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
