"""Every container reads to the tensors that were saved; everything else is refused, and the message says what it is."""

from __future__ import annotations

import argparse
import collections
import json
import os
import pathlib
import pickle
import struct
import sys
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sr_deploy.checkpoint.read import checkpoint_from_file
from sr_deploy.core.errors import BadCheckpoint, EnvironmentFault, MissingPackage, UsageError

#: File, number of tensors, where they are, first and last key.
REAL = (
    ("dsclora_x4.pth", 44, "", "conv_1.eval_conv.weight", "upsampler.0.bias"),
    ("efdn_x2.pth", 142, "", "head.weight", "tail.0.bias"),
    ("efdn_x4.pth", 142, "", "head.weight", "tail.0.bias"),
    ("f2srgan_x2.pt", 289, "model", "initial.0.0.weight", "add_mean.bias"),
    ("f2srgan_x4.pt", 294, "model", "initial.0.0.weight", "add_mean.bias"),
    ("f2srgan_x4_qat.pth.tar", 398, "model", "initial.0.0.weight", "add_mean.bias"),
    ("f2srgan_x4_student.pt", 94, "model", "initial.0.0.weight", "add_mean.bias"),
    ("realesr_animevideov3_x4.pth", 53, "params", "body.0.weight", "body.34.bias"),
    ("safmn_x4.pth", 62, "params", "norm.gamma", "to_img.0.bias"),
    ("span_ch26_x4.pth", 44, "", "conv_1.eval_conv.weight", "upsampler.0.bias"),
    ("span_ch28_x4.pth", 44, "", "conv_1.eval_conv.weight", "upsampler.0.bias"),
)
LIGHT = "light_f2srgan_x4_whole_module.pt"


class Block(torch.nn.Module):
    """A part with a parameter, a None, a buffer that is saved and one that is not, and a nested container."""

    def __init__(self):
        super().__init__()
        convolution = torch.nn.Conv2d(3, 4, 3, bias=False)
        self.body = torch.nn.Sequential(convolution, torch.nn.PReLU(4), torch.nn.BatchNorm2d(4))
        self.register_buffer("saved", torch.arange(3.0))
        self.register_buffer("hidden", torch.arange(5.0), persistent=False)
        self.register_buffer("absent", None)
        self.gain = torch.nn.Parameter(torch.tensor(0.5))


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Conv2d(3, 3, 1)
        self.blocks = torch.nn.ModuleList([Block(), Block()])
        self.activation = torch.nn.ReLU()
        self.shared = self.head


def weights():
    """A small state dict with the kinds of tensors that occur."""
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(6, 4, generator=generator)
    return {
        "head.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "head.slope": torch.tensor(0.25),
        "body.transposed": base.t(),
        "body.view": base[2:4, 1:],
        "body.expanded": torch.ones(1, 5).expand(3, 5),
        "body.last": torch.randn(2, 3, 4, 5, generator=generator).to(memory_format=torch.channels_last),
        "count": torch.tensor(7),
        "mask": torch.tensor([True, False]),
        "spectrum": torch.randn(2, 2, dtype=torch.complex64, generator=generator),
        "nothing": torch.zeros(0, 3),
    }


def assert_same(found, expected):
    assert list(found) == list(expected)
    for key, tensor in expected.items():
        assert found[key].dtype == tensor.dtype and found[key].shape == tensor.shape, key
        assert torch.equal(found[key], tensor), key


def refused(path, *words):
    """The message of the refusal, which must hold all these words and name the file."""
    with pytest.raises(BadCheckpoint) as caught:
        checkpoint_from_file(path)
    message = str(caught.value)
    assert caught.value.exit_code == 4 and str(path) in message and caught.value.wanted and caught.value.todo
    for word in words:
        assert word in message
    return message


