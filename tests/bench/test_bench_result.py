"""The result file comes back as it was written, and what is not one is refused."""

from __future__ import annotations

import dataclasses
import json

import pytest

from sr_deploy.bench.result import Point, Result, load_result, now_utc, save_result
from sr_deploy.core.errors import BadInput

POINT = Point(
    size=(144, 256),
    scope="compute",
    runtime="fake",
    device="no device",
    description={"threads": 2},
    sha256="ab" * 32,
    output_pixels=144 * 256 * 16,
    warmup_iterations=10,
    warmup_seconds=1.25,
    warmup_stable=True,
    samples_s=(0.01, 0.011, 0.012),
    median_s=0.011,
    p90_s=0.012,
    p99_s=0.012,
    mean_s=0.011,
    min_s=0.01,
)
FAILED = Point((1080, 1920), "compute", "fake", "no device", {}, failure="out of memory")
RESULT = Result("efdn", {"cpu": "x", "gpus": []}, {"scope": "compute"}, (POINT, FAILED), now_utc())


def test_result_comes_back(tmp_path):
    save_result(tmp_path / "r.json", RESULT)
    assert load_result(tmp_path / "r.json") == RESULT
    assert RESULT.point_for([144, 256]) is POINT
    assert RESULT.point_for((1, 1)) is None
    assert POINT.input_pixels == 144 * 256


def damaged(**changes):
    return {**json.loads(json.dumps(dataclasses.asdict(RESULT))), **changes}


def point(**changes):
    entry = {**damaged()["points"][0], **changes}
    return damaged(points=[entry])


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        ([], "the whole is"),
        ({}, "schema no"),
        (damaged(schema=99), "schema 99"),
        (damaged(colour="red"), "colour"),
        (damaged(points=None), "points|NoneType"),
        (damaged(environment="x"), "environment"),
        (point(latency=1), "latency"),
        (point(size=[144]), "size"),
        (point(size=[144, -1]), "size"),
        (point(size=7), "int"),
        (point(samples_s=["fast"]), r"points\[0\].samples_s\[0\] is 'fast'"),
        (point(samples_s=[]), "samples_s"),
        (point(median_s=None), "median_s"),
        (point(samples_s=[0.0]), r"points\[0\].samples_s\[0\] is 0.0"),
        (point(samples_s=[-1e-3]), r"points\[0\].samples_s\[0\] is -0.001"),
        (point(samples_s=[float("nan")]), r"points\[0\].samples_s\[0\] is nan"),
        (point(description={"layers": [{"name": "a"}]}), r"points\[0\].description.layers\[0\].mean_s is missing"),
        (damaged(variance=[3]), r"variance\[0\]"),
    ],
)
def test_what_is_not_a_result_is_refused(tmp_path, raw, word):
    path = tmp_path / "r.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(BadInput, match=word) as caught:
        load_result(path)
    assert "r.json" in caught.value.found


def test_missing_and_broken_files_are_refused(tmp_path):
    with pytest.raises(BadInput, match="cannot read"):
        load_result(tmp_path / "none.json")
    (tmp_path / "r.json").write_text('{"schema": 1,')
    with pytest.raises(BadInput, match="JSON"):
        load_result(tmp_path / "r.json")
