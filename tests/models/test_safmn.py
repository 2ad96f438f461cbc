"""SAFMN of NTIRE 2023: the shared file loads, its dynamic graph is right, and its pooling is the published one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.errors import BadCheckpoint, UsageError
from sr_deploy.models.architectures.safmn import POOLS, SAFMN, Modulation, SAFMNNetwork
from sr_deploy.models.base import Asked


def tensors(scale=2):
    torch.manual_seed(0)
    return SAFMNNetwork(width=8, hidden=16, blocks=2, scale=scale).state_dict()


def test_shapes_tell_everything():
    loaded = SAFMN.load(tensors(scale=3), Asked())
    assert (loaded.scale, loaded.sizes.multiple) == (3, 16)
    assert loaded.hyperparameters == {"width": 8, "hidden": 16, "blocks": 2}
    assert loaded.module(torch.rand(1, 3, 32, 48)).shape == (1, 3, 96, 144)


def test_pooling_is_the_adaptive_pooling_of_the_published_code():
    torch.manual_seed(1)
    block, x = Modulation(8).eval(), torch.rand(1, 8, 32, 48)
    parts = []
    for level, (convolution, part) in enumerate(zip(block.mfr, x.chunk(4, dim=1))):
        divisor = POOLS[level]
        pooled = part if level == 0 else F.adaptive_max_pool2d(part, (32 // divisor, 48 // divisor))
        parts.append(F.interpolate(convolution(pooled), size=(32, 48), mode="nearest"))
    expected = F.gelu(block.aggr(torch.cat(parts, dim=1))) * x
    assert torch.equal(block(x), expected)


def test_bad_files():
    with pytest.raises(BadCheckpoint, match=r"missing norm\.beta"):
        SAFMN.load({key: value for key, value in tensors().items() if key != "norm.beta"}, Asked())
    with pytest.raises(UsageError, match="--scale 4"):
        SAFMN.load(tensors(), Asked(scale=4))


def test_shared_file_is_deployed(shared_export):
    deployment = open_deployment(shared_export("safmn_x4.pth"))
    assert (deployment.manifest.architecture, deployment.manifest.scale) == ("SAFMN", 4)
    assert deployment.manifest.parameters == 237_000
    assert len(deployment.manifest.proofs) >= 3