@pytest.mark.parametrize(("name", "count", "under", "first", "last"), REAL)
def test_real_files_equal_what_torch_reads(assets, name, count, under, first, last):
    found = checkpoint_from_file(assets / "weights" / name)
    raw = torch.load(assets / "weights" / name, map_location="cpu", weights_only=True)
    assert_same(found.tensors, raw[under] if under else raw)
    assert (len(found.tensors), found.found_under, found.stripped_prefix, found.container) == (count, under, "", "zip")
    assert (list(found.tensors)[0], list(found.tensors)[-1]) == (first, last)
    assert len(found.sha256) == 64


def test_the_pickled_module_in_light_gives_the_state_dict_saved_beside_it(assets):
    path = assets / "weights" / LIGHT
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    module, beside = checkpoint_from_file(path, under="deploy"), checkpoint_from_file(path)
    assert len(module.tensors) == 134
    assert module.tensors["residual1.0.block1.0.1.weight"].shape == (1, 64, 1, 1)
    assert_same(module.tensors, beside.tensors)
    assert "whole-module pickle" in module.notes[0] and "Generator_S" in module.notes[0]
    assert any("deploy" in note for note in beside.notes)
    assert "__main__" not in "".join(module.notes)


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.pth.tar", "a.ckpt", "a.safetensors", "a"])
@pytest.mark.parametrize("container", ["zip", "legacy", "safetensors"])
def test_containers_are_known_by_content(tmp_path, name, container):
    path = tmp_path / name
    if container == "safetensors":
        expected = {key: tensor.contiguous() for key, tensor in weights().items()}
        expected = {key: expected[key] for key in sorted(expected)}  # the file keeps no order
        save_file(expected, path)
    else:
        expected = weights()
        torch.save(expected, path, _use_new_zipfile_serialization=container == "zip")
    found = checkpoint_from_file(path)
    assert found.container == container
    assert_same(found.tensors, expected)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("modern", [True, False])
def test_pickle_protocols(tmp_path, protocol, modern):
    torch.save(
        collections.OrderedDict(weights()),
        tmp_path / "a.pth",
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=modern,
    )
    assert_same(checkpoint_from_file(tmp_path / "a.pth").tensors, weights())


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize("wrap", [lambda m: m, torch.nn.DataParallel, lambda m: {"epoch": 3, "model": m}])
def test_whole_modules_give_their_state_dict(tmp_path, modern, wrap):
    network = Network()
    torch.save(wrap(network), tmp_path / "m.pt", _use_new_zipfile_serialization=modern)
    found = checkpoint_from_file(tmp_path / "m.pt")
    assert_same(found.tensors, network.state_dict())
    assert "Network" in found.notes[0] and "Block" in found.notes[0] and "stand-ins" in found.notes[0]


def test_typeless_storages_and_low_precision_become_float32(tmp_path):
    values = torch.tensor([0.5, -2.0, 448.0])
    saved = {
        "a": values.to(torch.float8_e4m3fn),
        "b": values.to(torch.bfloat16),
        "c": values.half(),
        "d": values.double(),
        "e": torch.tensor([1, 65535], dtype=torch.uint16),
    }
    torch.save(saved, tmp_path / "a.pth")
    found = checkpoint_from_file(tmp_path / "a.pth")
    for key in "abcd":
        assert found.tensors[key].dtype == torch.float32 and torch.equal(found.tensors[key], values)
    assert torch.equal(found.tensors["e"].long(), torch.tensor([1, 65535]))
    assert "1 tensors were bfloat16 and are float32 now" in found.notes and len(found.notes) == 4


def test_tensors_share_nothing(tmp_path):
    base = torch.zeros(4)
    torch.save({"a": base, "b": base}, tmp_path / "tied.pth")
    tensors = checkpoint_from_file(tmp_path / "tied.pth").tensors
    tensors["a"].add_(1)
    assert torch.equal(tensors["b"], torch.zeros(4))


def test_strangers_beside_the_tensors_do_not_matter(tmp_path):
    path = tmp_path / "busy.pth"
    extras = {
        "args": argparse.Namespace(lr=1e-4, out=pathlib.PurePosixPath("/x")),
        "best": np.float64(31.7),
        "table": np.arange(4),
        "set": {1, 2},
        "dtype": torch.float16,
        "device": torch.device("cpu"),
        "size": torch.Size([1, 2]),
        "default": collections.defaultdict(list, a=[1]),
    }
    torch.save({**extras, "state_dict": weights()}, path)
    found = checkpoint_from_file(path)
    assert_same(found.tensors, weights())
    assert "argparse.Namespace" in found.notes[0] and "not run" in found.notes[0]


