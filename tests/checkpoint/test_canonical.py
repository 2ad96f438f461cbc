"""Nested, prefixed, half-precision: all come out as the one flat float32 state dict."""

from __future__ import annotations

import collections

import pytest
import torch
from safetensors.torch import save_file

from sr_deploy.checkpoint.canonical import NESTED_UNDER, PREFIXES, in_float32, strip_prefixes
from sr_deploy.checkpoint.read import checkpoint_from_file
from sr_deploy.core.errors import BadCheckpoint, UsageError

FLAT = {"head.weight": torch.arange(12.0).reshape(3, 4), "tail.bias": torch.tensor([1.0, 2.0])}
OPTIMISER = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}


def saved(tmp_path, value, container="zip"):
    path = tmp_path / "c.pth"
    torch.save(value, path, _use_new_zipfile_serialization=container == "zip")
    return path


def assert_flat(found):
    assert list(found.tensors) == list(FLAT)
    assert all(torch.equal(found.tensors[key], FLAT[key]) for key in FLAT)


class Settings(dict):
    """A dictionary of a class of its own, as configuration packages have them."""


@pytest.mark.parametrize("container", ["zip", "legacy"])
@pytest.mark.parametrize("prefix", ["", "module.", "network.", "model.", "generator.", "net_g.", "module.model."])
@pytest.mark.parametrize("nest", ["", *NESTED_UNDER])
def test_every_nest_with_every_prefix(tmp_path, container, prefix, nest):
    state = collections.OrderedDict((prefix + key, tensor) for key, tensor in FLAT.items())
    found = checkpoint_from_file(saved(tmp_path, {nest: state, "epoch": 3} if nest else state, container))
    assert_flat(found)
    assert (found.found_under, found.stripped_prefix, found.container) == (nest, prefix, container)
    assert ("not read: epoch" in found.notes) == bool(nest)


@pytest.mark.parametrize("prefix", ["module.", "network.", "module._orig_mod."])
def test_prefixes_in_safetensors(tmp_path, prefix):
    save_file({prefix + key: tensor for key, tensor in FLAT.items()}, tmp_path / "a.safetensors")
    found = checkpoint_from_file(tmp_path / "a.safetensors")
    assert_flat(found)
    assert (found.found_under, found.stripped_prefix) == ("", prefix)


def test_two_levels(tmp_path):
    found = checkpoint_from_file(saved(tmp_path, {"model": {"state_dict": FLAT}}))
    assert_flat(found)
    assert found.found_under == "model.state_dict"
    assert_flat(checkpoint_from_file(found.path, under="model.state_dict"))


def test_order_of_preference_and_the_note_on_it(tmp_path):
    other = {key: tensor + 1 for key, tensor in FLAT.items()}
    for first, second in zip(NESTED_UNDER, NESTED_UNDER[1:]):
        found = checkpoint_from_file(saved(tmp_path, {second: other, first: FLAT}))
        assert_flat(found)
        assert found.found_under == first
        assert f"took the tensors under {first}; there are others under {second}" in found.notes
    assert NESTED_UNDER.index("params_ema") < NESTED_UNDER.index("params")


def test_optimiser_states_are_no_network(tmp_path):
    for name in ("opti", "optimizer", "model"):
        with pytest.raises(BadCheckpoint, match="no tensors"):
            checkpoint_from_file(saved(tmp_path, {name: OPTIMISER}))
    found = checkpoint_from_file(saved(tmp_path, {"opti": OPTIMISER, "model": FLAT}))
    assert_flat(found)
    assert found.notes == ("not read: opti",)


def test_one_unknown_name_is_taken_and_two_are_asked_about(tmp_path):
    found = checkpoint_from_file(saved(tmp_path, {"upscaler": FLAT, "step": 1}))
    assert_flat(found)
    assert found.found_under == "upscaler"
    path = saved(tmp_path, {"upscaler": FLAT, "critic": {"w": torch.ones(1)}})
    with pytest.raises(BadCheckpoint, match="upscaler, critic") as caught:
        checkpoint_from_file(path)
    assert "--key" in caught.value.todo
    assert_flat(checkpoint_from_file(path, under="upscaler"))


def test_a_generator_is_taken_before_its_discriminator(tmp_path):
    found = checkpoint_from_file(saved(tmp_path, {"discriminator": {"w": torch.ones(1)}, "generator": FLAT}))
    assert_flat(found)
    assert found.notes == ("not read: discriminator",)
    assert list(checkpoint_from_file(found.path, under="discriminator").tensors) == ["w"]


def test_under_a_name_without_tensors(tmp_path):
    path = saved(tmp_path, {"model": FLAT, "epoch": 4})
    for name in ("epoch", "nothing", ""):
        with pytest.raises(UsageError, match="model") as caught:
            checkpoint_from_file(path, under=name)
        assert caught.value.exit_code == 2


def test_a_dictionary_of_another_class(tmp_path):
    found = checkpoint_from_file(saved(tmp_path, {"state_dict": Settings(FLAT)}))
    assert_flat(found)
    assert "Settings kept as inert stand-ins" in found.notes[0]


def test_entries_that_are_no_tensors(tmp_path):
    found = checkpoint_from_file(saved(tmp_path, {**FLAT, "version": 3, "names": ["a"], 7: torch.ones(1)}))
    assert_flat(found)
    assert found.notes == ("entries that are no tensors were ignored: version, names, 7",)


def test_a_prefix_that_one_key_lacks_stays():
    entries = {"module.a": 1, "module.b": 2, "c": 3}
    assert strip_prefixes(entries) == (entries, "")


def test_a_prefix_that_is_a_whole_key_stays():
    assert strip_prefixes({"model.": 1}) == ({"model.": 1}, "")
    assert strip_prefixes({}) == ({}, "")


def test_a_sequential_of_the_network_keeps_its_name():
    """ESRGAN's first form has keys such as model.0.weight; a DataParallel around a Sequential has module.0.weight."""
    entries = {"model.0.weight": 1, "model.1.sub.0.bias": 2}
    assert strip_prefixes(entries) == (entries, "")
    assert strip_prefixes({f"module.{key}": value for key, value in entries.items()}) == (entries, "module.")
    assert strip_prefixes({"module.0.weight": 1}) == ({"0.weight": 1}, "module.")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_go_again_and_again(prefix):
    assert strip_prefixes({f"{prefix}module.{prefix}x.y": 1, f"{prefix}module.{prefix}z": 2}) == (
        {"x.y": 1, "z": 2},
        f"{prefix}module.{prefix}",
    )


def test_only_floating_tensors_change():
    whole = {"i": torch.tensor([1, 2]), "b": torch.tensor(True), "c": torch.tensor([1j]), "f": torch.tensor([0.1])}
    same, notes = in_float32(whole)
    assert notes == () and all(same[key] is whole[key] for key in whole)
    half = torch.tensor([0.1]).half()
    low, notes = in_float32({"h": half, "g": half, "f": torch.tensor([0.1])})
    assert low["h"].dtype == torch.float32 and torch.equal(low["h"], half.float())
    assert notes == ("2 tensors were float16 and are float32 now",)
