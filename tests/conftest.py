"""What all tests share: golden data and its cases, and what makes a busy machine no other than an idle one.

Free of torch, so that collecting stays quick.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

# Models of tests are too small to gain from threads, and threads that share their cores with workers of pytest-xdist,
# or with anything else, wait for each other most of the time. Torch reads this when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# How long an example takes, or drawing it, says something about the machine and nothing about what is tested.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# For mutants: the same examples each time, and no search for the smallest that fails.
settings.register_profile(
    "mutants", settings.get_profile("any machine"), derandomize=True, phases=(Phase.explicit, Phase.generate)
)
settings.load_profile("any machine")

GOLDEN = Path(__file__).parent / "golden"

KINDS = {
    "dit_case": ("frame_packer.safetensors", "inputs.safetensors", "state_dict.safetensors"),
    "lora_case": ("lora.safetensors", "merged_some.safetensors"),
    "vae_case": ("io.safetensors", "state_dict.safetensors", "config:z_dim"),
    "text_case": ("io.safetensors", "state_dict.safetensors", "config:vocab"),
    "audio_case": ("io.safetensors", "wav2vec2_state_dict.safetensors"),
    "pipeline_case": ("conditioning.safetensors", "offline.safetensors"),
    "pipeline_tpp_case": ("tpp.safetensors",),
}
"""Fixture -> what such a case holds: files, or `config:KEY`, a key of its meta.json's config."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", type=Path, default=GOLDEN, metavar="DIR", help="golden data to test against")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Signals reach this test, and the processes that it starts, as they reach a program in a terminal.

    A shell starts what it runs in the background with Ctrl-C ignored, and all that comes from there inherits that.
    """
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Path:
    """The golden directory itself, for the files beside the cases (manifests, scheduler.json)."""
    return request.config.getoption("golden")


AT_NIGHT = {"offline": "its latents are compared one by one in parity/test_clips.py; what differs is in the other runs"}
"""Runs of pipeline cases that are long, and why they need not run by day."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for kind in [kind for kind in KINDS if kind in metafunc.fixturenames]:  # in one order, as workers must agree
        cases = cases_of(kind, metafunc.config.getoption("golden"))
        metafunc.parametrize(kind, cases, ids=[case.name for case in cases], scope="session")
    if "pipeline_run" in metafunc.fixturenames:
        metafunc.parametrize("pipeline_run", [*runs(cases_of("pipeline_case", metafunc.config.getoption("golden")))])


def runs(cases: list[Path]) -> Iterator[object]:
    """A parameter for each run that a pipeline case stores: the folder, and the run's name."""
    for case in cases:
        for name in json.loads((case / "meta.json").read_text())["runs"]:
            marks = pytest.mark.nightly if name in AT_NIGHT else ()
            yield pytest.param((case, name), id=f"{case.name}-{name}", marks=marks)


def cases_of(kind: str, directory: Path) -> list[Path]:
    """The folders of `directory` that are cases of a kind of KINDS, by name."""
    folders = sorted(path for path in directory.iterdir() if path.is_dir())
    return [folder for folder in folders if all(_holds(folder, need) for need in KINDS[kind])]


def _holds(folder: Path, need: str) -> bool:
    if not need.startswith("config:"):
        return (folder / need).is_file()
    meta = folder / "meta.json"
    return meta.is_file() and need.removeprefix("config:") in json.loads(meta.read_text()).get("config", {})
