"""Networks that begin their training: each repeats pixels, and its tensors are what its files hold."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F

from sr_deploy.models.base import Asked
from sr_deploy.models.registry import ARCHITECTURES, architecture_named, model_from_tensors
from sr_deploy.models.renaming import names_in_file

#: The smallest of each.
SIZES = {
    "EDSR": {"width": 4, "blocks": 1},
    "SwinIR": {"width": 6, "depths": [2], "heads": 2, "window": 4},
    "EFDN": {"width": 6, "half": 3, "attention": 2, "expanded": 4},
    "SPAN": {"width": 4},
    "DSCLoRA": {"width": 4},
}


def test_every_architecture_that_can_begin_is_here():
    assert set(SIZES) == {row.name for row in ARCHITECTURES if row.training.fresh is not None}


@pytest.mark.parametrize(("name", "scale"), [(name, 2) for name in SIZES] + [("EDSR", 3), ("EDSR", 4), ("EFDN", 4)])
def test_a_new_network_repeats_pixels_and_loads_as_its_files_do(name, scale):
    torch.manual_seed(0)
    training = architecture_named(name).training
    network = training.fresh(scale, **SIZES[name])
    low = torch.rand(1, 3, 16, 20)
    with torch.no_grad():
        made = network(low)
    assert float((made - F.interpolate(low, scale_factor=float(scale))).abs().max()) < 0.05
    names = names_in_file(network, training.file_names)
    tensors = {names[key]: value for key, value in network.state_dict().items()}
    loaded = model_from_tensors(tensors, Asked(res_scale=1.0 if name == "EDSR" else None), None)
    assert loaded.scale == scale and loaded.architecture == ("SPAN" if name == "DSCLoRA" else name)
    with torch.no_grad():
        assert torch.equal(loaded.module(low), made)
    # What goes back into a file has the names that came out of it.
    assert {loaded.file_names.get(key, key) for key in loaded.module.state_dict()} == set(tensors)
    assert [path for path, _ in network.named_modules() if re.fullmatch(training.features, path)]
    assert [key for key, _ in network.named_parameters() if key.startswith(training.deep)]
    begun = [parameter for key, parameter in network.named_parameters() if key.endswith(".mask")]
    assert all(int(mask.count_nonzero()) for mask in begun)
