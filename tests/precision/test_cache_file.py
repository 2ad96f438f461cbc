"""A plan as a calibration cache: every tensor beside INT8 has its exact scale, tensors inside islands have none."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from sr_deploy.core.deployment.calibration_cache import read_cache
from sr_deploy.core.errors import BadInput
from sr_deploy.precision.calibrate.collect import ranges_of
from sr_deploy.precision.calibrate.ranges import scale_of
from sr_deploy.precision.lower.calibration_cache import cache_of, int8_tensors, write_cache
from tests.precision.small_graphs import graph, node, residual, residual_plan

V8 = (8, 5, 2)


def test_tensors_beside_int8_and_no_others():
    model = residual()
    assert int8_tensors(model, residual_plan(model)) == ["head", "a", "b", "c", "d", "up"]
    # Without reasons nothing is an island, and the whole graph may run in INT8.
    assert int8_tensors(model, residual_plan(model, reasons={})) == ["lr", "head", "a", "b", "c", "d", "up", "sr"]


def test_sizes_are_not_among_them():
    nodes = [
        node("Shape", "lr", "shape"),
        node("Cast", "shape", "numbers", to=TensorProto.FLOAT),
        node("Relu", "lr", "a"),
        node("Reshape", "a shape", "sr"),
    ]
    model = graph(nodes, {})
    plan = residual_plan(
        residual(), nodes={"a_node": "int8", "sr_node": "float16"}, rest="float16", reasons={}, weight_scales={}
    )
    assert int8_tensors(model, plan) == ["lr", "a", "sr"]


def test_written_and_read_back_exactly(tmp_path):
    model = residual()
    scales = {name: float(np.float32(0.1 / (3 + i))) for i, name in enumerate(("head", "a", "b", "c", "d", "up"))}
    plan = residual_plan(model, activation_scales=scales)
    path = tmp_path / "calibration.cache"
    write_cache(path, cache_of(model, plan, V8, algorithm="MinMaxCalibration"))
    assert path.read_text().splitlines()[0] == "TRT-8502-MinMaxCalibration"
    cache = read_cache(path)
    assert cache.scales == scales and cache.version == V8


def test_ranges_give_what_the_plan_does_not_say():
    model = residual()
    plan = residual_plan(model, calibration={"method": "minmax"})
    with pytest.raises(
        BadInput, match="(?s)3 tensors beside INT8 nodes have no scale, such as 'a'.*srdeploy calibrate"
    ):
        cache_of(model, plan, V8)
    ranges = ranges_of(model, [np.random.default_rng(0).random((1, 4, 8, 8), dtype=np.float32)])
    cache = cache_of(model, plan, V8, ranges)
    assert cache.scales["head"] == 0.05
    assert cache.scales["a"] == scale_of(ranges.tensors["a"], "minmax")
    other = cache_of(model, plan, V8, ranges, method="percentile")
    assert other.scales["a"] == scale_of(ranges.tensors["a"], "percentile")
