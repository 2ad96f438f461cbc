"""Times of two engines decide what auto gives back, and files that say nothing about the network are refused."""

from __future__ import annotations

import json

import pytest

from sr_deploy.core.deployment.plan import open_plan
from sr_deploy.core.errors import BadInput
from sr_deploy.graph.census import Work
from sr_deploy.pipeline.precision.layer_savings import savings_of

CANDIDATES = {"/body/0/Conv": 300, "/body/1/Conv": 100, "/body/2/Conv": 100, "/body/3/Conv": 100}
WORK = {name: Work(macs, 50) for name, macs in CANDIDATES.items()}


def profile(path, layers):
    """As trtexec writes it: layer → milliseconds a run."""
    total = sum(layers.values())
    entries = [
        {"name": name, "timeMs": 10 * ms, "averageMs": ms, "medianMs": ms, "percentage": 100 * ms / total}
        for name, ms in layers.items()
    ]
    path.write_text(json.dumps([{"count": 10}, *entries]))
    return path


def test_without_times_the_roofline_speaks():
    found = savings_of(WORK, CANDIDATES, None, None)
    assert "estimate" in found.source
    assert found.microseconds["/body/0/Conv"] > found.microseconds["/body/1/Conv"] > 0


def test_times_of_fused_layers_are_shared_and_reformats_count(tmp_path):
    half = profile(
        tmp_path / "half.json",
        {"/body/0/Conv + /body/0/Relu": 0.4, "/body/1/Conv || /body/2/Conv": 0.2, "/body/3/Conv": 0.05, "/other": 1.0},
    )
    narrow = profile(
        tmp_path / "int8.json",
        {
            "Reformatting CopyNode for Input Tensor 0 to /body/0/Conv + /body/0/Relu": 0.05,
            "/body/0/Conv + /body/0/Relu": 0.2,
            "/body/1/Conv || /body/2/Conv": 0.1,
            "Reformatting CopyNode for Output Tensor 0 to /body/3/Conv": 0.02,
            "/body/3/Conv": 0.04,
        },
    )
    found = savings_of(WORK, CANDIDATES, half, narrow)
    assert found.source == "by the times in half.json and int8.json"
    assert found.microseconds == pytest.approx(
        {"/body/0/Conv": 150.0, "/body/1/Conv": 50.0, "/body/2/Conv": 50.0, "/body/3/Conv": -10.0}
    )


def test_what_fusion_hides_is_estimated_in_proportion(tmp_path):
    names = list(CANDIDATES)[:3]
    half = profile(tmp_path / "half.json", {**dict.fromkeys(names, 0.3), "__myl_Fc_0x1234": 0.3})
    narrow = profile(tmp_path / "int8.json", {**dict.fromkeys(names, 0.1), "__myl_Fc_0x5678": 0.1})
    found = savings_of(WORK, CANDIDATES, half, narrow).microseconds
    guess = savings_of(WORK, CANDIDATES, None, None).microseconds
    factor = 600.0 / sum(guess[name] for name in names)
    assert found["/body/3/Conv"] == pytest.approx(factor * guess["/body/3/Conv"])


def test_profiles_that_name_too_little(tmp_path):
    half = profile(tmp_path / "half.json", {"/body/1/Conv": 0.3, "__myl_Fc": 0.3})
    with pytest.raises(BadInput, match="only 1 of the 4"):
        savings_of(WORK, CANDIDATES, half, half)
    (tmp_path / "cut.json").write_text('[{"count": 10},')
    with pytest.raises(BadInput, match="not JSON"):
        savings_of(WORK, CANDIDATES, half, tmp_path / "cut.json")


def test_auto_keeps_int8_where_it_was_measured_to_save(plain, photographs, srdeploy, tmp_path):
    pictures = ("--images", photographs, "--content", "photo")
    asked = ("build", plain, "--precision", "auto", "--psnr-budget", "0.1", *pictures, "--no-fit")
    done = srdeploy("build", plain, "--precision", "int8", *pictures, "--no-fit")
    assert done.code == 0, done.err
    layers = [name for name in open_plan(plain / "precision" / "int8")[0].nodes_of("int8") if "Conv" in name]
    times = profile(tmp_path / "half.json", dict.fromkeys(layers, 1.0))
    # Only one layer is any faster in INT8: no other runs in it, whatever the budget.
    narrow = profile(tmp_path / "int8.json", {name: 0.1 if name == layers[-1] else 1.5 for name in layers})
    done = srdeploy(*asked, "--fp16-times", times, "--int8-times", narrow)
    assert done.code == 0, done.err
    gave_up = json.loads((plain / "precision" / "auto" / "report.json").read_text())["gave_up"]
    assert set(gave_up) >= set(layers[:-1]) and "no faster in INT8: +500.0 µs by the times" in gave_up[layers[0]]
    assert set(open_plan(plain / "precision" / "auto")[0].nodes_of("int8")) <= {layers[-1]}

    refused = srdeploy("build", plain, "--precision", "auto", "--psnr-budget", "3", "--images", photographs)
    assert refused.code == 2 and "exists already" in refused.err
    kept = json.loads((plain / "precision" / "auto" / "report.json").read_text())
    assert kept["gave_up"] == gave_up, "a build that is refused leaves the plan of the engine alone"

    done = srdeploy(*asked, "--fp16-times", narrow, "--int8-times", narrow, "--force", "--json")
    assert done.code == 0, done.err
    assert not open_plan(plain / "precision" / "auto")[0].nodes_of("int8"), "nothing is any faster"
    refused = srdeploy("build", plain, "--precision", "int8", "--images", photographs, "--fp16-times", times)
    assert refused.code == 2 and "--int8-times" in refused.err
