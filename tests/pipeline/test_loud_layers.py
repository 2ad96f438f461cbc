"""A small layer whose noise drowns that of all others stays float16, and only such a one."""

from __future__ import annotations

import dataclasses

import pytest

from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.deployment.plan import open_plan
from sr_deploy.core.media.image import read_picture, to_network
from sr_deploy.pipeline.precision import int8
from sr_deploy.pipeline.precision.calibrate import open_calibration
from sr_deploy.pipeline.precision.deployed_plan import PrecisionOptions
from sr_deploy.pipeline.precision.plan_inputs import workbench
from sr_deploy.pipeline.precision.plan_needs import plannable
from sr_deploy.precision.choose.plan_from_ranges import Scales, rounded_scale
from sr_deploy.precision.evaluate import quieter


@pytest.fixture
def bench(net, photographs):
    deployment = open_deployment(net)
    graph = plannable(deployment)
    options = PrecisionOptions("int8", images=photographs)
    scales = open_calibration(deployment, "sqnr", (photographs,), graph).scales
    found = workbench(deployment, graph, options, lambda _: None)
    # Enough to tell layers apart: two photographs, and three that are painted.
    few = dataclasses.replace(found, scenes=(*found.scenes[:2], *found.scenes[-3:]))
    return few, int8.Material([], Scales(scales), {}, {})


def test_the_loud_one_is_found_and_named(net, bench, monkeypatch):
    bench, material = bench
    plan, _ = open_plan(net / "precision" / "int8")
    monkeypatch.setattr(int8, "LOUD_MACS", 0.04)
    assert int8._loud_layers(bench, material, (plan, {}), bench.judged(plan, {}), lambda _: None) == {}

    layers = [name for name in plan.nodes_of("int8") if name in bench.kinds.candidates]
    loud = layers[len(layers) // 2]
    tensor = next(node.input[0] for node in bench.model.graph.node if node.name == loud)
    coarse = material.scales.int8[tensor] * 40
    spoilt = dataclasses.replace(material, scales=Scales({**material.scales.int8, tensor: coarse}))
    plan = dataclasses.replace(
        plan, activation_scales={**plan.activation_scales, tensor: rounded_scale(coarse, "float16")}
    )
    told = []
    monkeypatch.setattr(int8, "LOUD_MACS", 1.0)
    judged = bench.judged(plan, {})
    found = int8._loud_layers(bench, spoilt, (plan, {}), judged, told.append)
    readers = {node.name for node in bench.model.graph.node if tensor in node.input}
    assert set(found) <= readers and loud in found and all("of the noise" in why for why in found.values())
    assert len(told) == len(found)
    kept = sum(bench.kinds.candidates[name] for name in layers if name not in found)
    monkeypatch.setattr(int8, "LEAST_NARROW", kept / bench.kinds.macs + 1e-6)
    assert len(int8._loud_layers(bench, spoilt, (plan, {}), judged, told.append)) < len(found), "so much stays narrow"
    monkeypatch.setattr(int8, "LOUD_MACS", 0.001)
    assert int8._loud_layers(bench, spoilt, (plan, {}), judged, told.append) == {}, "it holds too much of the work"


@pytest.fixture
def made_by_hand(net, bench, photographs, monkeypatch):
    """What plans are made from with few squares, and a list of all plans that are fitted."""
    bench, material = bench
    pictures = [to_network(read_picture(file), bench.contract) for file in sorted(photographs.iterdir())[:2]]
    material = dataclasses.replace(material, images=pictures)
    monkeypatch.setattr(int8, "gather", lambda *_: material)
    monkeypatch.setattr(int8, "QUIET", float("-inf"))
    monkeypatch.setattr(int8, "FITTED", 4)
    every, fitted = int8.everywhere, []

    def everywhere(*given, **named):
        fitted.append(every(*given, **named))
        return fitted[-1]

    monkeypatch.setattr(int8, "everywhere", everywhere)
    return open_deployment(net), bench, PrecisionOptions("int8", images=photographs), fitted


def test_of_the_grids_that_are_tried_the_best_is_taken(made_by_hand, monkeypatch):
    deployment, bench, options, fitted = made_by_hand
    monkeypatch.setattr(int8, "_loud_layers", lambda *_: {})
    plan, weights = int8.calibrated_plan(deployment, bench, options, lambda _: None)
    first = fitted[0][0].activation_scales
    for times, (other, _, _) in zip((1.0, *int8.GRIDS), fitted):
        assert all(
            other.activation_scales[name] == pytest.approx(times * scale, rel=2e-3) for name, scale in first.items()
        )
    lost = [bench.judged(*one[:2]).without_luck for one in fitted]
    assert len(set(lost)) == 3 and bench.judged(plan, weights).without_luck == min(lost)
    assert any("as coarse" in note for note in plan.notes) == (lost[0] > min(lost))


def test_loud_ones_stay_wider_where_that_makes_less_noise(made_by_hand, monkeypatch):
    deployment, bench, options, _ = made_by_hand
    monkeypatch.setattr(int8, "GRIDS", ())
    asked = []

    def loud(bench, material, made, judged, say):
        asked.append(judged)
        return {name: "why" for name in made[0].nodes_of("int8")[:1] if len(asked) == 1}

    monkeypatch.setattr(int8, "_loud_layers", loud)
    plan, _ = int8.calibrated_plan(deployment, bench, options, lambda _: None)
    wider = [name for name, why in plan.reasons.items() if why == "why"]
    assert len(wider) == 1 and plan.nodes[wider[0]] == "float16"
    assert len(asked) == 2 and quieter(asked[1], asked[0]) and not quieter(asked[0], asked[1])

    asked.clear()
    told = []
    monkeypatch.setattr(int8, "quieter", lambda *_: False)
    plan, _ = int8.calibrated_plan(deployment, bench, options, told.append)
    assert plan.nodes[wider[0]] == "int8" and any("after all" in line for line in told)
