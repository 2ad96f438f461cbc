"""Bicubic resizing: bit-exact against published MATLAB reductions, and its simple properties."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sr_deploy.core.errors import UsageError
from sr_deploy.core.media.bicubic import crop_to_multiple, resize


def enlarge(pixels, factor):
    return resize(pixels, (pixels.shape[0] * factor, pixels.shape[1] * factor))


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("name", ["Set5", "Set14"])
def test_reductions_equal_matlabs_bit_for_bit(assets, name, scale):
    originals = sorted((assets / "images" / name / "HR").glob("*.png"))
    assert originals
    for path in originals:
        reduced = assets / "images" / name / "LR_bicubic" / f"X{scale}" / f"{path.stem}x{scale}.png"
        high = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        low = cv2.imread(str(reduced), cv2.IMREAD_UNCHANGED)
        assert low.shape[:2] == (high.shape[0] // scale, high.shape[1] // scale)
        np.testing.assert_array_equal(resize(crop_to_multiple(high, scale), low.shape[:2]), low, err_msg=path.name)


def test_upscaling_weights_of_factor_two():
    """An impulse far from the border gives the kernel at distances of 0.25, 0.75, 1.25 and 1.75 pixels."""
    line = np.zeros((1, 9, 1))
    line[0, 4] = 1.0
    near, mid, far, last = 0.8671875, 0.2265625, -0.0703125, -0.0234375
    expected = [last, far, mid, near, near, mid, far, last]
    np.testing.assert_allclose(enlarge(line, 2)[0, 5:13, 0], expected, atol=1e-15)


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3, 3), (7, 5, 1)])
def test_flat_pictures_stay_flat_even_when_smaller_than_the_kernel(factor, shape):
    flat = np.full(shape, 201, np.uint8)
    large = enlarge(flat, factor)
    assert large.shape == (shape[0] * factor, shape[1] * factor, *shape[2:])
    assert large.dtype == np.uint8
    assert (large == 201).all()
    np.testing.assert_array_equal(resize(large, shape[:2]), flat)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_overshoot_is_limited_to_the_integer_range(dtype):
    full = np.iinfo(dtype).max
    edge = np.zeros((8, 8), dtype)
    edge[:, 4:] = full
    large = enlarge(edge, 4)
    assert large.min() == 0
    assert large.max() == full
    assert enlarge(edge.astype(np.float64), 4).max() > full


def test_a_ramp_is_reproduced_inside():
    """The kernel interpolates straight lines exactly; output pixel i lies at (i + 0.5) / 4 - 0.5."""
    ramp = np.tile(np.arange(20.0), (6, 1))
    positions = (np.arange(80) + 0.5) / 4 - 0.5
    np.testing.assert_allclose(enlarge(ramp, 4)[12, 12:-12], positions[12:-12], atol=1e-12)


def test_crop_keeps_the_top_left():
    pixels = np.arange(7 * 9).reshape(7, 9)
    np.testing.assert_array_equal(crop_to_multiple(pixels, 4), pixels[:4, :8])


def test_each_axis_has_its_own_factor():
    """Separable: height and width resized one after the other, in either order, are the whole thing."""
    pixels = np.random.default_rng(0).random((12, 15, 3))
    both = resize(pixels, (30, 5))
    np.testing.assert_allclose(both, resize(resize(pixels, (30, 15)), (30, 5)), atol=1e-12)
    np.testing.assert_allclose(both, resize(resize(pixels, (12, 5)), (30, 5)), atol=1e-12)


def test_nothing_is_no_size():
    with pytest.raises(UsageError, match="cannot resize a picture to 0x4"):
        resize(np.zeros((4, 4)), (0, 4))
