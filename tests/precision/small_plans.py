"""A small residual network as an ONNX graph, and an INT8 plan for it with scales from pictures."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sr_deploy.core.deployment.plan import Plan
from sr_deploy.core.media.sample import sample_input
from sr_deploy.precision.calibrate.collect import ranges_of
from sr_deploy.precision.calibrate.ranges import scale_of
from sr_deploy.precision.choose.islands import kinds_of
from sr_deploy.precision.choose.plan_from_ranges import NarrowChoice, Scales, narrow_plan

CHANNELS = 12


def network(seed: int = 0) -> onnx.ModelProto:
    """head → two blocks (conv, PReLU, conv, Add) → conv → PixelShuffle ×2 → clamp; "lr" (N, 3, H, W) to "sr"."""
    rng = np.random.default_rng(seed)
    constants = {"low": np.float32(-4.0), "high": np.float32(5.0)}
    nodes = []

    def convolution(name: str, reads: str, inputs: int, outputs: int, gain: float) -> str:
        weight = rng.normal(0, gain / np.sqrt(9 * inputs), (outputs, inputs, 3, 3))
        # Channels of very different size, as trained networks have them.
        constants[f"{name}.weight"] = (weight * np.geomspace(0.3, 2.0, outputs)[:, None, None, None]).astype(np.float32)
        constants[f"{name}.bias"] = rng.normal(0, 0.1, outputs).astype(np.float32)
        nodes.append(
            helper.make_node(
                "Conv", [reads, f"{name}.weight", f"{name}.bias"], [name], name=f"{name}/Conv", pads=[1] * 4,
                kernel_shape=[3, 3],
            )
        )  # fmt: skip
        return name

    skip = convolution("head", "lr", 3, CHANNELS, 1.0)
    for block in ("one", "two"):
        inner = convolution(f"{block}.a", skip, CHANNELS, CHANNELS, 1.0)
        constants[f"{block}.slope"] = rng.uniform(0.05, 0.3, (CHANNELS, 1, 1)).astype(np.float32)
        nodes.append(helper.make_node("PRelu", [inner, f"{block}.slope"], [f"{block}.r"], name=f"{block}/PRelu"))
        outer = convolution(f"{block}.b", f"{block}.r", CHANNELS, CHANNELS, 1.0)
        nodes.append(helper.make_node("Add", [outer, skip], [f"{block}.sum"], name=f"{block}/Add"))
        skip = f"{block}.sum"
    tail = convolution("tail", skip, CHANNELS, 12, 0.4)
    nodes.append(helper.make_node("DepthToSpace", [tail], ["shuffled"], name="shuffle", blocksize=2, mode="CRD"))
    nodes.append(helper.make_node("Clip", ["shuffled", "low", "high"], ["sr"], name="clamp"))
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, ["n", 3, "height", "width"])],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, ["n", 3, "rows", "columns"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def pictures(count: int = 6, size=(40, 44)):
    """Smooth pictures, float32 (1, 3, H, W) in 0…1, each another."""
    waves = np.arange(1, count + 1)
    base = sample_input(size, 1.0)
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32)
    made = [0.5 * base + 0.25 + 0.25 * np.sin(rows / (2 + wave) + columns / (5 - wave % 4)) for wave in waves]
    return [np.clip(picture, 0, 1).astype(np.float32) for picture in made]


def plan_of(model: onnx.ModelProto, rest: str = "float32", method: str = "minmax") -> Plan:
    """INT8 in the blocks, with quantised skips; head and tail in ``rest``."""
    inferred = {"one.a/Conv": 4, "one.b/Conv": 4, "two.a/Conv": 4, "two.b/Conv": 4, "head/Conv": 1, "tail/Conv": 1}
    ranges = ranges_of(model, pictures())
    scales = {name: scale_of(stats, method) for name, stats in ranges.tensors.items()}
    digest = hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
    narrow = [name for name, macs in inferred.items() if macs > 1]
    return narrow_plan(model, kinds_of(model, inferred), digest, Scales(scales), NarrowChoice(narrow=narrow, rest=rest))
