"""A Conv node as the numbers that passes reason with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np
import onnx

from sr_deploy.graph.rewrite.editor import Editor, attributes_of


@dataclass(frozen=True)
class Convolution:
    """A 2-D convolution with constant weight and bias, stride 1 and dilation 1.

    Attributes:
        node: the Conv.
        weight: (C_out, C_in / groups, kh, kw), float64.
        bias: (C_out,), float64; zeros where the node has none.
        groups: how many.
        pads: top, left, bottom, right, zeros.
    """

    node: onnx.NodeProto
    weight: np.ndarray
    bias: np.ndarray
    groups: int
    pads: Tuple[int, int, int, int]

    @property
    def source(self) -> str:
        """The tensor it reads."""
        return self.node.input[0]

    @property
    def result(self) -> str:
        """The tensor it makes."""
        return self.node.output[0]

    @property
    def channels(self) -> Tuple[int, int]:
        """Channels in and out."""
        return self.weight.shape[1] * self.groups, self.weight.shape[0]

    @property
    def pointwise(self) -> bool:
        """Whether it is a dense 1×1 convolution without padding."""
        return self.weight.shape[2:] == (1, 1) and self.groups == 1 and not any(self.pads)

    @property
    def depthwise(self) -> bool:
        """Whether every channel is filtered by itself, one result each."""
        return self.weight.shape[1] == 1 and self.groups == self.weight.shape[0]

    @property
    def keeps_size(self) -> bool:
        """Whether the result is as high and as wide as the input."""
        top, left, bottom, right = self.pads
        kernel = self.weight.shape[2:]
        return (top + bottom, left + right) == (kernel[0] - 1, kernel[1] - 1)

    def dense(self) -> np.ndarray:
        """The weight as that of one group, (C_out, C_in, kh, kw)."""
        if self.groups == 1:
            return self.weight
        out, per_group = self.weight.shape[:2]
        full = np.zeros((out, per_group * self.groups, *self.weight.shape[2:]))
        each = out // self.groups
        for group in range(self.groups):
            rows = slice(group * each, (group + 1) * each)
            full[rows, group * per_group : (group + 1) * per_group] = self.weight[rows]
        return full


def convolution(editor: Editor, node: Optional[onnx.NodeProto]) -> Optional[Convolution]:
    """``node`` as a Convolution; None when it is something else, strided, dilated, or its weights are not constant."""
    if node is None or node.op_type != "Conv":
        return None
    weight = editor.constant(node, 1)
    has_bias = len(node.input) > 2 and node.input[2]
    bias = editor.constant(node, 2) if has_bias else None
    if weight is None or weight.ndim != 4 or weight.dtype != np.float32 or (has_bias and bias is None):
        return None
    attributes = attributes_of(node)
    if attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        return None
    if any(value != 1 for name in ("strides", "dilations") for value in attributes.get(name, ())):
        return None
    return Convolution(
        node,
        weight.astype(np.float64),
        np.zeros(weight.shape[0]) if bias is None else bias.astype(np.float64),
        int(attributes.get("group", 1)),
        tuple(attributes.get("pads", (0, 0, 0, 0))),
    )


def conv_node(
    editor: Editor,
    source: str,
    weight: np.ndarray,
    bias: Optional[np.ndarray],
    result: str,
    like: onnx.NodeProto,
    role: str = "",
    groups: int = 1,
    pads: Tuple[int, ...] = (0, 0, 0, 0),
    dilations: Tuple[int, ...] = (1, 1),
) -> onnx.NodeProto:
    """A Conv of stride 1 with new float32 constants, named after ``like``; not placed yet.

    Args:
        editor: where the constants go.
        source, result: the tensors it reads and makes.
        weight: (C_out, C_in / groups, kh, kw).
        bias: (C_out,) or None for none.
        like: the node it stands for.
        role: what it is of ``like``.
        groups, pads, dilations: as in ONNX.
    """
    name = f"{like.name}{'/' + role if role else ''}"
    inputs = [source, editor.add_constant(f"{name}/weight", weight.astype(np.float32))]
    if bias is not None:
        inputs.append(editor.add_constant(f"{name}/bias", bias.astype(np.float32)))
    return editor.make(
        "Conv", inputs, result, like, role, dilations=list(dilations), group=groups,
        kernel_shape=list(weight.shape[2:]), pads=list(pads), strides=[1, 1],
    )  # fmt: skip