def test_sparse_tensors_are_ignored_with_a_note(tmp_path):
    torch.save({"a": torch.ones(2), "s": torch.eye(3).to_sparse()}, tmp_path / "s.pth")
    found = checkpoint_from_file(tmp_path / "s.pth")
    assert list(found.tensors) == ["a"] and any("ignored: s" in note for note in found.notes)


def test_missing_folder_and_empty(tmp_path):
    refused(tmp_path / "none.pth", "does not exist")
    refused(tmp_path, "is a folder", "manifest.json")
    (tmp_path / "empty.pth").write_bytes(b"")
    refused(tmp_path / "empty.pth", "is empty (0 bytes)")
    refused(tmp_path / "empty.pth" / "below.pth", "does not exist")
    os.mkfifo(tmp_path / "pipe.pth")
    refused(tmp_path / "pipe.pth", "no regular file")


@pytest.mark.parametrize("container", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated(tmp_path, container, share):
    path = tmp_path / "cut.pth"
    if container == "safetensors":
        save_file({"a": torch.randn(100)}, path)
    else:
        torch.save({"a": torch.randn(100)}, path, _use_new_zipfile_serialization=container == "zip")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    refused(path, "cut off or damaged")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", ("Git LFS pointer", "git lfs pull")),
        (b"<!DOCTYPE html>\n<html><head>", ("web page",)),
        (b"\n <html>sign in</html>", ("web page",)),
        (b'{"error": "not found"}', ("JSON",)),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), ("HDF5", "Keras")),
        (b"\x1c\x00\x00\x00TFL3" + bytes(64), ("TensorFlow Lite",)),
        (b"\x1f\x8b\x08" + bytes(64), ("gzip",)),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), ("picture",)),
        (b"hello, these are no weights", ("no checkpoint of a kind known here",)),
        (b"\x00" * 300, ("no checkpoint of a kind known here",)),
        (pickle.dumps({"lr": 0.1}), ("is a pickle (dict)", "nothing in it was run")),
        (pickle.dumps(np.arange(5)), ("multiarray._reconstruct", "nothing in it was run")),
    ],
)
def test_other_kinds_of_files_are_named(tmp_path, content, words):
    (tmp_path / "x.pth").write_bytes(content)
    refused(tmp_path / "x.pth", *words)


def test_an_onnx_file_is_named(tmp_path):
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info("x", 1, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [value])
    for number, name in enumerate(("", "pytorch")):
        onnx.save(onnx.helper.make_model(graph, producer_name=name), str(tmp_path / f"{number}.pth"))
        refused(tmp_path / f"{number}.pth", "ONNX")


def test_a_torchscript_archive_is_named(tmp_path):
    torch.jit.trace(torch.nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 2, 2)).save(str(tmp_path / "s.pt"))
    refused(tmp_path / "s.pt", "TorchScript", "neither run nor read", "torch.jit.load")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (("config.json", "model.weights.h5"), ("Keras",)),
        (("a.npy",), ("NumPy",)),
        (("net.pth",), ("unpacked first",)),
        (("readme.txt",), ("zip archive of something else", "readme.txt")),
        (("a/data.pkl", "b/data.pkl"), ("zip archive of something else",)),
    ],
)
def test_other_zip_archives_are_named(tmp_path, entries, words):
    with zipfile.ZipFile(tmp_path / "z.pth", "w") as archive:
        for name in entries:
            archive.writestr(name, b"x")
    refused(tmp_path / "z.pth", *words)


@pytest.mark.parametrize(
    "value", [{}, {"params": {}}, {"epoch": 3, "opti": {"state": {}, "param_groups": []}}, [1, 2], 5, None]
)
@pytest.mark.parametrize("modern", [True, False])
def test_no_tensors(tmp_path, value, modern):
    torch.save(value, tmp_path / "n.pth", _use_new_zipfile_serialization=modern)
    refused(tmp_path / "n.pth", "has no tensors")


