"""An engine is refused, with the difference named, wherever it does not belong."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sr_deploy.core.contract import IOContract
from sr_deploy.core.errors import BadDeployment, DiskFull, ForeignEngine, UsageError
from sr_deploy.engine.fits import HostFacts, check_engine, host_facts
from sr_deploy.engine.manifest import (
    EngineManifest,
    check_profile,
    engine_name,
    manifest_path,
    open_engine,
    save_engine,
)

PLAN = b"plan" * 1000
GRAPH = "ab" * 32
HERE = HostFacts("tensorrt-rtx", "1.7.1.116", "8.6", "NVIDIA GeForce RTX 3090")


def manifest(**changes) -> EngineManifest:
    fields = {
        "backend": "tensorrt-rtx",
        "file": "tensorrt-rtx_720x1280_sm86-sm120.engine",
        "sha256": hashlib.sha256(PLAN).hexdigest(),
        "graph_file": "model.onnx",
        "graph_sha256": GRAPH,
        "profile": ((720, 1280),) * 3,
        "precision": "fp32",
        "compute_capabilities": ("8.6", "12.0"),
        "device": None,
        "runtime_version": "1.7.1.116",
        "activation_bytes": 123,
        "weights_bytes": 45,
        "build_seconds": 0.5,
        "tools": {"srdeploy": "0"},
        "settings": {"tf32": "off"},
        "warnings": ("one",),
        "contract": IOContract(value_range=255.0),
        "scale": 4,
    }
    return EngineManifest(**{**fields, **changes})


@pytest.fixture
def engine(tmp_path):
    path = tmp_path / manifest().file
    save_engine(path, PLAN, manifest())
    return path


def test_saved_and_opened_again(engine):
    assert open_engine(engine) == manifest()
    assert engine.read_bytes() == PLAN
    assert manifest_path(engine).name == "tensorrt-rtx_720x1280_sm86-sm120.json"
    assert sorted(os.listdir(engine.parent)) == sorted([engine.name, manifest_path(engine).name])
    check_engine(open_engine(engine), HERE, (GRAPH,))


def test_a_profile_that_is_none_survives(tmp_path):
    path = tmp_path / "onnxruntime_dynamic.onnx"
    # As ONNX: a ModelProto that holds its ir_version only.
    graph = b"\x08\x08"
    facts = {"backend": "onnxruntime", "profile": None, "compute_capabilities": ()}
    save_engine(path, graph, manifest(sha256=hashlib.sha256(graph).hexdigest(), **facts))
    assert open_engine(path).profile is None


@pytest.mark.parametrize(
    ("here", "graphs", "words"),
    [
        ({"compute_capability": "8.9", "device": "RTX 4090"}, (GRAPH,), ("8.6, 12.0", "8.9 (RTX 4090)")),
        ({"compute_capability": None, "device": None}, (GRAPH,), ("8.6, 12.0", "no GPU", "--backend onnxruntime")),
        ({"compute_capability": None}, (GRAPH,), ("8.6, 12.0", "an unknown one (NVIDIA GeForce RTX 3090)")),
        ({"runtime_version": "1.8.0.1"}, (GRAPH,), ("tensorrt-rtx 1.7.1.116", "here is 1.8.0.1")),
        ({"runtime_version": None}, (GRAPH,), ("tensorrt-rtx 1.7.1.116", "not installed here")),
        ({"backend": "tensorrt"}, (GRAPH,), ("built for tensorrt-rtx", "opened with tensorrt")),
        ({}, ("cd" * 32,), ("model.onnx abababababab…", "cdcdcdcdcdcd…")),
    ],
    ids=["other GPU", "no GPU", "silent driver", "other version", "not installed", "other backend", "other graph"],
)
def test_each_difference_is_named_with_both_values(here, graphs, words):
    with pytest.raises(ForeignEngine) as caught:
        check_engine(manifest(), dataclasses.replace(HERE, **here), graphs, "my/folder")
    text = str(caught.value)
    assert len(caught.value.found.splitlines()) == 2, text
    for word in (*words, manifest().file, "srdeploy build my/folder --backend", "--size 720x1280 --force"):
        assert word in text


def test_all_differences_at_once():
    here = HostFacts("tensorrt", "10.3.0", "7.2", "Xavier")
    with pytest.raises(ForeignEngine) as caught:
        check_engine(manifest(), here, ("cd" * 32,))
    text = str(caught.value)
    for word in ("backend:", "runtime version:", "GPU compute capability:", "graph:", "--backend tensorrt --size"):
        assert word in text
    assert caught.value.exit_code == 4


def test_the_rebuild_command_of_a_dynamic_engine():
    dynamic = manifest(profile=((16, 16), (360, 640), (720, 1280)))
    with pytest.raises(ForeignEngine, match="--min-size 16x16 --opt-size 360x640 --max-size 720x1280"):
        check_engine(dynamic, HERE, ("cd" * 32,))


def test_any_of_several_gpus_and_any_of_several_graphs_will_do():
    check_engine(manifest(), dataclasses.replace(HERE, compute_capability="12.0"), ("cd" * 32, GRAPH))
    check_engine(manifest(), HERE, ())


def test_onnxruntime_engines_need_no_gpu():
    ours = manifest(backend="onnxruntime", compute_capabilities=(), runtime_version="1.20.0")
    check_engine(ours, HostFacts("onnxruntime", "1.20.0", None, None), (GRAPH,))
    with pytest.raises(ForeignEngine, match="1.20.0.*1.21.0"):
        check_engine(ours, HostFacts("onnxruntime", "1.21.0", None, None), (GRAPH,))


def test_facts_of_this_machine():
    import onnxruntime

    facts = host_facts("onnxruntime")
    assert (facts.backend, facts.runtime_version) == ("onnxruntime", onnxruntime.__version__)
    assert (facts.device is None) <= (facts.compute_capability is None)


def altered_bytes(path):
    data = bytearray(path.read_bytes())
    data[17] ^= 1
    path.write_bytes(data)


def without(field):
    def change(path):
        sidecar = manifest_path(path)
        raw = json.loads(sidecar.read_text())
        del raw[field]
        sidecar.write_text(json.dumps(raw))

    return change


def with_value(field, value):
    def change(path):
        sidecar = manifest_path(path)
        sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), field: value}))

    return change


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (altered_bytes, "not the file that was built"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "not the file that was built"),
        (lambda path: path.unlink(), "there is no engine"),
        (lambda path: manifest_path(path).unlink(), "has no manifest"),
        (lambda path: manifest_path(path).write_text(manifest_path(path).read_text()[:300]), "no engine manifest"),
        (lambda path: manifest_path(path).write_text("[]"), "the whole is"),
        (lambda path: manifest_path(path).write_bytes(b"\xff\xfe\x00"), "engine manifest"),
        (with_value("schema", 2), "schema 2"),
        (with_value("surprise", 1), "surprise"),
        (with_value("profile", [[1, 2], [3]]), r"profile\[1\]"),
        (with_value("profile", [[9, 9], [8, 8], [9, 9]]), "not in order"),
        (with_value("contract", {"colour": "BGR"}), "value_range"),
        (without("graph_sha256"), "graph_sha256"),
        (without("contract"), "contract"),
    ],
)
def test_damaged_engines_and_manifests(engine, damage, words):
    damage(engine)
    with pytest.raises(BadDeployment, match=words) as caught:
        open_engine(engine)
    assert str(engine.parent / engine.stem) in str(caught.value)


@pytest.mark.parametrize(
    ("size", "taken"),
    [((16, 16), True), ((360, 640), True), ((720, 1280), True), ((15, 16), False), ((16, 1281), False)],
)
def test_sizes_that_a_profile_takes(size, taken):
    assert manifest(profile=((16, 16), (360, 640), (720, 1280))).takes(size) is taken
    assert manifest(profile=None).takes(size)


def test_names():
    assert engine_name("tensorrt-rtx", ((720, 1280),) * 3, ("8.6",)) == "tensorrt-rtx_720x1280_sm86.engine"
    assert engine_name("onnxruntime", ((144, 144),) * 3) == "onnxruntime_144x144.onnx"
    assert engine_name("onnxruntime", None) == "onnxruntime_dynamic.onnx"
    dynamic = ((16, 16), (360, 640), (1080, 1920))
    assert engine_name("tensorrt", dynamic, ("7.2",)) == "tensorrt_16x16-360x640-1080x1920_sm72.engine"
    assert engine_name("tensorrt-rtx", ((9, 9),) * 3, ("8.6", "12.0")) == "tensorrt-rtx_9x9_sm86-sm120.engine"


@pytest.mark.parametrize(
    "profile", [((2, 2), (1, 1), (3, 3)), ((1, 9), (2, 8), (3, 9)), ((0, 1), (1, 1), (1, 1)), ((1, 1), (2, 2))]
)
def test_profiles_out_of_order(profile):
    with pytest.raises(UsageError, match="not in order"):
        check_profile(profile)


SAVE_WITH_LITTLE_ROOM = """
import resource, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from sr_deploy.core.errors import DiskFull
from sr_deploy.engine.manifest import save_engine
from tests.engine.test_engine_manifest import manifest
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    save_engine(Path({path!r}), b"new!" * 1000, manifest())
except DiskFull as full:
    print(full.exit_code, full)
