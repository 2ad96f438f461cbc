"""Rewritten graphs of the shared checkpoints equal the unrewritten ones (all sizes: benchmarks/rewrite_equality.py)."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from sr_deploy.core.contract import IOContract
from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.media.sample import sample_input
from sr_deploy.core.tolerance import GRAPH_FP32, largest_difference
from sr_deploy.graph.rewrite import RewriteOptions, passes_named, rewrite
from sr_deploy.run.base import upscale
from sr_deploy.run.onnxruntime import runner_from_graph
from tests.published import GOLDEN, shortened

SIZES = ((16, 19), (37, 24), (50, 51))
#: One of each architecture; of F2SRGAN two blocks.
FILES = ("efdn_x4.pth", "span_ch26_x4.pth", "f2srgan_x2.pt", "light_f2srgan_x4_whole_module.pt")
SUBSET = [case for name in FILES for case in GOLDEN if case[0] == name]


@pytest.mark.parametrize(("weights", "golden", "value_range"), SUBSET, ids=FILES)
def test_rewritten_equals_unrewritten(assets, export_once, tmp_path, weights, golden, value_range):
    checkpoint = assets / "weights" / weights
    if weights.startswith("f2srgan"):
        checkpoint = shortened(checkpoint, tmp_path / f"two_blocks_of_{weights}")
    deployment = open_deployment(export_once(checkpoint, rewrite="none"))
    plain = deployment.folder / "model.onnx"
    pictures = [sample_input(size, value_range) for size in SIZES]
    stored = np.load(assets / "golden" / golden)
    pictures += [
        stored[f"input_{parity}"].transpose(2, 0, 1)[None].astype(np.float32) * (value_range / 255)
        for parity in ("even", "odd")
    ]
    for names in ("default", "cpu"):
        model, _ = rewrite(onnx.load(str(plain)), passes_named(names), RewriteOptions(value_range=value_range))
        onnx.save(model, str(tmp_path / "rewritten.onnx"))
        paths = (plain, tmp_path / "rewritten.onnx")
        contract = IOContract(value_range=value_range)
        runners = [runner_from_graph(path, contract, deployment.manifest.scale, threads=1) for path in paths]
        for lr in pictures:
            before, after = (upscale(runner, lr) for runner in runners)
            assert largest_difference(after, before, value_range) <= GRAPH_FP32.steps
        for runner in runners:
            runner.close()
