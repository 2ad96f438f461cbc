"""Tiny graphs, each with one way in which channels hang together, and what may become narrower in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Mapping, Tuple

import numpy as np
import onnx
from onnx import numpy_helper, parser

#: Operator set and ends of all of them.
_HEAD = '<ir_version: 8, opset_import: ["" : 17]> net (float[n,3,h,w] lr) => (float[n,3,hh,ww] sr)'


@dataclass(frozen=True)
class Case:
    """A graph and what is right.

    Attributes:
        text: its nodes in ONNX's text form.
        shapes: of weights, which are random; a list is a constant as it stands.
        widths: of the groups, sorted.
        stopped: operators that hold channels.
    """

    text: str
    shapes: Mapping[str, object]
    widths: Tuple[int, ...]
    stopped: Tuple[str, ...] = ()


def model_of(case: Case, seed: int = 0) -> onnx.ModelProto:
    """The graph, with weights that keep values near 1."""
    rng = np.random.default_rng(seed)
    model = parser.parse_model(f"{_HEAD} {{ {case.text} }}")
    for node in model.graph.node:
        node.name = node.output[0]
    constants: Dict[str, np.ndarray] = {}
    for name, shape in case.shapes.items():
        if isinstance(shape, list):
            constants[name] = np.array(shape, np.float32 if isinstance(shape[0], float) else np.int64)
        else:
            fan = max(int(np.prod(shape[1:])), 1) if len(shape) > 1 else 4
            constants[name] = (rng.normal(0.0, 1.0, shape) / np.sqrt(fan)).astype(np.float32)
    for name in constants:
        if name.startswith("variance"):
            constants[name] = np.abs(constants[name]) + np.float32(0.5)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    onnx.checker.check_model(model)
    return model


_THREE = "<pads=[1,1,1,1]>"
_FIRST = {"w0": (8, 3, 3, 3), "b0": (8,)}
_LAST = {"w9": (3, 8, 3, 3)}

CASES: Dict[str, Case] = {
    "residual stream": Case(
        f"a = Conv{_THREE}(lr, w0, b0) b = Conv{_THREE}(a, w1) c = PRelu(b, slope) d = Conv{_THREE}(c, w2) "
        f"e = Add(d, a) f = Conv{_THREE}(e, w3) g = Add(f, e) sr = Conv{_THREE}(g, w9)",
        {**_FIRST, **_LAST, "w1": (6, 8, 3, 3), "slope": (6, 1, 1), "w2": (8, 6, 3, 3), "w3": (8, 8, 3, 3)},
        (6, 8),
    ),
    "depthwise and batch norm": Case(
        f"a = Conv{_THREE}(lr, w0, b0) b = Conv<pads=[1,1,1,1], group=8>(a, w1) "
        f"c = BatchNormalization(b, scale, shift, mean, variance) d = LeakyRelu(c) sr = Conv{_THREE}(d, w9)",
        {**_FIRST, **_LAST, "w1": (8, 1, 3, 3), "scale": (8,), "shift": (8,), "mean": (8,), "variance": (8,)},
        (8,),
    ),
    "depthwise that doubles": Case(
        f"a = Conv{_THREE}(lr, w0, b0) b = Conv<pads=[1,1,1,1], group=8>(a, w1) sr = Conv{_THREE}(b, w9)",
        {**_FIRST, "w1": (16, 1, 3, 3), "w9": (3, 16, 3, 3)},
        (8,),
    ),
    "grouped": Case(
        f"a = Conv{_THREE}(lr, w0, b0) b = Conv<pads=[1,1,1,1], group=2>(a, w1) c = Relu(b) sr = Conv{_THREE}(c, w9)",
        {**_FIRST, **_LAST, "w1": (8, 4, 3, 3)},
        (4, 4),
    ),
    "split and concat": Case(
        f"a = Conv{_THREE}(lr, w0, b0) b, c = Split<axis=1>(a, parts) d = Conv{_THREE}(b, w1) "
        f"e = Concat<axis=1>(c, d, lr) sr = Conv{_THREE}(e, w9)",
        {**_FIRST, "parts": [3, 5], "w1": (4, 3, 3, 3), "w9": (3, 12, 3, 3)},
        (3, 4, 5),
    ),
    "slice to the end": Case(
        f"a = Conv{_THREE}(lr, w0, b0) b = Slice(a, zero, three, one) c = Slice(a, three, end, one) "
        f"d = Conv{_THREE}(b, w1) e = Add(d, c) f = Slice(e, one, end, rows) sr = Conv{_THREE}(f, w9)",
        {**_FIRST, "zero": [0], "one": [1], "rows": [2], "three": [3], "end": [2**62], "w1": (5, 3, 3, 3),
         "w9": (3, 5, 3, 3)},
        (3, 5),
    ),
    "every other channel": Case(
        f"a = Conv{_THREE}(lr, w0, b0) b = Slice(a, zero, end, one, two) sr = Conv{_THREE}(b, w9)",
        {**_FIRST, "zero": [0], "one": [1], "two": [2], "end": [8], "w9": (3, 4, 3, 3)},
        (),
        ("Slice",),
    ),
    "picked channels": Case(
        f"a = Conv{_THREE}(lr, w0, b0) b = Gather<axis=1>(a, order) sr = Conv{_THREE}(b, w9)",
        {**_FIRST, **_LAST, "order": [7, 0, 6, 1, 5, 2, 4, 3]},
        (8,),
    ),
    "two pixel shuffles": Case(
        f"a = Conv{_THREE}(lr, w0, b0) b = Conv{_THREE}(a, w1) c = DepthToSpace<blocksize=2, mode=\"CRD\">(b) "
        f"d = Relu(c) e = Conv{_THREE}(d, w2) f = DepthToSpace<blocksize=2, mode=\"DCR\">(e) sr = Conv{_THREE}(f, w9)",
        {**_FIRST, "w1": (16, 8, 3, 3), "w2": (20, 4, 3, 3), "w9": (3, 5, 3, 3)},
        (4, 5, 8),
    ),
    "space to depth": Case(
        f"a = Conv{_THREE}(lr, w0, b0) p = Resize<mode=\"nearest\", nearest_mode=\"floor\", "
        f"coordinate_transformation_mode=\"asymmetric\">(a, , twice) b = SpaceToDepth<blocksize=2>(p) "
        f"sr = Conv{_THREE}(b, w9)",
        {**_FIRST, "twice": [1.0, 1.0, 2.0, 2.0], "w9": (3, 32, 3, 3)},
        (8,),
    ),
    "attention of channels": Case(
        f"a = Conv{_THREE}(lr, w0, b0) p = GlobalAveragePool(a) q = Conv(p, w1) r = Relu(q) s = Conv(r, w2) "
        f"t = Sigmoid(s) e = Mul(a, t) sr = Conv{_THREE}(e, w9)",
        {**_FIRST, **_LAST, "w1": (4, 8, 1, 1), "w2": (8, 4, 1, 1)},
        (4, 8),
    ),
    "attention of places": Case(
        f"a = Conv{_THREE}(lr, w0, b0) p = Conv{_THREE}(a, w1) q = Conv{_THREE}(p, w2) t = Sigmoid(q) e = Mul(a, t) "
        f"sr = Conv{_THREE}(e, w9)",
        {**_FIRST, **_LAST, "w1": (4, 8, 3, 3), "w2": (1, 4, 3, 3)},
        (4,),
        ("Mul",),
    ),
    "mean over channels": Case(
        f"a = Conv{_THREE}(lr, w0, b0) m = ReduceMean<axes=[1]>(a) b = Conv{_THREE}(lr, w1) c = Sub(b, m) "
        f"sr = Conv{_THREE}(c, w9)",
        {**_FIRST, **_LAST, "w1": (8, 3, 3, 3)},
        (8,),
        ("ReduceMean",),
    ),
    "token mixing": Case(
        f"a = Conv{_THREE}(lr, w0, b0) t = Transpose<perm=[0,2,3,1]>(a) l = LayerNormalization<axis=-1>(t, scale) "
        f"m = MatMul(l, m1) n0 = Add(m, bias) g = Tanh(n0) o = MatMul(g, m2) r = Add(o, t) "
        f"u = Transpose<perm=[0,3,1,2]>(r) sr = Conv{_THREE}(u, w9)",
        {**_FIRST, **_LAST, "scale": (8,), "m1": (8, 12), "bias": (12,), "m2": (12, 8)},
        (12,),
        ("LayerNormalization",),
    ),
    "product along the width": Case(
        f"a = Conv{_THREE}(lr, w0, b0) s = Shape<start=3>(a) s2 = Concat<axis=0>(s, s) m = ConstantOfShape(s2) "
        f"n0 = Add(m, small) b = MatMul(a, n0) c = Conv(b, w1) d = Add(c, a) sr = Conv{_THREE}(d, w9)",
        {**_FIRST, **_LAST, "small": (1,), "w1": (8, 8, 1, 1)},
        (8,),
    ),
    "transposed convolution": Case(
        f"a = Conv{_THREE}(lr, w0, b0) b = ConvTranspose<strides=[2,2]>(a, w1, b1) c = Relu(b) "
        f"sr = Conv{_THREE}(c, w9)",
        {**_FIRST, "w1": (8, 6, 2, 2), "b1": (6,), "w9": (3, 6, 3, 3)},
        (6, 8),
    ),
    "shared weights": Case(
        f"a = Conv{_THREE}(lr, w0, b0) b = Conv{_THREE}(a, w1, b1) c = Relu(b) d = Conv{_THREE}(c, w2) e = Add(d, a) "
        f"f = Conv{_THREE}(e, w1, b1) g = Relu(f) h0 = Conv{_THREE}(g, w2) i = Add(h0, e) sr = Conv{_THREE}(i, w9)",
        {**_FIRST, **_LAST, "w1": (6, 8, 3, 3), "b1": (6,), "w2": (8, 6, 3, 3)},
        (6, 8),
    ),
    "one bias of two weights": Case(
        f"a = Conv{_THREE}(lr, w0, b0) b = Conv{_THREE}(a, w1, b0) sr = Conv{_THREE}(b, w9)",
        {**_FIRST, **_LAST, "w1": (8, 8, 3, 3)},
        (8, 8),
    ),
    "flattened and back": Case(
        f"a = Conv{_THREE}(lr, w0, b0) f = Reshape(a, flat) g = Sigmoid(f) s = Shape(a) b = Reshape(g, s) "
        f"sr = Conv{_THREE}(b, w9)",
        {**_FIRST, **_LAST, "flat": [1, 8, -1]},
        (8,),
    ),
    "a dense gate": Case(
        f"a = Conv{_THREE}(lr, w0, b0) p = GlobalAveragePool(a) q = Flatten(p) r = Gemm<transB=1>(q, m1, c1) "
        f"s = Unsqueeze(r, places) e = Mul(a, s) sr = Conv{_THREE}(e, w9)",
        {**_FIRST, **_LAST, "m1": (8, 8), "c1": (8,), "places": [2, 3]},
        (8,),
    ),
    "softmax over channels": Case(
        f"a = Conv{_THREE}(lr, w0, b0) b = Softmax<axis=1>(a) sr = Conv{_THREE}(b, w9)",
        {**_FIRST, **_LAST},
        (),
        ("Softmax",),
    ),
}  # fmt: skip
