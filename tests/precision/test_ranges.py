"""A scale follows from a histogram as its method says, for every tensor that may come."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sr_deploy.core.errors import BadInput, CheckFailed, UsageError
from sr_deploy.precision.calibrate.collect import _Running
from sr_deploy.precision.calibrate.noise_curve import CLIPPED, CUTS, noise_curve
from sr_deploy.precision.calibrate.ranges import (
    DEAD_SCALE,
    METHODS,
    Ranges,
    TensorStats,
    open_ranges,
    quantisation_error,
    save_ranges,
    scale_of,
)


def stats_of(*batches: np.ndarray) -> TensorStats:
    running = _Running()
    for batch in batches:
        running.add(np.asarray(batch, np.float32))
    return running.stats()


def heavy(size: int = 20000, seed: int = 0) -> np.ndarray:
    """A bell with a few values far out, as activations have them."""
    values = np.random.default_rng(seed).normal(0, 1, size)
    values[:5] = 30.0
    return values.astype(np.float32).reshape(1, 1, -1, 100)


def true_error(values: np.ndarray, scale: float) -> float:
    stored = np.clip(np.rint(values / scale), -127, 127) * scale
    return float(np.mean((values.astype(np.float64) - stored) ** 2))


arrays = st.builds(
    lambda seed, size, spread, zeros: (
        np.random.default_rng(seed).standard_t(3, size)
        * 10.0**spread
        * (np.random.default_rng(seed).random(size) >= zeros)
    ).astype(np.float32),
    st.integers(0, 2**32 - 1),
    st.integers(1, 3000),
    st.floats(-6, 5),
    st.sampled_from([0.0, 0.5, 0.999, 1.0]),
)


@settings(max_examples=40, deadline=None)
@given(arrays)
def test_every_method_gives_a_usable_scale(values):
    stats = stats_of(values)
    for method in METHODS:
        scale = scale_of(stats, method)
        assert np.finfo(np.float32).tiny <= scale < np.inf and float(np.float32(scale)) == scale
        if stats.amax:
            assert scale <= np.float32(stats.amax / 127)
        else:
            assert scale == DEAD_SCALE


@settings(max_examples=40, deadline=None)
@given(arrays)
def test_mse_is_never_worse_than_minmax(values):
    stats = stats_of(values)
    least = quantisation_error(stats, scale_of(stats, "mse"))
    for method in METHODS:
        assert least <= quantisation_error(stats, scale_of(stats, method)) * (1 + 1e-5) or method != "minmax"
    assert least >= 0


def test_minmax_is_the_largest_magnitude():
    stats = stats_of(np.array([0.5, -3.0, 2.0]), np.array([1.0]))
    assert scale_of(stats, "minmax") == np.float32(3.0 / 127)
    assert (stats.minimum, stats.maximum, stats.count) == (-3.0, 2.0, 4)


@pytest.mark.parametrize("percentile", [50.0, 90.0, 99.0, 99.99])
def test_percentile_is_numpys(percentile):
    values = np.random.default_rng(1).normal(0, 2, 100_000).astype(np.float32)
    cut = scale_of(stats_of(values), "percentile", percentile) * 127
    assert cut == pytest.approx(np.percentile(np.abs(values), percentile), rel=2e-3)


@pytest.mark.parametrize("cut", [0.5, 2.0, 5.0, 30.0])
def test_error_is_what_rounding_and_clipping_cost(cut):
    values = heavy()
    assert quantisation_error(stats_of(values), cut / 127) == pytest.approx(true_error(values, cut / 127), rel=0.02)


def test_mse_finds_the_best_cut():
    """Against a plain search over the values themselves."""
    values = heavy()
    best = min(true_error(values, cut / 127) for cut in np.linspace(1, 30, 400))
    stats = stats_of(values)
    found = true_error(values, scale_of(stats, "mse"))
    assert found <= best * 1.03
    assert found < true_error(values, scale_of(stats, "minmax"))


def felt_error(values: np.ndarray, scale: float) -> float:
    """The error as ``noise_curve`` counts it: more where values are cut off."""
    cut_off = np.abs(values) > 127.5 * scale
    error = (np.clip(np.rint(values / scale), -127, 127) * scale - values.astype(np.float64)) ** 2
    return float(np.mean(error * np.where(cut_off, CLIPPED, 1.0)))


def test_sqnr_of_one_picture_has_the_least_error_as_it_is_felt():
    values = np.random.default_rng(4).laplace(0, 1, 50_000)
    best = min(felt_error(values, cut / 127) for cut in np.linspace(1, 20, 400))
    scale = scale_of(stats_of(values), "sqnr")
    assert felt_error(values, scale) <= best * 1.05
    assert scale > 1.1 * scale_of(stats_of(values), "mse"), "it cuts off less"


def test_sqnr_lets_no_picture_lead():
    """Nine pictures of one range and one of a hundred times that: the squared error follows it, the mean of dB not."""
    quiet = [np.random.default_rng(seed).normal(0, 1, 20000) for seed in range(9)]
    loud = np.random.default_rng(9).normal(0, 100, 20000)
    alone, mixed = stats_of(*quiet), stats_of(*quiet, loud)
    assert scale_of(mixed, "sqnr") < 1.5 * scale_of(alone, "sqnr")
    assert scale_of(mixed, "mse") > 30 * scale_of(alone, "mse")


def test_noise_curve_is_what_rounding_and_clipping_cost():
    values = np.random.default_rng(3).laplace(0, 1, 50_000).astype(np.float32)
    curve = noise_curve(values)
    for cut in (0.5, 2.0, 5.0, 28.0):
        index = int(np.argmin(np.abs(CUTS - cut)))
        assert curve[index] == pytest.approx(10 * np.log10(felt_error(values, CUTS[index] / 127)), abs=0.25)
    assert np.all(noise_curve(np.zeros(5)) == noise_curve(np.zeros(5))[0])


def test_entropy_cuts_far_outliers_and_keeps_a_flat_range():
    values = np.random.default_rng(2).laplace(0, 1, 200_000).astype(np.float32)
    values[:3] = 200.0
    assert 5 < scale_of(stats_of(values), "entropy") * 127 < 40
    flat = np.random.default_rng(2).uniform(0, 1, 200_000).astype(np.float32)
    assert scale_of(stats_of(flat), "entropy") * 127 == pytest.approx(1.0, abs=0.01)


def test_percentile_of_a_tensor_that_is_nearly_always_zero_is_not_zero():
    values = np.zeros(100_000, np.float32)
    values[0] = 4.0
    assert 0 < scale_of(stats_of(values), "percentile") <= np.float32(4.0 / 127)


def test_dead_tensor():
    stats = stats_of(np.zeros(10), np.zeros(7))
    assert {scale_of(stats, method) for method in METHODS} == {DEAD_SCALE}
    assert stats.zeros == 17 and stats.histogram[0] == 17


def test_sick_and_empty_tensors_have_no_scale():
    with pytest.raises(CheckFailed, match="2 of 4 values"):
        scale_of(stats_of(np.array([1.0, np.nan, np.inf, 2.0])))
    with pytest.raises(BadInput):
        scale_of(stats_of())


def test_unknown_method_and_percentile():
    stats = stats_of(np.ones(3))
    with pytest.raises(UsageError, match="minmax"):
        scale_of(stats, "max")
    for percentile in (0.0, 101.0, float("nan")):
        with pytest.raises(UsageError, match="percentile"):
            scale_of(stats, "percentile", percentile)


def test_ranges_survive_the_file(tmp_path):
    ranges = Ranges({"a/b:0": stats_of(heavy()), "dead": stats_of(np.zeros(3))}, "ab" * 32, 7)
    path = tmp_path / "minmax.json"
    save_ranges(path, ranges, {"method": "minmax"})
    again, provenance = open_ranges(path)
    assert provenance == {"method": "minmax"} and (again.graph_sha256, again.inputs) == ("ab" * 32, 7)
    assert list(again.tensors) == ["a/b:0", "dead"]
    for name, stats in ranges.tensors.items():
        other = again.tensors[name]
        assert np.array_equal(stats.histogram, other.histogram) and np.array_equal(
            stats.channel_mean, other.channel_mean
        )
        assert np.array_equal(stats.channel_amax, other.channel_amax) and np.array_equal(stats.noise, other.noise)
        assert (stats.minimum, stats.maximum, stats.top, stats.zeros, stats.count, stats.non_finite) == (
            other.minimum, other.maximum, other.top, other.zeros, other.count, other.non_finite,
        )  # fmt: skip
    json.loads(path.read_text())


@pytest.mark.parametrize("damage", ["schema", "histogram", "noise", "cut off", "list"])
def test_damaged_files_are_bad_input(tmp_path, damage):
    path = tmp_path / "minmax.json"
    save_ranges(path, Ranges({"a": stats_of(np.ones(3))}, "ab" * 32, 1), {})
    raw = json.loads(path.read_text())
    if damage == "schema":
        raw["schema"] = 99
    elif damage in ("histogram", "noise"):
        raw["tensors"]["a"][damage] = "AAAA"
    text = json.dumps([raw] if damage == "list" else raw)
    path.write_text(text[: len(text) // 2] if damage == "cut off" else text)
    with pytest.raises(BadInput):
        open_ranges(path)
