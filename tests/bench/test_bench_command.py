"""srdeploy bench as a command: its options reach the record, and what cannot be is refused with exit code 2."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sr_deploy.bench import monitor
from sr_deploy.bench.result import load_result


@pytest.fixture(scope="module")
def net(exported, tmp_path_factory):
    return Path(shutil.copytree(exported, tmp_path_factory.mktemp("command") / "net"))


QUICK = ("--runs", 10, "--threads", 1, "--backend", "onnxruntime")


def test_the_record_carries_conditions_and_every_sample(srdeploy, net, tmp_path):
    file = tmp_path / "r.json"
    outcome = srdeploy("bench", net, "--size", "16,20x24", *QUICK, "--out", file)
    assert outcome.code == 0, outcome.err
    assert "16x16" in outcome.out and str(file) in outcome.out
    result = load_result(file)
    assert [point.size for point in result.points] == [(16, 16), (20, 24)]
    for point in result.points:
        assert len(point.samples_s) == 10 and point.usable and point.timer == "host"
        assert point.settings == {"cuda_graph": False, "wait": "auto", "streams": 1}
        assert point.description["pinned_memory"] is None and point.description["threads"] == 1
        assert set(point.sensors) == {"before", "during", "after"}
        assert point.peak_memory["rss_bytes"] > 1 << 20
        # Ten samples may be too few to know the median: then there is no interval, and the table says so.
        if point.median_low_s is None:
            assert point.median_high_s is None
            assert "no interval of the median: 10 samples tell as much as" in " ".join(outcome.out.split())
        else:
            assert point.median_low_s <= point.median_s <= point.median_high_s
        assert point.began < point.ended
        assert point.sha256


def test_a_place_that_cannot_be_written_is_refused_before_the_work(srdeploy, net, tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    for words in (
        ("bench", net, "--size", "16", *QUICK, "--out", blocked / "r.json"),
        ("report", net, "-o", blocked / "r.html"),
        ("pack", net, "-o", blocked / "net.srd"),
    ):
        outcome = srdeploy(*words)
        assert outcome.code == 3 and f"cannot write {blocked}" in outcome.err, outcome.err
        assert "median" not in outcome.err and "golden picture" not in outcome.err
    refused = srdeploy("report", net, "-o", tmp_path / "page.pdf")
    assert refused.code == 2 and "page.html" in refused.err


def test_stop_rule_options_reach_the_record(srdeploy, net):
    command = ("bench", net, "--size", "16", "--seconds", 0.05, "--ci", 20, "--max-seconds", 2, "--iterations", 12)
    assert srdeploy(*command, "--backend", "onnxruntime", "--threads", 1).code == 0
    result = load_result(net / "results" / "bench_onnxruntime_fp32_compute.json")
    assert result.options["precision"] == 0.2
    assert (result.options["precision_seconds"], result.options["max_seconds"]) == (2.0, 2.0)
    assert len(result.points[0].samples_s) >= 12


def test_preset_is_the_protocol_or_a_refusal(srdeploy, net):
    refused = srdeploy("bench", net, "--preset", "f2srgan")
    assert refused.code == 2 and "x4" in refused.err and "x2" in refused.err
    assert srdeploy("bench", net, "--preset", "f2srgan", "--size", "16").code == 2
    assert srdeploy("bench", net, "--preset", "f2srgan", "--runs", 3).code == 2
    assert srdeploy("bench", net, "--preset", "nobody").code == 2


@pytest.mark.parametrize(
    ("option", "word"),
    [
        (("--scope", "enqueue"), "no enqueue time"),
        (("--timer", "events"), "no device events"),
        (("--cuda-graph",), "CUDA graph"),
        (("--wait", "block"), "block"),
        (("--wait", "sleep"), "auto, spin, block"),
        (("--streams", "2"), "2 streams"),
    ],
)
def test_what_this_runtime_cannot_do_is_refused(srdeploy, net, option, word):
    outcome = srdeploy("bench", net, "--size", "16", *QUICK, *option)
    assert outcome.code == 2 and word in outcome.err


def test_a_throttled_point_is_marked_and_measured_again(srdeploy, net, monkeypatch):
    plain = monitor.read_kernel
    monkeypatch.setattr(monitor, "read_kernel", lambda: {**plain(), "throttle_alerts": ["gpu-throttle-alert"]})
    outcome = srdeploy("bench", net, "--size", "16", *QUICK)
    assert outcome.code == 5
    assert "INVALID, the board throttled: gpu-throttle-alert" in outcome.err
    file = net / "results" / "bench_onnxruntime_fp32_compute.json"
    hot = load_result(file).points[0]
    assert hot.invalid and len(hot.samples_s) == 10 and not hot.usable
    monkeypatch.undo()
    assert srdeploy("bench", net, "--size", "16", *QUICK, "--resume").code == 0
    again = load_result(file).points[0]
    assert again.invalid is None and again.samples_s != hot.samples_s


def test_builds_and_processes_give_three_components(srdeploy, net):
    outcome = srdeploy("bench", net, "--size", "16", *QUICK, "--processes", 2, "--builds", 2)
    assert outcome.code == 0, outcome.err
    assert "build to build" in outcome.out
    result = load_result(net / "results" / "bench_onnxruntime_fp32_compute.json")
    (table,) = result.variance
    assert (table["builds"], table["processes"], table["runs"]) == (2, 2, 10)
    assert len(table["process_medians_s"]) == 4
    assert all(table[name] is not None for name in ("run_s", "process_s", "build_s"))
    assert result.deployment == "net" and result.points[0].median_s in table["process_medians_s"]
    parts = sorted((net / "results" / "bench_onnxruntime_fp32_compute").glob("build*_process*.json"))
    assert len(parts) == 4
    engines = {load_result(part).points[0].description["file"] for part in parts}
    assert engines == {"onnxruntime_16x16.onnx"}


def test_bench_records_loads_and_shows_them(srdeploy, net):
    outcome = srdeploy("bench", net, "--size", "16", *QUICK, "--pace", 200, "--burst", 3)
    assert outcome.code == 0, outcome.err
    (point,) = load_result(net / "results" / "bench_onnxruntime_fp32_compute.json").points
    assert [(load.rate_hz, load.burst) for load in point.loads] == [(200.0, 1), (200.0, 3)]
    assert [len(load.latencies_s) for load in point.loads] == [10, 30]
    assert "200 /s, 3 at once" in outcome.out and "missed" in outcome.out
    refused = srdeploy("bench", net, "--size", "16", *QUICK, "--burst", 3)
    assert refused.code == 2 and "--pace 30 --burst 3" in refused.err