"""


@pytest.mark.parametrize("limit", [100, 2000], ids=["manifest does not fit", "engine does not fit"])
@pytest.mark.parametrize("before", [False, True], ids=["new", "replacing"])
def test_a_full_disk_leaves_what_was_there(tmp_path, limit, before):
    """The limit of the file size gives EFBIG, which the product treats as it treats a full disk."""
    path = tmp_path / "x.engine"
    if before:
        save_engine(path, PLAN, manifest())
    files = {name.name: name.read_bytes() for name in tmp_path.iterdir()}
    root = os.getcwd()
    code = SAVE_WITH_LITTLE_ROOM.format(root=root, limit=limit, path=str(path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.startswith(f"{DiskFull.exit_code} no space left while writing {tmp_path}/x."), done.stderr
    assert {name.name: name.read_bytes() for name in tmp_path.iterdir()} == files


DYING = """
import hashlib, os, signal, sys
from pathlib import Path
from tests.engine.test_engine_manifest import manifest
from sr_deploy.engine.manifest import save_engine
calls, die = [0], lambda: os.kill(os.getpid(), signal.SIGKILL)
replace = os.replace
def dying(source, target):
    calls[0] += 1
    if calls[0] == int(sys.argv[2]): die()
    replace(source, target)
    if calls[0] == int(sys.argv[3]): die()
