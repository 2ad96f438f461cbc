"""A video decoder's planes at both ends of a graph, so that frames never leave the form that decoders write.

    lr uint8 ── Cast ── [two bytes → sample] ── luma ────────────────┐
                                         └── Cb, Cr ── Resize ×2 ──┴── 3×3 ── Clip ── network
    network ── 3×3 ─┬─ luma ─────────────────────────────┬── Round ── Clip ── [sample → two bytes] ── Cast ── sr uint8
                    └─ Cb, Cr ── Pad ── Conv, stride 2 ──┘

The arithmetic is that of core/media/colour.py: chroma is enlarged linearly where its siting says, and reduced by the
same triangle. All tensors are reshaped by constants, so that one graph takes any even size and no shape is computed:
three groups of rows are twice the rows of chroma, and those. As in byte_io.py the casts stand outermost, and all nodes
are pinned to float32 and named ``io/…``.
"""

from __future__ import annotations

from typing import Any, List

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sr_deploy.core.contract import IOContract
from sr_deploy.core.media.colour import COSITED, from_samples, to_samples
from sr_deploy.core.media.surface import yuv_of
from sr_deploy.graph.byte_io import IO_PREFIX, with_inner_ends
from sr_deploy.graph.export import PIN_MARK

REASON = "the planes of a video"
#: ONNX's words for where Resize puts the samples of twice the size: on every second, or around.
_RESIZE = {True: "asymmetric", False: "half_pixel"}
#: Weights of luma columns (or rows) in a chroma sample, and those before the first.
_TRIANGLE = {True: ((1, 2, 1), 1), False: ((1, 3, 3, 1), 1)}


def planar_graph(model: onnx.ModelProto, contract: IOContract, value_range: float) -> onnx.ModelProto:
    """The graph with a video's planes as input and output of the same names; ``model`` is not modified.

    Args:
        model: one float32 input (1, 3, H, W) and one output (1, 3, scale·H, scale·W), clamped to ``0…value_range``.
        contract: the planes' layout, NV12 or P010, and what they mean.
        value_range: the value of white in the network, 1 or 255.

    Raises:
        ValueError: the graph takes bytes already, or the contract is of RGB.
    """
    result, inner_lr, inner_sr = with_inner_ends(model)
    graph = result.graph
    lr, sr = graph.input[0], graph.output[0]
    network = list(graph.node)
    before, after = _Nodes(graph), _Nodes(graph)
    _planes_to_rgb(before, lr.name, inner_lr, contract, value_range)
    _rgb_to_planes(after, inner_sr, sr.name, contract, value_range)
    del graph.node[:], graph.value_info[:]
    graph.node.extend([*before.made, *network, *after.made])
    for value in (lr, sr):
        _retype(value, contract)
    onnx.checker.check_model(result)
    return result


