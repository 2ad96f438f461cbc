"""Networks that people really have: finite on photographs only, random, frozen by tracing, of the other range."""

from __future__ import annotations

import json
import runpy
import textwrap

import numpy as np
import pytest
import torch

from sr_deploy.core.errors import BadInput
from sr_deploy.core.media.image import Picture, write_picture
from sr_deploy.core.media.natural import natural_input
from sr_deploy.fold import fold

NETWORKS = """
    import torch
    from torch import nn
    from torch.nn import functional as F


    class Up(nn.Module):
        '''Gives back what it is given, larger; what ``between`` does is added.'''

        def __init__(self, times=1.0):
            super().__init__()
            self.c, self.ps = nn.Conv2d(3, 12, 3, 1, 1, bias=False), nn.PixelShuffle(2)
            nn.init.zeros_(self.c.weight)
            for place in range(12):
                self.c.weight.data[place, place // 4, 1, 1] = times

        def between(self, x):
            return x

        def forward(self, x):
            return self.ps(self.c(self.between(x)))


    class Noisy(Up):
        '''Neighbours that differ by more than a photograph's do are squared until they overflow.'''

        def between(self, x):
            d = 0.6 * (2 * x[:, :, :, :-2] - x[:, :, :, 1:-1] - x[:, :, :, 2:])
            for _ in range(10):
                d = d * d
            return x + 1e-30 * F.pad(d, (1, 1, 0, 0))


    class Dropping(Up):
        def __init__(self):
            super().__init__()
            self.inner = Dropped()

        def between(self, x):
            return self.inner(x)


    class Dropped(nn.Module):
        def forward(self, x):
            return F.dropout(x, 0.1)


    class Baked(Up):
        def forward(self, x):
            h, w = int(x.shape[2]), int(x.shape[3])
            y = F.pad(x, (0, -w % 8, 0, -h % 8), mode="reflect")
            return super().forward(y)[:, :, : 2 * h, : 2 * w]


    class Sliced(Up):
        def between(self, x):
            h = int(x.shape[2])
            return x + torch.cat([x.narrow(2, h // 2, h - h // 2), x.narrow(2, 0, h // 2)], dim=2)


    class Repeated(Up):
        '''One filter for as many channels as there are.'''

        def between(self, x):
            return F.conv2d(x, torch.ones(1, 1, 1, 1).repeat(x.shape[1], 1, 1, 1), groups=x.shape[1])


    class Adaptive(Up):
        def between(self, x):
            h, w = x.shape[2:]
            pooled = F.adaptive_max_pool2d(x, (h // 8, w // 8))
            return x + 0.1 * F.interpolate(pooled, (h, w), mode="nearest")


    class Hot(Up):
        '''A layer between two others gives what float16 cannot hold.'''

        def __init__(self):
            super().__init__()
            self.first, self.middle = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 1, 1)
            self.last = nn.Conv2d(8, 3, 3, 1, 1)
            torch.manual_seed(0)
            for part, times in ((self.first, 1.0), (self.middle, 1e6), (self.last, 1e-7)):
                nn.init.normal_(part.weight, std=0.1 * times)

        def between(self, x):
            return x + self.last(torch.relu(self.middle(torch.relu(self.first(x)))))


    class Half(Up):
        def between(self, x):
            return x.half()


    class Ranged(Up):
        '''Of 0…255.'''

        def between(self, x):
            return x + 3.0


    def sized(times, name="Up"):
        return globals()[name](times)
"""


