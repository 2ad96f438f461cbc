"""Channels divided in front of INT8, weights multiplied to match: exactly, in every form of a plan, where it pays."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from sr_deploy.core.errors import BadDeployment, CheckFailed
from sr_deploy.core.media.sample import sample_input
from sr_deploy.precision.calibrate.collect import ranges_of
from sr_deploy.precision.calibrate.ranges import scale_of
from sr_deploy.precision.choose.islands import kinds_of
from sr_deploy.precision.choose.plan_from_ranges import Divided, NarrowChoice, Scales, narrow_plan
from sr_deploy.precision.evaluate import computing, prove_factors
from sr_deploy.precision.fit.adaptive_rounding import learned_rounding
from sr_deploy.precision.fit.channel_factors import divided_channels
from sr_deploy.precision.fit.qat import fine_tune
from sr_deploy.precision.fit.qat_learner import Lesson, QatOptions
from sr_deploy.precision.interpreter import GraphModule
from sr_deploy.precision.lower.calibration_cache import cache_of
from sr_deploy.precision.lower.channel_factors import along_inputs, factored_floats, with_factors
from sr_deploy.precision.lower.quantize import quantized_graph, quantized_weights
from sr_deploy.precision.lower.tensorrt8 import layer_types, legacy_graph
from sr_deploy.precision.lower.typed_graph import typed_graph
from tests.precision import small_plans
from tests.precision.small_graphs import graph, node, residual, residual_plan

INT8 = ("one.a/Conv", "one.b/Conv", "two.a/Conv", "two.b/Conv")
MACS = {**dict.fromkeys(INT8, 4), "head/Conv": 1, "tail/Conv": 1}
#: Behind a PReLU that one convolution reads, and behind sums that others read too.
INSIDE, SUM = "one.r", "one.sum"


@pytest.fixture(scope="module")
def model():
    """The small network with one channel of INSIDE and one of SUM far above the others."""
    made = small_plans.network()
    constants = {t.name: t for t in made.graph.initializer}
    for name, factor, where in (
        ("one.a.weight", 40.0, np.s_[3]), ("one.a.bias", 40.0, np.s_[3]), ("one.b.weight", 1 / 40.0, np.s_[:, 3]),
        ("head.weight", 30.0, np.s_[5]), ("head.bias", 30.0, np.s_[5]), ("two.a.weight", 1 / 30.0, np.s_[:, 5]),
        ("one.a.weight", 1 / 30.0, np.s_[:, 5]),
    ):  # fmt: skip
        values = numpy_helper.to_array(constants[name]).copy()
        values[where] *= factor
        constants[name].CopyFrom(numpy_helper.from_array(values, name))
    return made


@pytest.fixture(scope="module")
def kinds(model):
    return kinds_of(model, MACS)


@pytest.fixture(scope="module")
def scales(model):
    return {name: scale_of(stats, "sqnr") for name, stats in ranges_of(model, small_plans.pictures()).tensors.items()}


@pytest.fixture(scope="module")
def found(model, kinds, scales):
    return divided_channels(model, kinds, scales, small_plans.pictures(), 8)


def planned(model, kinds, scales, divided=None, rest: str = "float32"):
    choice = NarrowChoice(INT8, skips=False, rest=rest)
    return narrow_plan(model, kinds, "0" * 64, Scales(scales, divided=divided or {}), choice)


@pytest.fixture(scope="module")
def plan(model, kinds, scales, found):
    return planned(model, kinds, scales, found)


def error(model, plan, weights):
    """Mean squared difference from float32, on pictures not fitted to."""
    lowered, exact = computing(quantized_graph(model, plan, weights), 1), computing(model, 1)
    return float(np.mean([np.square(lowered(lr) - exact(lr)).mean() for lr in small_plans.pictures(9)[6:]]))


def test_the_large_channels_are_found_and_their_error_falls(model, kinds, scales, found, plan):
    assert {INSIDE, SUM} <= set(found)
    for name, channel in ((INSIDE, 3), (SUM, 5)):
        factors = found[name].factors
        assert factors[channel] == max(factors) >= 4 * np.median(factors)
    assert error(model, plan, {}) < 0.5 * error(model, planned(model, kinds, scales), {})


def test_channels_of_one_size_are_left_alone():
    even = graph(
        [node("Conv", "lr w", "x", pads=[1] * 4), node("Conv", "x v", "sr", pads=[1] * 4)],
        {name: np.random.default_rng(0).choice([-1.0, 1.0], (4, 4, 3, 3)) for name in "wv"},
    )
    pictures = [np.random.default_rng(one).normal(0, 1, (1, 4, 32, 32)).astype(np.float32) for one in range(4)]
    scales = {name: scale_of(stats, "sqnr") for name, stats in ranges_of(even, pictures).tensors.items()}
    assert divided_channels(even, kinds_of(even, {"x_node": 1, "sr_node": 1}), scales, pictures, 4) == {}


def test_float32_stays_the_same_to_the_last_bit(model, plan):
    prove_factors(model, plan, [sample_input((19, 22), 1.0)], 1.0)
    for absorb in (True, False):
        divided = factored_floats(model, plan, absorb)
        onnx.checker.check_model(divided, full_check=True)
        products = [one.input[0] for one in divided.graph.node if one.op_type == "Mul"]
        expected = [name for name in plan.channel_factors if not absorb or not name.endswith(".r")]
        assert sorted(products) == sorted(expected), "behind a PReLU the convolution before divides"
        lr = sample_input((19, 22), 1.0)
        assert np.array_equal(computing(divided, 1)(lr), computing(model, 1)(lr))


def test_a_change_of_the_float32_graph_is_refused(model, plan, monkeypatch):
    from sr_deploy.precision.lower import channel_factors

    monkeypatch.setattr(channel_factors, "along_inputs", lambda *given: 1.001 * along_inputs(*given))
    with pytest.raises(CheckFailed, match="factors change the float32 graph by"):
        prove_factors(model, plan, [sample_input((19, 22), 1.0)], 1.0)


def test_what_absorbs_the_division_keeps_its_stored_weights(model, plan):
    with_, without = (
        {t.name: numpy_helper.to_array(t) for t in quantized_graph(model, one, {}).graph.initializer}
        for one in (plan, dataclasses.replace(plan, channel_factors={}))
    )
    factors = np.asarray(plan.channel_factors[INSIDE], np.float32)
    assert np.array_equal(with_["one.a.weight/scale"], without["one.a.weight/scale"] / factors)
    assert np.array_equal(with_["one.a.bias"], without["one.a.bias"] / factors)


@pytest.mark.parametrize("kind", ["Conv", "grouped", "ConvTranspose"])
def test_factors_lie_along_the_inputs(kind):
    rng = np.random.default_rng(1)
    factors = np.exp2(rng.integers(-3, 4, 4)).astype(np.float32)
    if kind == "ConvTranspose":
        shape, one = (4, 6, 2, 2), node("ConvTranspose", "lr w", "sr", strides=[2, 2])
    else:
        groups = 2 if kind == "grouped" else 1
        shape, one = (6, 4 // groups, 3, 3), node("Conv", "lr w", "sr", group=groups)
    weights = rng.normal(0, 1, shape).astype(np.float32)
    plain, multiplied = (
        computing(graph([one], {"w": values}), 1) for values in (weights, weights * along_inputs(one, shape, factors))
    )
    lr = rng.normal(0, 1, (1, 4, 6, 7)).astype(np.float32)
    assert np.array_equal(multiplied(lr / factors[:, None, None]), plain(lr))


def test_every_node_of_the_module_is_that_of_the_lowered_graph(model, plan):
    lowered = quantized_graph(model, plan, {})
    names = [name for one in model.graph.node for name in one.output]
    del lowered.graph.output[:]
    lowered.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    lr = sample_input((12, 14), 1.0)
    session = onnxruntime.InferenceSession(lowered.SerializeToString())
    expected = dict(zip(names, session.run(names, {"lr": lr})))
    for name in (one for one in plan.channel_factors if one.endswith(".r")):
        absorbed = np.asarray(plan.channel_factors[name], np.float32)[:, None, None]
        expected.update({one: expected[one] * absorbed for one in (name, name.replace(".r", ".a"))})

    def compare(one, inputs, run):
        wanted = torch.from_numpy(expected[one.output[0]])
        assert float((run() - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max()), one.name
        return wanted

    with torch.no_grad():
        GraphModule(model, plan).tensors(torch.from_numpy(lr), ("sr",), compare)


def test_a_training_rate_means_the_same_with_factors_as_without(model, plan):
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    module = GraphModule(model, plan)
    for name, factors in module.factors.items():
        assert factors.max() > factors.min() and np.array_equal(module.trained()[name].detach(), weights[name])
        kept = module.without_factors(name, module.multiplied(name, module.constants[name]))
        assert torch.equal(kept, module.constants[name])


@pytest.mark.parametrize("way", ["fitted", "fine-tuned"])
def test_fitted_and_fine_tuned_weights_lie_on_the_grids_of_what_is_stored(model, plan, way):
    if way == "fitted":
        made, weights = learned_rounding(model, plan, {}, small_plans.pictures(), 8)
        assert error(model, made, weights) < error(model, plan, {})
    else:
        options = QatOptions(steps=4, batch=1, patch=16, warm_up=1, judge_every=4, judged_patch=32, weight_rate=1e-3)
        tuned = fine_tune(Lesson(model, plan, {}, small_plans.pictures(), 1.0), options)
        made, weights = tuned.plan, tuned.weights
    assert made.channel_factors == plan.channel_factors
    divided = with_factors(model, made, weights)
    for name, scales in divided.plan.weight_scales.items():
        steps = divided.weights[name].astype(np.float64) / np.asarray(scales).reshape(-1, 1, 1, 1)
        assert np.abs(steps - np.rint(steps)).max() < 1e-4
        assert np.array_equal(np.rint(steps), quantized_weights(divided.weights[name], scales, 0))


def test_all_forms_have_them(model, kinds, scales, found):
    plan = planned(model, kinds, scales, found, "float16")
    typed, legacy = typed_graph(model, plan, {}), legacy_graph(model, plan, {})
    implicit = factored_floats(model, plan, absorb=False)
    lr = sample_input((16, 18), 1.0)
    assert np.abs(computing(typed, 1)(lr) - computing(legacy, 1)(lr)).max() < 0.02
    for made in (typed, legacy, implicit):
        assert "Mul" in {one.op_type for one in made.graph.node}
    ranges = ranges_of(model, small_plans.pictures())
    cache = cache_of(model, plan, (8, 5, 2), ranges)
    tensors = {name for one in implicit.graph.node for name in one.output} | {"lr"}
    assert set(cache.scales) <= tensors
    for name in plan.channel_factors:
        assert cache.scales[f"{name}/divided"] == plan.activation_scales[name]
        assert cache.scales[name] == scale_of(ranges.tensors[name], "minmax")
    held = layer_types(model, plan, implicit=True)
    assert not [name for name, kind in held.items() if name.endswith("/divide") and kind == "float32"]


def test_fp8_reads_tensors_undivided(model, kinds, scales, found):
    formats = {**dict.fromkeys(INT8, "int8"), "two.a/Conv": "float8"}
    both = Scales(scales, scales, found)
    plan = narrow_plan(model, kinds, "0" * 64, both, NarrowChoice(INT8, formats, skips=False, rest="float32"))
    assert SUM in plan.float8_scales and SUM not in plan.channel_factors and INSIDE in plan.channel_factors
    with torch.no_grad():
        lr = sample_input((12, 14), 1.0)
        given = GraphModule(model, plan)(torch.from_numpy(lr)).numpy()
    assert np.abs(given - computing(typed_graph(model, plan, {}), 1)(lr)).max() < 0.05


def test_a_skip_that_an_add_reads_in_int8_is_not_divided(model, kinds, scales):
    divided = {name: Divided((2.0,) * small_plans.CHANNELS, scales[name]) for name in ("head", INSIDE)}
    choice = NarrowChoice(INT8, rest="float32")
    plan = narrow_plan(model, kinds, "0" * 64, Scales(scales, divided=divided), choice)
    assert plan.nodes["one/Add"] == "int8" and set(plan.channel_factors) == {INSIDE}
    quantized_graph(model, plan, {})


@pytest.mark.parametrize(
    "factors, complaint",
    [
        ({"ghost": (2.0,)}, "no tensor 'ghost'"),
        ({"a": (2.0,) * 8}, "no INT8 convolution reads 'a'"),
        ({"b": (2.0,) * 7}, "'c_node' reads 8 channels, and 'b' has 7 factors"),
        ({"head": (2.0,) * 8}, "'d_node' is an INT8 Add and reads 'head'"),
    ],
)
def test_factors_that_do_not_fit_are_refused(factors, complaint):
    model = residual()
    with pytest.raises(BadDeployment, match=complaint):
        quantized_graph(model, residual_plan(model, channel_factors=factors), {})


def test_shared_weights_cannot_have_two_factors():
    weights = np.random.default_rng(0).normal(0, 0.3, (4, 4, 3, 3))
    model = graph([node("Conv", "lr w", "x", pads=[1] * 4), node("Conv", "x w", "sr", pads=[1] * 4)], {"w": weights})
    plan = dataclasses.replace(
        small_plans.plan_of(small_plans.network()),
        nodes={"x_node": "int8", "sr_node": "int8"}, weight_scales={"w": (0.01,) * 4}, reasons={},
        activation_scales={"lr": 0.02, "x": 0.05}, channel_factors={"x": (2.0,) * 4},
    )  # fmt: skip
    with pytest.raises(BadDeployment, match="'w' are used on inputs of different channel factors"):
        quantized_graph(model, plan, {})
