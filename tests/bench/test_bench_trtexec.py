"""trtexec's files, written by hand to the documented layout of two generations; wrong ones are refused by name."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from sr_deploy.bench.result import load_result, save_result
from sr_deploy.bench.trtexec import TrtexecRun, read_profile, read_times, result_from_trtexec
from sr_deploy.core.errors import BadInput, UsageError

DATA = Path(__file__).resolve().parents[1] / "report" / "data"
OLD, NEW = DATA / "trtexec_8_5_handwritten_times.json", DATA / "trtexec_11_handwritten_times.json"
OLD_PROFILE, NEW_PROFILE = (DATA / f"trtexec_{version}_handwritten_profile.json" for version in ("8_5", "11"))


def run(**given):
    return TrtexecRun((180, 320), "Xavier NX", **given)


def test_times_of_8_5_have_transfers():
    times = read_times(OLD)
    entries = json.loads(OLD.read_text())
    assert times.compute_s == tuple(entry["computeMs"] / 1e3 for entry in entries)
    assert times.latency_s == tuple(entry["latencyMs"] / 1e3 for entry in entries)
    assert times.transfers


def test_times_of_11_have_none_by_default():
    times = read_times(NEW)
    assert times.compute_s == times.latency_s
    assert len(times.compute_s) == 6
    assert not times.transfers


@pytest.mark.parametrize(("scope", "median"), [("compute", 7.3125e-3), ("end-to-end", 9.0625e-3)])
def test_result_has_the_scope_that_was_asked_for(scope, median, tmp_path):
    result = result_from_trtexec(OLD, run(scope=scope, version="8.5.2", scale=4, deployment="efdn"))
    (point,) = result.points
    assert point.median_s == pytest.approx(median, rel=1e-12)
    assert point.median_s == statistics.median(point.samples_s)
    assert (point.runtime, point.device, point.scope, point.timer) == ("trtexec", "Xavier NX", scope, "events")
    assert point.output_pixels == 180 * 320 * 16
    save_result(tmp_path / "r.json", result)
    assert load_result(tmp_path / "r.json").to_dict()["points"][0]["samples_s"] == point.samples_s


def test_what_no_file_stores_is_said_to_be_unknown():
    (point,) = result_from_trtexec(NEW, run()).points
    assert point.settings == {"cuda_graph": "unknown", "wait": "unknown", "streams": "unknown"}
    assert (point.description["version"], point.description["precision"]) == ("unknown", "unknown")
    assert point.description["transfers"] is False
    assert point.output_pixels == 0


@pytest.mark.parametrize(
    ("version", "graph", "wait"),
    [("8.5.2", "off", "block"), ("10.16", "off", "block"), ("11.0", "on", "spin"), ("11.2.1", "on", "spin")],
)
def test_defaults_follow_the_version(version, graph, wait):
    (point,) = result_from_trtexec(NEW, run(version=version)).points
    assert point.settings["cuda_graph"] == f"unknown; {graph} by default in trtexec {version}"
    assert point.settings["wait"] == f"unknown; {wait} by default in trtexec {version}"


def test_the_time_of_queueing_is_read_and_marks_launches(tmp_path):
    (point,) = result_from_trtexec(OLD, run()).points
    assert (point.enqueue_s, point.launch_bound) == (pytest.approx(0.3e-3), False)
    assert result_from_trtexec(OLD, run(scope="end-to-end")).points[0].launch_bound is None
    entries = json.loads(OLD.read_text())
    (tmp_path / "t.json").write_text(json.dumps([{**e, "endEnqMs": e["startEnqMs"] + 6.0} for e in entries]))
    assert result_from_trtexec(tmp_path / "t.json", run()).points[0].launch_bound is True


def test_end_to_end_without_transfers_is_refused():
    with pytest.raises(UsageError, match="timed without transfers") as error:
        result_from_trtexec(NEW, run(scope="end-to-end"))
    assert "--includeDataTransfers" in str(error.value)


@pytest.mark.parametrize(("path", "count", "names", "means"), [
    (OLD_PROFILE, 40, ["Conv_0 + PRelu_1", "Conv_2 + Add_3", "Reshape_4 + Transpose_5"], [0.75e-3, 1.5e-3, 0.25e-3]),
    (NEW_PROFILE, 20, ["/head/Conv+/act/PRelu_myl0_1", "/up/DepthToSpace_myl0_2"], [0.2e-3, 0.05e-3]),
])  # fmt: skip
def test_profiles(path, count, names, means):
    runs, layers = read_profile(path)
    assert runs == count
    assert [layer.name for layer in layers] == names
    assert [layer.mean_s for layer in layers] == pytest.approx(means)
    assert sum(layer.share for layer in layers) == pytest.approx(1)
    (point,) = result_from_trtexec(OLD, run(), path).points
    assert [layer["name"] for layer in point.description["layers"]] == names


def test_drift_after_the_warm_up_is_marked(tmp_path):
    entries = json.loads(NEW.read_text())
    slow = [{**entries[0], "computeMs": 2.0, "latencyMs": 2.0}] * 8 + [entries[0]] * 24
    path = tmp_path / "t.json"
    path.write_text(json.dumps(slow))
    assert not result_from_trtexec(path, run()).points[0].warmup_stable
    path.write_text(json.dumps([entries[0]] * 32))
    assert result_from_trtexec(path, run()).points[0].warmup_stable


def changed(**new):
    """The old file with one value of its second entry replaced, or removed by None."""
    entries = json.loads(OLD.read_text())
    entries[1] = {key: value for key, value in {**entries[1], **new}.items() if value is not None}
    return json.dumps(entries)


@pytest.mark.parametrize(("text", "message"), [
    ("", "is not JSON"),
    (OLD.read_text()[:-40], "is not JSON"),
    ("[]", "is an empty list"),
    ("{}", "holds an object"),
    ("7", "holds a number"),
    ('{"schema": 1, "points": []}', "holds an object"),
    ("[1, 2]", "entry 1 of .* is a number"),
    ('[{"a": 1}]', "entry 1 of .* has no startEnqMs"),
    (OLD_PROFILE.read_text(), "is a profile"),
    (changed(computeMs=None), "entry 2 of .* has no computeMs"),
    (changed(computeMs=-7.5), "computeMs is -7.5"),
    (changed(latencyMs="9"), "latencyMs is '9'"),
    (changed(h2dMs=True), "h2dMs is True"),
    (changed(latencyMs=20.0), "latencyMs 20.0, and its parts 9.25"),
    (changed(computeMs=0, latencyMs=1.75), "computeMs is 0"),
    (changed(endToEndMs=12.0), "8.4 or older"),
    (OLD.read_text().replace('"computeMs" : 9.125', '"computeMs" : nan'), "a time that is nan"),
    (OLD.read_text().replace('"computeMs" : 9.125', '"computeMs" : -inf'), "a time that is inf"),
    (changed(computeMs=float("nan")), "a time that is NaN"),
    ("[" * 100000, "is not JSON"),
])  # fmt: skip
def test_wrong_times_are_refused(text, message, tmp_path):
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(BadInput, match=message) as error:
        read_times(path)
    assert str(path) in error.value.found


@pytest.mark.parametrize(("text", "message"), [
    (OLD.read_text(), "is not a profile"),
    ('[{"count": 0}, {"name": "a"}]', "is not a profile"),
    ('[{"count": 3}]', "has no layer"),
    ('[{"count": 3}, {"name": "a", "timeMs": 1, "averageMs": 1, "percentage": 100}]', "layer 1 of .* has no medianMs"),
    (OLD_PROFILE.read_text().replace('"averageMs" : 1.5', '"averageMs" : -1.5'), "averageMs is -1.5"),
])  # fmt: skip
def test_wrong_profiles_are_refused(text, message, tmp_path):
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(BadInput, match=message):
        read_profile(path)


def test_a_missing_file_and_one_that_is_not_text(tmp_path):
    with pytest.raises(BadInput, match="cannot read the times"):
        read_times(tmp_path / "none.json")
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="it is not text"):
        read_times(tmp_path / "b.json")


@pytest.mark.parametrize("given", [{"version": "8.4.3"}, {"version": "new"}, {"scope": "enqueue"}, {"scale": 0}])
def test_what_the_person_says_is_checked(given):
    with pytest.raises(UsageError):
        run(**given)


def test_a_layer_name_may_look_like_a_number_that_is_none(tmp_path):
    path = tmp_path / "p.json"
    path.write_text(OLD_PROFILE.read_text().replace("Conv_0", "x: info"))
    assert read_profile(path)[1][0].name.startswith("x: info")
