"""Adding on paper is adding in a test: a metric, or a number format, appears by one row wherever they are used."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest

import sr_deploy
from sr_deploy.bench.measure import summary
from sr_deploy.bench.result import Point, Result, save_result
from sr_deploy.core.contract import SizeRules
from sr_deploy.core.media.image import Picture, write_picture
from sr_deploy.core.number_formats import ENGINE_PRECISIONS, FORMATS, LISTED, PLAN_PRECISIONS

#: Run before the command, in a process of its own: the tables are read when the formats are described. Two functions
#: and a row for each are all that an author would write.
NEW_METRICS = """
import sys
from sr_deploy.core.quality import metrics

def mean_error(sr, hr, border):
    return float(abs(sr.astype(float) - hr).mean())

def contrast(sr, border):
    return float(sr.std())

metrics.METRICS += (
    metrics.Metric("mean_error", "Mean error", "of 255", mean_error, True, False, 2, 1, 0.0, 255.0, against_torch=True),
    metrics.Metric("contrast", "Contrast", "", contrast, False, True, 1, 1, 0.0, 255.0),
)
from sr_deploy.cli import main
main(sys.argv[1:])
"""


def with_new_metrics(*arguments, code=0) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", NEW_METRICS, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def net(demo_export, tmp_path_factory):
    """A deployment, and folders of two pairs of pictures."""
    folder = tmp_path_factory.mktemp("tables")
    shutil.copytree(demo_export, folder / "net")
    for name in ("a", "b"):
        for side, shape in (("lr", (24, 32, 3)), ("hr", (48, 64, 3))):
            pixels = np.random.default_rng(len(side + name)).integers(0, 256, shape, np.uint8)
            write_picture(Picture(pixels), folder / side / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def quality(net) -> Path:
    """The report of ``verify --json``, with the new metrics."""
    printed = with_new_metrics("verify", net / "net", "--lr", net / "lr", "--hr", net / "hr", "--json")
    (net / "quality.json").write_text(printed)
    return net / "quality.json"


def test_a_new_metric_is_in_the_json_of_verify(quality):
    report = json.loads(quality.read_text())
    for image in (*report["images"], report["mean"]):
        others = ("name", "difference", "lr_sha256", "hr_sha256", "off_share", "structure")
        keys = [key for key, value in image.items() if key not in others and value is not None]
        assert keys == [
            *("psnr_y", "ssim_y", "grid", "colour_shift", "mean_error", "contrast", "torch_psnr_y", "torch_mean_error")
        ]
        assert 0 < image["mean_error"] < 255 and image["mean_error"] == pytest.approx(image["torch_mean_error"], 0.01)
    for key in ("psnr_y", "mean_error", "contrast"):
        assert report["mean"][key] == pytest.approx(np.mean([image[key] for image in report["images"]]))


def test_a_new_metric_is_a_column_of_verify(net, quality):
    table = with_new_metrics("verify", net / "net", "--lr", net / "lr", "--hr", net / "hr", "--no-torch")
    assert "Mean error" in table and "Contrast" in table
    report = json.loads(quality.read_text())
    (row,) = [line for line in table.splitlines() if line.strip().startswith("mean ")]
    assert row.split()[5:] == [f"{report['mean']['mean_error']:.2f}", f"{report['mean']['contrast']:.1f}"]


def test_a_new_metric_is_in_the_report_page(net, quality):
    page = net / "page.html"
    with_new_metrics("report", net / "net", "-o", page, "--lr", net / "lr", "--hr", net / "hr")
    text, mean = page.read_text(), json.loads(quality.read_text())["mean"]
    assert text.count("Mean error of 255") >= 3, "at a glance, and in the table of bicubic and the network"
    assert f">{mean['mean_error']:.2f}<" in text and f">{mean['contrast']:.1f}<" in text


def test_a_new_metric_can_be_budgeted_and_gated(net, quality):
    samples = (0.01,) * 30
    point = Point((8, 8), "compute", "onnxruntime", "d", {}, samples_s=samples, **summary(samples))
    save_result(net / "old.json", Result("net", {"cpu": "x"}, {}, (point,), "2026-05-01T00:00:00+00:00"))
    budget, mean = net / "budget.toml", json.loads(quality.read_text())["mean"]
    gate = ("gate", net / "old.json", net / "old.json", "--budget", budget, "--quality", quality, "--json")
    # The lower the better, so the bound is an upper one; the loss is what the deployment has more of.
    budget.write_text("[quality]\nmax_mean_error = 255\nmin_contrast = 1\nmax_mean_error_loss = 1\n")
    found = findings_of(with_new_metrics(*gate, code=5))
    assert found == {"Mean error against HR": "PASS", "Contrast": "PASS", "Mean error lost against FP32": "PASS"}
    budget.write_text(f"[quality]\nmax_mean_error = {mean['mean_error'] - 1}\nmin_contrast = {mean['contrast'] + 1}\n")
    assert findings_of(with_new_metrics(*gate, code=1)) == {
        "Mean error against HR": "REGRESSION",
        "Contrast": "REGRESSION",
    }
    budget.write_text("[quality]\nmin_mean_error = 1\n")
    with_new_metrics(*gate, code=4)


def findings_of(printed: str) -> dict:
    return {one["what"]: one["verdict"] for one in json.loads(printed)["findings"] if one["what"] != "latency"}


def test_a_quality_file_from_before_a_metric_stays_readable(net):
    old = net / "older.json"
    old.write_text(json.dumps({
        "schema": 2, "convention": "BT.601 Y", "ran": [], "precision": "fp32",
        "images": [{"name": "a", "psnr_y": 30.0, "ssim_y": 0.9, "torch_psnr_y": 30.1, "difference": 0.01}],
        "mean": {"psnr_y": 30.0, "ssim_y": 0.9, "torch_psnr_y": 30.1}, "largest_difference": 0.01, "tolerance": 0.05,
        "loss_db": 0.1, "tolerance_db": None,
    }))  # fmt: skip
    read = "from sr_deploy.report.quality_file import read_quality; from pathlib import Path; import sys; "
    read += "mean = read_quality(Path(sys.argv[1])).mean; print(mean.psnr_y, mean.torch_psnr_y, mean.contrast)"
    lines = NEW_METRICS[: NEW_METRICS.index("from sr_deploy.cli")] + read
    ran = subprocess.run([sys.executable, "-c", lines, str(old)], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["30.0", "30.1", "None"]


def test_the_names_of_metrics_stand_in_the_table_alone():
    """Else a new row would be missing there."""
    package = Path(sr_deploy.__file__).parent
    allowed = {"core/quality/metrics.py", "core/quality/psnr_ssim.py", "core/deployment/plan_report.py"}
    spelled = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if any(word in path.read_text(encoding="utf-8") for word in ('"psnr_y', '"ssim_y', ".psnr_y", ".ssim_y"))
    }
    assert spelled <= allowed


def test_paths_inside_a_deployment_are_named_in_one_place():
    package = Path(sr_deploy.__file__).parent
    sources = {str(path.relative_to(package)): path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    for word in ('"precision"', "'precision'"):
        joined = [name for name, text in sources.items() if f"/ {word}" in text or f"= {word}\n" in text]
        assert set(joined) <= {"core/deployment/manifest.py"}
    assert [name for name, text in sources.items() if "qat-unfinished" in text] == ["core/deployment/manifest.py"]
    rounding = re.compile(r"-\(-[^\n]*// ?([\w.]+)\) ?\* ?\1")
    assert [name for name, text in sources.items() if rounding.search(text)] == ["core/contract.py"]


@pytest.mark.parametrize(("edge", "fits"), [(1, 24), (24, 24), (25, 32), (32, 32)])
def test_sizes_are_raised_to_what_the_network_takes(edge, fits):
    rules = SizeRules(minimum=20, multiple=8)
    assert rules.fit(edge) == fits
    rules.check((fits, fits))


#: Run in a copy of the package whose table has one more row, as an author would write it.
ONE_ROW = (
    "FORMATS: Tuple[NumberFormat, ...] = (INT8, ",
    'FORMATS: Tuple[NumberFormat, ...] = (INT8, NumberFormat("float12", 12, ("fp12",), "FP12", 1e6, 99, True, "fp12", '
    "False, tolerance.HALF), ",
)
NEW_FORMAT = """
import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace

