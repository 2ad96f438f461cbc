"""The precision plan: what is written is read back, and a plan that cannot be meant is refused with its name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.deployment.plan import Plan, open_plan, save_plan
from sr_deploy.core.errors import BadDeployment, DiskFull

PLAN = Plan(
    precision="int8",
    graph_sha256="0" * 64,
    nodes={"/head/Conv": "float16", "/body/Conv": "int8", "/fourier/MatMul": "float32"},
    rest="float16",
    reasons={"/head/Conv": "head: it reads the picture", "/fourier/MatMul": "Fourier unit"},
    activation_scales={"/head/out": 0.0123},
    weight_scales={"body.weight": (0.5, 0.25)},
    calibration={"method": "mse", "pictures": 100},
    notes=("weights fitted",),
)
WEIGHTS = {"body.weight": np.arange(8, dtype=np.float32).reshape(2, 4), "/odd/name:0": np.float32([np.pi])}


@pytest.fixture
def stored(tmp_path):
    save_plan(tmp_path, PLAN, WEIGHTS)
    return tmp_path / "plan.json"


def altered(path: Path, **changes) -> Path:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


@pytest.mark.parametrize("weights", [None, {}, WEIGHTS], ids=["none", "empty", "some"])
def test_round_trip(tmp_path, weights):
    written = save_plan(tmp_path, PLAN, weights)
    for path in (tmp_path, tmp_path / "plan.json"):
        plan, read = open_plan(path)
        assert plan == written
        assert set(read) == set(weights or {})
        for name, value in (weights or {}).items():
            assert read[name].dtype == np.float32 and np.array_equal(read[name], value)
    assert (written.weights_sha256 is not None) == bool(weights)
    assert (tmp_path / "weights.npz").exists() == bool(weights)
    assert plan.nodes_of("int8") == ("/body/Conv",)


def test_scales_come_back_to_the_last_bit(tmp_path):
    scales = {str(index): float(np.random.default_rng(index).uniform(1e-7, 10)) for index in range(50)}
    save_plan(tmp_path, Plan("int8", "0" * 64, {}, activation_scales=scales))
    assert open_plan(tmp_path)[0].activation_scales == scales


def test_a_missing_plan(tmp_path):
    with pytest.raises(BadDeployment, match="there is no plan"):
        open_plan(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "3", '"plan"', "null", "[" * 100_000 + "]" * 100_000, "{\"a\":" * 100_000, "\x00",
        json.dumps({"schema": 1}),
        json.dumps({"schema": 1, "weight_scales": [], "activation_scales": {}, "notes": []}),
    ],
)  # fmt: skip
def test_what_is_no_plan(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(BadDeployment, match="plan"):
        open_plan(tmp_path)
    (tmp_path / "plan.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(BadDeployment):
        open_plan(tmp_path)


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"schema": 2}, "schema 2"),
        ({"schema": None}, "schema None"),
        ({"surprise": 1}, "surprise"),
        ({"nodes": ["/body/Conv"]}, "nodes"),
        ({"nodes": {"/body/Conv": "int4"}}, "'int4'"),
        ({"nodes": {"/body/Conv": ["int8"]}}, r"\['int8'\]"),
        ({"nodes": {"/body/Conv": None}}, "None"),
        ({"rest": "int8"}, "int8"),
        ({"rest": None}, "None"),
        ({"precision": "int4"}, "int4"),
        ({"precision": 8}, "8"),
        ({"graph_sha256": 12}, "graph_sha256"),
        ({"reasons": ["because"]}, "reasons"),
        ({"reasons": {"/head/Conv": 3}}, "reasons"),
        ({"calibration": None}, "calibration"),
        ({"notes": "one"}, "notes"),
        ({"notes": None}, "notes"),
        ({"notes": [1]}, "notes"),
        ({"activation_scales": {"/head/out": 0.0}}, "/head/out is 0.0"),
        ({"activation_scales": {"/head/out": -0.1}}, "-0.1"),
        ({"activation_scales": {"/head/out": float("nan")}}, "activation_scales./head/out is nan"),
        ({"activation_scales": {"/head/out": float("inf")}}, "activation_scales./head/out is inf"),
        ({"activation_scales": {"/head/out": 10**400}}, "activation_scales"),
        ({"activation_scales": {"/head/out": "wide"}}, "activation_scales"),
        ({"activation_scales": {"/head/out": None}}, "activation_scales"),
        ({"channel_factors": {"/head/out": [2.0, 1.5]}}, "no power of two"),
        ({"channel_factors": {"/head/out": [0.0]}}, "channel_factors"),
        ({"weight_scales": {"body.weight": [0.5, float("nan")]}}, r"weight_scales.body.weight\[1\] is nan"),
        ({"weight_scales": {"body.weight": [0.5, -1]}}, r"weight_scales.body.weight\[1\] is -1"),
        ({"weight_scales": {"body.weight": 0.5}}, "weight_scales"),
        ({"weights_sha256": "0" * 64}, "not the file that the plan names"),
        ({"weights_sha256": 3}, "weights_sha256"),
    ],
)
def test_refusals_name_what_is_wrong(stored, changes, complaint):
    with pytest.raises(BadDeployment, match=complaint):
        open_plan(altered(stored, **changes))


def test_altered_missing_and_damaged_weights(stored):
    weights = stored.with_name("weights.npz")
    raw = weights.read_bytes()
    weights.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(BadDeployment, match="not the file that the plan names"):
        open_plan(stored)
    for damaged in (b"", b"PK\x03\x04", raw[: len(raw) // 2]):
        weights.write_bytes(damaged)
        with pytest.raises(BadDeployment, match=r"weights\.npz"):
            open_plan(altered(stored, weights_sha256=sha256_of(weights)))
    np.savez(weights, names=np.asarray(["a", "b"]), array_0=np.zeros(2))
    with pytest.raises(BadDeployment, match=r"weights\.npz"):
        open_plan(altered(stored, weights_sha256=sha256_of(weights)))
    np.savez_compressed(weights, names=np.asarray(["a"]), array_0=np.zeros(10**6, np.float32))
    with pytest.raises(BadDeployment, match="compressed"):
        open_plan(altered(stored, weights_sha256=sha256_of(weights)))
    np.savez(weights, names=np.asarray(["a"]), array_0=np.float32([np.nan]))
    with pytest.raises(BadDeployment, match="not finite"):
        open_plan(altered(stored, weights_sha256=sha256_of(weights)))
    weights.unlink()
    with pytest.raises(BadDeployment, match="missing"):
        open_plan(stored)


def test_pickled_weights_are_not_loaded(stored):
    weights = stored.with_name("weights.npz")
    np.savez(weights, names=np.asarray(["a"]), array_0=np.asarray([{"code": 1}], dtype=object))
    with pytest.raises(BadDeployment, match=r"weights\.npz"):
        open_plan(altered(stored, weights_sha256=sha256_of(weights)))


def test_a_full_disk_leaves_the_old_plan(stored, monkeypatch):
    import errno

    before = stored.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DiskFull):
        save_plan(stored.parent, Plan("fp16", "1" * 64, {}))
    assert stored.read_bytes() == before
    assert sorted(path.name for path in stored.parent.iterdir()) == ["plan.json", "weights.npz"]