os.replace = dying
save_engine(Path(sys.argv[1]), b"new", manifest(sha256=hashlib.sha256(b"new").hexdigest()))
"""


def killed_while_saving(path, before, after):
    """Whether saving another engine at ``path`` was killed before, or after, its n-th rename."""
    words = [sys.executable, "-c", DYING, str(path), str(before), str(after)]
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(words, cwd=root, timeout=60).returncode == -signal.SIGKILL


def test_a_pair_opens_whenever_replacing_it_is_killed(tmp_path):
    found, number = [], 0
    while not found or found[-1][0]:
        number += 1
        for before, after in ((number, 0), (0, number)):
            path = tmp_path / f"{number}{before}" / manifest().file
            save_engine(path, PLAN, manifest())
            died = killed_while_saving(path, before, after)
            opened = open_engine(path)
            assert path.read_bytes() == (b"new" if opened.sha256 != manifest().sha256 else PLAN)
            found.append((died, path.read_bytes()))
            save_engine(path, PLAN, manifest())
            assert open_engine(path) == manifest()
            assert "replaces" not in json.loads(manifest_path(path).read_text())
    assert {content for died, content in found if died} == {b"new", PLAN} and number == 4


def test_an_engine_never_appears_without_its_manifest(tmp_path):
    for number in (1, 2):
        for before, after in ((number, 0), (0, number)):
            path = tmp_path / f"{number}{before}" / manifest().file
            assert killed_while_saving(path, before, after)
            assert not path.exists() or open_engine(path)
