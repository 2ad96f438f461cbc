"""FP8 and BF16: what they hold, how graphs of them are written and simulated, how weights are fitted to them."""

from __future__ import annotations

import dataclasses
from collections import Counter

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from sr_deploy.core.deployment.plan import open_plan, save_plan
from sr_deploy.core.deployment.target import Target, check_formats, formats_of, reason_against
from sr_deploy.core.errors import BadDeployment, CheckFailed, UsageError
from sr_deploy.core.number_formats import BFLOAT16, FLOAT8, FLOAT16, FORMAT, INT8
from sr_deploy.precision.calibrate.collect import ranges_of
from sr_deploy.precision.calibrate.float8_scale import float8_error, float8_scale
from sr_deploy.precision.calibrate.ranges import scale_of
from sr_deploy.precision.choose.islands import kinds_of
from sr_deploy.precision.choose.picture_ends import picture_ends
from sr_deploy.precision.choose.plan_from_ranges import NarrowChoice, Scales, floating_plan, narrow_plan, rounded_scale
from sr_deploy.precision.fit.adaptive_rounding import learned_rounding
from sr_deploy.precision.fit.fake_quant import on_grid as torch_on_grid
from sr_deploy.precision.float16_rounding import rounded_graph, rounding_session
from sr_deploy.precision.grid import bfloat16_bytes, float8_bytes, on_grid
from sr_deploy.precision.interpreter import GraphModule
from sr_deploy.precision.lower.quantize import check_plan, quantized_graph
from sr_deploy.precision.lower.tensorrt8 import legacy_graph
from sr_deploy.precision.lower.typed_graph import typed_graph
from tests.precision import small_plans
from tests.precision.small_graphs import graph, node, qdq

MACS = {"head/Conv": 10, "one.a/Conv": 100, "one.b/Conv": 100, "two.a/Conv": 100, "two.b/Conv": 100, "tail/Conv": 20}
FP8, BF16 = ml_dtypes.float8_e4m3fn, ml_dtypes.bfloat16


@pytest.fixture(scope="module")
def made():
    """The small network, its kinds and its scales in both 8-bit formats."""
    model = small_plans.network()
    tensors = ranges_of(model, small_plans.pictures(2)).tensors
    scales = Scales(
        {name: scale_of(stats) for name, stats in tensors.items()},
        {name: float8_scale(stats) for name, stats in tensors.items()},
    )
    return model, kinds_of(model, MACS), scales


def plan_of(made, formats=FLOAT8.name, rest="float16"):
    model, kinds, scales = made
    named = dict.fromkeys(kinds.candidates, formats) if isinstance(formats, str) else formats
    return narrow_plan(model, kinds, "0" * 64, scales, NarrowChoice(formats=named, rest=rest))


def values():
    """Of every magnitude that FP8 tells apart and beyond, ties included."""
    rng = np.random.default_rng(0)
    exact = np.arange(256, dtype=np.uint8).view(FP8).astype(np.float32)
    ties = (exact[1:127] + exact[:126]) / 2
    spread = rng.normal(0, 1, 4000) * np.exp2(rng.integers(-12, 11, 4000))
    ends = [0.0, 1e9, -1e9, np.inf, np.nan]
    return np.concatenate([exact[np.isfinite(exact)], ties, -ties, spread, ends]).astype(np.float32)


def test_a_format_holds_what_its_row_says():
    x = values()
    inside = np.clip(x, -448, 448)
    assert np.array_equal(on_grid(x, FLOAT8), inside.astype(FP8).astype(np.float64), equal_nan=True)
    finite = x[np.isfinite(x)]
    assert np.array_equal(on_grid(finite, BFLOAT16), finite.astype(BF16).astype(np.float64))
    small = finite[np.abs(finite) < 65504]
    assert np.array_equal(on_grid(small, FLOAT16), small.astype(np.float16).astype(np.float64))
    assert on_grid(np.asarray([126.5, 127.5, -300.0, 0.5]), INT8).tolist() == [126, 127, -127, 0]
    for one in (FLOAT8, INT8):
        found = torch_on_grid(torch.from_numpy(finite), one, -one.largest).numpy()
        assert np.array_equal(found, on_grid(finite, one).astype(np.float32)), one.name


