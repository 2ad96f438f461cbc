"""``import sr_deploy`` and ``srdeploy --help`` stay light."""

from __future__ import annotations

import subprocess
import sys


def loaded_after(statement: str) -> set:
    code = f"{statement}\nimport sys\nprint(' '.join(sorted({{m.split('.')[0] for m in sys.modules}})))"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_import_pulls_in_no_torch():
    assert not loaded_after("import sr_deploy") & {"torch", "onnx", "onnxruntime", "numpy", "cv2", "matplotlib"}


def test_command_line_pulls_in_no_heavy_library():
    assert not loaded_after("import sr_deploy.cli") & {"torch", "onnx", "onnxruntime", "cv2", "matplotlib", "tensorrt"}


def test_board_folders_pull_in_no_torch_and_no_onnx():
    statement = "import sr_deploy.engine.manifest, sr_deploy.run.base, sr_deploy.bench.sweep, sr_deploy.report.table"
    assert not loaded_after(statement) & {"torch", "onnx"}


def test_public_fold_is_reachable():
    code = "import sr_deploy, sys; sr_deploy.fold.fold; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