class _Nodes:
    """Pinned nodes in order, each reading what earlier ones made."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self.made: List[onnx.NodeProto] = []

    def add(self, operator: str, role: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        """A node named ``io/role``; the name of its output."""
        name = IO_PREFIX + role
        node = helper.make_node(operator, list(inputs), [out or f"{name}_output"], name=name, **attributes)
        node.doc_string = f"{PIN_MARK} ({REASON})"
        self.made.append(node)
        return str(node.output[0])

    def constant(self, role: str, value: Any, kind: Any = np.float32) -> str:
        """An initializer named ``io/role``."""
        name = IO_PREFIX + role
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def reshape(self, role: str, tensor: str, shape: List[int]) -> str:
        """Reshape to constants; 0 keeps a length, -1 is what is left."""
        return self.add("Reshape", role, tensor, self.constant(f"{role}_shape", shape, np.int64))

    def cut(self, role: str, tensor: str, start: int, end: int, axis: int, step: int = 1) -> str:
        """Part of a tensor along an axis."""
        places = [
            self.constant(f"{role}_{word}", [value], np.int64)
            for word, value in (("start", start), ("end", end), ("axis", axis), ("step", step))
        ]
        return self.add("Slice", role, tensor, *places)


_END = 2**31 - 1


def _planes_to_rgb(nodes: _Nodes, source: str, target: str, contract: IOContract, value_range: float) -> None:
    colour = yuv_of(contract)
    floats = nodes.add("Cast", "input_cast", source, to=TensorProto.FLOAT)
    stored = nodes.add("Transpose", "input_layout", floats, perm=[0, 3, 1, 2])
    if contract.depth > 8:  # the lower byte holds two bits of the sample, the upper one eight
        weights = nodes.constant("input_bytes", np.reshape([1 / 64, 4.0], (1, 2, 1, 1)))
        stored = nodes.add("Conv", "input_samples", stored, weights)
    thirds = nodes.reshape("input_thirds", stored, [0, 3, -1, 0])
    luma = nodes.reshape("input_luma", nodes.cut("input_luma_rows", thirds, 0, 2, 1), [0, 1, -1, 0])
    pairs = nodes.cut("input_chroma_rows", thirds, 2, 3, 1)
    chroma = nodes.add(
        "Concat",
        "input_chroma",
        nodes.cut("input_blue", pairs, 0, _END, 3, 2),
        nodes.cut("input_red", pairs, 1, _END, 3, 2),
        axis=1,
    )
    for axis, cosited in ((2, COSITED[colour.siting][0]), (3, COSITED[colour.siting][1])):
        scales = nodes.constant(f"input_scales_{axis}", [2.0 if one == axis else 1.0 for one in range(4)])
        chroma = nodes.add(
            "Resize", f"input_resize_{axis}", chroma, "", scales, mode="linear",
            coordinate_transformation_mode=_RESIZE[cosited],
        )  # fmt: skip
    samples = nodes.add("Concat", "input_yuv", luma, chroma, axis=1)
    rows, offset = from_samples(colour, contract.depth)
    rgb = nodes.add(
        "Conv", "input_matrix", samples,
        nodes.constant("input_rows", (rows * value_range)[:, :, None, None]),
        nodes.constant("input_offset", offset * value_range),
    )  # fmt: skip
    limits = nodes.constant("black", 0.0), nodes.constant("white", value_range)
    nodes.add("Clip", "input_clip", rgb, *limits, out=target)


def _rgb_to_planes(nodes: _Nodes, source: str, target: str, contract: IOContract, value_range: float) -> None:
    colour = yuv_of(contract)
    rows, offset = to_samples(colour, contract.depth)
    samples = nodes.add(
        "Conv", "output_matrix", source,
        nodes.constant("output_rows", (rows / value_range)[:, :, None, None]),
        nodes.constant("output_offset", offset),
    )  # fmt: skip
    luma = nodes.cut("output_luma", samples, 0, 1, 1)
    weights, before = zip(*(_TRIANGLE[cosited] for cosited in COSITED[colour.siting]))
    kernel = np.outer(*(np.asarray(one, np.float64) / sum(one) for one in weights))
    after = [len(one) - 2 - first for one, first in zip(weights, before)]
    pads = nodes.constant("output_pads", [0, 0, *before, 0, 0, *after], np.int64)
    padded = nodes.add("Pad", "output_pad", nodes.cut("output_chroma", samples, 1, 3, 1), pads, mode="edge")
    chroma = nodes.add(
        "Conv", "output_reduce", padded, nodes.constant("output_triangle", np.stack([kernel[None]] * 2)),
        group=2, strides=[2, 2],
    )  # fmt: skip
    pairs = nodes.add("Transpose", "output_pairs", chroma, perm=[0, 2, 3, 1])
    planes = nodes.add(
        "Concat", "output_planes",
        nodes.add("Transpose", "output_layout", luma, perm=[0, 2, 3, 1]),
        nodes.reshape("output_turns", pairs, [0, 0, -1, 1]),
        axis=1,
    )  # fmt: skip
    most = nodes.constant("most", float((1 << contract.depth) - 1))
    whole = nodes.add("Round", "output_round", planes)
    limited = nodes.add("Clip", "output_clip", whole, nodes.constant("least", 0.0), most)
    if contract.depth > 8:
        high = nodes.add("Floor", "output_floor", nodes.add("Mul", "output_high", limited, nodes.constant("up", 1 / 4)))
        rest = nodes.add(
            "Sub", "output_rest", limited, nodes.add("Mul", "output_held", high, nodes.constant("four", 4))
        )
        low = nodes.add("Mul", "output_low", rest, nodes.constant("shift", 64.0))
        limited = nodes.add("Concat", "output_bytes", low, high, axis=3)
    nodes.add("Cast", "output_cast", limited, to=TensorProto.UINT8, out=target)


def _retype(value: onnx.ValueInfoProto, contract: IOContract) -> None:
    """uint8 of the contract's layout; where rows and width were free they stay so."""
    kind = value.type.tensor_type
    height, width = kind.shape.dim[2], kind.shape.dim[3]
    dims = [onnx.TensorShapeProto.Dimension() for _ in range(4)]
    if height.HasField("dim_value"):
        for dim, length in zip(dims, contract.shape((height.dim_value, width.dim_value))):
            dim.dim_value = length
    else:
        dims[0].dim_value, dims[3].dim_value = 1, contract.shape((2, 2))[3]
        dims[1].dim_param = height.dim_param.replace("height", "rows") or "rows"
        dims[2].dim_param = width.dim_param or "width"
    kind.elem_type = TensorProto.UINT8
    del kind.shape.dim[:]
    kind.shape.dim.extend(dims)
