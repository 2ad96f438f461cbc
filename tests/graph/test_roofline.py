"""The roofline's arithmetic against published figures, and that it always says what it is."""

from __future__ import annotations

import json

import pytest

from sr_deploy.core.errors import UsageError
from sr_deploy.graph.census import Census
from sr_deploy.graph.roofline import XAVIER_NX, board_named, bound, least_bytes, roofline_facts

CENSUS = Census((100, 100), {}, {}, 1000, 10**9, 0, 0, 8 * 10**6)


def test_published_rates_of_the_xavier_nx():
    """6.81 TFLOPS float16, 13.6 TOPS int8, 0.852 TFLOPS float32 at 1109.25 MHz; 59.7 and 51.2 GB/s."""
    mode = XAVIER_NX.modes[0]
    for dtype, tera in (("float16", 6.81), ("int8", 13.6), ("float32", 0.852)):
        found = bound(XAVIER_NX, mode, dtype, 10**12, 0)
        assert 2.0 / (found.milliseconds / 1e3) == pytest.approx(tera, rel=5e-3) and found.limited_by == "arithmetic"
    for mode, rate in ((XAVIER_NX.modes[0], 59.7e9), (XAVIER_NX.modes[1], 51.2e9)):
        found = bound(XAVIER_NX, mode, "float16", 0, rate)
        assert found.milliseconds == pytest.approx(1000, rel=2e-3) and found.limited_by == "memory"


def test_the_delivered_mode_is_the_slowest():
    slow = bound(XAVIER_NX, XAVIER_NX.modes[-1], "float16", 10**12, 0).milliseconds
    fast = bound(XAVIER_NX, XAVIER_NX.modes[0], "float16", 10**12, 0).milliseconds
    assert slow / fast == pytest.approx(1109.25 / 510)


def test_least_bytes_are_weights_input_and_output_once():
    assert least_bytes(CENSUS, 4, "float32") == 4 * (1000 + 3 * 10**4 + 3 * 16 * 10**4)
    assert least_bytes(CENSUS, 4, "float16") * 2 == least_bytes(CENSUS, 4, "float32")


def test_facts_are_json_and_labelled():
    facts = roofline_facts(CENSUS, XAVIER_NX, 4, 5 * 10**8)
    json.dumps(facts)
    assert facts["graph_macs_over_least"] == 2.0
    assert "estimate" in facts["kind"]
    for dtype in ("float32", "float16", "int8"):
        lines = [value for value in facts[dtype].values() if isinstance(value, str)]
        assert len(lines) == len(XAVIER_NX.modes) and all("estimate" in line for line in lines)


def test_an_unknown_board_is_named():
    with pytest.raises(UsageError, match="xavier-nx"):
        board_named("orin")
