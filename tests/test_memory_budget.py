"""``srdeploy build --memory-budget``: the builder's own figure stays within it, and the manifest says how."""

from __future__ import annotations

import json

import pytest


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    from pathlib import Path

    import sr_deploy.demo
    from sr_deploy.pipeline.export import ExportOptions, export_deployment

    checkpoint = Path(sr_deploy.demo.__file__).parent / "demo_x4.safetensors"
    return export_deployment(ExportOptions(checkpoint, tmp_path_factory.mktemp("budget") / "net")).folder


def build(srdeploy, deployment, *more):
    pytest.importorskip("tensorrt_rtx")
    arguments = ("--backend", "tensorrt-rtx", "--compute-capability", "8.6", "--force", "--json")
    return srdeploy("build", deployment, *arguments, *more)


def test_streams_until_the_budget_is_met(assets, srdeploy, tmp_path):
    from sr_deploy.pipeline.export import ExportOptions, export_deployment

    checkpoint = assets / "weights" / "light_f2srgan_x4_whole_module.pt"
    light = export_deployment(ExportOptions(checkpoint, tmp_path / "light")).folder
    plain = json.loads(build(srdeploy, light, "--size", "360").out)[0]
    assert "strips" not in plain["settings"]
    budget = plain["activation_bytes"] // 3
    outcome = build(srdeploy, light, "--size", "360", "--memory-budget", f"{budget / 1e6}MB")
    assert outcome.code == 0, outcome.err
    (engine,) = json.loads(outcome.out)
    assert engine["activation_bytes"] <= budget
    assert int(engine["settings"]["strips"]) > 1
    assert f"1: {plain['activation_bytes']}" in engine["settings"]["activation_bytes_by_strips"]


def test_a_budget_that_cannot_be_met_names_what_can(deployment, srdeploy):
    outcome = build(srdeploy, deployment, "--size", "96", "--memory-budget", "1KB")
    assert outcome.code == 1 and "--memory-budget" in outcome.err and "64 strips" in outcome.err


def test_a_budget_needs_one_size_and_a_builder_that_tells(deployment, srdeploy):
    outcome = srdeploy("build", deployment, "--backend", "onnxruntime", "--size", "96", "--memory-budget", "1MB")
    assert outcome.code == 2 and "--memory-budget" in outcome.err
    outcome = build(srdeploy, deployment, "--size", "96", "--memory-budget", "lots")
    assert outcome.code == 2 and "600MB" in outcome.err


def test_the_roofline_is_labelled_as_an_estimate(deployment, srdeploy):
    outcome = srdeploy("inspect", deployment, "--roofline", "xavier-nx", "--size", "64x48", "--json")
    assert outcome.code == 0, outcome.err
    facts = json.loads(outcome.out)["roofline of xavier-nx (estimate)"]["64x48"]
    assert "estimate" in facts["kind"] and facts["graph_macs"] >= facts["least_macs"] > 0
    assert srdeploy("inspect", deployment, "--roofline", "xavier-zx").code == 2