import onnx

from sr_deploy.core.deployment.plan import Plan, open_plan, save_plan
from sr_deploy.core.errors import BadDeployment
from sr_deploy.core.host.gpu_rates import GPUS
from sr_deploy.core.number_formats import FORMATS, LOSSY
from sr_deploy.core.schema import json_schema
from sr_deploy.engine.layers import NetworkLayer, differences
from sr_deploy.engine.listing import Tensor
from sr_deploy.engine.listing_parse import type_in
from sr_deploy.engine.manifest import EngineManifest
from sr_deploy.graph.census import Census
from sr_deploy.graph.roofline import least_bytes, least_bound
from sr_deploy.pipeline.measure.matrix import Matrix
from sr_deploy.pipeline.precision.make_plan import report_of
from sr_deploy.pipeline.runner import check_precision
from sr_deploy.precision.evaluate import Judged, PictureJudged
from sr_deploy.precision.lower.typed_graph import typed_graph
from sr_deploy.report.page_precision import precision_section

assert [one.name for one in FORMATS] == ["int8", "float12", "float8", "float16", "bfloat16", "float32"]
folder = Path(sys.argv[1])
plan = Plan("auto", "ab" * 32, {"a": "float12", "b": "int8"}, rest="float12")
save_plan(folder, plan)
assert open_plan(folder)[0] == plan
check_precision("fp12")
for kind in (EngineManifest, Matrix):
    assert '"fp32", "bf16", "fp16", "fp8", "fp12", "int8", "auto"' in str(json_schema(kind)).replace("'", '"')
