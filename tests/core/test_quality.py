"""PSNR-Y and SSIM-Y against hand-computed values and a direct implementation; pairing of folders."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from sr_deploy.core.errors import BadImage
from sr_deploy.core.media.bicubic import resize
from sr_deploy.core.media.image import read_picture
from sr_deploy.core.quality.metrics import METRICS
from sr_deploy.core.quality.pairing import pair_images
from sr_deploy.core.quality.psnr_ssim import crop_like, luma, psnr_y, ssim_y


def noisy_pair(height=40, width=46, seed=0):
    rng = np.random.default_rng(seed)
    hr = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), (5, 5), 1.0)
    sr = np.clip(hr.astype(int) + rng.integers(-9, 10, hr.shape), 0, 255).astype(np.uint8)
    return sr, hr


def test_luma_of_black_white_and_primaries():
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    np.testing.assert_allclose(luma(colours), [[16.0, 235.0, 81.481, 144.553, 40.966]], atol=1e-9)
    np.testing.assert_allclose(luma(np.full((1, 1, 1), 255, np.uint8)), [[235.0]], atol=1e-9)


def test_psnr_of_a_constant_error():
    """One step in R, G and B is 219/255 of luma: 20 log10(255 · 255 / 219)."""
    hr = np.full((20, 20, 3), 100, np.uint8)
    assert psnr_y(hr + 1, hr, 2) == pytest.approx(20 * math.log10(255 * 255 / 219), abs=1e-9)
    assert psnr_y(hr, hr, 2) == math.inf


def test_psnr_leaves_out_the_border():
    hr = np.full((20, 20, 3), 100, np.uint8)
    sr = hr + 1
    sr[:4] = sr[-4:] = 0
    sr[:, :4] = sr[:, -4:] = 0
    assert psnr_y(sr, hr, 4) == pytest.approx(20 * math.log10(255 * 255 / 219), abs=1e-9)
    assert psnr_y(sr, hr, 3) < 30


def test_ssim_equals_a_direct_sum_over_windows():
    sr, hr = noisy_pair()
    a, b = luma(sr)[4:-4, 4:-4], luma(hr)[4:-4, 4:-4]
    weight = cv2.getGaussianKernel(11, 1.5, cv2.CV_64F)
    weight = weight @ weight.T
    values = []
    for top in range(a.shape[0] - 10):
        for left in range(a.shape[1] - 10):
            x, y = a[top : top + 11, left : left + 11], b[top : top + 11, left : left + 11]
            mx, my = (weight * x).sum(), (weight * y).sum()
            vx, vy = (weight * (x - mx) ** 2).sum(), (weight * (y - my) ** 2).sum()
            cov = (weight * (x - mx) * (y - my)).sum()
            c1, c2 = 2.55**2, 7.65**2
            values.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    assert ssim_y(sr, hr, 4) == pytest.approx(np.mean(values), abs=1e-10)
    assert ssim_y(hr, hr, 4) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(("scale", "published"), [(2, (33.66, 0.9299)), (4, (28.42, 0.8104))])
def test_bicubic_reproduces_the_published_table(assets, scale, published):
    """Set5, bicubic, as in most super-resolution tables (for example table 3 of Lim et al. 2017, arXiv 1707.02921).

    Measured here: 33.673 dB, 0.9303 and 28.429 dB, 0.8111; tables differ by as much among themselves.
    """
    folder = assets / "images" / "Set5"
    psnr, ssim = [], []
    for _, low, high in pair_images(folder / "LR_bicubic" / f"X{scale}", folder / "HR", scale):
        hr = read_picture(high).pixels
        sr = resize(read_picture(low).pixels, hr.shape[:2])
        psnr.append(psnr_y(sr, hr, scale))
        ssim.append(ssim_y(sr, hr, scale))
    assert len(psnr) == 5
    assert np.mean(psnr) == pytest.approx(published[0], abs=0.02)
    assert np.mean(ssim) == pytest.approx(published[1], abs=0.001)


def test_16_bit_is_refused():
    deep = np.zeros((30, 30, 3), np.uint16)
    with pytest.raises(BadImage, match="uint16"):
        psnr_y(deep, deep, 2)


def test_originals_are_cropped_at_the_right_and_the_bottom():
    hr = np.random.default_rng(0).integers(0, 256, (43, 41, 3), dtype=np.uint8)
    np.testing.assert_array_equal(crop_like(hr, hr[:40, :40] * 0), hr[:40, :40])


@pytest.mark.parametrize("size", [(44, 40), (40, 44), (20, 40), (40, 20)])
def test_pictures_that_are_no_pair_are_named(size):
    hr = np.zeros((43, 41, 3), np.uint8)
    with pytest.raises(BadImage, match=f"hr.png is 43x41, but the upscaled picture is {size[0]}x{size[1]}"):
        crop_like(hr, np.zeros((*size, 3), np.uint8), "hr.png")


def test_sizes_that_differ_are_named():
    sr = np.zeros((40, 40, 3), np.uint8)
    for metric in METRICS:
        with pytest.raises(BadImage, match="40x40, its original 39x40"):
            metric.of(sr, sr[:39], 2)


def test_pictures_smaller_than_the_window_are_refused():
    tiny = np.zeros((18, 40, 3), np.uint8)
    psnr, ssim = METRICS[:2]
    with pytest.raises(BadImage, match="18x40 is too small to judge by SSIM-Y with a border of 4"):
        ssim.of(tiny, tiny, 4)
    assert psnr.of(tiny, tiny, 4) == math.inf
    with pytest.raises(BadImage, match="too small to judge by PSNR-Y"):
        psnr.of(tiny, tiny, 9)


def touch(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


def test_pairs_by_suffix_and_by_equal_names(tmp_path):
    low = touch(tmp_path / "low", "babyx4.png", "bird.png", "boxx4.jpg", "x4.png")
    high = touch(tmp_path / "high", "baby.png", "bird.jpg", "box.png", "x4.png")
    pairs = pair_images(low, high, 4)
    assert [(name, a.name, b.name) for name, a, b in pairs] == [
        ("baby", "babyx4.png", "baby.png"),
        ("bird", "bird.png", "bird.jpg"),
        ("box", "boxx4.jpg", "box.png"),
        ("x4", "x4.png", "x4.png"),
    ]


def test_pictures_without_partner_are_named(tmp_path):
    low = touch(tmp_path / "low", "babyx4.png", "lonelyx4.png")
    high = touch(tmp_path / "high", "baby.png", "other.png")
    with pytest.raises(BadImage, match=r"2 pictures have no partner: .*lonelyx4\.png, .*other\.png"):
        pair_images(low, high, 4)
    with pytest.raises(BadImage, match="4 pictures have no partner"):
        pair_images(low, high, 2)


def test_ambiguous_pairs_are_named(tmp_path):
    high = touch(tmp_path / "high", "baby.png")
    with pytest.raises(BadImage, match=r"baby\.png and .*babyx2\.png both belong to baby"):
        pair_images(touch(tmp_path / "low", "babyx2.png", "baby.png"), high, 2)
    with pytest.raises(BadImage, match=r"two pictures of one name: baby\.jpg and baby\.png"):
        pair_images(high, touch(tmp_path / "twice", "baby.png", "baby.jpg"), 2)
