"""Files and folders as training frameworks leave them: bookkeeping, lists, folders, any name."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from sr_deploy.checkpoint.read import checkpoint_from_file
from sr_deploy.core.errors import BadCheckpoint
from sr_deploy.models.loading import SurplusTensors
from sr_deploy.pipeline.load import LoadOptions, load_model
from tests import synthetic_checkpoints

FLAT = {"head.weight": torch.arange(12.0).reshape(3, 4), "tail.bias": torch.tensor([1.0, 2.0])}
OPTIMISER = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}


def read(path, value):
    torch.save(value, path)
    found = checkpoint_from_file(path)
    assert list(found.tensors) == list(FLAT)
    return found


def test_what_averaging_and_counting_leave_is_left_out_and_named(tmp_path):
    averaged = {"n_averaged": torch.tensor(3), **{f"module.{key}": value for key, value in FLAT.items()}}
    found = read(tmp_path / "a.pth", averaged)
    assert found.stripped_prefix == "module."
    assert "left out, as bookkeeping of PyTorch's AveragedModel: n_averaged" in found.notes
    counted = {**FLAT, "total_ops": torch.zeros(1), "head.total_params": torch.zeros(1)}
    found = read(tmp_path / "c.pth", counted)
    assert any("total_ops, head.total_params" in note for note in found.notes)


def test_a_weight_of_such_a_name_is_a_weight(tmp_path):
    torch.save({**FLAT, "total_ops": torch.zeros(4)}, tmp_path / "c.pth")
    assert "total_ops" in checkpoint_from_file(tmp_path / "c.pth").tensors


@pytest.mark.parametrize("name", ["net.pkl", "net.bin", "net", "net.weights.v2", "net.pth"])
@pytest.mark.parametrize(
    "value",
    [FLAT, {"optimizer": OPTIMISER, "epoch": 3, "model": FLAT}, [OPTIMISER, FLAT], (FLAT, OPTIMISER, 12)],
    ids=["flat", "optimiser first", "a list, optimiser first", "a tuple"],
)
def test_any_name_and_any_order(tmp_path, name, value):
    read(tmp_path / name, value)


def test_two_networks_in_a_list_are_asked_about(tmp_path):
    torch.save([FLAT, FLAT], tmp_path / "two.pth")
    with pytest.raises(BadCheckpoint, match="tensors under 0, 1, none of which is a name"):
        checkpoint_from_file(tmp_path / "two.pth")
    assert checkpoint_from_file(tmp_path / "two.pth", under="1").found_under == "1"


@pytest.mark.parametrize(
    "place", ["model.safetensors", "pytorch_model.bin", "last.ckpt", "checkpoints/a.ckpt",
              "lightning_logs/version_3/checkpoints/epoch=9-step=70.ckpt"]
)  # fmt: skip
def test_a_folder_of_a_framework(tmp_path, place):
    file = tmp_path / "run" / place
    file.parent.mkdir(parents=True)
    (tmp_path / "run" / "optimizer.bin").write_bytes(b"never read")
    if file.suffix == ".safetensors":
        save_file(FLAT, file)
    else:
        torch.save({"state_dict": FLAT} if file.suffix == ".ckpt" else FLAT, file)
    found = checkpoint_from_file(tmp_path / "run")
    assert list(found.tensors) == list(FLAT) and found.path == file
    assert f"took {place} of the folder run" in found.notes


def test_a_folder_of_several_networks_names_them(tmp_path):
    for name in ("epoch=1.ckpt", "last.ckpt"):
        torch.save(FLAT, tmp_path / name)
    with pytest.raises(BadCheckpoint, match="holds 2 networks: epoch=1.ckpt, last.ckpt"):
        checkpoint_from_file(tmp_path)


def test_surplus_tensors_are_refused_or_named(tmp_path):
    path = tmp_path / "span.pth"
    state = synthetic_checkpoints.span_folded(12, 2, 1)
    state = state.get("params", state)
    torch.save({**state, "spare.alpha": torch.ones(1)}, path)
    with pytest.raises(SurplusTensors, match="does not fit SPAN: unexpected spare.alpha") as caught:
        load_model(path, LoadOptions())
    assert "--ignore-surplus" in caught.value.todo
    checkpoint, loaded = load_model(path, LoadOptions(ignore_surplus=True))
    assert loaded.architecture == "SPAN"
    assert "not used, as --ignore-surplus allows: spare.alpha" in checkpoint.notes
    del state[next(iter(state))]
    torch.save({**state, "spare.alpha": torch.ones(1)}, path)
    with pytest.raises(BadCheckpoint, match="missing"):
        load_model(path, LoadOptions(arch="SPAN", ignore_surplus=True))
