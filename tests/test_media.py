"""Portraits and voices from files, videos to files; what is written is decoded again with FFmpeg."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from liveavatar_core.errors import BadInput
from liveavatar_core.media import VideoWriter, read_audio, read_image


def two_lines(error: pytest.ExceptionInfo[BadInput]) -> bool:
    return len(str(error.value).split("\n")) == 2


class TestReadImage:
    def test_rgb_is_kept_to_the_pixel(self, tmp_path: Path):
        pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        image = read_image(tmp_path / "a.png")
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), pixels)

    def test_exif_orientation_is_followed(self, tmp_path: Path):
        image = Image.new("RGB", (40, 20), "red")
        exif = image.getexif()
        exif[0x0112] = 6  # turned a quarter
        image.save(tmp_path / "a.jpg", exif=exif)
        assert read_image(tmp_path / "a.jpg").size == (20, 40)

    def test_transparent_parts_become_white(self, tmp_path: Path):
        image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
        image.putpixel((1, 0), (0, 0, 0, 0))
        image.save(tmp_path / "a.png")
        assert list(np.asarray(read_image(tmp_path / "a.png"))[0].tolist()) == [[255, 0, 0], [255, 255, 255]]

    def test_sixteen_bits_are_scaled_not_clipped(self, tmp_path: Path):
        levels = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
        Image.fromarray(levels).save(tmp_path / "a.png")
        assert np.asarray(read_image(tmp_path / "a.png"))[0, :, 0].tolist() == [0, 100, 255]

    @pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "CMYK"])
    def test_other_modes_become_rgb(self, tmp_path: Path, mode: str):
        name = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
        Image.new(mode, (3, 2)).save(name)
        assert read_image(name).mode == "RGB"

    @pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
    def test_what_is_no_picture_is_refused(self, tmp_path: Path, content: bytes):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(BadInput, match=r"a\.png") as error:
            read_image(tmp_path / "a.png")
        assert two_lines(error)

    def test_a_truncated_picture_is_refused(self, tmp_path: Path):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "a.png")
        whole = (tmp_path / "a.png").read_bytes()
        (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(BadInput):
            read_image(tmp_path / "a.png")

    def test_a_missing_file_and_a_folder_are_refused(self, tmp_path: Path):
        for path in (tmp_path / "none.png", tmp_path):
            with pytest.raises(BadInput):
                read_image(path)

    def test_floating_point_pixels_are_refused(self, tmp_path: Path):
        Image.new("F", (2, 2)).save(tmp_path / "a.tiff")
        with pytest.raises(BadInput, match="floating-point"):
            read_image(tmp_path / "a.tiff")


def tone(seconds: float, rate: int, hertz: float = 440.0, level: float = 0.5) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


class TestReadAudio:
    def test_a_16_khz_file_is_kept_to_the_sample(self, tmp_path: Path):
        samples = tone(0.5, 16000)
        soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
        np.testing.assert_array_equal(read_audio(tmp_path / "a.wav"), samples)

    def test_channels_are_averaged(self, tmp_path: Path):
        left, right = tone(0.5, 16000), tone(0.5, 16000, hertz=220)
        soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 16000, subtype="FLOAT")
        np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), (left + right) / 2, atol=1e-7)

    @pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
    def test_a_tone_stays_a_tone_at_16_khz(self, tmp_path: Path, rate: int):
        soundfile.write(tmp_path / "a.wav", tone(1.0, rate), rate, subtype="FLOAT")
        samples = read_audio(tmp_path / "a.wav")
        assert samples.dtype == np.float32
        assert len(samples) == 16000
        np.testing.assert_allclose(samples[1000:-1000], tone(1.0, 16000)[1000:-1000], atol=1e-3)

    @pytest.mark.parametrize(("name", "codec"), [("a.m4a", "aac"), ("a.mp3", "libmp3lame"), ("a.mp4", "aac")])
    def test_compressed_files_are_read(self, tmp_path: Path, name: str, codec: str):
        write_with_ffmpeg(tmp_path / name, codec, tone(1.0, 44100), 44100)
        samples = read_audio(tmp_path / name)
        assert 0.95 < len(samples) / 16000 < 1.15
        spectrum = np.abs(np.fft.rfft(samples))
        assert np.argmax(spectrum) * 16000 / len(samples) == pytest.approx(440, abs=2)

    @pytest.mark.parametrize("content", [b"", b"not a recording", b"RIFF\0\0\0\0WAVEfmt "])
    def test_what_is_no_recording_is_refused(self, tmp_path: Path, content: bytes):
        (tmp_path / "a.wav").write_bytes(content)
        with pytest.raises(BadInput, match=r"a\.wav") as error:
            read_audio(tmp_path / "a.wav")
        assert two_lines(error)

    def test_a_picture_has_no_sound(self, tmp_path: Path):
        Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
        with pytest.raises(BadInput, match="has no sound"):
            read_audio(tmp_path / "a.png")

    @pytest.mark.parametrize("level", [0.0, 5e-5])
    def test_silence_is_refused(self, tmp_path: Path, level: float):
        soundfile.write(tmp_path / "a.wav", tone(1.0, 16000, level=level), 16000, subtype="FLOAT")
        with pytest.raises(BadInput, match="silent"):
            read_audio(tmp_path / "a.wav")

    def test_a_quiet_voice_is_taken(self, tmp_path: Path):
        soundfile.write(tmp_path / "a.wav", tone(1.0, 16000, level=2e-4), 16000, subtype="FLOAT")
        assert len(read_audio(tmp_path / "a.wav")) == 16000

    @pytest.mark.parametrize("samples", [0, 1599])
    def test_less_than_a_tenth_of_a_second_is_refused(self, tmp_path: Path, samples: int):
        soundfile.write(tmp_path / "a.wav", tone(1.0, 16000)[:samples], 16000)
        with pytest.raises(BadInput, match=r"0\.1 s is the least"):
            read_audio(tmp_path / "a.wav")

    def test_samples_that_are_not_finite_are_refused(self, tmp_path: Path):
        samples = tone(1.0, 16000)
        samples[7] = np.nan
        soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
        with pytest.raises(BadInput, match="not finite"):
            read_audio(tmp_path / "a.wav")


def write_with_ffmpeg(path: Path, codec: str, samples: np.ndarray, rate: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.rate = rate
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=rate, frame_size=stream.frame_size)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))


HEIGHT, WIDTH = 64, 96


def numbered(first: int, count: int) -> np.ndarray:
    """Frames whose grey level tells their number."""
    levels = np.arange(first, first + count, dtype=np.uint8) * 4 + 16
    return np.broadcast_to(levels[:, None, None, None], (count, HEIGHT, WIDTH, 3))


def numbers_in(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert all(frame.shape == (HEIGHT, WIDTH, 3) for frame in frames)
    return [round((float(frame.mean()) - 16) / 4) for frame in frames]


def write_until(error: type[BaseException], writer: VideoWriter) -> None:
    with writer:
        writer.write(numbered(0, 10))
        raise error


class TestVideoWriter:
    def test_every_frame_arrives_once_and_in_order(self, tmp_path: Path):
        with VideoWriter(tmp_path / "out.mp4", HEIGHT, WIDTH) as writer:
            for first, count in ((0, 1), (1, 12), (13, 7)):
                writer.write(numbered(first, count))
        assert numbers_in(tmp_path / "out.mp4") == list(range(20))
        assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]

    def test_colours_keep_their_places(self, tmp_path: Path):
        red_green_blue = np.array([200, 40, 90], dtype=np.uint8)
        with VideoWriter(tmp_path / "out.mp4", HEIGHT, WIDTH) as writer:
            writer.write(np.broadcast_to(red_green_blue, (3, HEIGHT, WIDTH, 3)))
        with av.open(str(tmp_path / "out.mp4")) as container:
            frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
        np.testing.assert_allclose(frame.mean(axis=(0, 1)), red_green_blue, atol=4)

    def test_rate_and_codecs(self, tmp_path: Path):
        with VideoWriter(tmp_path / "out.mp4", HEIGHT, WIDTH, audio=tone(1.0, 16000)) as writer:
            writer.write(numbered(0, 25))
        with av.open(str(tmp_path / "out.mp4")) as container:
            video, sound = container.streams.video[0], container.streams.audio[0]
            assert video.average_rate == 25
            assert (video.codec_context.name, sound.codec_context.name) == ("h264", "aac")
            assert video.codec_context.pix_fmt == "yuv420p"
            assert float(video.duration * video.time_base) == pytest.approx(1.0, abs=0.001)

    @pytest.mark.parametrize(("voice", "frames", "expected"), [(10.0, 30, 1.2), (0.7, 30, 0.7), (1.2, 30, 1.2)])
    def test_sound_is_cut_to_the_video(self, tmp_path: Path, voice: float, frames: int, expected: float):
        with VideoWriter(tmp_path / "out.mp4", HEIGHT, WIDTH, audio=tone(voice, 16000)) as writer:
            for frame in range(frames):
                writer.write(numbered(frame, 1))
        samples = read_audio(tmp_path / "out.mp4")
        assert len(samples) / 16000 == pytest.approx(expected, abs=1024 / 16000)
        middle = samples[2048:8192]
        assert np.corrcoef(middle, tone(1.0, 16000)[2048:8192])[0, 1] > 0.95

    def test_an_exception_leaves_nothing_and_keeps_what_was_there(self, tmp_path: Path):
        (tmp_path / "out.mp4").write_bytes(b"an older video")
        with pytest.raises(RuntimeError):
            write_until(RuntimeError, VideoWriter(tmp_path / "out.mp4", HEIGHT, WIDTH))
        assert (tmp_path / "out.mp4").read_bytes() == b"an older video"
        assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]

    def test_a_stopped_video_plays(self, tmp_path: Path):
        voice = tone(10.0, 16000)
        writer = VideoWriter(tmp_path / "out.mp4", HEIGHT, WIDTH, audio=voice, keep_partial=True)
        with pytest.raises(KeyboardInterrupt):
            write_until(KeyboardInterrupt, writer)
        assert numbers_in(tmp_path / "out.mp4") == list(range(10))
        assert len(read_audio(tmp_path / "out.mp4")) / 16000 == pytest.approx(0.4, abs=1024 / 16000)

    @pytest.mark.parametrize("keep_partial", [False, True])
    def test_without_a_frame_nothing_is_left(self, tmp_path: Path, keep_partial: bool):
        with VideoWriter(tmp_path / "out.mp4", HEIGHT, WIDTH, keep_partial=keep_partial):
            pass
        assert not list(tmp_path.iterdir())

    def test_the_target_appears_only_when_whole(self, tmp_path: Path):
        with VideoWriter(tmp_path / "out.mp4", HEIGHT, WIDTH) as writer:
            writer.write(numbered(0, 3))
            assert not (tmp_path / "out.mp4").exists()
        assert (tmp_path / "out.mp4").exists()

    @pytest.mark.parametrize("name", ["missing/out.mp4", "folder.mp4"])
    def test_a_target_that_cannot_be_written_is_named(self, tmp_path: Path, name: str):
        (tmp_path / "folder.mp4").mkdir()
        with pytest.raises(BadInput, match=name):
            write_until(RuntimeError, VideoWriter(tmp_path / name, HEIGHT, WIDTH))
        assert [path.name for path in tmp_path.rglob("*")] == ["folder.mp4"]

    def test_odd_sides_are_refused(self, tmp_path: Path):
        with pytest.raises(BadInput, match="95x64"):
            VideoWriter(tmp_path / "out.mp4", 64, 95)

    def test_frames_of_another_size_are_refused(self, tmp_path: Path):
        with (
            pytest.raises(ValueError, match="uint8"),
            VideoWriter(tmp_path / "out.mp4", HEIGHT, WIDTH) as writer,
        ):
            writer.write(np.zeros((1, 8, 8, 3), np.uint8))

    def test_a_full_disk_is_a_typed_error_and_leaves_nothing(self, tmp_path: Path):
        """A limit on the size of files stands for the disk: the system refuses to write in the same place."""
        script = f"""
            import numpy as np
            from liveavatar_core.errors import BadInput
            from liveavatar_core.media import VideoWriter
            noise = np.random.default_rng(0).integers(0, 256, (8, 256, 256, 3), dtype=np.uint8)
            try:
                with VideoWriter({str(tmp_path / "out.mp4")!r}, 256, 256, keep_partial=True) as writer:
                    for _ in range(40):
                        writer.write(noise)
            except BadInput as error:
                print(error)
        """

        def limit() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))

        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            preexec_fn=limit,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "out.mp4 could not be written after" in done.stdout
        assert "File too large" in done.stdout
        assert not list(tmp_path.iterdir())


def test_media_does_not_import_torch():
    code = "import sys, liveavatar_core.media; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
