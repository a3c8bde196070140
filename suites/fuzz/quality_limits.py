"""How bad a video of the tiny avatar may be: as bad as baselines of the quality suite let it be. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from liveavatar_core.deployment import Deployment
from liveavatar_core.shipped_files import shipped_folder
from suites.harness.verdicts.baselines import MetricBaseline, read_baseline
from suites.harness.verdicts.compare import allowed_change
from suites.harness.verdicts.metrics import worsening

BASELINES = shipped_folder(Path(__file__).parents[1], "baselines") / "miniature/quality1.toml"
"""The baselines of videos made by one process, which hold for every layout: all make the same video."""


def floors(layout: Deployment, path: Path = BASELINES) -> Mapping[str, MetricBaseline]:
    """Reviewed metrics of videos with as many bits as `layout` keeps. Raises BadData where there are none."""
    return read_baseline(path).cases[_case(layout)].metrics


def _case(layout: Deployment) -> str:
    """The case of the quality suite with as many bits; of 32 bits no less may be asked than of 16."""
    if layout.fp8_kv_cache:
        return "fp8_caches"
    return "fp8" if layout.fp8 else "int8" if layout.int8 else "bf16"


def too_bad(quality: Mapping[str, float], allowed: Mapping[str, MetricBaseline]) -> Iterator[str]:
    """A line for each metric of both that is worse than its baseline by more than that lets through."""
    for name in sorted(quality.keys() & allowed.keys()):
        baseline = allowed[name]
        if worsening(name, baseline.value, quality[name]) > allowed_change(baseline):
            yield f"{name} {quality[name]:.4g}, {allowed_change(baseline):.3g} off {baseline.value:.4g} allowed"
