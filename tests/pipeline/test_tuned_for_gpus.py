"""A deployment holds a tuned graph for each GPU; a build takes the one of its target, and says which."""

from __future__ import annotations

import json
import shutil

import onnx
import pytest

from sr_deploy.core.deployment.manifest import GpuMeant, open_deployment
from sr_deploy.core.host.machine import Gpu
from sr_deploy.graph.specialise import static_graph
from sr_deploy.pipeline.engines import request
from sr_deploy.pipeline.engines.build import plan_build
from sr_deploy.pipeline.engines.request import BuildOptions, resolve_build
from sr_deploy.pipeline.engines.tuned import passes_of, tuned_text
from sr_deploy.pipeline.inspect import inspect_path
from sr_deploy.pipeline.measure import tune
from sr_deploy.pipeline.measure.tuned_graph import keep_graph

SIZE = (16, 20)
BUILDER = "tensorrt-rtx"
AMPERE, BIGGER, ADA = GpuMeant("8.6", "rtx-3060"), GpuMeant("8.6", "rtx-3090"), GpuMeant("8.9", "rtx-4090")


def kept(net, gpu, variant):
    """Keep a graph for a GPU, told from the others by its producer; its file."""
    graph = static_graph(net / "model.onnx", SIZE)
    graph.producer_name = f"{gpu.name} {variant}"
    path = net.parent / "variant.onnx"
    onnx.save(graph, str(path))
    record = {"tuned": {"variant": variant, "backend": BUILDER, "from": "model.onnx", "for": gpu.name}}
    deployment = open_deployment(net)
    return keep_graph(deployment, deployment.manifest.graphs[0], path, SIZE, record, 0.0, gpu)


@pytest.fixture(scope="module")
def exported(shared_export, tmp_path_factory):
    """SPAN-tiny, with a graph of one size tuned for an RTX 3060."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    net = shutil.copytree(shared_export("span_ch26_x4.pth"), tmp_path_factory.mktemp("gpus") / "net")
    kept(net, AMPERE, "affine,maxmin")
    return net


@pytest.fixture
def net(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "net")


def planned(net, *capabilities):
    """The one plan of a build for these compute capabilities."""
    (plan,) = resolve_build(
        BuildOptions(net, BUILDER, (SIZE,), compute_capabilities=capabilities), lambda _: None
    ).plans
    return plan


def test_tuning_for_a_second_gpu_keeps_the_first_ones_graph(net):
    first, second = "model_16x20_tensorrt-rtx_rtx-3060.onnx", kept(net, ADA, "none")
    deployment = open_deployment(net)
    assert {one.file for one in deployment.manifest.graphs} == {"model.onnx", first, second}
    assert [planned(net, one).graph.file for one in ("8.6", "8.9")] == [first, second]
    assert set(inspect_path(net)["tuned"]) == {first, second}
    assert inspect_path(net)["tuned"][second] == "16x20 with tensorrt-rtx on rtx-4090 (8.9): none"
    assert any(f"{second} → " in line and "tuned for rtx-4090: none" in line for line in plan_build(
        BuildOptions(net, BUILDER, (SIZE,), compute_capabilities=("8.9",))
    ))  # fmt: skip
    assert kept(net, ADA, "maxmin") == "model_16x20_tensorrt-rtx_rtx-4090_tuned.onnx"
    assert {path.name for path in net.glob("*.onnx")} == {one.file for one in open_deployment(net).manifest.graphs}
    assert len(open_deployment(net).manifest.graphs) == 3


@pytest.mark.parametrize("capabilities", [("8.9",), ("12.0",), ("8.6", "8.9")])
def test_where_nothing_was_tuned_for_a_gpu_the_builders_own_passes_are_tried(net, capabilities):
    plan = planned(net, *capabilities)
    assert plan.graph.file == "model.onnx" and plan.tuned is None
    assert passes_of(open_deployment(net), plan) == BUILDER


def test_of_two_gpus_of_one_capability_the_one_tuned_last_counts_and_is_named(net):
    kept(net, BIGGER, "none")
    plan = planned(net, "8.6")
    assert plan.graph.gpu == "rtx-3090"
    assert tuned_text(open_deployment(net), plan).endswith("(of those for 8.6 that one was tuned last; not rtx-3060)")
    kept(net, AMPERE, "maxmin")
    assert planned(net, "8.6").graph.gpu == "rtx-3060"


@pytest.mark.parametrize(("name", "taken"), [("GeForce RTX 3060", "rtx-3060"), ("RTX A4000", "")])
def test_the_gpu_that_is_here_takes_its_own(net, monkeypatch, name, taken):
    kept(net, BIGGER, "none")
    gpu = Gpu(f"NVIDIA {name}", "8.6", 12 * 10**9, "570")
    monkeypatch.setattr("sr_deploy.engine.tensorrt.targets_of", lambda *_: (("8.6",), gpu.name))
    monkeypatch.setattr(request, "this_machine", lambda: type("Here", (), {"gpus": (gpu,)}))
    assert planned(net).graph.gpu == taken


def test_what_was_timed_here_is_kept_for_the_gpu_that_was_here(net, monkeypatch):
    gpu = Gpu("NVIDIA RTX A4000", "8.6", 16 * 10**9, "570")
    for module in (request, tune):
        monkeypatch.setattr(module, "this_machine", lambda: type("Here", (), {"gpus": (gpu,)}))
    monkeypatch.setattr("sr_deploy.engine.tensorrt.targets_of", lambda *_: (("8.6",), gpu.name))
    meant = tune._gpu_here(BUILDER)
    assert meant == GpuMeant("8.6", gpu.name) and tune._gpu_here("onnxruntime") is None
    assert kept(net, meant, "maxmin") == "model_16x20_tensorrt-rtx_NVIDIA-RTX-A4000.onnx"
    assert planned(net).graph.gpu == gpu.name


def test_a_graph_that_an_earlier_release_tuned_for_any_gpu_is_still_taken(net):
    text = json.loads((net / "manifest.json").read_text())
    for graph in text["graphs"]:
        del graph["gpu"], graph["compute_capability"]
    (net / "manifest.json").write_text(json.dumps(text))
    old = "model_16x20_tensorrt-rtx_rtx-3060.onnx"
    assert [planned(net, one).graph.file for one in ("8.6", "12.0")] == [old, old]
    own = kept(net, ADA, "none")
    assert [planned(net, one).graph.file for one in ("8.6", "8.9")] == [old, own]


def test_strips_begin_with_the_graph_for_any_size(net):
    options = BuildOptions(net, BUILDER, (SIZE,), compute_capabilities=("8.6",), memory_budget=10**9)
    (plan,) = resolve_build(options, lambda _: None).plans
    assert plan.graph.file == "model.onnx"
