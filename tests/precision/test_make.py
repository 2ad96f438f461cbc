"""Plans from islands and scales: every node has a type, every wider one a reason, every scale fits its type."""

from __future__ import annotations

import numpy as np
import pytest

from sr_deploy.precision.calibrate.collect import ranges_of
from sr_deploy.precision.calibrate.ranges import scale_of
from sr_deploy.precision.choose.islands import kinds_of
from sr_deploy.precision.choose.plan_from_ranges import (
    NarrowChoice,
    Scales,
    channel_scales,
    floating_plan,
    narrow_plan,
    narrow_share,
    rounded_scale,
)
from sr_deploy.precision.grid import LEAST_HALF_SCALE
from sr_deploy.precision.lower.quantize import check_plan
from tests.precision import small_plans

MACS = {"head/Conv": 10, "one.a/Conv": 100, "one.b/Conv": 100, "two.a/Conv": 100, "two.b/Conv": 100, "tail/Conv": 20}


@pytest.fixture(scope="module")
def made():
    model = small_plans.network()
    ranges = ranges_of(model, small_plans.pictures(2))
    return model, kinds_of(model, MACS), {name: scale_of(stats) for name, stats in ranges.tensors.items()}


def plan_of(made, wide=None, **options):
    model, kinds, scales = made
    weights = options.pop("weights", {})
    plan = narrow_plan(model, kinds, "0" * 64, Scales(scales), NarrowChoice(wide=wide or {}, **options), weights)
    check_plan(model, plan, weights)
    return plan


def test_defaults(made):
    plan = plan_of(made)
    assert set(plan.nodes) == set(made[1].computing)
    assert set(plan.nodes_of("int8")) == {"one.a/Conv", "one.b/Conv", "two.a/Conv", "two.b/Conv", "one/Add"}
    assert plan.reasons["head/Conv"].startswith("head") and plan.reasons["tail/Conv"].startswith("tail")
    assert set(plan.reasons) == {"head/Conv", "tail/Conv"}
    assert narrow_share(plan, MACS, made[1]) == pytest.approx(400 / 430)
    assert set(plan.activation_scales) == {"head", "one.r", "one.sum", "two.r"}


def test_a_chosen_set_with_reasons_for_the_others(made):
    plan = plan_of(made, narrow=["one.a/Conv", "tail/Conv"], raised={"two.a/Conv": "given back"})
    assert plan.nodes_of("int8") == ("one.a/Conv", "tail/Conv")
    assert plan.reasons["two.a/Conv"] == "given back" and plan.reasons["one.b/Conv"] == "raised"
    assert plan.reasons["head/Conv"].startswith("head") and "tail/Conv" not in plan.reasons
    assert set(plan.weight_scales) == {"one.a.weight", "tail.weight"}
    empty = plan_of(made, narrow=[])
    assert not empty.nodes_of("int8") and not empty.activation_scales and not empty.weight_scales


def test_what_float16_cannot_hold_is_float32_unless_8_bits_hold_it(made):
    wide = {"one.a/Conv": "beyond 65504", "two/PRelu": "beyond 65504"}
    plan = plan_of(made, wide)
    assert plan.nodes["one.a/Conv"] == "int8" and "one.a/Conv" not in plan.reasons
    assert plan.nodes["two/PRelu"] == "float32" and plan.reasons["two/PRelu"] == "beyond 65504"
    strict = plan_of(made, wide, strict=True)
    assert strict.nodes["one.a/Conv"] == "float32" and strict.reasons["one.a/Conv"] == "beyond 65504"
    raised = plan_of(made, wide, narrow=["two.a/Conv"])
    assert raised.nodes["one.a/Conv"] == "float32"


def test_half_plans(made):
    plan = floating_plan(made[1], "0" * 64, {"two/PRelu": "beyond 65504", "not there": "x"})
    assert plan.nodes_of("float32") == ("two/PRelu",) and plan.reasons == {"two/PRelu": "beyond 65504"}
    assert len(plan.nodes_of("float16")) == len(made[1].computing) - 1 and plan.precision == "fp16"


def test_scales_of_replaced_weights(made):
    weights = {"one.a.weight": np.full((12, 12, 3, 3), 0.5, np.float32)}
    plan = plan_of(made, weights=weights, rest="float32")
    assert plan.weight_scales["one.a.weight"] == pytest.approx((0.5 / 127,) * 12)


@pytest.mark.parametrize("rest", ["float16", "float32"])
def test_scales_are_what_their_type_stores_and_never_too_small(rest):
    kind = np.float16 if rest == "float16" else np.float32
    for scale in [0.0, 1e-12, *np.random.default_rng(0).uniform(1e-5, 900, 300)]:
        got = rounded_scale(float(scale), rest)
        assert got >= scale and float(kind(got)) == got > 0
        assert got <= max(scale * (1 + 2.0**-10), LEAST_HALF_SCALE) or scale < 2e-4, (scale, got)
    assert rounded_scale(0.0, "float16") == LEAST_HALF_SCALE


@pytest.mark.parametrize("axis", [0, 1])
def test_the_largest_weight_of_each_channel_becomes_127(axis):
    values = np.random.default_rng(1).normal(0, 1, (5, 6, 3, 3)).astype(np.float32)
    values[tuple(2 if index == axis else slice(None) for index in range(4))] = 0
    scales = np.asarray(channel_scales(values, axis, "float32"))
    largest = np.abs(values).max(axis=tuple(index for index in range(4) if index != axis))
    assert len(scales) == values.shape[axis] and (scales > 0).all()
    assert np.array_equal(np.rint(np.delete(largest, 2) / np.delete(scales, 2)), np.full(values.shape[axis] - 1, 127))
