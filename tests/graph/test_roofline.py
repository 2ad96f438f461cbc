"""The roofline's arithmetic against published figures, and that it always says what it is."""

from __future__ import annotations

import pytest

from sr_deploy.core.errors import UsageError
from sr_deploy.core.host.gpu_rates import gpu_named
from sr_deploy.graph.census import Census
from sr_deploy.graph.roofline import XAVIER_NX, bound, least_bound, least_bytes

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


def test_the_least_time_is_of_the_slower_of_two():
    gpu = gpu_named("xavier-nx", "--for")
    found = least_bound(CENSUS, gpu, 4, "float16", 5 * 10**8)
    assert found.limited_by == "arithmetic" and found.milliseconds == pytest.approx(1e3 * 5e8 / 3.41e12)
    assert least_bound(CENSUS, gpu, 4, "float16", 1).limited_by == "memory"


def test_the_table_of_gpus_agrees_with_the_clocks_of_the_xavier_nx():
    for name, mode in (("xavier-nx", 0), ("xavier-nx-15w", 1), ("xavier-nx-10w", 2)):
        gpu, clocks = gpu_named(name, "--for"), XAVIER_NX.modes[mode]
        assert gpu.bandwidth == pytest.approx(
            bound(XAVIER_NX, clocks, "float16", 0, 1e9).milliseconds ** -1 * 1e3, rel=2e-3
        )
        for dtype, rate in gpu.tera_macs.items():
            assert rate == pytest.approx(1e3 / bound(XAVIER_NX, clocks, dtype, 10**12, 0).milliseconds, rel=5e-3)


def test_an_unknown_gpu_is_named():
    with pytest.raises(UsageError, match="xavier-nx, .*h200"):
        gpu_named("orin", "--roofline")
