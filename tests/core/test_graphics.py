"""Graphics from a seed: every kind, the same ones again, others from another seed, none of them empty."""

from __future__ import annotations

import numpy as np
import pytest

from sr_deploy.core.media.graphics.paint import PAINTERS, painted
from sr_deploy.core.quality.structure import WINDOW, new_structure, off_share


@pytest.fixture(scope="module")
def pictures():
    return dict(painted(len(PAINTERS), 64, seed=3))


def test_each_kind_is_a_picture_of_its_own(pictures):
    assert set(pictures) == {f"{kind}_0" for kind in PAINTERS}
    for name, pixels in pictures.items():
        assert pixels.shape == (64, 64, 3) and pixels.dtype == np.uint8
        assert pixels.reshape(-1, 3).std(axis=0).max() > 3, f"{name} shows nothing"


def test_a_seed_gives_the_same_again_and_another_others(pictures):
    again, other = dict(painted(3, 64, seed=3)), dict(painted(3, 64, seed=4))
    for name, pixels in again.items():
        assert np.array_equal(pixels, pictures[name]) and not np.array_equal(pixels, other[name])


def test_a_set_goes_round_all_kinds_by_seeds_of_their_own(pictures):
    more = dict(painted(len(PAINTERS) + 1, 64, seed=3))
    first = next(iter(PAINTERS))
    assert f"{first}_1" in more and not np.array_equal(more[f"{first}_1"], more[f"{first}_0"])
    assert all(np.array_equal(more[name], pixels) for name, pixels in pictures.items())


def test_every_colour_map_has_saturated_cells():
    for seed in (1, 2):
        shown = [pixels for name, pixels in painted(2 * len(PAINTERS), 96, seed) if name.startswith("colour_map")]
        for pixels in shown:
            assert np.mean(np.ptp(pixels, axis=2) > 150) > 0.1
        assert len(shown) == 2


def test_structure_is_a_patch_that_float32_has_not():
    original = np.full((40, 48, 3), 100, np.uint8)
    grain = (original + np.random.default_rng(0).integers(-9, 10, original.shape)).astype(np.uint8)
    assert new_structure(grain, original, original) < 5 < off_share(grain, original) * 255
    patch = original.copy()
    patch[32:, 40:, 1] = 140
    assert new_structure(patch, original, original) == pytest.approx(40), "the last window counts too"
    assert off_share(patch, original) == pytest.approx(WINDOW**2 / (40 * 48))
    assert new_structure(original, patch, original) == 0, "what float32 alone shows is no fault"
    assert new_structure(patch, patch, original) == 0
    assert new_structure(patch[:5, :5], original[:5, :5], original[:5, :5]) == 0, "smaller than a window"


def test_structure_of_grey_pictures():
    grey, original = np.full((16, 16, 1), 30, np.uint8), np.full((16, 16, 1), 20, np.uint8)
    assert new_structure(grey, original, original) == 10 and off_share(grey, original) == 1
