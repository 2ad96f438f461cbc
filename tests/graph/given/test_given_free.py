"""A graph of a fixed size made free: only where it can be proved, or where nothing in it can hold a size."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from sr_deploy.core.media.sample import sample_input
from sr_deploy.core.tolerance import GRAPH_FP32, largest_difference
from sr_deploy.graph.given.free import why_not_the_same
from sr_deploy.graph.given.network import AskedOfGraph, network_from_onnx
from tests.graph.given.given_graphs import Written, chain, given, reference, run, saved

SIZE = (30, 36)


def i64(*values):
    return np.array(values, np.int64)


def frozen(steps, **constants):
    """The network for one picture of ``SIZE``, with ``steps`` before its end."""
    return given(Written(size=SIZE, batch=1, extra=chain(steps), constants=constants))


#: PixelShuffle's way there and back as Reshape and Transpose, with the numbers of a trace.
RESHAPES = frozen(
    [
        ("Reshape", ["body", "split"], {}),
        ("Transpose", 0, {"perm": [0, 1, 3, 5, 2, 4]}),
        ("Reshape", [0, "joined"], {}),
        ("DepthToSpace", 0, {"blocksize": 2, "mode": "CRD"}),
    ],
    split=i64(1, 3, 30, 2, 36, 2),
    joined=i64(1, 12, 30, 36),
)
#: Normalised over the channels of each pixel as transformers write it, in rows of pixels; a slice that takes all of it,
#: and an Expand that repeats nothing.
TOKENS = frozen(
    [
        ("Transpose", ["body"], {"perm": [0, 2, 3, 1]}),
        ("Reshape", [0, "tokens"], {}),
        ("ReduceMean", [0], {"axes": [2], "keepdims": 0}),
        ("Reshape", [0, "means"], {}),
        ("Sub", ["s1", 0], {}),
        ("Add", [0, "s3"], {}),
        ("Reshape", [0, "picture"], {}),
        ("Transpose", [0], {"perm": [0, 3, 1, 2]}),
        ("Slice", [0, "start", "end", "across"], {}),
        ("Expand", [0, "whole"], {}),
    ],
    tokens=i64(1, 4320, 3),
    means=i64(1, 4320, 1),
    picture=i64(1, 60, 72, 3),
    start=i64(0),
    end=i64(72),
    across=i64(3),
    whole=i64(1, 3, 60, 72),
)

#: Windows of 2x2 pixels as rows of a product, there and back.
WINDOWS = frozen(
    [
        ("Transpose", ["body"], {"perm": [0, 2, 3, 1]}),
        ("Reshape", [0, "cut"], {}),
        ("Transpose", [0], {"perm": [0, 1, 3, 2, 4, 5]}),
        ("Reshape", [0, "rows"], {}),
        ("MatMul", [0, "same"], {}),
        ("Reshape", [0, "placed"], {}),
        ("Transpose", [0], {"perm": [0, 1, 3, 2, 4, 5]}),
        ("Reshape", [0, "picture"], {}),
        ("Transpose", [0], {"perm": [0, 3, 1, 2]}),
    ],
    cut=i64(1, 30, 2, 36, 2, 3),
    rows=i64(1080, 4, 3),
    same=np.eye(3, dtype=np.float32),
    placed=i64(1, 30, 36, 2, 2, 3),
    picture=i64(1, 60, 72, 3),
)


@pytest.mark.parametrize(
    "model",
    [given(Written(size=SIZE)), given(Written(size=SIZE, batch=1, axes="NHWC")), RESHAPES, TOKENS, WINDOWS],
    ids=["declared", "declared, channels last", "reshapes", "tokens", "windows"],
)
def test_a_size_that_was_frozen_is_free_again(explored_here, tmp_path, model):
    found = network_from_onnx(saved(tmp_path, model), AskedOfGraph())
    assert found.fixed is None
    assert "was fixed to 30x36 and is free now: proved against it at four sizes" in found.notes[1]
    for size in (SIZE, (41, 24)):
        lr = sample_input(size, 1.0)
        assert largest_difference(run(found.model)(lr), reference(lr), 1.0) <= GRAPH_FP32.steps


def test_a_network_that_sees_the_whole_picture_is_free_if_nothing_holds_a_size(explored_here, tmp_path):
    pooled = [("GlobalAveragePool", ["body"], {}), ("Mul", [0, "k"], {}), ("Add", ["body", 0], {})]
    found = network_from_onnx(saved(tmp_path, frozen(pooled, k=np.array(0.1, np.float32))), AskedOfGraph())
    assert found.fixed is None
    assert "nothing in it can hold a size" in found.notes[1]


#: A mean over the picture with the number of its pixels as a constant; and a picture enlarged to a frozen size.
SUM = [("ReduceSum", ["body", "axes"], {}), ("Mul", [0, "k"], {}), ("Add", ["body", 0], {})]
SUM_CONSTANTS = {"axes": i64(2, 3), "k": np.array(0.1 / (4 * 30 * 36), np.float32)}
POOL = [("GlobalAveragePool", ["body"], {}), ("Mul", [0, "k"], {}), ("Resize", [0, "", "", "whole"], {}),
        ("Add", ["body", 0], {})]  # fmt: skip
POOL_CONSTANTS = {"k": np.array(0.1, np.float32), "whole": i64(1, 3, 60, 72)}


@pytest.mark.parametrize(("steps", "constants"), [(SUM, SUM_CONSTANTS), (POOL, POOL_CONSTANTS)], ids=["sum", "pool"])
def test_what_cannot_be_proved_stays_fixed_and_says_so(explored_here, tmp_path, steps, constants):
    found = network_from_onnx(saved(tmp_path, frozen(steps, **constants)), AskedOfGraph())
    assert found.fixed == SIZE
    assert "stays fixed to 30x36: the network reaches over" in found.notes[1]


def test_a_freed_graph_that_is_another_network_is_found():
    from sr_deploy.core.contract import SizeRules

    crop = helper.make_node("Slice", ["body", "start", "end", "axes"], ["cut"])
    other = (crop, helper.make_node("Pad", ["cut", "pads"], ["extended"], mode="edge"))
    constants = {"start": i64(0), "end": i64(-1), "axes": i64(2), "pads": i64(0, 0, 0, 0, 0, 0, 1, 0)}
    wrong = run(given(Written(extra=other, constants=constants)))
    right = run(given())
    assert why_not_the_same(right, right, SIZE, 2, SizeRules()) is None
    assert "differs from itself by" in why_not_the_same(right, wrong, SIZE, 2, SizeRules())
