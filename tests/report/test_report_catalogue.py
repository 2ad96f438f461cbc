"""The catalogue takes what may be true, and refuses false entries of every kind, each by its reason."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from sr_deploy.bench.interval import effective_sample_size, median_interval
from sr_deploy.bench.load import load_of
from sr_deploy.bench.measure import summary
from sr_deploy.bench.result import Point, Result
from sr_deploy.report.device_peaks import least_seconds
from sr_deploy.report.quality_file import PictureSet, QualityFile, QualityMean, QualityRow, hash_of_pictures
from sr_deploy.report.submission import NetworkFacts, read_submission, save_submission, seal_of, sealed
from tests.report.test_report_page import Page

ENVIRONMENT = {"cpu": "AMD EPYC", "cores": 2, "system": "Linux", "python": "3.11.2", "packages": {"numpy": "2"}}
RUNNER = {"version": "1.23", "provider": "CPUExecutionProvider", "precision": "fp32", "threads": 1}


def point(ms=100.0, seed=0, **changes):
    random = np.random.default_rng(seed)
    samples = tuple(round(float(ms / 1e3 * (1 + 0.01 * abs(value))), 9) for value in random.standard_normal(60))
    effective = effective_sample_size(samples)
    low, high = median_interval(samples, 0.95, effective)
    loads = tuple(load_of([1.1 * value for value in samples[:20]], 5.0, burst) for burst in (1, 4))
    facts = dict(
        size=(144, 144), scope="compute", runtime="onnxruntime", device="AMD EPYC", description=dict(RUNNER),
        sha256="ab" * 32, output_pixels=4 * 144 * 144, warmup_stable=True, samples_s=samples, median_low_s=low,
        median_high_s=high, effective_samples=round(effective, 1), sensors={"before": {}, "during": [], "after": {}},
        began="2026-05-01T10:00:00.000+00:00", ended="2026-05-01T10:01:00.000+00:00", loads=loads, **summary(samples),
    )  # fmt: skip
    return Point(**{**facts, **changes})


def quality(**changes):
    rows = tuple(QualityRow(name, None, "1" * 64, "2" * 64) for name in "ab")
    rows = tuple(dataclasses.replace(row, psnr_y=30.0 + i, ssim_y=0.9) for i, row in enumerate(rows))
    pictures = PictureSet("Set/HR", 2, hash_of_pictures([(row.name, "1" * 64, "2" * 64) for row in rows]))
    mean = QualityMean(psnr_y=30.5, ssim_y=0.9)
    facts = {"convention": "Y", "ran": (), "images": rows, "mean": mean, "pictures": pictures}
    return QualityFile(**{**facts, **changes})


NETWORK = NetworkFacts("net", "EFDN", 2, 1000, 1e5, "cd" * 32, "ef" * 32)


def entry(one=None, network=NETWORK, judged=None, environment=ENVIRONMENT):
    options = {"scope": "compute", "confidence": 0.95}
    result = Result("net", environment, options, (one or point(),), "2026-05-01T10:00:00+00:00")
    return sealed("0.1.0", network, result, judged or quality())


@pytest.fixture
def refused(tmp_path, srdeploy):
    """What the catalogue says of these entries."""

    def refused(**entries):
        for name, one in entries.items():
            save_submission(tmp_path / "entries" / "cpu" / f"{name}.entry.json", one)
        outcome = srdeploy("report", "--catalogue", tmp_path / "entries", "-o", tmp_path / "c.html")
        assert outcome.code == 4 and not (tmp_path / "c.html").exists()
        return " ".join(outcome.err.split())

    return refused


def test_true_entries_become_one_page(tmp_path, srdeploy):
    other = dataclasses.replace(NETWORK, name="<b>", graph_sha256="12" * 32)
    for name, one in (("a", entry()), ("b", entry(point(50.0, 1, sha256="34" * 32), other))):
        save_submission(tmp_path / "entries" / "cpu" / f"{name}.entry.json", one)
        assert read_submission(tmp_path / "entries" / "cpu" / f"{name}.entry.json") == one
    (tmp_path / "entries" / "cpu" / "net.json").write_text("a baseline of the gate is none of these")
    outcome = srdeploy("report", "--catalogue", tmp_path / "entries", "-o", tmp_path / "c.html")
    assert outcome.code == 0, outcome.err
    page = Page((tmp_path / "c.html").read_text())
    rows = [row for row in page.rows if len(row) == 13 and row[1] == "144×144"]
    assert [row[0] for row in rows] == ["<b>", "net"] and "b" not in page.tags
    assert rows[1][2] == "FP32" and rows[1][7:9] == ["30.500", "30.000"] and rows[1][10] == "0 of 20"
    assert "AMD EPYC: onnxruntime 1.23, 1 thread, compute, ×2" in page.text
    assert not any("mJ" in row for row in page.rows), "no entry has a sensor, so no column waits for one"
    assert srdeploy("report", "--catalogue", tmp_path / "entries", "-o", tmp_path / "c.html").code == 2, "it exists"


FALSE = {
    "faster than arithmetic allows": (entry(point(0.5)), "is below what arithmetic allows"),
    "no clock gives equal samples": (
        entry(point(**{"samples_s": (0.1,) * 60, **summary((0.1,) * 60), "median_low_s": 0.1, "median_high_s": 0.1})),
        "all 60 samples are the same to the nanosecond",
    ),
    "a median of other samples": (entry(point(median_s=0.09)), "median_s is not that of the samples"),
    "a narrower interval": (entry(point(median_low_s=0.1005)), "the interval of the median is not that of the samples"),
    "no environment": (entry(environment={"cpu": "AMD EPYC"}), "conditions are missing: environment.cores"),
    "no version": (entry(point(description={"precision": "fp32"})), "description.version, description.provider"),
    "no sensors": (entry(point(sensors={})), "sensors.before, sensors.after"),
    "a GPU without its clock": (
        entry(point(description={**RUNNER, "provider": "cuda-python"})), "conditions are missing: sensors (gpu_mhz)",
    ),
    "no load": (entry(point(loads=())), "loads (paced), loads (bursty)"),
    "missed deadlines left out": (
        entry(point(loads=(load_of([0.5] * 9, 5.0, 4), dataclasses.replace(load_of([0.3] * 9, 5.0, 1), missed=0)))),
        "the figures of its load at 5 /s are not those of its latencies",
    ),
    "longer than it took": (entry(point(ended="2026-05-01T10:00:01.000+00:00")), "than from its begin to its end"),
    "in the future": (entry(point(began="2999-01-01T00:00:00+00:00", ended="2999-01-01T01:00:00+00:00")), "future"),
    "throttled": (entry(point(invalid="throttled")), "not a measurement: throttled"),
    "another output": (entry(point(output_pixels=144 * 144)), "its output has 20736 pixels, not 82944"),
    "a better mean": (
        entry(judged=quality(mean=QualityMean(psnr_y=31.5, ssim_y=0.9))), "its mean PSNR-Y is not the mean of its",
    ),
    "quality of another precision": (entry(judged=quality(precision="int8")), "is of INT8, and FP32 was timed"),
    "other pictures": (
        entry(judged=quality(pictures=PictureSet("Set/HR", 2, "0" * 64))), "its pictures are not those of its rows",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FALSE)
def test_a_false_entry_is_refused_with_its_reason(refused, kind):
    one, reason = FALSE[kind]
    told = refused(good=entry(point(seed=5, sha256="56" * 32)), bad=one)
    assert "1 of 2 entries cannot be true: cpu/bad.entry.json:" in told and reason in told


def test_an_altered_file_is_refused(tmp_path, srdeploy):
    path = tmp_path / "a.entry.json"
    save_submission(path, entry())
    raw = json.loads(path.read_text())
    raw["result"]["device_note"] = "x"
    path.write_text(json.dumps(raw))
    outcome = srdeploy("report", "--catalogue", tmp_path, "-o", tmp_path / "c.html")
    assert outcome.code == 4 and "the key result.device_note is unknown" in outcome.err
    raw["result"].pop("device_note")
    raw["result"]["points"][0]["device"] = "AMD EPYC 9654"
    path.write_text(json.dumps(raw))
    outcome = srdeploy("report", "--catalogue", tmp_path, "-o", tmp_path / "c.html")
    assert outcome.code == 4 and "it was altered: its seal is of other content" in outcome.err
    assert seal_of(raw) != raw["seal"]


def test_entries_that_contradict_each_other_are_refused(refused):
    told = refused(a=entry(), b=entry(point(), dataclasses.replace(NETWORK, parameters=2000)))
    assert "the samples of cpu/a.entry.json, to the last digit" in told
    assert "its graph has the hash of the one in cpu/a.entry.json, with other figures of the network" in told
    narrow = point(seed=3, description={**RUNNER, "precision": "int8"})
    told = refused(a=entry(), b=entry(narrow, judged=quality(precision="int8")))
    assert "its file has the hash of the one in cpu/a.entry.json, with another precision" in told


def test_bounds_are_of_the_device_and_the_precision():
    cpu = least_seconds(point(), 1000.0, {"cores": 2})
    assert cpu == pytest.approx(1000 * 144 * 144 / 4 / (2 * 32 * 6.2e9))
    assert least_seconds(point(), 1000.0, {"cores": 4}) == pytest.approx(cpu / 2)
    gpu = {"device": "NVIDIA H200", "description": {"provider": "cuda-python", "precision": "fp16"}}
    assert least_seconds(point(**gpu), 1e6, {}) == pytest.approx(1e6 * 144 * 144 / 4 / 0.495e15)
    unknown = {**gpu, "device": "NVIDIA Something Newer"}
    assert least_seconds(point(**unknown), 1e6, {}) < least_seconds(point(**gpu), 1e6, {})
