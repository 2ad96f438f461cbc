"""A runtime is one file and one row: a fake one passes the parity suite, and every command takes it by its name."""

from __future__ import annotations

import ast
import contextlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sr_deploy.bench.result import load_result
from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.schema import value_from
from sr_deploy.engine.built import BuiltEngine, write_engine
from sr_deploy.engine.manifest import open_engine
from sr_deploy.engine.runtimes import RUNTIMES
from sr_deploy.report.precisions import PrecisionTable
from tests.run import fake_runtime
from tests.run.conftest import graphs  # noqa: F401
from tests.run.test_parity_suite import (  # noqa: F401
    LARGEST,
    test_a_new_input_of_the_prepared_size_replaces_the_old_one,
    test_a_new_size_forgets_the_old_result,
    test_closing_twice_and_describing,
    test_every_size_matches_the_network,
    test_many_computes_on_one_upload,
    test_non_contiguous_inputs,
    test_results_do_not_depend_on_what_ran_before,
    test_the_caller_may_reuse_its_array,
    test_wrong_arrays_are_refused_and_leave_the_runner_usable,
    test_wrong_order_is_refused,
)
from tests.small_network import CONTRACT, SCALE

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "sr_deploy" / "demo"
#: Where a runtime's name may be compared: its own files, and the machine's packages, which are called so too.
OWN = ("engine/runtimes.py", "engine/tensorrt.py", "engine/dla.py", "core/host/")


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setitem(RUNTIMES, "fake", fake_runtime.ROW)


@pytest.fixture
def runner(graphs, tmp_path, fake):  # noqa: F811
    built = BuiltEngine("fake", graphs.dynamic.read_bytes(), ((1, 1), (16, 16), LARGEST), "fp32", (), None, "1.0", None,
                        None, 0.0, {}, ())  # fmt: skip
    engine = tmp_path / write_engine(built, tmp_path, graphs.dynamic, CONTRACT, SCALE).file
    assert engine.suffix == ".fake"
    with contextlib.closing(RUNTIMES["fake"].call("open", engine, open_engine(engine), None)) as opened:
        yield opened


@pytest.fixture
def net(demo_export, tmp_path):
    return shutil.copytree(demo_export, tmp_path / "net")


def test_build_run_and_bench_take_it(net, fake, srdeploy, tmp_path):
    built = srdeploy("build", net, "--backend", "fake", "--size", "16")
    assert built.code == 0 and "the fake runtime builds" in built.err, built.err
    assert open_engine(net / "engines" / "fake_16x16.fake").backend == "fake"
    benched = srdeploy("bench", net, "--backend", "fake", "--size", "16", "--runs", 2)
    assert benched.code == 0, benched.err
    (point,) = load_result(net / "results" / "bench_fake_fp32_compute.json").points
    assert (point.runtime, point.device, point.description["file"]) == ("fake", "fake device", "fake_16x16.fake")
    picture(tmp_path / "a.png")
    ran = srdeploy("run", net, "-i", tmp_path / "a.png", "-o", tmp_path / "out", "--backend", "fake")
    assert ran.code == 0 and "fake engine fake_16x16.fake" in ran.err, ran.err
    assert (tmp_path / "out" / "a.png").is_file()
    missing = srdeploy("bench", net, "--backend", "fake", "--size", "20", "--runs", 2)
    assert missing.code != 0 and "has no fp32 fake engine for 20x20" in missing.err
    refused = srdeploy("build", net, "--backend", "fake", "--size", "20", "--compute-capability", "8.6")
    assert refused.code == 2 and "no meaning for fake" in refused.err


def test_all_precisions_stand_in_one_table(net, fake, srdeploy):
    """An engine that calls itself INT8 beside the graph: each has its sweep, and one table has both."""
    (graph,) = net.glob("*.onnx")
    built = BuiltEngine("fake", graph.read_bytes(), ((16, 16),) * 3, "int8", (), None, "1.0", None, None, 0.0, {}, ())
    manifest = open_deployment(net).manifest
    write_engine(built, net / "engines", graph, manifest.contract, manifest.scale)
    outcome = srdeploy("bench", net, "--all", "--size", "16", "--runs", 3)
    assert outcome.code == 0, outcome.err
    table = value_from(PrecisionTable, (net / "results" / "precisions_best_compute.json").read_text(), "it")
    assert [(row.precision, row.runtime, row.size) for row in table.rows] == [
        ("int8", "fake", (16, 16)), ("fp32", "onnxruntime", (16, 16))]  # fmt: skip
    assert {path.name for path in (net / "results").glob("bench_*.json")} == {
        "bench_best_fp32_compute.json", "bench_best_int8_compute.json"}  # fmt: skip
    assert "INT8" in outcome.out and "FP32" in outcome.out
    report = net / "r.html"
    assert srdeploy("report", net, "-o", report).code == 0
    assert "net: fake on fake device, compute" in report.read_text() and "left out" not in report.read_text()
    printed = srdeploy("bench", net, "--all", "--size", "16", "--runs", 3, "--json").out
    assert len(value_from(PrecisionTable, printed, "stdout").rows) == 2
    assert srdeploy("bench", net, "--all", "--precision", "int8", "--size", "16").code == 2


def test_what_runs_by_itself_prefers_the_table_s_order(net, fake, srdeploy, tmp_path):
    for backend in ("fake", "onnxruntime"):
        assert srdeploy("build", net, "--backend", backend, "--size", "16").code == 0
    picture(tmp_path / "a.png")
    ran = srdeploy("run", net, "-i", tmp_path / "a.png", "-o", tmp_path / "out")
    assert "onnxruntime engine" in ran.err, "the fake row was added last"


def picture(path):
    import numpy as np

    from sr_deploy.core.media.image import Picture, write_picture

    write_picture(Picture(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)), path)


def test_an_error_names_every_row(net, fake, srdeploy):
    refused = srdeploy("bench", net, "--backend", "nothing", "--size", "16")
    assert refused.code == 2 and "one of fake, onnxruntime, tensorrt, tensorrt-rtx" in refused.err


def test_help_names_every_row():
    code = (
        "import sys\nfrom sr_deploy.engine.runtimes import RUNTIMES\nfrom tests.run import fake_runtime\n"
        "RUNTIMES['fake'] = fake_runtime.ROW\nfrom sr_deploy.cli import main\nmain(['build', '--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "fake, onnxruntime, tensorrt or tensorrt-rtx" in re.sub(r"[\s│]+", " ", done.stdout)


def test_nobody_compares_names_of_runtimes():
    """Whoever wants to know what a runtime can asks its row."""
    wrong = []
    for path in sorted((ROOT / "sr_deploy").rglob("*.py")):
        if path.relative_to(ROOT / "sr_deploy").as_posix().startswith(OWN):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                words = {one.value for one in ast.walk(node) if isinstance(one, ast.Constant)}
                if words & {"onnxruntime", "tensorrt", "tensorrt-rtx"}:
                    wrong.append(f"{path}:{node.lineno}")
    assert not wrong
