"""Bias correction and learned rounding bring the quantised graph nearer to float32, in ONNX Runtime."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from sr_deploy.core.media.sample import sample_input
from sr_deploy.precision.fit import adaptive_rounding, layerwise
from sr_deploy.precision.fit.adaptive_rounding import learned_rounding
from sr_deploy.precision.fit.bias_correction import corrected_bias
from sr_deploy.precision.fit.layerwise import shares
from sr_deploy.precision.lower.quantize import quantized_graph, quantized_weights
from tests.precision import small_plans


@pytest.fixture(scope="module")
def model():
    return small_plans.network()


@pytest.fixture(scope="module")
def coarse(model):
    """A plan whose activations are clipped and whose weights are rounded to few levels, so that errors are large."""
    plan = small_plans.plan_of(model)
    wider = {name: tuple(8 * value for value in values) for name, values in plan.weight_scales.items()}
    narrower = {name: 0.7 * value for name, value in plan.activation_scales.items()}
    return dataclasses.replace(plan, weight_scales=wider, activation_scales=narrower)


def output(model, lr):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"lr": lr})[0]


def error_of(model, plan, weights):
    """Mean squared error against float32 and largest shift of a channel's mean, on pictures not fitted to."""
    lowered = quantized_graph(model, plan, weights)
    pictures = [*small_plans.pictures(9)[6:], sample_input((32, 36), 1.0)]
    differences = [output(lowered, lr) - output(model, lr) for lr in pictures]
    shift = max(float(np.abs(d.mean(axis=(0, 2, 3))).max()) for d in differences)
    return float(np.mean([np.mean(d**2) for d in differences])), shift


def test_bias_correction_takes_away_the_shift_of_the_means(model, coarse):
    _, before = error_of(model, coarse, {})
    weights = corrected_bias(model, coarse, {}, small_plans.pictures())
    _, after = error_of(model, coarse, weights)
    assert after < 0.5 * before
    assert set(weights) == {f"{block}.{name}.bias" for block in ("one", "two") for name in "ab"} | {"tail.bias"}


@pytest.mark.parametrize("fit", [False, True])
def test_learned_rounding_beats_the_nearest(model, coarse, fit):
    before, _ = error_of(model, coarse, {})
    # The scales of the plan stay what they are when only the rounding is learned; so is the comparison fair.
    plan, weights = learned_rounding(model, coarse, {}, small_plans.pictures(), fit=fit)
    after, _ = error_of(model, plan, weights)
    assert after < (0.5 if fit else 0.8) * before


def test_learned_rounding_is_exact_on_the_grid(model, coarse):
    for rest in ("float32", "float16"):
        started = dataclasses.replace(coarse, rest=rest)
        plan, weights = learned_rounding(model, started, {}, small_plans.pictures())
        for name, scales in plan.weight_scales.items():
            column = np.asarray(scales).reshape(-1, 1, 1, 1)
            steps = weights[name].astype(np.float64) / column
            assert np.abs(steps - np.rint(steps)).max() < 1e-4 and np.abs(steps).max() <= 127.001
            assert np.array_equal(np.rint(steps).astype(np.int8), quantized_weights(weights[name], scales, 0))
            if rest == "float16":
                assert all(float(np.float16(value)) == value for value in scales)


def test_learned_rounding_is_the_same_each_time(model, coarse):
    first = learned_rounding(model, coarse, {}, small_plans.pictures())
    second = learned_rounding(model, coarse, {}, small_plans.pictures())
    assert first[0] == second[0] and all(np.array_equal(first[1][name], second[1][name]) for name in first[1])


def test_what_plans_have_in_common_is_fitted_once_and_the_same(model, coarse, monkeypatch):
    fits, began = adaptive_rounding.Fits(), []
    real = adaptive_rounding._fitted
    monkeypatch.setattr(adaptive_rounding, "_fitted", lambda *given: began.append(given[1].node.name) or real(*given))
    for wider, again in (((), 5), (("two.b/Conv",), 2), (("two.a/Conv",), 3), (("one.a/Conv", "two.a/Conv"), 4)):
        nodes = {name: "float32" if name in wider else kind for name, kind in coarse.nodes.items()}
        plan = dataclasses.replace(coarse, nodes=nodes)
        began.clear()
        known = learned_rounding(model, plan, {}, small_plans.pictures(), 4, fits=fits)
        assert len(began) == again, "only what stands behind the first difference"
        fresh = learned_rounding(model, plan, {}, small_plans.pictures(), 4)
        assert known[0] == fresh[0] and known[1].keys() == fresh[1].keys()
        assert all(np.array_equal(known[1][name], fresh[1][name]) for name in fresh[1])
    assert fits.taught.results is not None
    monkeypatch.setattr(layerwise, "KEPT_BYTES", 10**4)
    fits = adaptive_rounding.Fits()
    again = learned_rounding(model, plan, {}, small_plans.pictures(), 4, fits=fits)
    assert fits.taught.results is None and all(np.array_equal(again[1][name], fresh[1][name]) for name in fresh[1])


def test_the_head_reads_the_picture_itself_and_is_left_alone(model, coarse):
    _, weights = learned_rounding(model, coarse, {}, small_plans.pictures())
    assert not [name for name in weights if name.startswith("head")]
    original = {t.name: numpy_helper.to_array(t) for t in small_plans.network().graph.initializer}
    now = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert all(np.array_equal(original[name], now[name]) for name in original), "the model was modified"


def test_a_weight_of_several_convolutions_is_rounded_but_not_moved_to_suit_one_of_them(model):
    shared = onnx.ModelProto()
    shared.CopyFrom(model)
    for node in shared.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = name.replace("two.a.weight", "one.a.weight").replace("two.a.bias", "one.a.bias")
    plan = small_plans.plan_of(shared)
    plan = dataclasses.replace(plan, activation_scales={k: 0.7 * v for k, v in plan.activation_scales.items()})
    name = "one.a.weight"
    moved, rounded = (
        learned_rounding(graph, plan if graph is shared else small_plans.plan_of(graph), {}, small_plans.pictures())[1]
        for graph in (model, shared)
    )
    original = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name)
    fixed = learned_rounding(shared, plan, {}, small_plans.pictures(), fit=False)[1]
    assert np.array_equal(rounded[name], fixed[name]) and not np.array_equal(moved[name], original)
    assert np.abs(rounded[name] - original).max() < 0.25 * np.abs(original).max()


def test_a_picture_that_runs_away_counts_little():
    short = torch.full((8, 2, 4, 4), 0.1)
    short[0] *= 1000.0
    weights = shares(short)
    assert weights.mean() == pytest.approx(1.0) and torch.allclose(weights[1:], weights[1], rtol=1e-9)
    assert weights[0] < 1e-5 * weights[1], "squares alone would give it a million times the others' say"
    even = shares(torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(0)))
    assert even.min() > 0.7, "among pictures alike each counts about the same"
    assert torch.equal(shares(torch.zeros(3, 1, 2, 2)), torch.ones(3, dtype=torch.float64))
