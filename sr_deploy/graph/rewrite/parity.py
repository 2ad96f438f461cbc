"""The width matrix of a Fourier unit of even width, split into its even and odd columns.

    before:  x ─ MatMul Q (W×W)
    after:   x ─┬─ Slice odd columns ── MatMul Q[odd, even] (W/2×W/2) ─┬─ joined column by column
                └─ Slice even columns ─ MatMul Q[even, odd] (W/2×W/2) ─┘

For even W every entry of Q at an even distance from the diagonal is zero (fold/spectral.py), so an even column of the
result depends on odd columns only and an odd one on even ones: half the multiply-accumulates. Taking every second
column and joining them again costs copies, so that it pays at large widths only: srdeploy tune measures it.

Precondition: the product is with a picture (N, C, H, W), the matrix a constant of even size with those
entries zero.
"""

from __future__ import annotations

from typing import Dict, Tuple

import numpy as np
import onnx

from sr_deploy.graph.rewrite.base import Pass, PassResult, RewriteOptions
from sr_deploy.graph.rewrite.editor import Editor

#: Constants of Slice and Unsqueeze, by name.
_BOUNDS = {"zero": [0], "one": [1], "two": [2], "axis": [3], "last": [-1], "end": [np.iinfo(np.int64).max]}


def apply(model: onnx.ModelProto, options: RewriteOptions) -> PassResult:
    """Split every product with such a constant matrix on the right."""
    editor = Editor(model)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.value_info
    pictures = {value.name for value in inferred if len(value.type.tensor_type.shape.dim) == 4}
    products = [
        node
        for node in editor.nodes
        if node.op_type == "MatMul" and node.input[0] in pictures and _splits(editor.constant(node, 1))
    ]
    shared = {name: editor.add_constant(f"parity/{name}", np.array(value, np.int64)) for name, value in _BOUNDS.items()}
    halves: Dict[str, Tuple[str, str]] = {}
    for node in products:
        matrix = editor.constants[node.input[1]]
        if node.input[1] not in halves:
            halves[node.input[1]] = (
                editor.add_constant(f"{node.input[1]}/odd_even", matrix[1::2, 0::2]),
                editor.add_constant(f"{node.input[1]}/even_odd", matrix[0::2, 1::2]),
            )
        source, out = node.input[0], node.output[0]
        new, columns = [], []
        for start, name, half in zip(("one", "zero"), ("even", "odd"), halves[node.input[1]]):
            part = f"{out}/{name}_reads"
            bounds = [shared[start], shared["end"], shared["axis"], shared["two"]]
            new.append(editor.make("Slice", [source, *bounds], part, node, f"{name}_reads"))
            new.append(editor.make("MatMul", [part, half], f"{out}/{name}", node, name))
            columns.append(f"{out}/{name}_column")
            new.append(editor.make("Unsqueeze", [f"{out}/{name}", shared["last"]], columns[-1], node, f"{name}_column"))
        new.append(editor.make("Concat", columns, f"{out}/columns", node, "columns", axis=-1))
        shape = editor.add_constant(f"{node.name}/shape", np.array([0, 0, 0, matrix.shape[1]], np.int64))
        new.append(editor.make("Reshape", [f"{out}/columns", shape], out, node))
        editor.replace([node], new)
    return PassResult(editor.finish(), len(products)) if products else PassResult(model, 0)


def _splits(matrix: object) -> bool:
    """Whether a constant is a square matrix of even size with nothing at even distances from its diagonal."""
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2:
        return False
    if matrix.shape[0] != matrix.shape[1] or matrix.shape[0] % 2:
        return False
    return not matrix[0::2, 0::2].any() and not matrix[1::2, 1::2].any()


PASS = Pass(
    "parity", "even and odd columns of a Fourier unit's width matrix apart: half its MACs", apply, default=False
)
