"""A build rewrites the graph for its builder where the listing improves; plans and graphs stay what they were."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

from sr_deploy.core.deployment.manifest import GpuMeant, open_deployment
from sr_deploy.core.errors import UsageError
from sr_deploy.core.host.gpu_rates import gpu_named
from sr_deploy.core.host.machine import Gpu
from sr_deploy.core.media.sample import sample_for
from sr_deploy.engine.listing import open_listing
from sr_deploy.engine.manifest import open_engine
from sr_deploy.pipeline.engines import rewritten
from sr_deploy.pipeline.engines.kept import finished_engine
from sr_deploy.pipeline.engines.request import BuildOptions, plans_with, resolve_build
from sr_deploy.pipeline.measure.tune import TuneOptions
from sr_deploy.pipeline.measure.tune_for import disagreement, fastest, is_here, measured_choice, tune_for_device
from sr_deploy.pipeline.precision.deployed_plan import find_planned
from sr_deploy.run.onnxruntime import runner_from_graph

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
    done = srdeploy("build", span, *RTX, "--size", "24x33", "--precision", "fp16", "--content", "photo")
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
    assert kept.graph_for((16, 20), "tensorrt-rtx", GpuMeant("7.2", "xavier-nx")).file == tuned.file
    assert kept.graph_for((16, 20), "tensorrt-rtx", GpuMeant("8.6")).file == "model.onnx", "its listing, not its GPU"
    assert any("builds for no Xavier NX" in note for note in tuned.notes)
    assert kept.manifest.rewrite[tuned.file]["tuned"]["for"] == "xavier-nx"


def test_a_half_build_for_that_gpu_runs_the_passes_that_were_tuned(span, srdeploy):
    options = TuneOptions(span, (24, 33), variants=("maxmin,affine",), device="rtx-3060")
    tune_for_device(options, lambda _: None)
    words = ("build", span, *RTX, "--size", "24x33", "--precision", "fp16", "--content", "photo")
    done = srdeploy(*words, "--force")
    assert done.code == 0 and "tuned for rtx-3060: maxmin,affine" in done.err, done.err
    assert json.loads(done.out)[0]["settings"]["tuned"] == "maxmin,affine"
    (plan,) = plans_with(open_deployment(span), *_plans(span))
    path = span / "engines" / "tensorrt-rtx_24x33_sm86_fp16.engine"
    assert finished_engine(open_deployment(span), path, plan, BuildOptions(span)) is not None
    other = dataclasses.replace(plan, tuned=None)
    assert finished_engine(open_deployment(span), path, other, BuildOptions(span)) is None


def _plans(net):
    """The float32 plans of a build for 24x33, and the float16 plan that is there."""
    options = BuildOptions(net, "tensorrt-rtx", ((24, 33),), compute_capabilities=("8.6",))
    return resolve_build(options, lambda _: None).plans, find_planned(open_deployment(net), "fp16")


def test_the_graph_as_it_is_wins_within_the_margin():
    assert fastest({"none": 1.0, "other": 0.99}) == "none"
    assert fastest({"none": 1.0, "other": 0.9, "third": 0.8}) == "third"


def test_times_decide_where_the_gpu_is_here():
    gpu = gpu_named("rtx-4090", "--for")
    assert is_here(gpu, [Gpu("NVIDIA GeForce RTX 4090", "8.9", 24 * 10**9, "570")])
    assert not is_here(gpu, [Gpu("NVIDIA GeForce RTX 3090", "8.6", 24 * 10**9, "470")])
    assert not is_here(gpu, [Gpu("NVIDIA GeForce RTX 4090 D", "8.9", 24 * 10**9, "570")])
    assert not is_here(gpu_named("h200", "--for"), [Gpu("NVIDIA H200", "9.0", None, "570")])  # estimated from another's
    seconds = {"none": [0.002] * 10, "one": [0.001] * 10, "two": [0.003] * 10}
    text = disagreement({"none": 1.0, "one": 1.0, "two": 0.5}, seconds)
    assert text.startswith("measured times are 1.00 to 6.00 times the estimates, up to 200% from a common factor")
    assert text.endswith("the estimate chooses two, the measurement one")
    assert disagreement({"none": 2.0, "one": 1.0}, {"none": [0.002], "one": [0.001]}).endswith("both choose one")


def test_variants_are_timed_in_turn(shared_export):
    """With ONNX Runtime, as no GPU is here: the same runners, rounds and choice."""
    deployment = open_deployment(shared_export("span_ch26_x4.pth"))
    contract, scale = deployment.manifest.contract, deployment.manifest.scale
    path = deployment.folder / "model.onnx"
    runners = {name: runner_from_graph(path, contract, scale, threads=1) for name in ("none", "same")}
    options = TuneOptions(deployment.folder, (16, 16), rounds=3)
    best, seconds = measured_choice(runners, options, sample_for(contract, (16, 16)))
    assert best in runners
    assert {name: len(values) for name, values in seconds.items()} == {"none": 3, "same": 3}
