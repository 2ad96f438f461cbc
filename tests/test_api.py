"""The door for Python: the lines of the README run, and give what the commands give."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sr_deploy
from sr_deploy.core.errors import BadImage, UsageError
from sr_deploy.core.media.image import Picture, read_picture, write_picture
from sr_deploy.pipeline.demo import ASSETS

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    net = tmp_path_factory.mktemp("api") / "net"
    assert sr_deploy.export(ASSETS / "demo_x2.safetensors", net).scale == 2
    return net


def pixels(dtype, height=20, width=31):
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max, (height, width, 3), dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_array_gives_what_the_command_writes(folder, srdeploy, tmp_path, dtype):
    lr = pixels(dtype)
    write_picture(Picture(lr), tmp_path / "a.png")
    assert srdeploy("run", folder, "-i", tmp_path / "a.png", "-o", tmp_path / "out").code == 0
    with sr_deploy.open(folder) as net:
        sr = net.upscale(lr)
        assert sr.dtype == dtype and sr.shape == (40, 62, 3)
        assert np.array_equal(sr, read_picture(tmp_path / "out" / "a.png").pixels)
        assert np.array_equal(net.upscale(str(tmp_path / "a.png")), sr)
        net.close()
        assert np.array_equal(net.upscale(lr), sr)


def test_build_bench_verify(folder, tmp_path):
    (engine,) = sr_deploy.build(folder, (24, 32), backend="onnxruntime")
    with sr_deploy.open(folder) as net:
        assert [one.file for one in net.engines] == [engine.file] == ["onnxruntime_24x32.onnx"]
        (point,) = net.bench("24x32", runs=3, watch=False).points
        assert point.median_s > 0
        for name, picture in (("lr", pixels(np.uint8, 24, 32)), ("hr", pixels(np.uint8, 48, 64))):
            (tmp_path / name).mkdir()
            write_picture(Picture(picture), tmp_path / name / "a.png")
        assert net.verify(tmp_path / "lr", tmp_path / "hr").worst < 0.05


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((4, 4), np.uint8), ((4, 4, 3), np.float64), ((0, 4, 3), np.uint8), ((4, 4, 4), np.uint8)],
)
def test_arrays_that_are_no_pictures(folder, shape, dtype):
    bad = np.zeros(shape, dtype)
    with pytest.raises(BadImage, match="uint8 or uint16"):
        sr_deploy.open(folder).upscale(bad)


def test_options_that_do_not_exist(folder, tmp_path):
    with pytest.raises(UsageError, match="no option sized"):
        sr_deploy.export(ASSETS / "demo_x2.safetensors", tmp_path / "n", sized="1x1")
    with pytest.raises(UsageError, match="no option precison"):
        sr_deploy.build(folder, precison="int8")
    with pytest.raises(UsageError, match="no option second"):
        sr_deploy.open(folder).bench("24", second=1)


def test_a_named_engine_is_not_passed_over_by_a_sweep(folder):
    with pytest.raises(UsageError, match="chooses its engines by size"):
        sr_deploy.open(folder, engine=folder / "engines" / "x.onnx").bench("24")


def test_importing_loads_no_torch():
    code = "import sr_deploy, sys; sr_deploy.open; print(sorted({'torch', 'onnx', 'cv2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_lines_of_the_readme_run(tmp_path):
    """The first Python block of the README, word for word, beside a network and a picture of the names it uses."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(import sr_deploy\n.*?)```", text, re.DOTALL).group(1)
    (tmp_path / "efdn_x4.pth").write_bytes((ASSETS / "demo_x2.safetensors").read_bytes())
    write_picture(Picture(pixels(np.uint8)), tmp_path / "photo.png")
    (tmp_path / "upscaled").mkdir()
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_sizes_as_people_write_them():
    from sr_deploy.api import sizes_of

    assert sizes_of((360, 640)) == ((360, 640),) and sizes_of("144,360x640") == ((144, 144), (360, 640))
    assert sizes_of(["144", (360, 640)]) == ((144, 144), (360, 640))
    for wrong in ([144, 360, 720], [144, "360"], [144]):
        with pytest.raises(UsageError, match="the number 144 alone is no size"):
            sizes_of(wrong)
