"""The folders that a board imports: the grammar of Python 3.8, no heavy library during a build, and a real 3.8."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.pythons import built_wheel, interpreters, material, requirements, run_python

PACKAGE = Path(__file__).resolve().parents[1] / "sr_deploy"
#: cli and pipeline are what the commands go through on a board; demo and the folders left of engine are for the PC.
BOARD = ("core", "engine", "run", "bench", "report", "bundle", "pipeline", "cli")
FILES = sorted(path for folder in BOARD for path in (PACKAGE / folder).rglob("*.py"))


def test_the_grammar_is_that_of_python_3_8():
    for path in FILES:
        ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 8))


#: Attributes that Python 3.8 lacks, by the module or type they belong to; a board meets them at run time only.
YOUNGER = {"removeprefix", "removesuffix", "bit_count", "with_stem", "is_relative_to", "readlink", "pairwise"}


def test_nothing_is_called_that_python_3_8_lacks():
    wrong = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in YOUNGER:
                wrong.append(f"{path}:{node.lineno} .{node.attr}")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("zip", "dataclass"):
                words = {word.arg for word in node.keywords} & {"strict", "slots", "kw_only"}
                wrong += [f"{path}:{node.lineno} {node.func.id}({word}=…)" for word in sorted(words)]
    assert not wrong


def test_numpy_bool_of_tensorrt_8_5_is_never_met():
    """trt.nptype uses np.bool in 8.5, which numpy 1.24 removed."""
    for path in FILES:
        names = {node.attr for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Attribute)}
        assert "nptype" not in names, path


def test_a_build_loads_no_heavy_part_of_python(demo_export, tmp_path):
    """A board has little memory: neither torch, onnx, matplotlib nor OpenCV is in the process that builds."""
    deployment = shutil.copytree(demo_export, tmp_path / "deployment")
    code = (
        "import sys; from pathlib import Path\n"
        "from sr_deploy.pipeline.engines.build import build_engines\n"
        "from sr_deploy.pipeline.engines.request import BuildOptions\n"
        f"build_engines(BuildOptions(Path({str(deployment)!r}), 'onnxruntime', ((16, 16),)))\n"
        "print(' '.join(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "onnxruntime" in loaded
    assert not loaded & {"torch", "onnx", "onnx_graphsurgeon", "polygraphy", "matplotlib", "cv2", "scipy"}


def test_a_board_without_room_is_told_before_the_build(demo_export, tmp_path, monkeypatch):
    """The whole command on a Jetson that is not there: machine and TensorRT 8.5 are stand-ins, the rest is real."""
    import dataclasses

    import sr_deploy.engine.tensorrt
    import sr_deploy.pipeline.engines.build as pipeline
    import sr_deploy.pipeline.engines.build_tensorrt as builder
    import sr_deploy.pipeline.engines.request as request
    from sr_deploy.core.errors import EnvironmentFault
    from sr_deploy.core.host.machine import Gpu, Jetson, this_machine
    from sr_deploy.engine.flavour import logger_of
    from tests.engine.standin_8_5 import stand_in

    trt = stand_in()
    gpu = Gpu("NVIDIA Jetson Xavier NX (integrated)", "7.2", None, None)
    jetson = Jetson("NVIDIA Jetson Xavier NX", "35.4.1", 8, "")
    board = dataclasses.replace(this_machine(), gpus=(gpu,), jetson=jetson, memory_available_bytes=4 * 10**9)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr(sr_deploy.engine.tensorrt, "this_machine", lambda: board)
    for module in (builder, request):
        monkeypatch.setattr(module, "this_machine", lambda: board)
    logger_of.cache_clear()
    deployment = shutil.copytree(demo_export, tmp_path / "deployment")
    manifest = pipeline.build_engines(pipeline.BuildOptions(deployment, "tensorrt", ((144, 144),)))[0]
    assert 10**9 < int(manifest.settings["workspace_bytes"]) < 2 * 10**9
    trt.calls.clear()
    with pytest.raises(EnvironmentFault, match="(?s)needs .* MB for activations .*4000 MB are free"):
        pipeline.build_engines(pipeline.BuildOptions(deployment, "tensorrt", ((4320, 7680),)))
    assert not trt.calls
    logger_of.cache_clear()


@pytest.mark.timeout(900)
def test_python_3_8_really_runs(tmp_path):
    """The wheel in a fresh 3.8. Minutes of installing: asked for with SRDEPLOY_PYTHON38=1."""
    python = interpreters().get("3.8")
    if python is None:
        pytest.skip("there is no Python 3.8 here")
    if not os.environ.get("SRDEPLOY_PYTHON38"):
        pytest.skip("set SRDEPLOY_PYTHON38=1, or run tests/benchmarks/pythons.py: the installation takes minutes")
    wanted, (deployment, lr, hr) = requirements(built_wheel(tmp_path)), material(tmp_path)
    rows = run_python(python, wanted, deployment, lr, hr, tmp_path / "3.8")
    assert not [(name, problem) for name, _, problem in rows if problem]
    assert {"doctor", "build", "run", "bench", "verify", "gate", "inspect"} <= {name for name, _, _ in rows}
