"""Which placements of Q/DQ TensorRT-RTX fuses: kernels, bytes and types of four convolutions in every form.

    python tests/benchmarks/int8_placement.py [--target 8.6] [--size 144]

A float16 convolution 3→64, four 3×3 ones 64→64 with an activation in the form of the row, and one 64→3. A form that the
parser or the builder refuses is named with its reason. Needs no GPU.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sr_deploy.core.errors import SrDeployError
from sr_deploy.engine.options import EngineOptions
from sr_deploy.engine.tensorrt import engine_from_graph

CHANNELS, LAYERS = 64, 4
#: Row → where Q/DQ stand ("inputs", "outputs"), the activation, the type of scales and of all that is not INT8.
FORMS: Dict[str, Dict[str, Any]] = {
    "float16, no Q/DQ": {"quantized": False},
    "inputs and weights (what a plan does)": {},
    "the same, SiLU": {"activation": "Silu"},
    "the same, no activation": {"activation": ""},
    "the same, float32 scales and rest": {"rest": TensorProto.FLOAT},
    "the same, no bias": {"bias": False},
    "outputs too, before the activation": {"outputs": True},
    "weights only": {"inputs": False},
    "inputs per tensor, weights per tensor": {"per_channel": False},
}


class Chain:
    """The graph of one form while it is written."""

    def __init__(self, size: int, rest: int = TensorProto.FLOAT16) -> None:
        self.size, self.rest = size, rest
        self.kind = np.float16 if rest == TensorProto.FLOAT16 else np.float32
        self.nodes: List[onnx.NodeProto] = []
        self.constants: List[onnx.TensorProto] = []
        self.random = np.random.default_rng(0)

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def node(self, operator: str, inputs: List[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def rounded(self, tensor: str, name: str) -> str:
        """``tensor`` through QuantizeLinear and DequantizeLinear."""
        scale = self.constant(f"{name}/scale", np.array(0.02, self.kind))
        zero = self.constant(f"{name}/zero", np.array(0, np.int8))
        narrow = self.node("QuantizeLinear", [tensor, scale, zero], f"{name}/q")
        return self.node("DequantizeLinear", [narrow, scale, zero], f"{name}/dq")

    def weight(
        self, name: str, quantized: bool, per_channel: bool, outputs: int = CHANNELS, inputs: int = CHANNELS
    ) -> str:
        values = self.random.integers(-127, 128, (outputs, inputs, 3, 3)).astype(np.int8)
        if not quantized:
            return self.constant(name, (values * 0.003).astype(self.kind))
        shape = (outputs,) if per_channel else ()
        scale = self.constant(f"{name}/scale", np.full(shape, 0.003, self.kind))
        zero = self.constant(f"{name}/zero", np.zeros(shape, np.int8))
        axis = {"axis": 0} if per_channel else {}
        return self.node("DequantizeLinear", [self.constant(f"{name}/q", values), scale, zero], name, **axis)

    def convolution(self, tensor: str, weight: str, name: str, bias: int = 0) -> str:
        inputs = [tensor, weight]
        if bias:
            inputs.append(self.constant(f"{name}/bias", self.random.standard_normal(bias).astype(self.kind)))
        return self.node("Conv", inputs, name, pads=[1] * 4, kernel_shape=[3, 3])

    def model(self, last: str) -> onnx.ModelProto:
        shape = [1, 3, self.size, self.size]
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("lr", "sr")]
        self.node("Cast", [last], "sr", to=TensorProto.FLOAT)
        graph = helper.make_graph(self.nodes, "chain", ends[:1], ends[1:], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
        onnx.checker.check_model(model)
        return model


def chain(
    size: int, quantized: bool = True, inputs: bool = True, outputs: bool = False, activation: str = "Relu",
    rest: int = TensorProto.FLOAT16, bias: bool = True, per_channel: bool = True,
) -> onnx.ModelProto:  # fmt: skip
    """The graph of one form."""
    made = Chain(size, rest)
    tensor = made.node("Cast", ["lr"], "lr/typed", to=rest)
    tensor = made.convolution(tensor, made.weight("head/weight", False, False, inputs=3), "head")
    for number in range(LAYERS):
        name = f"conv{number}"
        if quantized and inputs:
            tensor = made.rounded(tensor, f"{name}/input")
        weight = made.weight(f"{name}/weight", quantized, per_channel)
        tensor = made.convolution(tensor, weight, name, CHANNELS if bias else 0)
        if outputs:
            tensor = made.rounded(tensor, f"{name}/output")
        if activation == "Silu":
            tensor = made.node("Mul", [tensor, made.node("Sigmoid", [tensor], f"{name}/sigmoid")], f"{name}/silu")
        elif activation:
            tensor = made.node(activation, [tensor], f"{name}/activation")
    return made.model(made.convolution(tensor, made.weight("tail/weight", False, False, outputs=3), "tail"))


def row(name: str, form: Dict[str, Any], size: int, target: str) -> str:
    """One line of the table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(chain(size, **form), str(path))
        try:
            built = engine_from_graph("tensorrt-rtx", path, None, (target,), EngineOptions(precision="auto"))
        except SrDeployError as error:
            return f"| {name} | refused: {' '.join(error.found.split())[:80]} | | |"
    listing = built.listing
    assert listing is not None and listing.bytes_moved is not None
    products = [layer for node, layer in listing.product_layers().items() if node.startswith("conv")]
    types = Counter(
        f"{layer.constants[0].type}: {layer.inputs[0].type} → {layer.outputs[0].type}" for layer in products
    )
    shown = ", ".join(f"{kind} {count}" for kind, count in types.items())
    return f"| {name} | {listing.kernels} | {listing.bytes_moved / 1e6:.1f} | {shown} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="8.6", help="compute capability")
    parser.add_argument("--size", type=int, default=144)
    arguments = parser.parse_args()
    print("| placement | kernels | MB | weights: input → output of the four |\n|---|---:|---:|---|")
    for name, form in FORMS.items():
        print(row(name, form, arguments.size, arguments.target), flush=True)


if __name__ == "__main__":
    main()
