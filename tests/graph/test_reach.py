"""The receptive field found from a graph is the one that experiments show, and what is global is named."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from sr_deploy.core.contract import IOContract, SizeRules
from sr_deploy.graph.probe import seen_reach
from sr_deploy.graph.reach import reach_of
from sr_deploy.pipeline.reach import proved_reach

CONTRACT = IOContract(1.0)
CONV = "Conv<kernel_shape = [{k}, {k}], pads = [{p}, {p}, {p}, {p}], strides = [{s}, {s}], dilations = [{d}, {d}]>"


def conv(k=3, s=1, d=1, p=None):
    return CONV.format(k=k, s=s, d=d, p=d * (k // 2) if p is None else p)


def graph(tmp_path, body, weights=(), scale=1):
    """An ONNX file: ``body`` from lr (1, 3, height, width) to sr; weights by name and shape."""
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    net (float[1, 3, height, width] lr) => (float[1, 3, h, w] sr) {{ {body} }}"""
    model = onnx.parser.parse_model(text)
    generator = np.random.default_rng(0)
    for name, value in weights:
        if isinstance(value, tuple):
            value = generator.standard_normal(value).astype(np.float32) * 0.2
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    path = tmp_path / "model.onnx"
    onnx.save(model, str(path))
    return path


SHUFFLE = 'DepthToSpace<blocksize = 2, mode = "CRD">'
#: name → (body, weights, scale, halo, multiple)
LOCAL = {
    "pointwise": ("sr = Relu(lr)", (), 1, 0, 1),
    "two windows": (
        f"a = {conv(3)}(lr, w) b = Relu(a) sr = {conv(5)}(b, v)",
        (("w", (3, 3, 3, 3)), ("v", (3, 3, 5, 5))), 1, 3, 1,
    ),
    "dilated": (f"sr = {conv(3, d=4)}(lr, w)", (("w", (3, 3, 3, 3)),), 1, 4, 1),
    "one-sided": (
        "sr = Conv<kernel_shape = [3, 3], pads = [2, 2, 0, 0]>(lr, w)", (("w", (3, 3, 3, 3)),), 1, 2, 1,
    ),
    "shuffled": (
        f"a = {conv(3)}(lr, w) b = {SHUFFLE}(a) sr = {conv(3)}(b, v)",
        (("w", (12, 3, 3, 3)), ("v", (3, 3, 3, 3))), 2, 2, 1,
    ),
    "unshuffled": (
        f"a = SpaceToDepth<blocksize = 2>(lr) b = {conv(3)}(a, w) sr = DepthToSpace<blocksize = 2>(b)",
        (("w", (12, 12, 3, 3)),), 1, 3, 2,
    ),
    "pooled": (
        "a = MaxPool<kernel_shape = [4, 4], strides = [4, 4]>(lr) "
        "b = Resize<mode = \"nearest\", coordinate_transformation_mode = \"asymmetric\", nearest_mode = \"floor\">"
        "(a, , scales) sr = Add(lr, b)",
        (("scales", np.float32([1, 1, 4, 4])),), 1, 3, 4,
    ),
    "transposed": (
        "a = ConvTranspose<kernel_shape = [4, 4], strides = [2, 2], pads = [1, 1, 1, 1]>(lr, w) "
        f"sr = {conv(3)}(a, v)",
        (("w", (3, 3, 4, 4)), ("v", (3, 3, 3, 3))), 2, 1, 1,
    ),
    "reflected": (
        f"a = Pad<mode = \"reflect\">(lr, pads) sr = {conv(3, p=0)}(a, w)",
        (("pads", np.int64([0, 0, 1, 1, 0, 0, 1, 1])), ("w", (3, 3, 3, 3))), 1, 1, 1,
    ),
    "normalised over channels": (
        f"a = Transpose<perm = [0, 2, 3, 1]>(lr) b = LayerNormalization<axis = -1>(a, g) "
        f"c = Transpose<perm = [0, 3, 1, 2]>(b) sr = {conv(3)}(c, w)",
        (("g", np.ones(3, np.float32)), ("w", (3, 3, 3, 3))), 1, 1, 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOCAL)
def test_the_halo_is_the_one_that_is_seen(tmp_path, name):
    body, weights, scale, halo, multiple = LOCAL[name]
    path = graph(tmp_path, body, weights, scale)
    sizes = SizeRules(max(2 * halo, 2), multiple)
    reach = reach_of(path, sizes)
    assert (reach.halo, reach.multiple, reach.global_nodes) == (halo, multiple, ())
    long, across = sizes.fit(2 * halo + 9), sizes.fit(8)
    farthest = [seen_reach(onnx.load(str(path)), CONTRACT, [(long + k, across), (across, long + k)])
                for k in range(0, 2 * multiple, multiple)]  # fmt: skip
    # A row in the middle of a block of four reaches less far than one at its edge.
    assert max(farthest) == halo if multiple == 1 else max(farthest) <= halo
    proved = proved_reach(path, CONTRACT, scale, sizes)
    assert proved.is_local and proved.proved == 0.0


POOL = "a = GlobalAveragePool(lr) sr = Mul(lr, a)"
OWN = (
    "s = Shape(lr) t = Slice(s, two, four) c = Slice(s, zero, two) z = Concat<axis = 0>(c, t) "
    "a = MaxPool<kernel_shape = [7, 7], strides = [3, 3]>(lr) "
    "b = Resize<mode = \"linear\">(a, , , z) sr = Mul(lr, b)"
)  # fmt: skip
INDEX = (("zero", np.int64([0])), ("two", np.int64([2])), ("four", np.int64([4])))
ROLL = (
    "a = Slice(lr, four, end, two) b = Slice(lr, zero, four, two) c = Concat<axis = 2>(a, b) "
    f"sr = {conv(3)}(c, w)"
)  # fmt: skip
PLACES = "h = Shape(lr) n = Slice(h, two, three) m = Squeeze(n) r = Range(nought, m, one) q = Unsqueeze(r, axes) " \
    "f = Cast<to = 1>(q) sr = Add(lr, f)"  # fmt: skip
GLOBAL = {
    "pooled to one value": (POOL, (), "GlobalAveragePool", "mean or maximum"),
    "resized to the picture's own size": (OWN, INDEX, "Resize", "depends on the size"),
    "rolled": (ROLL, (*INDEX, ("end", np.int64([99999])), ("w", (3, 3, 3, 3))), "graph", "not alike"),
    "positions": (
        PLACES,
        (("two", np.int64([2])), ("three", np.int64([3])), ("nought", np.int64(0)), ("one", np.int64(1)),
         ("axes", np.int64([1]))), "Add", "differ from place to place",
    ),
    "softmax over columns": ("sr = Softmax<axis = 3>(lr)", (), "Softmax", "joins places"),
    "unknown": ("sr = CumSum(lr, axis)", (("axis", np.int64(3)),), "CumSum", "not known to be local"),
}  # fmt: skip


@pytest.mark.parametrize("name", GLOBAL)
def test_what_is_global_is_named(tmp_path, name):
    body, weights, operator, why = GLOBAL[name]
    reach = proved_reach(graph(tmp_path, body, weights), CONTRACT, 1, SizeRules(16))
    assert not reach.is_local and reach.halo == 0
    assert any(node.operator == operator and why in node.why for node in reach.global_nodes), reach.global_nodes
    assert why in reach.explained()


def test_an_experiment_overrules_what_was_found(tmp_path, monkeypatch):
    """Were the interpretation wrong, the strips would show it."""
    from sr_deploy.core.reach import Reach
    from sr_deploy.graph import reach as finding

    body, weights, scale, halo, _ = LOCAL["two windows"]
    path = graph(tmp_path, body, weights, scale)
    monkeypatch.setattr(finding, "reach_of", lambda *_: Reach(halo - 1, 1))
    assert "pixels away" in proved_reach(path, CONTRACT, scale, SizeRules(8)).explained()
    monkeypatch.setattr(finding, "reach_of", lambda *_: Reach(halo - 2, 1))
    monkeypatch.setattr("sr_deploy.graph.probe.seen_reach", lambda *_: 0)
    refuted = proved_reach(path, CONTRACT, scale, SizeRules(8))
    assert not refuted.is_local and "differ from the whole" in refuted.explained() and refuted.proved > 0.01


def test_a_graph_of_one_size_is_read_at_that_size(tmp_path):
    body, weights, scale, halo, _ = LOCAL["two windows"]
    path = graph(tmp_path, body, weights, scale)
    model = onnx.load(str(path))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[2].dim_value = 40
        value.type.tensor_type.shape.dim[3].dim_value = 48
    onnx.save(model, str(path))
    reach = proved_reach(path, CONTRACT, scale, SizeRules())
    assert (reach.halo, reach.is_local, reach.proved) == (halo, True, None)