def test_bytes_are_those_of_onnx():
    held = on_grid(values()[:-1], FLOAT8)
    assert float8_bytes(held) == held.astype(FP8).tobytes()
    finite = values()[np.isfinite(values())]
    assert bfloat16_bytes(finite) == finite.astype(BF16).tobytes()


def test_onnx_runtime_quantises_to_fp8_as_the_grid_does():
    """Saturation and NaN too: QuantizeLinear saturates by default, and NaN stays."""
    zero = TensorProto(name="zero", data_type=TensorProto.FLOAT8E4M3FN, dims=[], raw_data=b"\0")
    model = graph(qdq("lr", "sr"), {"scale": np.float32(0.5)}, opset=19)
    model.graph.initializer.append(zero)
    x = np.resize(values(), (1, 4, 40, 40))
    found = rounding_session(model, 1).run(None, {"lr": x})[0]
    assert np.array_equal(found, (on_grid(x / 0.5, FLOAT8) * 0.5).astype(np.float32), equal_nan=True)


def test_a_plan_in_fp8_is_lowered_and_simulated_alike_everywhere(made):
    """The typed graph in ONNX Runtime gives what the module for fitting gives: where rest is float32, to rounding."""
    model = made[0]
    plan = plan_of(made, rest="float32")
    assert set(plan.nodes_of("float8")) == {"one.a/Conv", "one.b/Conv", "two.a/Conv", "two.b/Conv"}
    assert not plan.activation_scales and set(plan.float8_scales) == {"head", "one.r", "one.sum", "two.r"}
    typed = typed_graph(model, plan, {})
    assert typed.opset_import[0].version == 19
    kinds = Counter(t.data_type for t in typed.graph.initializer)
    assert kinds[TensorProto.FLOAT8E4M3FN] == 4 + 8, "weights, and zero points of four tensors and four weights"
    lr = small_plans.pictures(1)[0]
    found = rounding_session(rounded_graph(typed), 1).run(None, {"lr": lr})[0]
    with torch.no_grad():
        wanted = GraphModule(model, plan)(torch.from_numpy(lr)).numpy()
    # A sum that lies next to the middle of two steps may be rounded to either, and the layers behind see it.
    assert np.abs(found - wanted).mean() < 2e-3 and np.abs(found - wanted).max() < 0.2
    exact = rounding_session(model, 1).run(None, {"lr": lr})[0]
    assert 0 < np.abs(found - exact).mean() < 0.1


def test_one_plan_may_have_both_8_bit_formats(made, tmp_path):
    plan = plan_of(made, {"one.b/Conv": "float8", "two.b/Conv": "float8"})
    assert plan.formats == ("float16", "int8", "float8")
    assert plan.nodes["one/Add"] == "float16" and "head" in plan.activation_scales and "one.r" in plan.float8_scales
    assert open_plan(tmp_path)[0] == plan if save_plan(tmp_path, plan) else False
    typed = typed_graph(made[0], plan, {})
    assert {node.op_type for node in typed.graph.node} >= {"QuantizeLinear", "DequantizeLinear"}
    out = rounding_session(rounded_graph(typed), 1).run(None, {"lr": small_plans.pictures(1)[0]})[0]
    assert np.isfinite(out).all()
    with pytest.raises(CheckFailed, match="the plan has FP8, which TensorRT 8 does not"):
        legacy_graph(made[0], plan, {})