@pytest.fixture
def networks(tmp_path, monkeypatch):
    """A file of networks in the current folder, and a checkpoint of each."""
    (tmp_path / "nets.py").write_text(textwrap.dedent(NETWORKS))
    monkeypatch.chdir(tmp_path)
    weights = torch.zeros(12, 3, 3, 3)
    for place in range(12):
        weights[place, place // 4, 1, 1] = 1.0
    torch.save({"c.weight": weights}, tmp_path / "c.pth")
    return tmp_path


def test_a_network_that_noise_overflows_is_proved_on_photographs(networks, srdeploy):
    done = srdeploy("export", "c.pth", "-o", "net", "--model", "nets.py:Noisy")
    assert done.code == 0, done.err
    assert "note: its output overflows on white noise" in done.err
    manifest = json.loads((networks / "net" / "manifest.json").read_text())
    assert manifest["fold"]["noise_overflows"] is True
    assert max(manifest["proofs"].values()) < 0.05
    built = srdeploy("build", "net", "--size", "20x24", "--backend", "onnxruntime", "--precision", "fp16")
    assert built.code == 0, built.err
    assert "not judged on what the network itself overflows on: noise" in built.err


def test_a_plan_without_any_int8_is_not_called_int8(networks, srdeploy):
    (networks / "few").mkdir()
    pixels = natural_input((96, 96), 255.0)[0].transpose(1, 2, 0).astype(np.uint8)
    write_picture(Picture(pixels), networks / "few" / "cat.png")
    hot = runpy.run_path("nets.py")["Hot"]()
    torch.save(hot.state_dict(), "hot.pth")
    assert srdeploy("export", "hot.pth", "-o", "hot", "--model", "nets.py:Hot", "--value-range", "1").code == 0
    words = ("--size", "20x24", "--backend", "onnxruntime", "--precision", "int8", "--images", "few", "--no-fit")
    done = srdeploy("build", "hot", *words)
    assert done.code == 1 and "no layer of the INT8 plan could be INT8 (" in done.err
    assert not (networks / "hot" / "precision" / "int8").exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--model", "nets.py:Dropping", "--value-range", "1"), 4, "the difference begins in inner (Dropped)"),
        (
            ("--model", "nets.py:Baked", "--value-range", "1"),
            1,
            "the network fixes its size when it is traced: right at",
        ),
        (
            ("--model", "nets.py:Sliced", "--value-range", "1", "--io", "uint8"),
            1,
            "the network fixes its size when it is traced: right at",
        ),
        (
            ("--model", "nets.py:Adaptive", "--value-range", "1"),
            1,
            "with --size HxW it is constant",
        ),
        (
            ("--model", "nets.py:Repeated", "--value-range", "1"),
            1,
            "with --size HxW it is constant; or write it yourself with torch.onnx.export(…, dynamo=True)",
        ),
        (("--model", "nets.py:Half"), 2, "take .half(), autocast"),
        (("--model", "nets.py:sized"), 2, "an argument of the factory: --model-arg NAME=VALUE"),
        (("--model", "nets.py:sized"), 2, "its value range too"),
        (("--model", "nets.py:sized", "--model-arg", "times"), 2, "--model-arg times is no argument"),
        (("--model-arg", "times=2"), 2, "--model-arg has no meaning without --model"),
        (("--model", "nets.py:Up", "--value-range", "1"), 0, "net"),
        (("--model", "nets.py:Ranged"), 0, "note: white is 255: a smooth picture comes back"),
        (("--model", "nets.py:Ranged", "--value-range", "1"), 0, "it looks like 0…255"),
    ],
)
def test_what_helps_is_said(networks, srdeploy, options, code, message):
    done = srdeploy("export", "c.pth", "-o", "net", "--rewrite", "none", *options)
    assert (done.code, message in " ".join(done.err.split())) == (code, True), done.err


def test_the_command_that_the_hint_gives_works(networks, srdeploy):
    done = srdeploy("export", "c.pth", "-o", "net", "--model", "nets.py:Baked", "--value-range", "1")
    command = done.err.split("each size that you need: ")[1].splitlines()[0]
    assert "--size HxW --model nets.py:Baked --value-range 1.0" in command
    words = command.replace("DIR", "net").replace("HxW", "20x27").split()[1:]
    assert srdeploy(*words).code == 0


def test_arguments_of_a_factory_are_kept_for_later(networks, srdeploy):
    asked = ("--model", "nets.py:sized", "--model-arg", "times=1.0", "--model-arg", "name=Up", "--value-range", "1")
    assert srdeploy("export", "c.pth", "-o", "net", *asked).code == 0
    manifest = json.loads((networks / "net" / "manifest.json").read_text())
    assert manifest["source"]["load_options"]["model_arg"] == ["times=1.0", "name=Up"]
    assert manifest["hyperparameters"]["times"] == 1.0


def test_a_network_that_is_never_finite_is_refused():
    class Never(torch.nn.Module):
        def forward(self, x):
            return x / 0.0

    with pytest.raises(BadInput, match="not finite, neither on noise nor on a photograph"):
        fold(Never().eval())
