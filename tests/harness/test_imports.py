"""What only compares numbers, and collecting tests, never loads torch."""

import os
import subprocess
import sys

from lab import ROOT


def test_collecting_loads_nothing_heavy(tmp_path):
    probe = tmp_path / "probe.py"
    probe.write_text(
        "import sys\n"
        "def pytest_sessionfinish():\n"
        "    heavy = ('torch', 'transformers', 'diffusers', 'scipy', 'hypothesis')\n"
        "    print('loaded:', [name for name in heavy if name in sys.modules])\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "probe",
        "--collect-only",
        "-q",
        "-m",
        "gpu5x24",
        "suites",
    ]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert "loaded: []" in done.stdout
    assert done.returncode == 0


TORCH_IN = ("suites.harness.workers", "suites.harness.probes.observed_settings", "suites.harness.probes.phase_")
"""What ranks do: the only part of the harness that may import torch."""


def harness_modules() -> list[str]:
    paths = sorted((ROOT / "suites/harness").rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return [name for name in names if not name.startswith(TORCH_IN) and not name.endswith("__main__")]


def test_what_only_compares_numbers_never_imports_torch():
    lines = [f"import {module}" for module in harness_modules()]
    code = "\n".join(["import sys", *(f"{line}; assert 'torch' not in sys.modules, {line!r}" for line in lines)])
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