assert LOSSY["fp12"].decibels == 0.01 and LOSSY["auto"].decibels == 0.6
assert type_in("FP12") == "float12" and Tensor("x", (4, 3), "float12").bytes == 18
wide, narrow = ("a", "CONVOLUTION", ("a",), "float16", True), ("b", "RELU", ("b",), "float12", False)
assert differences((NetworkLayer(*wide), NetworkLayer(*narrow)), {"a": "float12", "b": "float16"}) == (
    "a (CONVOLUTION): planned float12, runs in float16", "b (RELU): planned float16, runs in float12",
)
judged = Judged(1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0, 1, (PictureJudged("a", "pair", 0.0, 0.0),))
bench = SimpleNamespace(macs={"a": 3, "b": 1}, kinds=SimpleNamespace(macs=4))
shares = report_of(bench, plan, judged)["macs_share"]
assert shares == {"int8": 0.25, "float12": 0.75, "float8": 0.0, "float16": 0.0, "bfloat16": 0.0, "float32": 0.0}
page = precision_section([{"name": "n", "macs_share": shares}])
assert "FP12 %" in page and "75.0" in page
census = Census((100, 100), {}, {}, 1000, 10**9, 0, 0, 8 * 10**6)
assert least_bytes(census, 4, "float12") * 4 == least_bytes(census, 4, "float16") * 3
gpu = dataclasses.replace(GPUS[0], tera_macs={"float12": 4.0})
assert least_bound(census, gpu, 4, "float12", 10**12).milliseconds == 250
try:
    typed_graph(onnx.ModelProto(), plan, {})
except BadDeployment as error:
    assert "float12" in error.found
else:
    raise AssertionError("a node in a format that nothing lowers got another one")
print("all of it")
"""


def test_a_new_number_format_is_one_row(tmp_path):
    shutil.copytree(
        Path(sr_deploy.__file__).parent, tmp_path / "sr_deploy", ignore=shutil.ignore_patterns("__pycache__")
    )
    table = tmp_path / "sr_deploy" / "core" / "number_formats.py"
    source = table.read_text(encoding="utf-8")
    assert source.count(ONE_ROW[0]) == 1
    table.write_text(source.replace(*ONE_ROW), encoding="utf-8")
    (tmp_path / "plan").mkdir()
    ran = subprocess.run(
        [sys.executable, "-c", NEW_FORMAT, str(tmp_path / "plan")],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.stdout == "all of it\n", ran.stderr


def test_the_table_says_what_onnx_and_numpy_say():
    for one in FORMATS:
        kind = np.dtype({"float8": ml_dtypes.float8_e4m3fn, "bfloat16": ml_dtypes.bfloat16}.get(one.name, one.name))
        assert one.onnx_type == onnx.helper.np_dtype_to_tensor_dtype(kind)
        assert one.bits == 8 * kind.itemsize and one.floating == (one.bits > 8)
        if one.mantissa is None:
            assert one.largest == np.iinfo(kind).max
        else:
            known = ml_dtypes.finfo(kind)
            assert (one.largest, one.mantissa, one.least_exponent) == (float(known.max), known.nmant, known.minexp)
    assert [one.bits for one in FORMATS] == sorted(one.bits for one in FORMATS)
    assert ("fp32", *PLAN_PRECISIONS) == ENGINE_PRECISIONS
    assert PLAN_PRECISIONS == ("bf16", "fp16", "fp8", "int8", "auto")
    words = [word for one in (*FORMATS, *LISTED) for word in one.words]
    assert len(set(words)) == len(words)
