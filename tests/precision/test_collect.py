"""Statistics of tensors are what numpy says of the tensors themselves."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.errors import BadDeployment, BadInput, UsageError
from sr_deploy.precision.calibrate import collect
from sr_deploy.precision.calibrate.collect import floating_activations, patches, ranges_of
from sr_deploy.precision.calibrate.ranges import BINS
from tests.small_network import small_graphs, small_network


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    return small_graphs(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def inputs():
    random = np.random.default_rng(0)
    return [random.random((1, 3, height, width), dtype=np.float32) for height, width in ((8, 10), (12, 9), (16, 16))]


def layers(inputs):
    """What each layer of the small network gives, by PyTorch, for every input."""
    network = small_network()
    found = []
    for array in inputs:
        now = torch.from_numpy(array)
        row = []
        with torch.no_grad():
            for layer in network:
                now = layer(now)
                row.append(now.numpy())
        found.append(row)
    return list(zip(*found))


def test_statistics_are_those_of_the_layers(graphs, inputs):
    ranges = ranges_of(graphs.dynamic, inputs)
    assert (ranges.graph_sha256, ranges.inputs) == (sha256_of(graphs.dynamic), 3)
    names = list(ranges.tensors)
    assert names[0] == "lr" and names[-1] == "sr"
    for stats, values in zip([ranges.tensors[name] for name in names[1:]], layers(inputs)):
        together = np.concatenate([value.reshape(value.shape[1], -1) for value in values], axis=1)
        assert stats.count == together.size == stats.histogram.sum() and stats.non_finite == 0
        assert [stats.minimum, stats.maximum] == pytest.approx([together.min(), together.max()], abs=1e-6)
        assert stats.channel_mean == pytest.approx(together.mean(axis=1), abs=1e-6)
        assert stats.channel_amax == pytest.approx(np.abs(together).max(axis=1), abs=1e-6)
        expected, _ = np.histogram(np.abs(together), BINS, (0, stats.top))
        # Rounding moves a value over the edge of its bin now and then, never further.
        assert np.abs(np.cumsum(stats.histogram) - np.cumsum(expected)).max() <= 8
        assert stats.amax <= stats.top < 2.0001 * stats.amax


def test_the_histogram_grows_with_later_inputs_and_loses_nothing(graphs):
    small, large = (np.full((1, 3, 8, 10), value, np.float32) for value in (0.01, 0.9))
    stats = ranges_of(graphs.dynamic, [np.zeros_like(small), small, large], tensors=["lr"]).tensors["lr"]
    assert stats.top == 1.0 and stats.histogram.sum() == 720 and stats.zeros == 240
    where = np.flatnonzero(stats.histogram)
    assert list(where) == [0, int(0.01 * BINS), int(np.float32(0.9) * BINS)]


def test_only_the_tensors_asked_for(graphs, inputs):
    some = floating_activations(onnx.load(str(graphs.dynamic)))[2:4]
    ranges = ranges_of(onnx.load(str(graphs.dynamic)), inputs, tensors=reversed(some))
    assert tuple(ranges.tensors) == some
    with pytest.raises(UsageError, match="nothing_of_this_name"):
        ranges_of(graphs.dynamic, inputs, tensors=["nothing_of_this_name"])


def test_a_static_graph_takes_its_own_size_only(graphs, inputs):
    assert ranges_of(graphs.fixed, inputs[:1]).inputs == 1
    with pytest.raises(BadInput, match="1x3x12x9"):
        ranges_of(graphs.fixed, inputs)


def test_no_inputs_is_an_error(graphs, tmp_path):
    with pytest.raises(BadInput, match="no picture"):
        ranges_of(graphs.dynamic, [])
    (tmp_path / "cut.onnx").write_bytes(graphs.dynamic.read_bytes()[:100])
    with pytest.raises(BadDeployment):
        ranges_of(tmp_path / "cut.onnx", [])


def test_memory_limits_change_nothing(graphs, inputs, monkeypatch):
    whole = ranges_of(graphs.dynamic, inputs)
    monkeypatch.setattr(collect, "HELD_BYTES", 1)
    exposed = collect.Exposed(onnx.load(str(graphs.dynamic)), list(whole.tensors), (8, 10))
    assert all(len(turn) == 1 for turn in exposed._turns) and len(exposed._turns) == len(whole.tensors) - 1
    parts = ranges_of(graphs.dynamic, inputs)
    for name, stats in whole.tensors.items():
        assert np.array_equal(stats.histogram, parts.tensors[name].histogram)


def test_large_tensors_are_sampled_evenly_but_their_extremes_are_exact():
    values = np.random.default_rng(0).normal(0, 1, (1, 4, 512, 512)).astype(np.float32)
    values[0, 2, 17, 400] = 50.0
    running = collect._Running()
    running.add(values)
    stats = running.stats()
    assert stats.amax == 50.0 and stats.count == values.size
    assert collect.SAMPLED / 2 <= stats.histogram.sum() <= collect.SAMPLED
    share = stats.histogram[: int(BINS / stats.top)].sum() / stats.histogram.sum()
    assert share == pytest.approx(0.6827, abs=0.01)


def test_non_finite_values_are_counted_and_left_out():
    running = collect._Running()
    running.add(np.array([[[[1.0, np.nan], [np.inf, -2.0]]]], np.float32))
    running.add(np.full((1, 1, 2, 2), np.nan, np.float32))
    stats = running.stats()
    assert (stats.count, stats.non_finite, stats.minimum, stats.maximum) == (8, 6, -2.0, 1.0)
    assert stats.histogram.sum() == 2 and stats.channel_mean.size == 0


def test_tensors_of_sizes_alone_are_not_activations():
    nodes = [
        helper.make_node("Shape", ["lr"], ["shape"]),
        helper.make_node("Cast", ["shape"], ["sizes"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["sizes"], ["largest"], keepdims=0),
        helper.make_node("Div", ["lr", "largest"], ["a"]),
        helper.make_node("ArgMax", ["a"], ["where"], axis=1),
        helper.make_node("Mul", ["a", "two"], ["sr"]),
    ]
    value = helper.make_tensor_value_info
    ends = [value("lr", TensorProto.FLOAT, [1, 3, "h", "w"])], [value("sr", TensorProto.FLOAT, [1, 3, "h", "w"])]
    constants = [numpy_helper.from_array(np.array(2.0, np.float32), "two")]
    model = helper.make_model(
        helper.make_graph(nodes, "g", *ends, constants), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    assert floating_activations(model) == ("lr", "a", "sr")


def test_patches_are_the_same_for_the_same_seed_and_the_first_is_the_centre():
    picture = np.arange(3 * 40 * 50, dtype=np.float32).reshape(1, 3, 40, 50)
    first, again, other = (list(patches([picture], 16, 3, seed)) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other))
    assert np.array_equal(first[0], picture[:, :, 12:28, 17:33]) and {p.shape for p in first} == {(1, 3, 16, 16)}
    (small,) = patches([picture], 45, 1, multiple=4)
    assert small.shape == (1, 3, 40, 44)
    byte = np.zeros((1, 40, 50, 3), np.uint8)
    assert next(patches([byte], 16)).shape == (1, 16, 16, 3)
    with pytest.raises(UsageError):
        list(patches([picture], 4, 1, multiple=16))
