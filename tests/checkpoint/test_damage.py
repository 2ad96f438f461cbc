"""Bytes that were changed, cut or made up: a checkpoint loads, or it is refused; nothing else ever happens."""

from __future__ import annotations

import collections
import io
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from sr_deploy.checkpoint.read import checkpoint_from_file
from sr_deploy.core.errors import BadCheckpoint

SETTINGS = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
STARTS = (b"", b"\x80\x02", b"\x80\x04", b"PK\x03\x04", b"\x20" + bytes(7) + b"{")


@pytest.fixture(scope="module")
def small_files(tmp_path_factory):
    """One small valid file of each container."""
    folder = tmp_path_factory.mktemp("small")
    value = {"params": collections.OrderedDict(a=torch.arange(6.0).reshape(2, 3), b=torch.tensor([1, 2]))}
    torch.save(value, folder / "zip")
    torch.save(value, folder / "legacy", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1)), folder / "module")
    torch.save(torch.nn.Conv2d(1, 1, 1), folder / "legacy module", _use_new_zipfile_serialization=False)
    save_file(value["params"], folder / "safetensors")
    with zipfile.ZipFile(folder / "zip") as archive:
        pickled = next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    return {path.name: path.read_bytes() for path in folder.iterdir()}, pickled, folder


def _loads_or_is_refused(path):
    try:
        found = checkpoint_from_file(path)
    except BadCheckpoint as error:
        assert str(error)
    else:
        assert found.tensors and all(tensor.numel() < 1e6 for tensor in found.tensors.values())


@SETTINGS
@given(data=st.data())
def test_damaged_bytes_load_or_are_refused(small_files, data):
    contents, _, folder = small_files
    content = bytearray(contents[data.draw(st.sampled_from(sorted(contents)))])
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(content))))
    path = folder / "damaged.pth"
    path.write_bytes(content[:cut])
    _loads_or_is_refused(path)


@SETTINGS
@given(data=st.data())
def test_damaged_pickles_inside_a_sound_zip_load_or_are_refused(small_files, data):
    contents, pickled, folder = small_files
    pickled = bytearray(pickled)
    for _ in range(data.draw(st.integers(1, 4))):
        pickled[data.draw(st.integers(0, len(pickled) - 1))] = data.draw(st.integers(0, 255))
    path = folder / "inside.pth"
    with zipfile.ZipFile(io.BytesIO(contents["zip"])) as source, zipfile.ZipFile(path, "w") as out:
        for name in source.namelist():
            out.writestr(name, bytes(pickled) if name.endswith("data.pkl") else source.read(name))
    _loads_or_is_refused(path)


@SETTINGS
@given(noise=st.binary(max_size=300), start=st.sampled_from(STARTS))
def test_noise_is_refused(small_files, noise, start):
    path = small_files[2] / "noise.pth"
    path.write_bytes(start + noise)
    with pytest.raises(BadCheckpoint):
        checkpoint_from_file(path)
