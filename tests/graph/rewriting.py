"""Tiny networks as dynamic graphs, and the comparison that every pass must stand: equal at even and odd sizes."""

from __future__ import annotations

import io
import warnings
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from sr_deploy.graph.rewrite import RewriteOptions, passes_named, rewrite

SIZES = ((6, 8), (7, 5), (19, 24), (24, 19))


def graph_of(network: nn.Module) -> onnx.ModelProto:
    """A dynamic graph with random weights of both signs."""
    generator = torch.Generator().manual_seed(1)
    for tensor in network.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.4)
    stream = io.BytesIO()
    axes = {"lr": {2: "height", 3: "width"}, "sr": {2: "h", 3: "w"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(), (torch.rand(1, 3, 10, 12),), stream, opset_version=17, input_names=["lr"],
            output_names=["sr"], dynamic_axes=axes, dynamo=False,
        )  # fmt: skip
    return onnx.load_from_string(stream.getvalue())


def run(model: onnx.ModelProto, lr: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"lr": lr})[0]


def rewritten(model: onnx.ModelProto, names: str) -> tuple[Counter, dict[str, int]]:
    """Operators after the passes and places of each; the result is equal, or the test fails."""
    after, steps = rewrite(model, passes_named(names), RewriteOptions())
    for size in SIZES:
        lr = np.random.default_rng(size).standard_normal((1, 3, *size)).astype(np.float32)
        expected = run(model, lr)
        np.testing.assert_allclose(run(after, lr), expected, rtol=0, atol=3e-5 * np.abs(expected).max())
    return Counter(node.op_type for node in after.graph.node), {one.name: found.changed for one, found in steps}


def conv(inputs: int, outputs: int, kernel: int = 3, **more) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **more)
