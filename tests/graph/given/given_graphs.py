"""Small ONNX files as users have them: one network that enlarges a picture twice, written in every way there is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, List, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

SCALE = 2


@dataclass(frozen=True)
class Written:
    """How the network is written; see ``given``."""

    opset: int = 17
    axes: str = "NCHW"
    size: Sequence[Any] = ("h", "w")
    batch: Any = "n"
    dtype: Any = np.float32
    white: float = 1.0
    ranged: bool = True
    order: str = "rgb"
    names: Sequence[str] = ("input", "output")
    extra: Sequence[onnx.NodeProto] = ()
    constants: dict = field(default_factory=dict)


def weights(seed: int = 0) -> List[np.ndarray]:
    """Two convolutions that give back what comes in, four times, and a little of their own."""
    random = np.random.default_rng(seed)
    first = random.normal(0, 0.01, (8, 3, 3, 3))
    second = random.normal(0, 0.01, (3 * SCALE**2, 8, 3, 3))
    for channel in range(3):
        first[channel, channel, 1, 1] += 1.0
        for place in range(SCALE**2):
            second[place * 3 + channel, channel, 1, 1] += 1.0  # DepthToSpace's DCR order, which every set has
    return [first, random.normal(0, 0.01, 8), second, random.normal(0, 0.01, 3 * SCALE**2)]


def given(how: Written = Written()) -> onnx.ModelProto:
    """The network as an ONNX model.

    Args:
        how: opset: operator set. axes: "NCHW" or "NHWC"; after "unsaid, " without a word of it. size: height and width,
            numbers or names. batch: a number, a name, or None for no such axis. dtype: of weights and pictures. white:
            its value. ranged: limited to 0…white, so that a picture tells the range. order: of the channels. names:
            of both ends. extra: nodes from "body" to "extended" before the end. constants: for them.
    """
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(how.dtype))
    arrays = dict(zip(("w1", "b1", "w2", "b2"), weights()), zero=np.zeros(()), white=np.array(how.white))
    arrays.update(b1=arrays["b1"] * how.white, b2=arrays["b2"] * how.white)
    if how.order == "bgr":
        arrays["w1"] = arrays["w1"][:, ::-1]
        for name in ("w2", "b2"):
            shape = arrays[name].shape
            arrays[name] = arrays[name].reshape(SCALE**2, 3, -1)[:, ::-1].reshape(shape)
    stored = [numpy_helper.from_array(np.ascontiguousarray(value, how.dtype), name) for name, value in arrays.items()]
    stored += [numpy_helper.from_array(value, name) for name, value in how.constants.items()]
    tensor, nodes = how.names[0], []

    def add(operator, *constants, out=None, **attributes):
        nonlocal tensor
        made = out or f"t{len(nodes)}"
        nodes.append(helper.make_node(operator, [tensor, *constants], [made], **attributes))
        tensor = made

    if how.batch is None:
        unsqueezed = ["zero_axis"] if how.opset >= 13 else []
        stored += [numpy_helper.from_array(np.array([0]), name) for name in unsqueezed]
        add("Unsqueeze", *unsqueezed, **({} if unsqueezed else {"axes": [0]}))
    if how.axes.endswith("NHWC"):
        add("Transpose", perm=[0, 3, 1, 2])
    add("Conv", "w1", "b1", pads=[1] * 4)
    add("Relu")
    add("Conv", "w2", "b2", pads=[1] * 4)
    add("DepthToSpace", blocksize=SCALE, out="body")
    nodes += how.extra
    tensor = "extended" if how.extra else tensor
    if how.ranged:
        add("Max", "zero")
        add("Min", "white")
    if how.axes.endswith("NHWC"):
        add("Transpose", perm=[0, 2, 3, 1])
    if how.batch is None:
        add("Squeeze", *unsqueezed, **({} if unsqueezed else {"axes": [0]}))
    nodes[-1].output[0] = how.names[1]
    height, width = how.size
    shape = [height, width, 3] if how.axes.endswith("NHWC") else [3, height, width]
    shape = ["a", "b", "c"] if how.axes.startswith("unsaid") else shape
    shape = shape if how.batch is None else [how.batch, *shape]
    made = [f"axis_{axis}" for axis in range(len(shape))]
    ends = [helper.make_tensor_value_info(name, kind, dims) for name, dims in zip(how.names, (shape, made))]
    graph = helper.make_graph(nodes, "network", ends[:1], ends[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", how.opset)], producer_name="by hand")
    model.ir_version = 8
    return model


def saved(folder: Path, model: onnx.ModelProto, name: str = "net.onnx") -> Path:
    """The model's file."""
    (folder / name).write_bytes(model.SerializeToString())
    return folder / name


def reference(lr: np.ndarray) -> np.ndarray:
    """What the network gives for float32 (1, 3, H, W) RGB, by ONNX's own evaluator."""
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(given()).run(None, {"input": lr})[0]


def run(model: onnx.ModelProto) -> Callable[[np.ndarray], np.ndarray]:
    """The model as a function of its picture, in ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda lr: session.run(None, {session.get_inputs()[0].name: lr})[0]


def chain(steps):
    """Nodes "body" → "extended"; 0 stands for what the step before made."""
    nodes, last = [], "body"
    for number, (operator, inputs, attributes) in enumerate(steps):
        inputs = [last if name == 0 else name for name in (inputs or [0])]
        outs = attributes.get("num_outputs", 1)
        made = "extended" if number == len(steps) - 1 else f"s{number}"
        outputs = [made] + [f"t{number}_{part}" for part in range(1, outs)]
        nodes.append(helper.make_node(operator, inputs, outputs, name=f"step{number}", **attributes))
        last = made
    return tuple(nodes)