def test_what_fp8_cannot_be_is_refused(made):
    plan = plan_of(made)
    with pytest.raises(BadDeployment, match="'one/Add' is a Add, which does not run in FP8"):
        check_plan(made[0], dataclasses.replace(plan, nodes={**plan.nodes, "one/Add": "float8"}), {})
    with pytest.raises(BadDeployment, match="'one.a/Conv' reads 'head', which has no scale"):
        check_plan(made[0], dataclasses.replace(plan, nodes={**plan.nodes, "one.a/Conv": "int8"}), {})
    shared = graph([node("Conv", "lr w", "a"), node("Conv", "a w", "sr")], {"w": np.ones((4, 4, 1, 1))})
    plan = dataclasses.replace(
        plan, nodes={"a_node": "int8", "sr_node": "float8"}, activation_scales={"lr": 1.0}, float8_scales={"a": 1.0},
        weight_scales={"w": (1.0,) * 4},
    )  # fmt: skip
    with pytest.raises(BadDeployment, match="the weights 'w' are used in float8 and int8"):
        quantized_graph(shared, plan, {})


def test_bf16_rounds_every_result_to_8_bits_of_mantissa(made):
    model, kinds, _ = made
    plan = floating_plan(kinds, "0" * 64, {}, BFLOAT16)
    assert plan.precision == "bf16" and plan.rest == "bfloat16" and set(plan.nodes.values()) == {"bfloat16"}
    typed = typed_graph(model, plan, {})
    assert typed.opset_import[0].version == 22
    assert {t.data_type for t in typed.graph.initializer} == {TensorProto.BFLOAT16}
    # What onnx's own reader says the constants are.
    weight = next(t for t in typed.graph.initializer if t.name.startswith("head.weight"))
    known = numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == "head.weight"))
    assert np.array_equal(numpy_helper.to_array(weight).astype(np.float32), known.astype(BF16).astype(np.float32))
    names = [name for one in model.graph.node for name in one.output if name != "sr"]
    simulated = rounded_graph(typed, names)
    assert not any(t.data_type == TensorProto.BFLOAT16 for t in simulated.graph.initializer)
    found = rounding_session(simulated, 1).run(["sr", *names], {"lr": small_plans.pictures(1)[0]})
    for name, value in zip(["sr", *names], found):
        assert not (value.view(np.uint32) & 0xFFFF).any(), name
    exact = rounding_session(model, 1).run(None, {"lr": small_plans.pictures(1)[0]})[0]
    assert 1e-4 < np.abs(found[0] - exact).mean() < 0.02


def test_bf16_holds_what_float16_does_not():
    scaled = graph([node("Mul", "lr large", "a"), node("Mul", "a small", "sr")], {"large": 1e6, "small": 1e-6})
    kinds = kinds_of(scaled, {})
    lr = np.full((1, 4, 2, 2), 0.75, np.float32)
    for one, good in ((BFLOAT16, True), (FLOAT16, False)):
        try:
            typed = typed_graph(scaled, floating_plan(kinds, "0" * 64, {}, one), {})
        except CheckFailed as error:
            assert not good and "which float16 cannot" in str(error)
            continue
        found = rounding_session(rounded_graph(typed), 1).run(None, {"lr": lr})[0]
        assert good and np.abs(found - 0.75).max() < 0.01


def test_what_reads_and_writes_the_picture_is_wider_than_bf16():
    """A mean that is added by a 1×1 convolution of three channels stands behind the last convolution of features."""
    model = graph(
        [node("Mul", "lr white", "x"), node("Conv", "x head", "a"), node("Conv", "a body", "b"),
         node("Conv", "b last", "c"), node("DepthToSpace", "c", "d", blocksize=1), node("Conv", "d mean", "e"),
         node("Clip", "e", "sr")],
        {"white": 255.0, "head": np.ones((8, 4, 1, 1)), "body": np.ones((8, 8, 1, 1)), "last": np.ones((3, 8, 1, 1)),
         "mean": np.ones((3, 3, 1, 1))},
    )  # fmt: skip
    found = picture_ends(model)
    assert list(found) == ["sr_node", "e_node", "d_node", "c_node", "x_node", "a_node"]
    assert found["c_node"].startswith("it writes") and found["a_node"].startswith("it reads")


