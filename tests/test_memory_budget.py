"""``srdeploy build --memory-budget``: the builder's own figure stays within it, and the manifest says how."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest


@pytest.fixture(scope="module")
def deployment(export_once, tmp_path_factory):
    from sr_deploy.pipeline.demo import ASSETS

    return shutil.copytree(export_once(ASSETS / "demo_x4.safetensors"), tmp_path_factory.mktemp("budget") / "net")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A network of two convolutions: its 64 strips are soon built."""
    from sr_deploy.pipeline.export import ExportOptions, export_deployment
    from sr_deploy.pipeline.load import LoadOptions
    from tests.small_network import small_graphs

    folder = tmp_path_factory.mktemp("small")
    load = LoadOptions(value_range=1.0)
    return export_deployment(ExportOptions(small_graphs(folder).dynamic, folder / "net", load=load)).folder


def build(srdeploy, deployment, *more):
    pytest.importorskip("tensorrt_rtx")
    arguments = ("--backend", "tensorrt-rtx", "--compute-capability", "8.6", "--force", "--json")
    return srdeploy("build", deployment, *arguments, *more)


def test_streams_until_the_budget_is_met(small, srdeploy):
    plain = json.loads(build(srdeploy, small, "--size", "192").out)[0]
    assert "strips" not in plain["settings"]
    # 8 MB of them are there whatever the graph is.
    budget = plain["activation_bytes"] * 19 // 20
    outcome = build(srdeploy, small, "--size", "192", "--memory-budget", f"{budget / 1e6}MB")
    assert outcome.code == 0, outcome.err
    (engine,) = json.loads(outcome.out)
    assert engine["activation_bytes"] <= budget
    assert int(engine["settings"]["strips"]) > 1
    assert engine["settings"]["activation_bytes_by_strips"].startswith("1: ")


def test_a_budget_that_cannot_be_met_names_what_can(small, srdeploy, monkeypatch):
    from sr_deploy.pipeline.engines import strips

    built = []
    engine = strips.engine_from_graph
    monkeypatch.setattr(strips, "engine_from_graph", lambda *words: built.append(words) or engine(*words))
    outcome = build(srdeploy, small, "--size", "24", "--memory-budget", "1KB")
    assert outcome.code == 1 and "--memory-budget" in outcome.err and "64 strips" in outcome.err
    # 24 rows have no more than 24 strips, and two convolutions no part of less: the same graph is built once.
    assert outcome.err.count("strips: ") == 17 and len(built) < 9


def test_a_budget_needs_one_size_and_a_builder_that_tells(deployment, srdeploy):
    outcome = srdeploy("build", deployment, "--backend", "onnxruntime", "--size", "96", "--memory-budget", "1MB")
    assert outcome.code == 2 and "--memory-budget" in outcome.err
    outcome = build(srdeploy, deployment, "--size", "96", "--memory-budget", "lots")
    assert outcome.code == 2 and "600MB" in outcome.err


def test_float16_within_a_budget(deployment, srdeploy):
    plain = build(srdeploy, deployment, "--size", "360", "--precision", "fp16", "--content", "photo")
    assert plain.code == 0, plain.err
    (engine,) = json.loads(plain.out)
    plan_file = deployment / "precision" / "fp16" / "plan.json"
    plan = json.loads(plan_file.read_text())
    budget = engine["activation_bytes"] * 2
    asked = (
        "--size",
        "360",
        "--plan",
        plan_file,
        "--content",
        "photo",
        "--memory-budget",
        f"{budget / 1e6}MB",
        "--force",
    )
    # TensorRT-RTX 1.7.1 fuses a float32 convolution with the casts around it and narrows its weights: that is refused.
    name = next(name for name in plan["nodes"] if name.endswith("Conv") and "block" in name)
    plan_file.write_text(json.dumps({**plan, "nodes": {**plan["nodes"], name: "float32"}}))
    pinned = build(srdeploy, deployment, *asked)
    assert pinned.code == 1 and f"{name}: planned float32, runs in float16" in pinned.err, pinned.err
    plan_file.write_text(json.dumps(plan))
    outcome = build(srdeploy, deployment, *asked)
    assert outcome.code == 0, outcome.err
    (streamed,) = json.loads(outcome.out)
    assert streamed["precision"] == "fp16" and streamed["activation_bytes"] <= budget
    assert "float64" in streamed["settings"]["streaming_difference"]
    (full,) = json.loads(build(srdeploy, deployment, "--size", "360").out)
    assert streamed["activation_bytes"] < full["activation_bytes"]
    refused = build(srdeploy, deployment, "--size", "360", "--precision", "int8", "--memory-budget", "1MB")
    assert refused.code == 2 and "--precision fp16" in refused.err


