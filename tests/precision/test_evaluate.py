"""Judging graphs on pictures: the figures are those of their definitions, and NaN never passes for a picture."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from onnx import numpy_helper

from sr_deploy.core.contract import IOContract
from sr_deploy.core.errors import BadImage
from sr_deploy.core.media.bicubic import resize
from sr_deploy.core.media.image import Picture, from_network, to_network, write_picture
from sr_deploy.core.quality.psnr_ssim import LUMA_WEIGHTS, luma, psnr_y
from sr_deploy.graph.byte_io import byte_graph
from sr_deploy.precision.calibrate.collect import ranges_of
from sr_deploy.precision.calibrate.ranges import scale_of
from sr_deploy.precision.choose.islands import kinds_of
from sr_deploy.precision.choose.plan_from_ranges import Scales
from sr_deploy.precision.choose.sensitivity import View, sensitivities
from sr_deploy.precision.evaluate import (
    LEAST_SIDE,
    SHRUNK,
    WORSE,
    Judged,
    PictureJudged,
    computing,
    judge,
    judging,
    scenes_from_photographs,
    scenes_of,
    within_reach,
)
from sr_deploy.precision.lower.typed_graph import half_graph, typed_graph
from tests.precision import small_plans

CONTRACT = IOContract(1.0)
RNG = np.random.default_rng(0)


def test_what_a_picture_wins_by_luck_does_not_count():
    each = tuple(PictureJudged(str(loss), SHRUNK, loss, noise) for loss, noise in ((0.4, 0.1), (-1.0, 0.2), (0.0, 0.0)))
    judged = Judged(30.0, 30.0, 0.0, 0.0, 0.0, 0.0, 0, len(each), each)
    assert judged.without_luck == pytest.approx(0.2)


def nearest(lr: np.ndarray) -> np.ndarray:
    return lr.repeat(2, 2).repeat(2, 3)


def photograph(height: int, width: int) -> Picture:
    rows, columns = np.mgrid[0:height, 0:width]
    planes = [127 + 100 * np.sin(rows / (5 + k) + columns / 9) for k in range(3)]
    return Picture(np.rint(np.stack(planes, 2)).astype(np.uint8))


@pytest.fixture(scope="module")
def scenes():
    return scenes_from_photographs([("a", photograph(80, 96)), ("b", photograph(70, 120))], 2, CONTRACT, nearest, 32)


def test_photographs_are_their_own_originals(scenes):
    for scene in scenes:
        assert scene.lr.size == (32, 32) and scene.hr.shape == (64, 64, 3)
        assert np.array_equal(scene.reference, scene.lr.pixels.repeat(2, 0).repeat(2, 1))
        assert scene.reference_psnr == pytest.approx(psnr_y(scene.reference, scene.hr, 2))
        assert 15 < scene.reference_psnr < 60


def test_the_centre_is_taken_in_multiples_and_small_ones_are_left_out():
    tiny = ("tiny", photograph(2 * LEAST_SIDE - 1, 90))
    fits = ("fits", photograph(2 * LEAST_SIDE, 91))
    scenes = scenes_from_photographs([tiny, fits], 2, CONTRACT, nearest, 100, multiple=8)
    assert [scene.name for scene in scenes] == ["fits"] and scenes[0].lr.size == (16, 40)
    assert np.array_equal(scenes[0].hr, fits[1].pixels[:, 5:85])


def test_the_reference_itself_loses_nothing(scenes):
    found = judge(scenes, nearest, 2, CONTRACT)
    assert found.loss == 0 and found.noise == 0 and found.mean_shift == 0 and found.sick == 0 and found.pictures == 2


def test_noise_that_has_nothing_to_do_with_the_error_costs_what_it_is_said_to(scenes):
    def noisy(lr):
        out = nearest(lr)
        return out + np.random.default_rng(lr.size).normal(0, 4 / 255, out[:, :1].shape)

    found = judge(scenes, noisy, 2, CONTRACT)
    assert found.independent > 0.05 and found.felt == pytest.approx(1.0, abs=0.15)

    def nearer(lr):
        scene = next(scene for scene in scenes if np.array_equal(to_network(scene.lr, CONTRACT), lr))
        original = to_network(Picture(scene.hr), CONTRACT)
        return 0.8 * nearest(lr) + 0.2 * original

    assert judge(scenes, nearer, 2, CONTRACT).felt < 0, "a change towards the original is a gain"
    assert judge(scenes, nearest, 2, CONTRACT).felt == 0


def test_noise_and_shift_are_in_8_bit_steps(scenes):
    def shifted(lr):
        out = nearest(lr).copy()
        out[:, 1] += 3 / 255
        return out

    found = judge(scenes, shifted, 2, CONTRACT)
    assert found.mean_shift == pytest.approx(3, abs=0.01) == found.worst_shift
    green = np.zeros((1, 1, 3), np.uint8)
    green[..., 1] = 3
    step = float((luma(green) - luma(np.zeros_like(green))).mean())
    assert found.noise == pytest.approx(step**2, rel=0.02)
    assert found.psnr == pytest.approx(
        np.mean([psnr_y(np.clip(s.reference.astype(int) + green, 0, 255).astype(np.uint8), s.hr, 2) for s in scenes])
    )
    assert found.loss == pytest.approx(found.reference_psnr - found.psnr)


@pytest.mark.parametrize("strength", [0.02, 0.3])
def test_noise_is_measured_before_rounding(strength):
    """Rounded pictures alone would show 0.02 steps of noise as more than 0.06."""
    picture = [("a", photograph(80, 96))]

    def smooth(lr):
        return nearest(lr) + np.linspace(0, 1 / 255, 64, dtype=np.float32)

    def noisy(lr):
        out = smooth(lr)
        return (out + np.random.default_rng(1).normal(0, strength / 255, out.shape)).astype(np.float32)

    scenes = scenes_from_photographs(picture, 2, CONTRACT, smooth, 32)
    weights = np.asarray(LUMA_WEIGHTS) / 255
    wanted = strength**2 * float(weights @ weights)
    assert judge(scenes, noisy, 2, CONTRACT).noise == pytest.approx(wanted, rel=0.05)
    pixels = from_network(noisy(to_network(scenes[0].lr, CONTRACT)), CONTRACT, scenes[0].lr).pixels
    assert np.mean((luma(pixels) - luma(scenes[0].reference)) ** 2) > 1.5 * wanted


def test_a_graph_that_rounds_itself_is_judged_before_it_does():
    """The same network in floats and with 8-bit ends: the same noise, the same pixels."""
    model, pictures, found = small_plans.network(), [("a", photograph(64, 64))], []
    for tensor in model.graph.initializer:
        if tensor.name in ("low", "high"):
            tensor.CopyFrom(numpy_helper.from_array(np.array(tensor.name == "high", np.float32), tensor.name))
    for contract, ends in (
        (CONTRACT, lambda one: one),
        (IOContract(255.0, layout="NHWC", dtype="uint8"), lambda one: byte_graph(one, 1.0)),
    ):
        exact, rounded = ends(model), half_graph(ends(model))
        scenes = scenes_from_photographs(pictures, 2, contract, judging(exact, 1), 24)
        found.append(judge(scenes, judging(rounded, 1), 2, contract))
        pixels = computing(exact, 1)(to_network(scenes[0].lr, contract))
        if contract.dtype == "uint8":
            assert pixels.dtype == np.uint8 and np.array_equal(pixels[0], scenes[0].reference)
    assert 0 < found[0].noise < 0.1 and found[1].noise == pytest.approx(found[0].noise, rel=0.2)


def test_it_ends_where_it_is_enough_and_begins_where_it_is_told(scenes):
    seen = []

    def watched(lr):
        seen.append(next(index for index, one in enumerate(scenes) if np.array_equal(to_network(one.lr, CONTRACT), lr)))
        return nearest(lr)

    found = judge(scenes, watched, 2, CONTRACT, order=(1, 0))
    assert seen == [1, 0] and [one.name for one in found.each] == ["a", "b"]
    seen.clear()
    found = judge(scenes, watched, 2, CONTRACT, order=(1, 0), enough=lambda one: one.name == "b")
    assert seen == [1] and [one.name for one in found.each] == ["b"] and found.pictures == 1
    assert found.reference_psnr == scenes[1].reference_psnr


def test_shifts_of_opposite_sign_cancel_over_the_set_but_not_in_a_picture(scenes):
    signs = iter((1, -1))
    found = judge(scenes, lambda lr: nearest(lr) + next(signs) * np.float32(2 / 255), 2, CONTRACT)
    assert found.worst_shift == pytest.approx(2, abs=0.02) and found.mean_shift < 0.02


def test_one_nan_is_minus_infinity(scenes):
    calls = []

    def once(lr):
        out = nearest(lr).copy()
        if not calls:
            out[0, 0, 5, 5] = np.nan
            out[0, 1, 5, 5] = np.inf
        calls.append(1)
        return out

    found = judge(scenes, once, 2, CONTRACT)
    assert found.sick == 2 and found.psnr == float("-inf") and found.loss == float("inf")


def test_pairs_from_folders(tmp_path):
    for name in ("lr", "hr"):
        (tmp_path / name).mkdir()
    write_picture(photograph(64, 60), tmp_path / "hr" / "baby.png")
    write_picture(photograph(32, 30), tmp_path / "lr" / "babyx2.png")
    scenes = scenes_of(tmp_path / "lr", tmp_path / "hr", 2, CONTRACT, nearest)
    assert len(scenes) == 1 and scenes[0].hr.shape == (64, 60, 3)
    write_picture(photograph(32, 30), tmp_path / "lr" / "birdx2.png")
    with pytest.raises(BadImage, match="bird"):
        scenes_of(tmp_path / "lr", tmp_path / "hr", 2, CONTRACT, nearest)


def test_float16_is_really_rounded():
    """ONNX Runtime alone computes float16 nodes in float32 on a CPU and drops the casts between them."""
    model = small_plans.network()
    lr = small_plans.pictures(1)[0]
    half = computing(half_graph(model), 1)(lr)
    assert half.dtype == np.float32 and np.array_equal(half, half.astype(np.float16).astype(np.float32))
    assert 0 < np.abs(half - computing(model, 1)(lr)).max() < 0.05


def test_layers_alone_and_their_order():
    model = small_plans.network()
    macs = {"head/Conv": 1, "one.a/Conv": 4, "one.b/Conv": 4, "two.a/Conv": 4, "two.b/Conv": 4, "tail/Conv": 1}
    kinds = kinds_of(model, macs)
    inputs = small_plans.pictures(2)
    scales = {name: scale_of(stats) for name, stats in ranges_of(model, inputs).tensors.items()}
    scales["two.r"] *= 30  # a layer that reads far too coarse a grid
    scenes = scenes_from_photographs([("a", photograph(64, 64))], 2, CONTRACT, computing(model, 1), 24)
    view = View(scenes, 2, CONTRACT, threads=1)
    names = ["one.a/Conv", "one.b/Conv", "two.b/Conv", "head/Conv"]
    found = sensitivities(model, kinds, Scales(scales), {}, view, dict.fromkeys(names, "int8"))
    assert sorted(one.name for one in found) == sorted(names) and found[0].name == "two.b/Conv"
    assert [one.noise for one in found] == sorted((one.noise for one in found), reverse=True) and found[-1].noise >= 0
    by_name = {one.name: one for one in found}
    assert by_name["head/Conv"].why_wide.startswith("head") and by_name["one.a/Conv"].why_wide == ""
    assert by_name["one.a/Conv"].macs_share == pytest.approx(4 / 18)
    assert found[0].noise > 4 * found[1].noise
    plan = small_plans.plan_of(model)
    assert judge(scenes, computing(typed_graph(model, plan, {}), 1), 2, CONTRACT).noise > 0


def test_each_picture_is_told_and_the_worst_named(scenes):
    """One of two pictures is spoilt in a corner: the mean halves it, the worst does not."""
    spoilt = scenes[1].lr.pixels

    def compute(lr):
        result = nearest(lr)
        if np.array_equal(lr, to_network(Picture(spoilt), CONTRACT)):
            result[:, :, :16, :16] = 0
        return result

    found = judge(scenes, compute, 2, CONTRACT)
    assert [one.name for one in found.each] == ["a", "b"] and {one.kind for one in found.each} == {SHRUNK}
    assert found.worst.name == "b" and found.worst.loss == pytest.approx(2 * found.loss)
    assert found.each[0].off == found.each[0].structure == 0
    assert found.worst.off == pytest.approx(16 * 16 / 64**2, abs=0.01) and found.worst.structure > 50


def test_nothing_is_held_against_a_picture_on_which_float32_itself_fails(scenes):
    assert all(within_reach(scene, 2) for scene in scenes_from_photographs(
        [("a", photograph(80, 96))], 2, CONTRACT, lambda lr: perfect(), 32))  # fmt: skip
    height, width = scenes[0].lr.size
    bicubic = psnr_y(resize(scenes[0].lr.pixels, (2 * height, 2 * width)), scenes[0].hr, 2)
    for psnr, judged in ((bicubic - 0.9 * WORSE, True), (bicubic - 1.1 * WORSE, False)):
        assert within_reach(dataclasses.replace(scenes[0], reference_psnr=psnr), 2) == judged
    off = scenes[0].hr.copy()
    off[:8, :8] ^= 255
    assert not within_reach(dataclasses.replace(scenes[0], reference=off), 2), "a patch of something else"


def perfect() -> np.ndarray:
    """The original itself: better than bicubic."""
    pixels = photograph(80, 96).pixels[8:72, 16:80]
    return to_network(Picture(np.ascontiguousarray(pixels)), CONTRACT)
