"""The README's commands, as they stand there: a researcher's way to a board, on a small network."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from sr_deploy.core.media.image import Picture, read_picture, write_picture
from sr_deploy.pipeline.demo import ASSETS

README = Path(__file__).resolve().parents[1] / "README.md"
#: What cannot be as it stands there: no TensorRT is here, and pictures of 360 rows take minutes on a CPU.
INSTEAD = {
    "--backend tensorrt": "--backend onnxruntime",
    "360x640": "40x52",
    "144,360": "40x52,36",
    "--golden-size 360": "--golden-size 40x52",
    "--minutes 15": "--steps 2 --batch 1 --patch 16",
    # Plans with painted pictures too are those of tests/pipeline/test_precision.py; they take most of the time.
    "--precision fp16": "--precision fp16 --content photo",
    "--precision int8 --images photos/": "--precision int8 --images photos/ --content photo",
    "--psnr-budget 0.1 --images photos/": "--psnr-budget 0.1 --images photos/ --content photo",
    "qat efdn --images photos/": "qat efdn --images photos/ --content photo",
}


def block(heading):
    """The commands of the first block below a heading, comments left out, those joined by && one by one."""
    text = README.read_text(encoding="utf-8").split(f"## {heading}\n")[1]
    (found, *_) = re.findall(r"```\n(.*?)```", text, re.DOTALL)
    lines = [line.split(" #")[0].strip() for line in found.splitlines()]
    return [part.strip() for line in lines for part in line.split("&&")]


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with what the commands name: a checkpoint and photographs."""
    folder = tmp_path_factory.mktemp("afternoon")
    for name in ("efdn_x4.pth", "net.pth"):
        (folder / name).write_bytes((ASSETS / "demo_x2.safetensors").read_bytes())
    pixels = read_picture(ASSETS / "demo.png").pixels
    for number in range(4):
        corner = pixels[20 * number : 20 * number + 40, 30 * number : 30 * number + 52]
        write_picture(Picture(np.ascontiguousarray(corner)), folder / "photos" / f"{number}.png")
    return folder


@pytest.mark.parametrize("heading", ["Your own network, in three commands", "FP16 and INT8", "To a board, in one file"])
def test_a_block_of_the_readme_runs(desk, srdeploy, monkeypatch, heading):
    monkeypatch.chdir(desk)
    commands = block(heading)
    assert len(commands) >= 3 and all(command.startswith("srdeploy ") for command in commands)
    for command in commands:
        for words, others in INSTEAD.items():
            command = command.replace(words, others)
        if "srdeploy unpack" in command:
            # The board is another machine: there is no folder of that name yet.
            (desk / "net").rename(desk / "net-on-the-pc")
        outcome = srdeploy(*shlex.split(command)[1:])
        assert outcome.code == 0, (command, outcome.err)
    if heading.startswith("To a board"):
        assert "int8, the deployment's default" in srdeploy("run", "net", "-i", "photos/1.png", "-o", "out").err
