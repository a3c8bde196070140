"""Output sizes and fitted portraits equal the reference's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from liveavatar_core.errors import BadInput
from liveavatar_core.video_geometry import fit_portrait, output_size


def test_every_row_of_the_size_table(pipeline_case: Path):
    rows = json.loads((pipeline_case / "sizes.json").read_text())["rows"]
    assert len(rows) > 100
    assert [[*row[:3], *output_size(*row[:3])] for row in rows] == rows


def test_letterboxed_portraits_equal_the_reference_to_the_pixel(pipeline_case: Path):
    tensors = load_file(pipeline_case / "resize_cases.safetensors")
    cases = [name.removesuffix(".image") for name in tensors if name.endswith(".image")]
    assert cases
    for name in cases:
        assert_fitted(tensors[f"{name}.image"], tensors[f"{name}.out"])


def test_the_conditioning_portrait_equals_the_reference_to_the_pixel(pipeline_case: Path):
    tensors = load_file(pipeline_case / "conditioning.safetensors")
    assert_fitted(tensors["image"], tensors["image_resized_cropped"])


def assert_fitted(image: np.ndarray, expected: np.ndarray) -> None:
    height, width = expected.shape[:2]
    fitted = fit_portrait(Image.fromarray(image), height, width, letterbox=True)
    np.testing.assert_array_equal(np.asarray(fitted), expected)


@pytest.mark.parametrize(("width", "first"), [(65, 0), (66, 1), (67, 2), (68, 2), (69, 2), (71, 4)])
def test_an_odd_rest_is_cut_as_the_reference_cuts_it(width: int, first: int):
    """Half a pixel is rounded to the even side."""
    columns = np.broadcast_to(np.arange(width, dtype=np.uint8)[None, :, None], (64, width, 3))
    fitted = np.asarray(fit_portrait(Image.fromarray(columns.copy()), 64, 64, letterbox=True))
    np.testing.assert_array_equal(fitted[0, :, 0], np.arange(first, first + 64))


@pytest.mark.parametrize("portrait", [(40, 300), (300, 40), (64, 64), (7, 9), (1000, 999), (1, 1)])
@pytest.mark.parametrize("target", [(128, 64), (64, 128), (192, 192)])
def test_without_letterbox_nothing_is_left_black(portrait: tuple[int, int], target: tuple[int, int]):
    image = Image.new("RGB", portrait, (255, 255, 255))
    fitted = np.asarray(fit_portrait(image, *target, letterbox=False))
    assert fitted.shape == (*target, 3)
    assert (fitted == 255).all()


def test_without_letterbox_the_centre_stays_in_the_centre():
    image = Image.new("RGB", (400, 100))
    image.paste((255, 0, 0), (198, 48, 202, 52))
    red = np.asarray(fit_portrait(image, 64, 64, letterbox=False))[..., 0]
    rows, columns = np.nonzero(red > 64)
    assert abs(rows.mean() - 31.5) < 1
    assert abs(columns.mean() - 31.5) < 1


@pytest.mark.parametrize("portrait", [(1, 1), (64, 64), (900, 200), (200, 900), (4000, 3000), (100, 60)])
@pytest.mark.parametrize("max_area", [64 * 64, 384 * 256, 704 * 384, 1280 * 720])
def test_sizes_are_on_the_grid_and_within_the_area(portrait: tuple[int, int], max_area: int):
    height, width = output_size(*portrait, max_area)
    assert height % 64 == 0
    assert width % 64 == 0
    assert 0 < height * width <= max_area


def test_a_portrait_too_narrow_for_the_grid_is_refused():
    with pytest.raises(BadInput, match="20x3000 pixels"):
        output_size(3000, 20, 64 * 64)
