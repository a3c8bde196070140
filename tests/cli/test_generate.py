"""Whole runs of `generate`, in a process of their own."""

from __future__ import annotations

import re
import signal
import subprocess

import pytest
from command_line import ASSETS, PROGRAM, arguments, decoded, interrupts, refusal
from waiting import PATIENCE

from liveavatar_core.cli.main import main


def test_a_video_is_made_with_its_sound(folder):
    import av

    done = subprocess.run([*PROGRAM, *arguments(folder)], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (0, f"{folder / 'out.mp4'}: 12 frames, 0.48 s, 64x64\n")
    assert re.fullmatch(r"loading the model\nclip 1/1: [\d.]+ s\n", done.stderr)
    with av.open(str(folder / "out.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
    assert decoded(folder / "out.mp4") == 12


@interrupts
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_leaves_a_playable_video(folder, signum, code):
    before = set(folder.iterdir())
    command = [*PROGRAM, *arguments(folder, num_clip="40", audio=str(ASSETS / "voice.wav"))]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        for line in running.stderr:
            if line.startswith("clip 1/"):
                running.send_signal(signum)
                break
        out, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == code
    assert err.splitlines()[-1] == "stopped"
    assert set(folder.iterdir()) - before == {folder / "out.mp4"}
    assert f" {decoded(folder / 'out.mp4')} frames, " in out


@interrupts
def test_a_run_stopped_before_its_first_frame_leaves_nothing(folder):
    """In so many steps that the first frame is far."""
    before = set(folder.iterdir())
    with subprocess.Popen(
        [*PROGRAM, *arguments(folder, sample_steps="1000")], stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr.readline() == "loading the model\n"
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=PATIENCE)
    assert (running.returncode, err) == (130, "stopped\n")
    assert set(folder.iterdir()) == before


def test_a_checkpoint_makes_a_video_and_a_damaged_one_is_refused(folder, capsys):
    from liveavatar_core.parallel.load import seeded_weights
    from liveavatar_core.recipes import TINY, miniature, single
    from liveavatar_core.weights.checkpoint import write_checkpoint

    write_checkpoint(folder / "ckpt", TINY, seeded_weights(miniature(single(1))))
    given = arguments(folder, ckpt_dir=str(folder / "ckpt"), lora="none")
    given = [option for option in given if "seeded_weights" not in option]
    assert main(given) == 0
    assert decoded(folder / "out.mp4") == 12

    vae = folder / "ckpt" / "Wan2.1_VAE.pth"
    vae.write_bytes(vae.read_bytes()[:1000])
    capsys.readouterr()
    assert "Wan2.1_VAE.pth" in refusal(given, folder, capsys)


def test_a_full_card_is_refused_in_two_lines_whatever_says_so(folder, capsys, monkeypatch):
    import torch

    def full(*_: object) -> None:
        raise torch.AcceleratorError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**28, 2**34))
    monkeypatch.setattr("liveavatar_core.cli.generate.write_video", full)
    message = refusal(arguments(folder), folder, capsys)
    assert "rank 0, load: an unknown size asked for activations, 0.25 GiB free of 16.00" in message
