"""The calibration cache: every float32 comes back exactly, and nothing else is taken."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sr_deploy.core.deployment.calibration_cache import (
    CalibrationCache,
    cache_text,
    parse_cache,
    parsed_version,
    read_cache,
    version_number,
)
from sr_deploy.core.errors import BadInput

V8 = (8, 5, 2)
SCALES = st.floats(width=32, min_value=0.0, exclude_min=True, allow_nan=False, allow_infinity=False)
NAMES = st.text(
    st.characters(blacklist_categories=("Cs",), blacklist_characters="\n\r"), min_size=1, max_size=30
).filter(lambda name: name == name.strip())


def test_a_cache_as_tensorrt_writes_it():
    text = "TRT-8502-EntropyCalibration2\nlr: 3c010204\n/body/Conv_output_0: 3f800000\n"
    cache = CalibrationCache(V8, "EntropyCalibration2", {"lr": float(np.float32(1 / 127)), "/body/Conv_output_0": 1.0})
    assert cache_text(cache) == text
    assert parse_cache(text, "c") == cache


@settings(deadline=None)
@given(st.dictionaries(NAMES, SCALES, min_size=1, max_size=8))
def test_every_float32_round_trips_exactly(scales):
    cache = CalibrationCache(V8, "MinMaxCalibration", scales)
    back = parse_cache(cache_text(cache), "c")
    assert back == cache
    assert [struct.pack(">f", v) for v in back.scales.values()] == [struct.pack(">f", v) for v in scales.values()]


@pytest.mark.parametrize("scale", [2.0**-149, 2.0**-126, float(np.finfo(np.float32).max), 1.1754942106924411e-38])
def test_subnormals_and_ends(scale):
    back = parse_cache(cache_text(CalibrationCache(V8, "EntropyCalibration2", {"x": scale})), "c")
    assert back.scales == {"x": scale}


def test_names_with_colons_and_spaces():
    scales = {"a: b": 1.0, "12: 3c010204": 2.0, "x y/z.1": 3.0}
    assert parse_cache(cache_text(CalibrationCache(V8, "EntropyCalibration2", scales)), "c").scales == scales


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), 1e300, 1e-60])
def test_scales_that_cannot_be_are_not_written(scale):
    with pytest.raises(BadInput, match="the scale of 'x' is"):
        cache_text(CalibrationCache(V8, "EntropyCalibration2", {"x": scale}))


@pytest.mark.parametrize("name", ["", " x", "x\n", "a\nb", "a\rb"])
def test_names_that_cannot_be_are_not_written(name):
    with pytest.raises(BadInput, match="cannot hold a tensor named"):
        cache_text(CalibrationCache(V8, "EntropyCalibration2", {name: 1.0}))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "c begins with ''"),
        ("lr: 3c010204\n", "begins with 'lr: 3c010204'"),
        ("TRT-8502-LegacyCalibration\nlr: 3c010204\n", "is for the calibrator 'LegacyCalibration'"),
        ("TRT-8502-EntropyCalibration2\n", "holds no scales"),
        ("TRT-8502-EntropyCalibration2\nlr: 3c0102\n", "line 2 of c is 'lr: 3c0102'"),
        ("TRT-8502-EntropyCalibration2\nlr: 3c01020g\n", "line 2"),
        ("TRT-8502-EntropyCalibration2\nlr 3c010204\n", "line 2"),
        ("TRT-8502-EntropyCalibration2\na: 3c010204\na: 3c010205\n", "line 3 of c names 'a' for a second time"),
        ("TRT-8502-EntropyCalibration2\na: 7f800000\n", "gives 'a' the scale inf"),
        ("TRT-8502-EntropyCalibration2\na: 7fc00000\n", "gives 'a' the scale nan"),
        ("TRT-8502-EntropyCalibration2\na: 00000000\n", "gives 'a' the scale 0.0"),
        ("TRT-8502-EntropyCalibration2\na: bc010204\n", "gives 'a' the scale -"),
    ],
)
def test_files_that_are_not_taken(text, words):
    with pytest.raises(BadInput, match=words):
        parse_cache(text, "c")


def test_unreadable_files(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00TRT")
    for name in ("binary", "absent"):
        with pytest.raises(BadInput, match=f"cannot read the calibration cache .*{name}"):
            read_cache(tmp_path / name)


def test_versions():
    assert [version_number(v) for v in ((8, 5, 2), (8, 6, 1), (10, 3, 0), (10, 16, 1))] == [8502, 8601, 100300, 101601]
    for version in ((8, 5, 2), (8, 0, 0), (10, 3, 0), (10, 16, 1)):
        cache = CalibrationCache(version, "EntropyCalibration2", {"x": 1.0})
        assert parse_cache(cache_text(cache), "c").version == version
    assert parsed_version("8.5.2.2") == V8
    with pytest.raises(BadInput, match="'8.5' is not a version"):
        parsed_version("8.5")
    for version in ((8, 10, 0), (0, 1, 0), (8, 5, 100)):
        with pytest.raises(BadInput, match="has no number"):
            version_number(version)
