"""The timing cache: with TensorRT-RTX's own module, whose builder takes and refuses caches as TensorRT's does, and in
whole builds with the stand-in of 8.5. That it saves time only a GPU can show."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import sr_deploy.engine.tensorrt
import sr_deploy.pipeline.engines.build as pipeline
import sr_deploy.pipeline.engines.build_tensorrt as builder
import sr_deploy.pipeline.engines.request as request
from sr_deploy.core.errors import UsageError
from sr_deploy.core.host.machine import Gpu, Jetson, this_machine
from sr_deploy.engine.flavour import logger_of
from sr_deploy.engine.timing_cache import attach_timing_cache, cache_path, save_timing_cache
from sr_deploy.pipeline.engines.timings import check_timings
from tests.engine.standin_8_5 import stand_in

XAVIER = Gpu("NVIDIA Jetson Xavier NX (integrated)", "7.2", None, None)


@pytest.fixture
def config():
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    builder = trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR))
    with pytest.warns(DeprecationWarning):
        yield types.SimpleNamespace(owner=builder, real=builder.create_builder_config())


def test_one_file_for_each_gpu_and_version(tmp_path):
    names = {
        cache_path(tmp_path, "timing", "tensorrt", version, device).name
        for version in ("8.5.2.2", "10.3.0")
        for device in (XAVIER.name, "Orin (nvgpu)")
    }
    assert len(names) == 4 and "tensorrt-10.3.0_orin-nvgpu.timing.cache" in names


def test_a_real_builder_takes_its_own_cache_and_no_other(config, tmp_path):
    path = tmp_path / "engines" / "a.timing.cache"
    cache, problems = attach_timing_cache(config.real, path)
    assert cache is not None and problems == ()
    assert save_timing_cache(cache, path) == ()
    kept = path.read_bytes()
    assert kept and [entry.name for entry in path.parent.iterdir()] == [path.name], "no temporary file is left"
    assert attach_timing_cache(config.real, path)[1] == ()
    for damaged in (b"timings of another release", kept[: len(kept) // 2], bytes(len(kept))):
        path.write_bytes(damaged)
        cache, (problem,) = attach_timing_cache(config.real, path)
        assert cache is not None and "is damaged, or of another TensorRT or GPU" in problem and str(path) in problem
        assert not path.exists() and path.with_name(path.name + ".refused").read_bytes() == damaged
        assert save_timing_cache(cache, path) == () and path.read_bytes() == kept


def test_a_place_that_cannot_be_read_or_written(config, tmp_path):
    cache, problems = attach_timing_cache(config.real, tmp_path)
    assert cache is None and "cannot be read" in problems[0]
    (tmp_path / "file").write_text("")
    cache, _ = attach_timing_cache(config.real, tmp_path / "new")
    assert "was not kept" in save_timing_cache(cache, tmp_path / "file" / "below")[0]


@pytest.fixture(scope="module")
def exported(demo_export, tmp_path_factory):
    return shutil.copytree(demo_export, tmp_path_factory.mktemp("exported") / "deployment")


@pytest.fixture
def board(exported, tmp_path, monkeypatch):
    """A deployment on a Xavier NX that is not there: machine and TensorRT 8.5 are stand-ins, the rest is real."""
    trt = stand_in()
    jetson = Jetson("NVIDIA Jetson Xavier NX", "35.4.1", 8, "")
    machine = dataclasses.replace(this_machine(), gpus=(XAVIER,), jetson=jetson, memory_available_bytes=8 * 10**9)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr(sr_deploy.engine.tensorrt, "this_machine", lambda: machine)
    for module in (builder, request):
        monkeypatch.setattr(module, "this_machine", lambda: machine)
    logger_of.cache_clear()
    deployment = tmp_path / "deployment"
    shutil.copytree(exported, deployment)
    yield trt, deployment
    logger_of.cache_clear()


def build(deployment, *sizes, **options):
    said = []
    options = pipeline.BuildOptions(deployment, "tensorrt", sizes, **options)
    return pipeline.build_engines(options, said.append), said


def test_the_second_size_gets_the_timings_of_the_first(board):
    trt, deployment = board
    manifests, said = build(deployment, (16, 16), (24, 24))
    assert [call for call in trt.calls if call[0] == "timings"] == [("timings", b""), ("timings", b"timings of 8.5")]
    (kept,) = deployment.glob("engines/*.cache")
    assert kept.name == "tensorrt-8.5.2.2_nvidia-jetson-xavier-nx-integrated.timing.cache"
    assert {manifest.settings["timing_cache"] for manifest in manifests} == {kept.name}
    assert not [line for line in said if "timing cache" in line]


def test_a_damaged_cache_is_said_and_the_engine_is_built(board):
    _, deployment = board
    build(deployment, (16, 16))
    (kept,) = deployment.glob("engines/*.cache")
    kept.write_bytes(b"half of it")
    (manifest,), said = build(deployment, (24, 24))
    assert [line for line in said if line.startswith("warning: the timing cache") and str(kept) in line]
    assert manifest.warnings[0].startswith("the timing cache") and kept.read_bytes() == b"timings of 8.5"


def test_another_file_or_none(board, tmp_path):
    trt, deployment = board
    other = tmp_path / "shared.cache"
    build(deployment, (16, 16), timing_cache=other)
    assert other.read_bytes() == b"timings of 8.5" and not list(deployment.glob("engines/*.cache"))
    trt.calls.clear()
    (manifest,), _ = build(deployment, (24, 24), timing_cache=Path("none"))
    assert not [call for call in trt.calls if call[0] == "timings"] and "timing_cache" not in manifest.settings
    assert not list(deployment.glob("engines/*.cache")) and not list(deployment.glob("none*"))


def test_a_builder_that_times_nothing_takes_no_such_file(tmp_path):
    for backend in ("onnxruntime", "tensorrt-rtx"):
        check_timings(backend, None)
        with pytest.raises(UsageError, match=f"{backend} times nothing"):
            check_timings(backend, tmp_path / "a")


def test_the_cache_of_a_failed_build_is_kept(board):
    """A second try with less workspace need not time again what was timed."""
    trt, deployment = board
    trt.state.workspace_needed = 10**12
    with pytest.raises(Exception, match="memory"):
        build(deployment, (16, 16))
    assert len(list(deployment.glob("engines/*.cache"))) == 1
    tries = [call for call in trt.calls if call[0] == "timings"]
    assert len(tries) > 1 and tries[1] == ("timings", b"timings of 8.5")
    assert np.all([call[1] for call in tries[1:]])
