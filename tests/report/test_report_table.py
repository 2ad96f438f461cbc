"""Tables say what the data says, failures and doubts included, on a narrow terminal too."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from sr_deploy.bench.result import Point, Result
from sr_deploy.core.host.device import Finding
from sr_deploy.report.html import table
from sr_deploy.report.table import doctor_table, engine_table, latency_table, plain_table, quality_table

GOOD = Point(
    size=(100, 200), scope="compute", runtime="tensorrt", device="NVIDIA H200", description={}, sha256="a",
    output_pixels=16 * 20000, warmup_stable=True, samples_s=(0.002, 0.002, 0.003),
    median_s=0.002, p90_s=0.003, p99_s=0.003, mean_s=0.0023, min_s=0.002,
)  # fmt: skip
FAILED = Point((1080, 1920), "compute", "tensorrt", "NVIDIA H200", {}, failure="out of memory [tried] 3 GiB")


def text_of(renderable, width=80):
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(renderable)
    return stream.getvalue()


def row_of(text, name):
    (row,) = [line.split() for line in text.splitlines() if line.split()[:1] == [name]]
    return row


def latency(*points):
    return text_of(latency_table(Result("efdn", {}, {"scope": "compute"}, points, "now")))


def test_a_launch_bound_row_says_what_it_times():
    bound = dataclasses.replace(GOOD, enqueue_s=0.0019, launch_bound=True, settings={"cuda_graph": False})
    text = " ".join(latency(bound).split())
    assert "100x200: launch-bound: the host takes 1.900 ms to queue a run" in text and "--cuda-graph" in text
    assert "launch-bound" not in latency(GOOD)


def test_latency_row():
    text = latency(GOOD)
    assert row_of(text, "100x200") == ["100x200", "2.000", "3.000", "3.000", "500.0", "160.0", "3"]
    assert "efdn: tensorrt on NVIDIA H200" in text
    assert "transfers excluded" in text


def test_latency_notes_survive_a_narrow_terminal():
    text = latency(dataclasses.replace(GOOD, warmup_stable=False, cut_short=True), FAILED)
    assert "100x200: warm-up did not settle; cut short by its time limit" in text
    assert "1080x1920: failed: out of memory [tried] 3 GiB" in text
    assert row_of(text, "1080x1920")[1:] == ["–"] * 6
    assert row_of(latency(FAILED), "1080x1920")[1:] == ["–"] * 6, "a table of names alone would say nothing"


def test_a_narrow_page_wraps_words_and_cuts_no_figure():
    heads = ("input", "load", "median ms", "p90 ms", "p99 ms", "jitter ms", "missed")
    row = ("1080x1920", "30 /s, 4 at once", "4154", "7419", "8406", "1002", "31 of 32, cut short")
    text = text_of(plain_table("Load", "", heads, [row], numbers=range(2, 7)))
    assert "…" not in text and "1080x1920" in text and max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("seconds", "shown"), [(1.23456e-5, "0.01235"), (0.0123456, "12.35"), (1.23456, "1235"), (123.456, "123456")]
)
def test_latency_has_four_figures(seconds, shown):
    assert row_of(latency(dataclasses.replace(GOOD, median_s=seconds)), "100x200")[1] == shown


REPORT = {
    "convention": "PSNR on Y",
    "precision": "fp32",
    "ran": [{"runtime": "onnxruntime", "device": "CPU", "file": "model.onnx"}],
    "images": [
        {"name": "baby[x]", "psnr_y": 33.61234, "ssim_y": 0.91234, "torch_psnr_y": 33.6, "difference": 0.0021},
        {"name": "bird", "psnr_y": 34.0, "ssim_y": 0.93, "torch_psnr_y": 34.0, "difference": 0.0009},
    ],
    "mean": {"psnr_y": 33.80617, "ssim_y": 0.92117, "torch_psnr_y": 33.8},
    "largest_difference": 0.0021,
    "tolerance": 0.05,
}


def test_quality_rows_and_mean():
    text = text_of(quality_table(REPORT), 100)
    assert row_of(text, "baby[x]") == ["baby[x]", "33.612", "0.9123", "33.600", "0.0021"]
    assert row_of(text, "mean") == ["mean", "33.806", "0.9212", "33.800", "0.0021"]
    assert "within 0.05" in text and "Quality in FP32" in text and "onnxruntime on CPU: model.onnx" in text
    assert "outside 0.05" in text_of(quality_table({**REPORT, "largest_difference": 0.06}), 100)


def test_quality_without_pytorch_has_no_empty_columns():
    images = [{"name": "baby", "psnr_y": 33.0, "ssim_y": 0.9, "torch_psnr_y": None, "difference": None}]
    report = {**REPORT, "images": images, "mean": {"psnr_y": 33.0, "ssim_y": 0.9}, "largest_difference": None}
    text = text_of(quality_table(report))
    assert row_of(text, "mean") == ["mean", "33.000", "0.9000"]
    assert "PyTorch" not in text


def test_doctor_names_the_command_once_and_whole():
    findings = (
        Finding("ok", "machine", "a CPU"),
        Finding("missing", "read checkpoints and export", "no torch", 'pip install "srdeploy[export]"'),
    )
    text = text_of(doctor_table(findings))
    assert text.count('pip install "srdeploy[export]"') == 1
    assert row_of(text, "ok") == ["ok", "machine", "a", "CPU"]
    assert "What to do" not in text_of(doctor_table(findings[:1]))


def test_engine_row():
    engine = {
        "file": "tensorrt-rtx_144x144_sm86-sm120.engine", "precision": "fp32", "compute_capabilities": ("8.6", "12.0"),
        "activation_bytes": 3 << 20, "weights_bytes": None, "build_seconds": 1.26,
    }  # fmt: skip
    other = {**engine, "file": "other", "weights_bytes": 1 << 20}
    text = text_of(engine_table([engine, other]), 100)
    expected = "tensorrt-rtx_144x144_sm86-sm120.engine fp32 8.6, 12.0 3.0 – 1.3"
    assert row_of(text, "tensorrt-rtx_144x144_sm86-sm120.engine") == expected.split(), (
        "the name says backend and inputs; nothing is cut off"
    )


def test_a_column_that_nothing_fills_is_not_shown():
    engine = {
        "file": "onnxruntime_dynamic_fp32.onnx", "precision": "fp32", "compute_capabilities": (),
        "activation_bytes": None, "weights_bytes": None, "build_seconds": 0.04,
    }  # fmt: skip
    text = text_of(engine_table([engine]))
    assert row_of(text, "engine") == ["engine", "precision", "build", "s"] and "MiB" not in text
    assert row_of(text, engine["file"]) == [engine["file"], "fp32", "0.0"]
    heads, cells = ("what", "ms", "why"), [("a", "–", ""), ("b", "1.0", "–")]
    assert row_of(text_of(plain_table("", "", heads, cells)), "what") == ["what", "ms"]
    page = table("", heads, cells)
    assert "<th" in page and "ms</th>" in page and "why" not in page


def test_a_streamed_engine_says_its_strips():
    from sr_deploy.report.numbers import streaming_text

    settings = {
        "memory_budget_bytes": str(600 << 20), "strips": "48", "activation_bytes_by_strips": "1: 5347, 48: 576",
        "streaming_difference": "1.2e-12 of 255, in float64",
    }  # fmt: skip
    rest = {"precision": "fp32", "compute_capabilities": ("8.6",), "activation_bytes": 3 << 20, "weights_bytes": None}
    engines = [{"file": name, "build_seconds": 1.0, **rest} for name in ("plain", "streamed")]
    engines[1]["settings"] = settings
    text = text_of(engine_table(engines), 100)
    assert "strips" in text
    assert (row_of(text, "plain")[-1], row_of(text, "streamed")[-1]) == ("–", "48")
    assert streaming_text(engines[0]) == streaming_text({"settings": {"strips": "1"}}) == ""
    told = streaming_text(engines[1])
    assert "48 row strips to stay within 600.0 MiB" in told and "1: 5347, 48: 576" in told and "1.2e-12" in told