def test_every_strip_of_a_pinned_node_stays_float32(deployment):
    import onnx
    from onnx import TensorProto

    from sr_deploy.core.deployment.manifest import open_deployment
    from sr_deploy.core.deployment.plan import Plan, save_plan
    from sr_deploy.graph.rewrite.base import RewriteOptions
    from sr_deploy.graph.rewrite.editor import is_pinned
    from sr_deploy.graph.rewrite.streaming import apply_streaming
    from sr_deploy.graph.specialise import load_graph, static_graph
    from sr_deploy.pipeline.engines.strips import marked_for_half
    from sr_deploy.precision.lower.typed_graph import half_graph

    graph = deployment / "model.onnx"
    names = [node.name for node in load_graph(graph).graph.node if node.op_type == "Conv"]
    folder = deployment / "precision" / "pinned"
    folder.mkdir(parents=True)
    nodes = {name: "float32" if name == names[4] else "float16" for name in names}
    save_plan(folder, Plan("fp16", open_deployment(deployment).manifest.graphs[0].sha256, nodes))
    onnx.save(marked_for_half(graph, folder), str(folder / "marked.onnx"))
    static = static_graph(folder / "marked.onnx", (96, 96))
    streamed = apply_streaming(static, RewriteOptions(size=(96, 96), strips=8)).model
    half = half_graph(streamed)
    weights = {t.name: t.data_type for t in half.graph.initializer}
    convolutions = [node for node in half.graph.node if node.op_type == "Conv"]
    wide = [node for node in convolutions if is_pinned(node)]
    assert len(wide) > 1 and len(wide) < len(convolutions) / 4
    for node in convolutions:
        assert weights[node.input[1]] == (TensorProto.FLOAT if is_pinned(node) else TensorProto.FLOAT16), node.name


def test_the_roofline_is_labelled_as_an_estimate(deployment, srdeploy):
    outcome = srdeploy("inspect", deployment, "--roofline", "xavier-nx", "--size", "64x48", "--json")
    assert outcome.code == 0, outcome.err
    facts = json.loads(outcome.out)
    (point,) = facts["points"]
    assert "estimate" in facts["kind"] and point["size"] == "64x48"
    assert point["estimate_ms"] is None or point["estimate_ms"] > point["least_ms"] > 0
    shown = srdeploy("inspect", deployment, "--roofline", "rtx-4090", "--size", "64x48").out
    assert "estimate" in shown and max(map(len, shown.splitlines())) <= 80
    assert srdeploy("inspect", deployment, "--roofline", "xavier-zx").code == 2


def test_what_a_gpu_does_not_hold_is_shown_in_strips_by_tune(shared_export, tmp_path, monkeypatch):
    from sr_deploy.core.host.gpu_rates import gpu_named
    from sr_deploy.graph import memory
    from sr_deploy.pipeline.measure import tune_for
    from sr_deploy.pipeline.measure.tune import TuneOptions

    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr(memory, "STRIPS", (1, 12))
    own = gpu_named("rtx-3060", "--for")
    net = shutil.copytree(shared_export("light_f2srgan_x4_whole_module.pt"), tmp_path / "net")

    def tuned(memory_gb):
        monkeypatch.setattr(tune_for, "gpu_named", lambda *_: dataclasses.replace(own, memory=memory_gb))
        options = TuneOptions(net, (144, 64), variants=("none",), device="rtx-3060")
        return tune_for.tune_for_device(options, lambda _: None)

    found = tuned(0.03)
    assert found.activation_bytes["strips"] <= 0.03e9 < found.activation_bytes["none"]
    assert found.estimated_ms["strips"] > found.estimated_ms["none"] and found.best == "none"
    assert any("build with --memory-budget" in note for note in found.notes)
    monkeypatch.setattr(memory, "STRIPS", (1,))
    found = tuned(1e-9)
    assert set(found.estimated_ms) == {"none"} and any("nor in strips" in note for note in found.notes)
