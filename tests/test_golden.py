"""The published code's outputs, through the whole line: export, then ONNX Runtime, dynamic and static."""

from __future__ import annotations

import numpy as np
import pytest

from sr_deploy.core.contract import IOContract
from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.tolerance import GRAPH_FP32, TORCH_FP32, largest_difference
from sr_deploy.pipeline.load import LoadOptions, load_model
from sr_deploy.run.base import upscale
from sr_deploy.run.onnxruntime import runner_from_graph
from tests.published import GOLDEN, golden_cases, shortened


@pytest.mark.parametrize(("weights", "golden", "value_range"), GOLDEN, ids=[g[0] for g in GOLDEN])
def test_pytorch_equals_the_published_code(assets, weights, golden, value_range):
    import torch

    _, loaded = load_model(assets / "weights" / weights, LoadOptions())
    assert loaded.value_range == value_range
    for lr, expected in golden_cases(assets, golden, value_range):
        with torch.no_grad():
            actual = loaded.module(torch.from_numpy(lr)).numpy()
        assert largest_difference(actual, expected, value_range) <= TORCH_FP32.steps


#: f2srgan_x4 with other weights, and with another last layer: it shows for all what a fixed size does to the graph.
LIKE_X4 = ("f2srgan_x4_qat.pth.tar", "f2srgan_x2.pt")
KINDS = [(kind, *one) for kind in ("dynamic", "static") for one in GOLDEN if kind == "dynamic" or one[0] not in LIKE_X4]


@pytest.mark.parametrize(("kind", "weights", "golden", "value_range"), KINDS, ids=[f"{k[0]}-{k[1]}" for k in KINDS])
def test_graph_equals_the_published_code(assets, shared_export, weights, golden, value_range, kind):
    pictures = list(golden_cases(assets, golden, value_range))
    fixed = {"sizes": tuple(lr.shape[2:] for lr, _ in pictures)} if kind == "static" else {}
    deployment = open_deployment(shared_export(weights, **fixed))
    assert len(deployment.manifest.graphs) == (2 if kind == "static" else 1)
    for lr, expected in pictures:
        graph = deployment.graph_for(lr.shape[2:])
        runner = runner_from_graph(deployment.path_of(graph), deployment.manifest.contract, deployment.manifest.scale)
        actual = upscale(runner, lr)
        runner.close()
        assert largest_difference(actual, np.clip(expected, 0, value_range), value_range) <= GRAPH_FP32.steps


def test_dft_form_equals_the_network_and_is_pinned(assets, export_once, tmp_path):
    """Of the published weights up to the second block: of all eight it is ``benchmarks/checkpoints.py golden``."""
    import onnx
    import torch

    value_range, weights = 255.0, "f2srgan_x4.pt"
    short = shortened(assets / "weights" / weights, tmp_path / "two_blocks_of_f2srgan_x4.pt")
    deployment = open_deployment(export_once(short, spectral="dft"))
    runner = runner_from_graph(
        deployment.folder / "model.onnx", deployment.manifest.contract, deployment.manifest.scale
    )
    _, loaded = load_model(short, LoadOptions())
    for lr, _ in golden_cases(assets, weights, value_range):
        with torch.no_grad():
            expected = loaded.module(torch.from_numpy(lr)).numpy()
        difference = largest_difference(upscale(runner, lr), np.clip(expected, 0, value_range), value_range)
        assert difference <= GRAPH_FP32.steps
    model = onnx.load(str(deployment.folder / "model.onnx"))
    products = {node.name for node in model.graph.node if node.op_type == "MatMul"}
    assert products, "the DFT form is matrix products"
    assert products <= set(deployment.manifest.pinned_fp32)
    marked = {node.name for node in model.graph.node if node.doc_string.startswith("precision: float32")}
    assert marked == set(deployment.manifest.pinned_fp32)


def test_folded_fourier_units_are_pinned(shared_export):
    deployment = open_deployment(shared_export("f2srgan_x4.pt"))
    assert deployment.manifest.pinned_fp32
    assert deployment.manifest.contract == IOContract(value_range=255.0)
    became = [block["became"] for block in deployment.manifest.fold["blocks"]]
    assert sum("width" in text for text in became) == 16, "8 blocks with a global and a local Fourier unit each"