def test_scales_of_fp8_are_chosen_by_squared_error(made):
    """A heavy tail: what lies at the end takes more from all the others than it costs itself."""
    rng = np.random.default_rng(0)
    picture = np.abs(rng.standard_t(3, (1, 3, 64, 64))).astype(np.float32)
    stats = ranges_of(small_plans.network(), [picture]).tensors["lr"]
    naive, chosen = float8_scale(stats, naive=True), float8_scale(stats)
    assert naive == pytest.approx(stats.amax / 448)
    assert float8_error(stats, chosen) <= float8_error(stats, naive)
    measured = np.mean((on_grid(picture / chosen, FLOAT8) * chosen - picture) ** 2)
    assert float8_error(stats, chosen) == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize("rest", ["float16", "bfloat16"])
def test_weights_are_fitted_to_fp8_as_to_int8(made, rest):
    model = made[0]
    plan = plan_of(made, rest=rest)
    fitted, weights = learned_rounding(model, plan, {}, small_plans.pictures(), count=8)
    for name, scales in fitted.weight_scales.items():
        column = np.asarray(scales).reshape(-1, 1, 1, 1)
        steps = weights[name].astype(np.float64) / column
        assert np.allclose(on_grid(steps, FLOAT8), steps, rtol=1e-6), "on the grid"
        assert np.array_equal(column.astype(BF16 if rest == "bfloat16" else np.float16).astype(np.float64), column)

    def error(one, changed):
        lowered = rounded_graph(typed_graph(model, one, changed))
        pairs = [(rounding_session(lowered, 1), rounding_session(model, 1))]
        return np.mean([(a.run(None, {"lr": lr})[0] - b.run(None, {"lr": lr})[0]) ** 2
                        for a, b in pairs for lr in small_plans.pictures(8)[6:]])  # fmt: skip

    assert error(fitted, weights) < 0.7 * error(plan, {})


def test_scales_in_bf16_are_rounded_up():
    for scale in (1.0, 1.001, 3.3e-5, 1 / 448, 0.0):
        found = rounded_scale(scale, "bfloat16")
        assert found >= scale and np.float32(found) == np.float32(np.asarray(found, np.float32).astype(BF16))
        assert scale == 0.0 or found <= scale * (1 + 2**-7)


@pytest.mark.parametrize(
    ("target", "lacks"),
    [
        (Target("tensorrt-rtx", "1.7.1.116", ("7.5",)), {"bfloat16", "float8"}),
        (Target("tensorrt-rtx", "1.7.1.116", ("8.6",)), {"float8"}),
        (Target("tensorrt-rtx", "1.7.1.116", ("8.6", "12.0")), {"float8"}),
        (Target("tensorrt-rtx", "1.7.1.116", ("8.9", "12.0", "12.1")), set()),
        (Target("tensorrt", "8.5.2.2", ("7.2",)), {"bfloat16", "float8"}),
        (Target("tensorrt", "8.6.1", ("8.9",)), {"bfloat16", "float8"}),
        (Target("tensorrt", "10.3.0", ("8.7",)), {"float8"}),
        (Target("tensorrt", "11.0.0", ("9.0",)), set()),
        (Target("onnxruntime", "1.31.1"), set()),
    ],
)
def test_targets_know_their_types(target, lacks):
    assert set(FORMAT) - set(formats_of(target)) == lacks
    for name in lacks:
        with pytest.raises(UsageError, match=f"{FORMAT[name].label} (came with|needs compute capability)") as caught:
            check_formats(target, [name, "int8"], "the plan")
        assert str(target) in str(caught.value) and "INT8" in str(caught.value)
    check_formats(target, formats_of(target), "the plan")
    assert reason_against(target, INT8) is None


def test_a_plan_keeps_what_it_is_for(made, tmp_path):
    plan = dataclasses.replace(plan_of(made), target=Target("tensorrt-rtx", "1.7.1", ("8.9",)))
    save_plan(tmp_path, plan)
    assert open_plan(tmp_path)[0].target == plan.target
    onnx.checker.check_model(typed_graph(made[0], plan, {}), full_check=True)
