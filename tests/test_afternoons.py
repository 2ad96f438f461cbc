"""Two afternoons from end to end, in the README's words: a researcher's with a network that nobody knows, and a clip's.

An engineer's, from a baseline to a regression found, is in tests/cli/test_ci_templates.py: the templates are its words.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
from collections import Counter

import numpy as np
import onnx
import pytest

from sr_deploy.bench.result import load_result
from sr_deploy.core.contract import IOContract
from sr_deploy.core.media.image import Picture, read_picture, write_picture
from sr_deploy.core.media.video.clip import Assumed
from sr_deploy.core.media.video.raw import raw_of_tensor, y4m_form
from sr_deploy.pipeline.demo import ASSETS
from tests.test_readme import README

#: What a researcher has: a file with a network of RepVGG blocks that folds nothing itself.
NETWORK = """import torch
from torch import nn

class RepVGG(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.narrow = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width))
        self.same = nn.BatchNorm2d(width)

    def forward(self, x):
        return torch.relu(self.wide(x) + self.narrow(x) + self.same(x))

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.body = nn.Conv2d(3, 8, 3, padding=1), nn.Sequential(RepVGG(8), RepVGG(8))
        self.tail, self.up = nn.Conv2d(8, 12, 3, padding=1), nn.PixelShuffle(2)

    def forward(self, lr):
        near = nn.functional.interpolate(lr, scale_factor=2.0, mode="nearest")
        return near + 0.05 * self.up(self.tail(self.body(self.head(lr))))

def factory():
    return Network()
"""


def quoted(words: str) -> list:
    """A command that stands in the README in these words, less ``srdeploy``."""
    assert words in README.read_text(encoding="utf-8"), f"the README has no longer: {words}"
    return shlex.split(words.removeprefix("srdeploy "))


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with a network's file, its checkpoint, and photographs."""
    import torch

    folder = tmp_path_factory.mktemp("afternoon")
    (folder / "net.py").write_text(NETWORK)
    names = {}
    exec(NETWORK, names)
    torch.manual_seed(0)
    network = names["factory"]()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    torch.save({"state_dict": network.state_dict()}, folder / "net.pth")
    pixels = read_picture(ASSETS / "demo.png").pixels
    for number in range(3):
        corner = pixels[20 * number : 20 * number + 48, 30 * number : 30 * number + 64]
        write_picture(Picture(np.ascontiguousarray(corner)), folder / "photos" / f"{number}.png")
    return folder


@pytest.fixture
def done(desk, srdeploy, monkeypatch):
    """Runs a command at the desk; what it printed, where it succeeded."""
    monkeypatch.chdir(desk)

    def command(*words):
        outcome = srdeploy(*words)
        assert outcome.code == 0, (words, outcome.err)
        return outcome

    return command


def test_a_researchers_afternoon(desk, done):
    own = quoted("--model net.py:factory")
    told = done(*quoted("srdeploy export net.pth -o net"), *own, "--value-range", 1, "--json")
    assert json.loads(told.out) == json.loads((desk / "net" / "manifest.json").read_text())
    operators = Counter(node.op_type for node in onnx.load(str(desk / "net" / "model.onnx")).graph.node)
    assert operators["Conv"] == 4 and "BatchNormalization" not in operators, told.err
    int8 = ("--backend", "onnxruntime", "--size", "48x64")
    done(*quoted("srdeploy build net --precision int8 --images photos/"), *int8)
    assert "int8, the deployment's default" in done("run", "net", "-i", "photos/", "-o", "upscaled/").err
    assert read_picture(desk / "upscaled" / "2.png").pixels.shape == (96, 128, 3)
    matrix = (
        'deployments = ["net"]\nsizes = ["24", "48x64"]\nbackends = ["onnxruntime"]\nprecisions = ["fp32"]\nruns = 10\n'
    )
    (desk / "MATRIX.toml").write_text(matrix)
    measured = json.loads(done(*quoted("sweep MATRIX.toml -o DIR"), "--json").out)["results"]
    assert len(load_result(desk / measured[0]).points) == 2
    done("report", "net", *quoted("-o page.html"))
    page = (desk / "page.html").read_text()
    assert "INT8" in page and "48x64" in page
    packed = quoted("pack DIR -o net.srd")
    packed[1] = "net"
    printed = done(*packed, *int8)
    assert re.search(r"\b[0-9a-f]{64}\b", printed.out + printed.err)
    (desk / "net").rename(desk / "net-on-the-pc")
    done(*quoted("srdeploy unpack net.srd -o net --build"))
    assert "int8" in done("run", "net", "-i", "photos/1.png", "-o", "one.png").err
    # The board's picture is the PC's, to the byte.
    assert (read_picture(desk / "one.png").pixels == read_picture(desk / "upscaled" / "1.png").pixels).all()


def test_a_clip_and_a_pipe(desk, done):
    pytest.importorskip("av", reason="PyAV is not installed (the extra video)")
    from tests.clips import Spec, make_clip

    done("export", "net.pth", "-o", "film", *quoted("--model net.py:factory"), "--value-range", 1)
    make_clip(desk / "a.mp4", Spec(size=(24, 32), frames=6, audio=True))
    (command,) = re.findall(r"`(run net -i a\.mp4 -o b\.mp4)`", README.read_text(encoding="utf-8"))
    done(*shlex.split(command.replace("net", "film")))
    import av

    with av.open(str(desk / "b.mp4")) as clip:
        assert sum(1 for _ in clip.decode(video=0)) == 6
        video = clip.streams.video[0]
        assert (video.height, video.width) == (48, 64) and len(clip.streams.audio) == 1
    # What ffmpeg -f yuv4mpegpipe sends, through the middle of the README's pipes.
    (middle,) = set(re.findall(r"\| (srdeploy run net -i - -o - --y4m)", README.read_text("utf-8")))
    head = b"YUV4MPEG2 W32 H24 F25:1 Ip A1:1 C420jpeg\n"
    form, _ = y4m_form(io.BytesIO(head), Assumed())
    raw = raw_of_tensor(np.full((1, 3, 24, 32), 0.5, np.float32), form, IOContract(1.0))
    command = [sys.executable, "-m", "sr_deploy.cli", *shlex.split(middle.replace("net", "film"))[1:]]
    given = head + (b"FRAME\n" + raw) * 3
    out = subprocess.run(command, input=given, stdout=subprocess.PIPE, check=True, cwd=desk).stdout
    assert out.startswith(b"YUV4MPEG2 W64 H48 F25:1") and out.count(b"FRAME\n") == 3
