"""Finding out which architecture a checkpoint is, and saying so when it is none."""

from __future__ import annotations

import pytest
import torch

from sr_deploy.core.errors import BadCheckpoint, UnknownArchitecture, UsageError
from sr_deploy.models.architectures.edsr import BasicSREDSR, HeadBodyTailEDSR
from sr_deploy.models.architectures.swinir import LightweightSwinIR, SwinShape
from sr_deploy.models.base import Asked
from sr_deploy.models.registry import (
    ARCHITECTURES,
    architecture_named,
    detect_architecture,
    model_from_tensors,
    nearest_architecture,
)

#: Checkpoints that torch itself reads, where their tensors are, and what they are.
FILES = (
    ("efdn_x4.pth", "EFDN"),
    ("efdn_x2.pth", "EFDN"),
    ("span_ch26_x4.pth", "SPAN"),
    ("span_ch28_x4.pth", "SPAN"),
    ("dsclora_x4.pth", "SPAN"),  # merged: nothing in it tells it from SPAN
    ("f2srgan_x4.pt", "F2SRGAN"),
    ("f2srgan_x2.pt", "F2SRGAN"),
    ("f2srgan_x4_qat.pth.tar", "F2SRGAN"),
    ("f2srgan_x4_student.pt", "F2SRGAN-student"),
)


def tensors_of(path):
    """The tensors of a file, wherever they lie in it."""
    found = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("params_ema", "params", "state_dict", "model"):
        found = found.get(key, found)
    return found


def own_tensors():
    shape = SwinShape(dim=12, window=8, heads=2, hidden=24, qkv_bias=True)
    identity = {"sub_mean.weight": torch.eye(3).view(3, 3, 1, 1), "sub_mean.bias": torch.full((3,), -110.0)}
    return {
        "EDSR": {**HeadBodyTailEDSR(8, 2, 2, 1.0).state_dict(), **identity},
        "EDSR (BasicSR)": BasicSREDSR(8, 2, 2, 1.0).state_dict(),
        "SwinIR": LightweightSwinIR([2], [shape], False, 2).state_dict(),
    }


def test_names_are_unique_whatever_their_case():
    names = [architecture.name.lower() for architecture in ARCHITECTURES]
    assert len(set(names)) == len(names)
    for architecture in ARCHITECTURES:
        assert architecture_named(architecture.name.upper()) is architecture


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UsageError) as caught:
        architecture_named("ESDR")
    assert "ESDR" in caught.value.found
    assert all(architecture.name in caught.value.wanted for architecture in ARCHITECTURES)


@pytest.mark.parametrize(("file", "name"), FILES)
def test_published_files_are_recognised_by_one_architecture_only(assets, file, name):
    tensors = tensors_of(assets / "weights" / file)
    assert detect_architecture(tensors).name == name
    assert [a.name for a in ARCHITECTURES if a.detect(tensors)] == [name]
    assert nearest_architecture(tensors) == (name, 1.0)


@pytest.mark.parametrize("which", ["EDSR", "EDSR (BasicSR)", "SwinIR"])
def test_edsr_and_swinir_are_recognised_by_one_architecture_only(which):
    tensors = own_tensors()[which]
    name = which.split(" ")[0]
    assert [a.name for a in ARCHITECTURES if a.detect(tensors)] == [name]
    assert nearest_architecture(tensors) == (name, 1.0)
    assert model_from_tensors(tensors, Asked(res_scale=1.0 if name == "EDSR" else None), None).architecture == name


def test_detection_survives_any_tensors():
    shapeless = {key: torch.zeros(()) for tensors in own_tensors().values() for key in tensors}
    for tensors in ({}, {"a": torch.tensor(1)}, shapeless):
        for architecture in ARCHITECTURES:
            assert architecture.detect(tensors) in (True, False)


def test_the_nearest_is_found_behind_an_unknown_prefix():
    tensors = {f"net.backbone.{key}": value for key, value in own_tensors()["SwinIR"].items()}
    assert detect_architecture(tensors) is None
    assert nearest_architecture(tensors) == ("SwinIR", 1.0)


def test_an_unknown_checkpoint_is_described(torchvision_operators):
    tensors = {f"encoder.{i}.weight": torch.zeros(4, i + 1) for i in range(8)}
    tensors["head.weight"] = torch.zeros(48, 3, 3, 3)
    with pytest.raises(UnknownArchitecture) as caught:
        model_from_tensors(tensors, Asked(), None)
    error = caught.value
    assert error.exit_code == 4
    for part in ("9 tensors", "encoder.0.weight (4, 1)", "encoder.5.weight (4, 6), …", "nearest is EFDN: 25%"):
        assert part in error.found
    assert "--arch NAME" in error.todo
    assert "--model pkg.module:factory" in error.todo
    assert all(architecture.name in error.wanted for architecture in ARCHITECTURES)


def test_nothing_in_common_is_said(torchvision_operators):
    with pytest.raises(UnknownArchitecture, match="none of the typical keys"):
        model_from_tensors({"encoder.weight": torch.zeros(4, 4)}, Asked(), None)


@pytest.mark.parametrize("name", [architecture.name for architecture in ARCHITECTURES])
def test_forcing_an_architecture_that_does_not_fit_is_refused(name):
    for tensors in ({"encoder.weight": torch.zeros(4, 4)}, {}):
        with pytest.raises(BadCheckpoint):
            model_from_tensors(tensors, Asked(res_scale=None, lora_alpha=None), name.lower())


def test_forcing_skips_the_search(assets):
    tensors = tensors_of(assets / "weights" / "dsclora_x4.pth")
    assert model_from_tensors(tensors, Asked(), "dsclora").architecture == "DSCLoRA"


@pytest.mark.parametrize(
    ("file", "asked", "message"),
    [
        ("efdn_x4.pth", Asked(res_scale=1.0), "--res-scale"),
        ("efdn_x4.pth", Asked(lora_alpha="16"), "--lora-alpha"),
        ("efdn_x4.pth", Asked(scale=2), "--scale 2"),
        ("efdn_x4.pth", Asked(value_range=1.0), "--value-range 1.0"),
        ("span_ch26_x4.pth", Asked(lora_alpha="2r"), "--lora-alpha"),
        ("span_ch26_x4.pth", Asked(res_scale=1.0), "--res-scale"),
        ("f2srgan_x2.pt", Asked(scale=4), "--scale 4"),
        ("f2srgan_x4.pt", Asked(res_scale=0.1), "--res-scale"),
        ("f2srgan_x4_student.pt", Asked(lora_alpha="1"), "--lora-alpha"),
    ],
)
def test_values_that_an_architecture_does_not_use_are_refused(assets, file, asked, message):
    with pytest.raises(UsageError, match=message):
        model_from_tensors(tensors_of(assets / "weights" / file), asked, None)
