"""What holds for each of these architectures: found by its keys alone, and what does not fit is refused by name."""

from __future__ import annotations

import pytest
import torch

from sr_deploy.core.errors import BadCheckpoint, UsageError
from sr_deploy.models.architectures.compact import CompactNetwork
from sr_deploy.models.architectures.disp import DISPNetwork
from sr_deploy.models.architectures.dscf import DSCFNetwork
from sr_deploy.models.architectures.ecbsr import ECBSRNetwork
from sr_deploy.models.architectures.esrgan import RRDBNetwork
from sr_deploy.models.architectures.esrgan import Shape as RRDBShape
from sr_deploy.models.architectures.imdn import IMDNNetwork
from sr_deploy.models.architectures.imdn import Shape as IMDNShape
from sr_deploy.models.architectures.rfdn import RFDNNetwork
from sr_deploy.models.architectures.rlfn import BlockShape, RLFNNetwork
from sr_deploy.models.architectures.spanf import SPANFNetwork
from sr_deploy.models.architectures.spanv2 import SPANV2Network
from sr_deploy.models.base import Asked
from sr_deploy.models.registry import ARCHITECTURES, architecture_named, model_from_tensors, nearest_architecture
from tests.models.random_weights import random_tensors

#: The smallest of each, x2.
TINY = {
    "SPANF": lambda: SPANFNetwork(width=4, blocks=3, scale=2, gain=None),
    "SPANV2": lambda: SPANV2Network(width=4, blocks=3, scale=2, bias=False),
    "DSCF": lambda: DSCFNetwork(width=4, blocks=2, scale=2, gain=None),
    "DISP": lambda: DISPNetwork(width=4, blocks=2, between=1, scale=2, gain=None),
    "RFDN": lambda: RFDNNetwork(width=4, distilled=2, reduced=2, blocks=2, scale=2),
    "RLFN": lambda: RLFNNetwork(width=4, shapes=[BlockShape(5, 6, 2)], scale=2),
    "IMDN": lambda: IMDNNetwork(IMDNShape(width=8, distilled=2, reduced=2, blocks=2, joined=True, scale=2)),
    "ESRGAN": lambda: RRDBNetwork(RRDBShape(width=4, growth=2, blocks=2, doublings=1, unshuffle=1, plus=False)),
    "ECBSR": lambda: ECBSRNetwork((3, 4, 4, 12), scale=2, activation="prelu", middles=(), identity=False),
    "Compact": lambda: CompactNetwork(width=4, convolutions=2, scale=2, activation="prelu"),
}


@pytest.fixture(params=TINY)
def case(request):
    """(architecture, its tensors, a bias's key: of what shapes tell, none is told by a bias)."""
    tensors = random_tensors(TINY[request.param]())
    bias = [key for key in tensors if key.endswith("bias")][-1]
    return architecture_named(request.param), tensors, bias


def test_one_architecture_recognises_it_and_its_network_runs(case):
    architecture, tensors, _ = case
    assert [one.name for one in ARCHITECTURES if one.detect(tensors)] == [architecture.name]
    assert nearest_architecture(tensors) == (architecture.name, 1.0)
    loaded = model_from_tensors(tensors, Asked(), None)
    assert (loaded.architecture, loaded.scale) == (architecture.name, 2)
    assert loaded.parameters == sum(value.numel() for value in tensors.values())
    edge = loaded.sizes.fit(5)
    assert loaded.module(torch.rand(1, 3, edge, edge + 3)).shape == (1, 3, 2 * edge, 2 * edge + 6)


def test_what_does_not_fit_is_refused_by_name(case):
    architecture, tensors, bias = case
    shape, wrong = tuple(tensors[bias].shape), torch.zeros(tensors[bias].numel() + 1)
    changes = {
        f"missing {bias}": {key: value for key, value in tensors.items() if key != bias},
        "unexpected surplus.gain": {**tensors, "surplus.gain": torch.ones(1)},
        f"{bias} is {tuple(wrong.shape)}, the network has {shape}": {**tensors, bias: wrong},
        f"NaN or infinite weights in {bias}": {**tensors, bias: torch.full(shape, float("nan"))},
    }
    for message, changed in changes.items():
        with pytest.raises(BadCheckpoint) as caught:
            architecture.load(changed, Asked())
        assert message in caught.value.found


def test_values_that_it_does_not_use_are_refused(case):
    architecture, tensors, _ = case
    for asked, message in ((Asked(scale=3), "--scale 3"), (Asked(res_scale=1.0), "--res-scale")):
        with pytest.raises(UsageError, match=message):
            architecture.load(tensors, asked)
