"""Each metric sees the distortion that it is for, and no other; the table in the documents says the same."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from suites.harness.report.generated_blocks import lines_between
from suites.quality.distortions import DISTORTIONS, NAME, PAGE, clean_video, measured, pixels, reactions

NAMES = [distortion.spoil.__name__ for distortion in DISTORTIONS]


@pytest.fixture(scope="module", params=[0, 1, 2])
def video(request):
    return clean_video(face=request.param)


@pytest.fixture(scope="module")
def clean(video):
    return measured(video)


def test_nothing_is_wrong_with_the_clean_video(clean):
    assert not clean.missing
    assert clean.values["lip_sync_lag_ms"] == pytest.approx(0, abs=4)
    assert clean.values["lip_sync_strength"] > 0.8


@pytest.mark.parametrize("distortion", DISTORTIONS, ids=NAMES)
def test_distortion_is_seen_by_its_metrics_alone(video, clean, distortion):
    before = pixels(video).copy()
    assert reactions(clean, measured(distortion.spoil(video))) == distortion.seen_by
    assert (pixels(video) == before).all(), "the clean video is left as it was"


@pytest.mark.parametrize("late", [-6, -2, 1, 5])
def test_the_lag_of_a_drawn_head_is_found_to_a_tenth_of_a_frame(video, late):
    shifted = replace(video, frames=np.roll(pixels(video), late, axis=0))
    assert measured(shifted).values["lip_sync_lag_ms"] == pytest.approx(40 * late, abs=4)


def test_every_metric_sees_something(clean):
    assert set().union(*(distortion.seen_by for distortion in DISTORTIONS)) == clean.values.keys()


def test_the_documents_have_the_table():
    lines = lines_between(PAGE.read_text(), NAME)
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    seen = {name: {row[0].strip("`") for row in rows if row[at].startswith("**")} for at, name in enumerate(head)}
    assert {name: seen[name] for name in head[2:]} == {
        distortion.name: set(distortion.seen_by) for distortion in DISTORTIONS
    }
    assert all(re.fullmatch(r"-?[\d.]+", row[1]) for row in rows)
