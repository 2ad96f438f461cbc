"""One table of all precisions: what is paired with what, and that a slower lower precision is remarked upon."""

from __future__ import annotations

import dataclasses
import io

import pytest

from sr_deploy.bench.energy import joules, mean_power
from sr_deploy.bench.measure import summary
from sr_deploy.bench.result import Point, Result
from sr_deploy.report.precisions import HEADINGS, cells, groups, precision_table, terminal_table


def sweep(precision, created="2026-01-01", device="GPU", watts=None, failure=None, sha="a", **ms_at):
    points = []
    for name, ms in ms_at.items():
        edge = int(name[1:])
        if failure:
            points.append(Point((edge, edge), "compute", "", "", {"precision": precision}, failure=failure))
            continue
        samples = (ms / 1e3,) * 3
        sensors = {"during": [{"gpu_w": watts}, {"gpu_w": watts + 10}]} if watts else {}
        memory = {"rss_bytes": 10**9, "gpu_used_bytes": 2 * 10**9}
        points.append(Point((edge, edge), "compute", "tensorrt", device, {"precision": precision}, sha * 64,
                            samples_s=samples, sensors=sensors, peak_memory=memory,
                            **summary(samples)))  # fmt: skip
    return Result("net", {}, {"scope": "compute"}, tuple(points), created)


QUALITY = {"images": [{"name": "a", "psnr_y": 30.0}, {"name": "b", "psnr_y": 26.5}], "mean": {"psnr_y": 28.25}}


def test_rows_pair_latency_quality_bytes_and_energy_by_precision():
    results = [sweep("int8", e144=0.5, watts=95.0, sha="b"), sweep("fp32", e144=1.0)]
    table = precision_table("net", results, {"int8": QUALITY}, {"b" * 64: 1_500_000})
    assert [cells(row) for row in table.rows] == [
        ["144x144", "FP32", "1.000", "–", "–", "–", "2000.0", "–"],
        ["144x144", "INT8", "0.5000", "28.250", "26.500", "1.5", "2000.0", "50.00"],
    ]
    assert table.remarks == () and list(groups(table)) == ["tensorrt on GPU, compute"]


def test_a_slower_lower_precision_is_remarked_upon():
    results = [sweep("fp32", e144=1.0, e360=6.0), sweep("fp16", e144=0.6, e360=3.0), sweep("int8", e144=0.7, e360=2.0)]
    table = precision_table("net", results, {}, {})
    assert table.remarks == ("INT8 is slower than FP16 at 144x144: 0.7000 against 0.6000 ms",)
    assert "INT8 is slower than FP16" in shown(table)
    # On another device nothing is compared with it.
    apart = precision_table("net", [sweep("fp32", e144=1.0), sweep("int8", e144=2.0, device="CPU")], {}, {})
    assert apart.remarks == () and len(groups(apart)) == 2


def test_the_newest_sweep_counts_and_a_failure_says_why():
    old, new = sweep("fp32", "2026-01-01", e144=9.0), sweep("fp32", "2026-02-01", e144=1.0)
    table = precision_table("net", [new, old, sweep("int8", e144=1, failure="out of memory")], {}, {})
    assert [row.median_s for row in table.rows if row.precision == "fp32"] == [0.001]
    assert "INT8 at 144x144: out of memory" in table.remarks


def test_the_table_is_80_columns_wide():
    table = precision_table(
        "net", [sweep("auto", e1080=1234.5, watts=100.0, sha="b")], {"auto": QUALITY}, {"b" * 64: 10**9}
    )
    assert max(map(len, shown(table).splitlines())) <= 80
    assert "auto" in shown(table) and all(heading.split()[0] in shown(table) for heading in HEADINGS)


def test_energy_is_of_the_board_before_its_parts():
    point = sweep("fp32", e144=2.0, watts=95.0).points[0]
    assert mean_power(point) == ("gpu_w", 100.0) and joules(point) == pytest.approx(0.2)
    both = {"during": [{"VDD_GPU_w": 3.0, "VDD_IN_w": 10.0}]}
    assert mean_power(dataclasses.replace(point, sensors=both)) == ("VDD_IN_w", 10.0)
    assert joules(dataclasses.replace(point, sensors={})) is None


def shown(table):
    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=80).print(terminal_table(table))
    return out.getvalue()
