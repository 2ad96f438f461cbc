"""Tuning keeps the fastest equal graph, and the deployment's own one where there is no telling."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.errors import UsageError
from sr_deploy.core.media.sample import sample_input
from sr_deploy.core.tolerance import GRAPH_FP32, largest_difference
from sr_deploy.pipeline.measure.tune import TuneOptions, choose, tune_deployment, variants_for
from sr_deploy.run.base import upscale
from sr_deploy.run.onnxruntime import runner_from_graph


@pytest.fixture(scope="module")
def light(shared_export, tmp_path_factory):
    """Light F2SRGAN, for any size."""
    return shutil.copytree(shared_export("light_f2srgan_x4_whole_module.pt"), tmp_path_factory.mktemp("light") / "net")


def test_the_first_variant_wins_within_the_noise():
    generator = np.random.default_rng(0)
    noise = {name: tuple(1 + 0.05 * generator.random(11)) for name in ("first", "second", "third")}
    assert choose(noise) == "first"
    assert choose({"first": (1.0,) * 11, "second": (0.99,) * 11}) == "first"


def test_a_variant_that_is_faster_in_every_round_wins():
    machine = np.array([1.0, 1.0, 3.0, 1.0, 1.2, 1.0, 5.0, 1.0, 1.0, 1.0, 2.0])
    times = {"first": tuple(machine), "second": tuple(0.7 * machine), "third": tuple(0.6 * machine)}
    assert choose(times) == "third"


def test_a_variant_with_a_lower_median_must_win_most_rounds():
    assert choose({"first": (1.0,) * 10, "second": (0.5,) * 7 + (1.5,) * 3}) == "first"


def test_tune_keeps_an_equal_graph_that_is_then_used(light):
    before = open_deployment(light).manifest
    size = (20, 27)
    tuned = tune_deployment(TuneOptions(light, size, "onnxruntime", rounds=2, threads=1))
    assert set(tuned.seconds) <= set(variants_for("onnxruntime"))
    assert all(len(values) == 2 for values in tuned.seconds.values())
    assert tuned.difference <= GRAPH_FP32.steps
    assert any("same graph" in note for note in tuned.notes)  # Light has no Fourier unit, so nothing to split
    deployment = open_deployment(light)
    graph = deployment.graph_for(size, "onnxruntime")
    assert graph.file == tuned.file == "model_20x27.onnx"
    assert deployment.graph_for((20, 28)).file == "model.onnx"
    assert deployment.manifest.rewrite[graph.file]["tuned"]["variant"] == tuned.best
    lr = sample_input(size, before.contract.value_range)
    results = []
    for entry in (graph, before.graphs[0]):
        runner = runner_from_graph(deployment.path_of(entry), before.contract, before.scale, threads=1)
        results.append(upscale(runner, lr))
        runner.close()
    assert largest_difference(*results, before.contract.value_range) <= GRAPH_FP32.steps


def test_tuning_again_starts_from_the_exported_graph(light):
    for _ in range(2):
        tune_deployment(TuneOptions(light, (16, 16), "onnxruntime", rounds=1, threads=1, variants=("prelu",)))
    manifest = open_deployment(light).manifest
    assert [graph.file for graph in manifest.graphs].count("model_16x16.onnx") == 1
    record = manifest.rewrite["model_16x16.onnx"]
    assert record["tuned"] == {"variant": "prelu", "backend": "onnxruntime", "from": "model.onnx"}
    assert record["passes"]["prelu"]["places"] == 2


def test_a_graph_tuned_on_the_cpu_is_not_given_to_tensorrt(light):
    from sr_deploy.pipeline.engines.build import build_engines, plan_build
    from sr_deploy.pipeline.engines.request import BuildOptions

    size = (14, 22)
    kept = tune_deployment(TuneOptions(light, size, "onnxruntime", rounds=1, threads=1, variants=("prelu",))).file
    deployment = open_deployment(light)
    assert deployment.graph_for(size).tuned_for == ""
    assert deployment.graph_for(size, "onnxruntime").file == kept
    assert deployment.graph_for(size, "onnxruntime").gpu == ""
    for backend in ("tensorrt", "tensorrt-rtx"):
        assert deployment.graph_for(size, backend).file == "model.onnx"
    (engine,) = build_engines(BuildOptions(light, "onnxruntime", sizes=(size,)))
    assert engine.graph_file == kept
    # Without sizes, the tuned ones are ONNX Runtime's own; TensorRT is left with a graph for any size.
    assert any(kept in line for line in plan_build(BuildOptions(light, "onnxruntime")))
    with pytest.raises(UsageError, match="(?s)any size.*a size to build for"):
        plan_build(BuildOptions(light, "tensorrt-rtx", compute_capabilities=("8.6",)))


def test_dense_convolutions_are_tried_on_a_gpu_only():
    assert "default,dense" in variants_for("tensorrt") and "default,dense" in variants_for("tensorrt-rtx")
    assert not any("dense" in variant for variant in variants_for("onnxruntime"))


def test_the_command_says_what_it_kept(srdeploy, light):
    outcome = srdeploy("tune", light, "--size", "18x18", "--rounds", "1", "--threads", "1", "--backend", "onnxruntime")
    assert outcome.code == 0, outcome.err
    assert " ms" in outcome.out
    assert "model_18x18.onnx" in outcome.out
    built = srdeploy("build", light, "--backend", "onnxruntime", "--dry-run")
    assert "model.onnx → engines/onnxruntime_dynamic.onnx" in built.out, "one size is built for who asks for it"


def test_no_rounds_is_a_usage_error(light):
    with pytest.raises(UsageError, match="0 rounds"):
        tune_deployment(TuneOptions(light, (16, 16), rounds=0))


def test_export_takes_a_list_of_passes(srdeploy, assets, tmp_path):
    weights = assets / "weights" / "efdn_x4.pth"
    outcome = srdeploy("export", weights, "-o", tmp_path / "net", "--rewrite", "compose,prelu")
    assert outcome.code == 0, outcome.err
    report = open_deployment(tmp_path / "net").manifest.rewrite["model.onnx"]
    assert set(report["passes"]) == {"compose", "prelu"}
    assert report["passes"]["prelu"]["places"] == 12
    inspected = srdeploy("inspect", tmp_path / "net")
    assert "moved  " in inspected.out
    assert srdeploy("export", weights, "-o", tmp_path / "no", "--rewrite", "faster").code == 2
