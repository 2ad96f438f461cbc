"""Parameters and multiply-accumulates: against hand counts, and against the published tables."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sr_deploy.core.contract import IOContract
from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.graph.census import census_of
from sr_deploy.graph.export import graph_from_model
from sr_deploy.graph.target import target_named


class Everything(nn.Module):
    """A dense, a grouped, a strided and a transposed convolution, and a matrix product along the width."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Conv2d(3, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, (1, 5), padding=(0, 2), groups=4)
        self.strided = nn.Conv2d(8, 6, 2, stride=2)
        self.up = nn.ConvTranspose2d(6, 3, 4, stride=4)
        self.matrix = nn.Parameter(torch.randn(20, 20))

    def forward(self, x):
        x = self.grouped(self.dense(x)) @ self.matrix
        return self.up(self.strided(x))


def edsr_like(width, blocks):
    """EDSR's convolutions in their order (He-style residual blocks left out: additions are not counted)."""
    body = [nn.Conv2d(width, width, 3, padding=1) for _ in range(2 * blocks + 1)]
    up = [nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2)]
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), *body, *up, nn.Conv2d(width, 3, 3, padding=1))


def test_hand_count(tmp_path):
    path = tmp_path / "m.onnx"
    graph_from_model(Everything().eval(), IOContract(1.0), path, target_named("any"), (16, 20), (16, 20), {})
    census = census_of(path, (16, 20))
    pixels = 16 * 20
    assert census.macs == (
        pixels * 8 * 3 * 9 + pixels * 8 * 2 * 5 + pixels * 8 * 20 + 8 * 10 * 6 * 8 * 4 + 8 * 10 * 6 * 3 * 16
    )
    assert census.parameters == sum(p.numel() for p in Everything().parameters())
    assert census.largest_tensor_bytes == 4 * 3 * 32 * 40
    # At its peak the graph holds the input and the output of one node: the clamp's, 3 planes each.
    assert census.peak_activation_bytes == max(2 * 4 * 3 * 32 * 40, 2 * 4 * 8 * pixels)


@pytest.mark.parametrize(
    ("weights", "parameters", "size", "giga_macs"),
    [
        ("efdn_x4.pth", 276_192, (180, 320), 14.7),  # EFDN's table: 276K, 14.7 G for a 1280x720 output
        ("span_ch26_x4.pth", 130_828, (256, 256), 8.54),  # DSCLoRA's table: 131K, 8.54 G for a 256x256 input
        ("dsclora_x4.pth", 130_828, (256, 256), 8.54),
        ("f2srgan_x4.pt", 202_233, None, None),
        ("f2srgan_x4_student.pt", 113_145, None, None),
        ("light_f2srgan_x4_whole_module.pt", 77_865, None, None),
    ],
)
def test_published_counts(shared_export, weights, parameters, size, giga_macs):
    deployment = open_deployment(shared_export(weights))
    assert deployment.manifest.parameters == parameters
    if size is not None:
        macs = census_of(deployment.folder / "model.onnx", size).macs / 1e9
        assert round(macs, len(str(giga_macs).split(".")[1])) == giga_macs


@pytest.mark.parametrize(
    ("name", "build", "parameters", "giga_macs"),
    [
        # Published without its two fixed mean shifts; with them counted as 1x1 convolutions it is 316.26 G.
        ("EDSR-baseline", lambda: edsr_like(64, 16), 1_369_859, 316.25),
        ("EDSRmini", lambda: edsr_like(16, 8), 49_603, 11.65),
    ],
)
def test_edsr_counts_at_a_1280x720_output(tmp_path, name, build, parameters, giga_macs):
    path = tmp_path / "m.onnx"
    graph_from_model(build().eval(), IOContract(255.0), path, target_named("any"), None, (16, 20), {})
    census = census_of(path, (360, 640))
    assert census.parameters == parameters
    assert round(census.macs / 1e9, 2) == giga_macs
