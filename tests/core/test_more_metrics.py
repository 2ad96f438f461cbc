"""NIQE, grid, colour shift and fidelity: against a slow reading of their formulas, or a picture made for it."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from sr_deploy.core.errors import BadImage, BadInput
from sr_deploy.core.quality.metrics import METRICS, Beside, figures_of, means_of, unjudged
from sr_deploy.core.quality.niqe import Natural, natural_of, niqe
from sr_deploy.core.quality.psnr_ssim import luma, psnr_rgb
from sr_deploy.core.quality.shifts import colour_shift, sub_pixel_grid

RNG = np.random.default_rng(5)
NATURAL = Natural(np.linspace(0.2, 3.0, 36), np.diag(np.linspace(0.5, 2.0, 36)), "made up")


def photo(height, width):
    """Smooth, with noise: all statistics of NIQE are defined."""
    coarse = RNG.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(int)
    return np.clip(smooth + RNG.integers(-6, 7, smooth.shape), 0, 255).astype(np.uint8)


PHOTO = photo(4 * 96 + 9, 5 * 96 + 7)


SHAPES = {
    n / 1000: math.gamma(2000 / n) ** 2 / (math.gamma(1000 / n) * math.gamma(3000 / n)) for n in range(200, 10001)
}


def slow_asymmetric(values):
    values = values.ravel()
    left = math.sqrt((values[values < 0] ** 2).mean())
    right = math.sqrt((values[values > 0] ** 2).mean())
    ratio = left / right
    wanted = np.abs(values).mean() ** 2 / (values**2).mean() * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    best = min(SHAPES, key=lambda shape: (SHAPES[shape] - wanted) ** 2)
    scale = math.sqrt(math.gamma(1 / best) / math.gamma(3 / best))
    return best, left * scale, right * scale


def slow_niqe(sr, natural):
    """By OpenCV's filters and MATLAB's window, block for block."""
    window = cv2.getGaussianKernel(7, 7 / 6, cv2.CV_64F)
    window = window @ window.T
    plane = np.rint(luma(sr))[: 4 * 96, : 5 * 96]
    # Every second pixel of the picture blurred by the kernel of a halving imresize.
    taps = np.array([-3, -9, 29, 111, 111, 29, -9, -3]) / 256
    padded = np.pad(plane / 255, 3, mode="symmetric")
    rows = sum(taps[k] * padded[k : k + plane.shape[0] : 2] for k in range(8))
    half = 255 * sum(taps[k] * rows[:, k : k + plane.shape[1] : 2] for k in range(8))
    found = [[], []]
    for scale, picture in enumerate((plane, half)):
        mean = cv2.filter2D(picture, -1, window, borderType=cv2.BORDER_REPLICATE)
        square = cv2.filter2D(picture**2, -1, window, borderType=cv2.BORDER_REPLICATE)
        normal = (picture - mean) / (np.sqrt(abs(square - mean**2)) + 1)
        side = 96 >> scale
        for top in range(0, normal.shape[0], side):
            for left in range(0, normal.shape[1], side):
                block = normal[top : top + side, left : left + side]
                shape, one, other = slow_asymmetric(block)
                numbers = [shape, (one + other) / 2]
                for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
                    shape, one, other = slow_asymmetric(block * np.roll(block, shift, axis=(0, 1)))
                    numbers += [shape, (other - one) * math.gamma(2 / shape) / math.gamma(1 / shape), one, other]
                found[scale].append(numbers)
    found = np.concatenate(found, axis=1)
    apart = natural.mean - found.mean(axis=0)
    return math.sqrt(apart @ np.linalg.pinv((natural.covariance + np.cov(found.T)) / 2) @ apart)


def test_niqe_is_what_its_paper_says():
    # Few shapes are tried on few numbers here, so one that lies between two may fall to either.
    assert niqe(PHOTO, 0, NATURAL) == pytest.approx(slow_niqe(PHOTO, NATURAL), rel=1e-6)


def test_niqe_of_few_blocks_is_none_and_the_border_is_left_out():
    assert niqe(PHOTO[:300], 0, NATURAL) is None
    framed = np.pad(PHOTO, ((4, 4), (4, 4), (0, 0)))
    assert niqe(framed, 4, NATURAL) == niqe(PHOTO, 0, NATURAL)


def test_statistics_are_read_from_a_file_of_the_right_form_only(tmp_path):
    good = tmp_path / "good.npz"
    np.savez(good, mu_pris_param=NATURAL.mean[None], cov_pris_param=NATURAL.covariance)
    assert np.array_equal(natural_of(good).mean, NATURAL.mean)
    for name, arrays, found in (
        ("short.npz", {"mu_pris_param": np.zeros(18), "cov_pris_param": np.eye(18)}, r"shapes \(18,\)"),
        ("nan.npz", {"mu_pris_param": np.full(36, np.nan), "cov_pris_param": np.eye(36)}, "not finite"),
        ("other.npz", {"pop_mu": np.zeros(36), "pop_cov": np.eye(36)}, "KeyError"),
    ):
        np.savez(tmp_path / name, **arrays)
        with pytest.raises(BadInput, match=found):
            natural_of(tmp_path / name)
    (tmp_path / "text.npz").write_text("no archive")
    for name in ("text.npz", "missing.npz"):
        with pytest.raises(BadInput, match="does not hold statistics"):
            natural_of(tmp_path / name)


def test_a_grid_is_the_difference_between_the_phases():
    hr = np.full((24, 32, 3), 100, np.uint8)
    sr = hr.copy()
    sr[1::4, 2::4] += 10
    step = 10 * 219 / 255
    assert sub_pixel_grid(sr, hr, 4) == pytest.approx(step)
    assert sub_pixel_grid(sr, hr, 2) == pytest.approx(step / 4), "of four places that fall together, one is off"
    assert sub_pixel_grid(hr + 10, hr, 4) == pytest.approx(0, abs=1e-9), "what is off everywhere is no grid"
    assert sub_pixel_grid(sr, hr, 1) == 0


def test_a_colour_shift_is_the_largest_of_three():
    hr = np.full((24, 32, 3), 100, np.uint8)
    sr = hr + np.array([1, 0, 0], np.uint8)
    sr[:, :, 2] -= 3
    sr[:2] = 0
    assert colour_shift(sr, hr, 2) == 3
    assert colour_shift(hr, hr[:, :, :1], 2) == 0


def test_fidelity_is_psnr_to_the_reference():
    sr = np.full((20, 20, 3), 100, np.uint8)
    reference = sr.copy()
    reference[:, :, 1] += 3
    assert psnr_rgb(sr, 2, reference) == pytest.approx(10 * math.log10(255**2 / 3))
    assert psnr_rgb(sr, 2, sr) == math.inf
    with pytest.raises(BadImage, match="the reference's 20x10"):
        psnr_rgb(sr, 2, reference[:, :10])


def test_what_needs_something_beside_is_taken_with_it_only():
    small, large = PHOTO[:64, :64], PHOTO
    plain = figures_of(small, small, 2)
    assert list(plain) == [metric.key for metric in METRICS if not metric.beside]
    full = figures_of(large, large, 2, Beside(large, NATURAL))
    assert list(full) == [metric.key for metric in METRICS] and full["fidelity"] == math.inf
    some = figures_of(small, small, 2, Beside(small, NATURAL))
    assert "niqe" not in some
    means = means_of([full, some])
    assert means["niqe"] == full["niqe"], "of those that it can judge"
    assert "fidelity" not in means_of([full, plain]) and "niqe" in means_of([full, plain])
    assert unjudged([full, some]) == ("NIQE: of 1 of 2 pictures, those with 20 or more blocks of 96x96 pixels",)
    assert unjudged([full]) == unjudged([some]) == ()
