"""A build rewrites the graph for its builder where the listing improves; plans and graphs stay what they were."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.errors import UsageError
from sr_deploy.engine.listing import open_listing
from sr_deploy.engine.manifest import open_engine
from sr_deploy.pipeline.engines import rewritten
from sr_deploy.pipeline.measure.tune import TuneOptions
from sr_deploy.pipeline.measure.tune_for import fastest, tune_for_device

RTX = ("--backend", "tensorrt-rtx", "--compute-capability", "8.6", "--json")


@pytest.fixture(scope="module")
def span(shared_export, tmp_path_factory):
    """SPAN-tiny, for any size."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    folder = tmp_path_factory.mktemp("rewritten") / "span"
    shutil.copytree(shared_export("span_ch26_x4.pth"), folder)
    return folder


def test_a_build_takes_the_better_graph_and_says_so(span, srdeploy):
    before = (span / "manifest.json").read_bytes()
    done = srdeploy("build", span, *RTX, "--size", "24x33", "--precision", "fp16")
    assert done.code == 0, done.err
    (engine,) = json.loads(done.out)
    settings = engine["settings"]
    assert settings["rewrite"].startswith("fewest 1")
    assert float(settings["rewrite_difference"].split()[0]) <= 0.05
    before_kernels, after_kernels = settings["rewrite_listing"].split(" kernels")[0].split(" → ")
    assert int(after_kernels) < int(before_kernels)
    path = span / "engines" / "tensorrt-rtx_24x33_sm86_fp16.engine"
    assert open_listing(path, open_engine(path).sha256).kernels == int(after_kernels)
    assert (span / "manifest.json").read_bytes() == before
    assert open_engine(path).graph_sha256 == open_deployment(span).manifest.graphs[0].sha256


def test_a_rewriting_that_is_not_equal_is_not_used(span, srdeploy, monkeypatch):
    monkeypatch.setattr(rewritten, "GRAPH_FP32", dataclasses.replace(rewritten.GRAPH_FP32, steps=-1.0))
    done = srdeploy("build", span, *RTX, "--size", "24x33", "--force")
    assert done.code == 0, done.err
    (engine,) = json.loads(done.out)
    assert "rewrite" not in engine["settings"]
    assert any("is not rewritten for tensorrt-rtx" in warning for warning in engine["warnings"])


def test_tuning_for_a_gpu_that_is_not_here_estimates_and_keeps_one(span):
    with pytest.raises(UsageError, match="rtx-4090"):
        tune_for_device(TuneOptions(span, (16, 16), device="rtx-9999"), print)
    options = TuneOptions(span, (16, 20), variants=("none", "affine,fewest,maxmin"), device="xavier-nx")
    tuned = tune_for_device(options, lambda _: None)
    assert tuned.best == "affine,fewest,maxmin" and tuned.estimated_ms[tuned.best] < tuned.estimated_ms["none"]
    kept = open_deployment(span)
    assert kept.graph_for((16, 20), "tensorrt-rtx").file == tuned.file
    assert kept.graph_for((16, 20), "onnxruntime").file == "model.onnx"
    assert kept.manifest.rewrite[tuned.file]["tuned"]["for"] == "xavier-nx"


def test_the_graph_as_it_is_wins_within_the_margin():
    assert fastest({"none": 1.0, "other": 0.99}) == "none"
    assert fastest({"none": 1.0, "other": 0.9, "third": 0.8}) == "third"