def test_names_from_the_file_cannot_write_to_the_terminal(tmp_path):
    torch.save({"\x1b[2J\ud800" + "x" * 500: 1}, tmp_path / "n.pth")
    message = refused(tmp_path / "n.pth", "?[2J?xxx")
    assert "\x1b" not in message and len(message) < 900


def _rewritten(path, change):
    """Write a torch zip again, changed: ``change(name, data)`` gives an entry's new data, or None to drop it."""
    with zipfile.ZipFile(path) as archive:
        entries = [(name, change(name, archive.read(name))) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries:
            if data is not None:
                archive.writestr(name, data)


def test_storages_of_another_length_or_missing(tmp_path):
    path = tmp_path / "a.pth"
    for change, word in (
        (lambda name, data: data[:-4] if name.endswith("data/0") else data, "should have 8 elements of 4 bytes"),
        (lambda name, data: data + b"1234" if name.endswith("data/0") else data, "should have 8 elements"),
        (lambda name, data: None if name.endswith("data/0") else data, "data/0"),
        (lambda name, data: b"big" if name.endswith("byteorder") else data, "big-endian"),
    ):
        torch.save({"w": torch.arange(8.0)}, path)
        _rewritten(path, change)
        refused(path, word)


def test_compressed_again_is_read_and_a_bomb_is_not(tmp_path):
    path = tmp_path / "packed.pth"
    torch.save({"w": torch.arange(8.0)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name in source.namelist():
            out.writestr(name, source.read(name))
    assert torch.equal(checkpoint_from_file(path).tensors["w"], torch.arange(8.0))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as out:
        out.writestr("archive/data/bomb", bytes(80 << 20))
    refused(path, "unpacks to")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"[]",
        b'{"a":1}',
        b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,999]}}',
        b'{"a":{"dtype":"Z9","shape":[4],"data_offsets":[0,16]}}',
    ],
)
def test_bad_safetensors_headers(tmp_path, header):
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    refused(path)


def test_safetensors_package_missing(tmp_path, monkeypatch):
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(MissingPackage, match="pip install safetensors") as caught:
        checkpoint_from_file(tmp_path / "a.safetensors")
    assert caught.value.exit_code == 3


def test_not_allowed_to_read(tmp_path):
    path = tmp_path / "secret.pth"
    torch.save(weights(), path)
    path.chmod(0)
    if os.geteuid() == 0:
        os.seteuid(65534)  # root may read everything
        try:
            with pytest.raises(EnvironmentFault, match="secret.pth"):
                checkpoint_from_file(path)
        finally:
            os.seteuid(0)
    else:
        with pytest.raises(EnvironmentFault, match="secret.pth"):
            checkpoint_from_file(path)


def test_under_chooses_and_names_what_there_is(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"params": {"w": torch.zeros(1)}, "params_ema": {"w": torch.ones(1)}}, path)
    assert checkpoint_from_file(path).tensors["w"] == 1
    assert checkpoint_from_file(path, under="params").tensors["w"] == 0
    with pytest.raises(UsageError, match="params_ema, params") as caught:
        checkpoint_from_file(path, under="parms")
    assert "--key" in str(caught.value)


def test_safetensors_metadata_is_no_tensor(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors", metadata={"arch": json.dumps({"x": 1})})
    assert list(checkpoint_from_file(tmp_path / "a.safetensors").tensors) == ["a"]


def test_a_header_whose_length_begins_like_a_space_is_one(tmp_path):
    """The lowest byte of the length, a multiple of 8, is any of 32; one of them is a space."""
    seen = set()
    for letters in range(0, 300, 8):
        path = tmp_path / "net.safetensors"
        save_file({"a" * (letters + 1): torch.ones(2)}, str(path))
        seen.add(path.read_bytes()[0])
        assert checkpoint_from_file(path).container == "safetensors"
    assert 0x20 in seen
