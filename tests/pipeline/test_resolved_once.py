"""A command finds out each thing once: a file is hashed once and before it is used, a manifest is read once."""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from collections import Counter
from pathlib import Path

import pytest

import sr_deploy
from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.deployment import manifest as deployment_manifest
from sr_deploy.engine import manifest as engine_manifest
from sr_deploy.pipeline.engines.build import build_engines
from sr_deploy.pipeline.engines.request import BuildOptions
from sr_deploy.pipeline.measure.bench import BenchRequest, bench_deployment
from sr_deploy.run import onnxruntime

SIZES = ((16, 16), (20, 24), (24, 24))
FOURTH = (32, 32)


class Calls:
    """How often each function was called, by its name and what it was called with."""

    def __init__(self, monkeypatch):
        self._monkeypatch = monkeypatch
        self.seen = Counter()

    def count(self, name, key=lambda *given: "", in_modules=None):
        """Count calls of a function wherever a module of the package has it under its name."""
        modules = [m for n, m in list(sys.modules.items()) if n.startswith("sr_deploy") and hasattr(m, name)]
        for module in in_modules or modules:
            self._monkeypatch.setattr(module, name, self._counted(name, getattr(module, name), key))

    def _counted(self, name, function, key):
        def call(*given, **named):
            self.seen[name, key(*given)] += 1
            return function(*given, **named)

        return call

    def of(self, name):
        """What a function was called with → how often."""
        return {key: count for (function, key), count in self.seen.items() if function == name}


@pytest.fixture
def calls(monkeypatch):
    for module in pkgutil.walk_packages(sr_deploy.__path__, "sr_deploy."):
        if module.name.startswith(("sr_deploy.pipeline", "sr_deploy.engine", "sr_deploy.core.deployment")):
            importlib.import_module(module.name)
    return Calls(monkeypatch)


@pytest.fixture
def built(plain):
    """A deployment with four engines of ONNX Runtime."""
    build_engines(BuildOptions(plain, "onnxruntime", sizes=(*SIZES, FOURTH)))
    return plain


def file_name(path, *_):
    return Path(path).name


def read_name(_, path, *rest):
    return Path(path).name


def bench(folder, backend, **options):
    request = BenchRequest(folder, SIZES, backend, seconds=0.0, iterations=1, runs=1, threads=1, watch=False, **options)
    return bench_deployment(request)[0]


def engine_of(size):
    return "onnxruntime_{}x{}".format(*size)


@pytest.mark.parametrize("backend", [None, "onnxruntime"])
def test_bench_hashes_what_it_uses_once_and_before_it_opens_it(built, calls, monkeypatch, backend):
    calls.count("sha256_of", file_name)
    calls.count("read_described", read_name, (engine_manifest, deployment_manifest))
    calls.count("host_facts", file_name)
    opened = []
    plain = onnxruntime.runner_from_graph

    def opening(path, *given, **named):
        assert calls.of("sha256_of")[path.name] == 1, "nothing is run unproved"
        opened.append(path.name)
        return plain(path, *given, **named)

    monkeypatch.setattr(onnxruntime, "runner_from_graph", opening)
    result = bench(built, backend)
    used = [f"{engine_of(size)}.onnx" for size in SIZES]
    assert opened == used and all(point.failure is None for point in result.points)
    assert calls.of("sha256_of") == {"model.onnx": 1, **dict.fromkeys(used, 1)}, "the fourth engine is not read"
    manifests = ["manifest.json", *(f"{engine_of(size)}.json" for size in (*SIZES, FOURTH))]
    assert calls.of("read_described") == dict.fromkeys(manifests, 1)
    assert calls.of("host_facts") == {"onnxruntime": 1}


@pytest.mark.parametrize("backend", [None, "onnxruntime"])
def test_the_record_holds_the_hash_of_what_ran(built, backend):
    for point in bench(built, backend).points:
        assert point.sha256 == sha256_of(built / "engines" / point.description["file"])


def test_an_altered_engine_is_not_run_and_is_named(built, calls):
    altered = built / "engines" / f"{engine_of(SIZES[1])}.onnx"
    altered.write_bytes(altered.read_bytes() + b"\0")
    calls.count("sha256_of", file_name)
    said = []
    request = BenchRequest(built, SIZES, seconds=0.0, iterations=1, runs=1, threads=1, watch=False)
    files = [point.description["file"] for point in bench_deployment(request, said.append)[0].points]
    assert files == [f"{engine_of(SIZES[0])}.onnx", "model.onnx", f"{engine_of(SIZES[2])}.onnx"]
    assert any(f"not used: {altered.name} is not the file that was built" in line for line in said)
    assert set(calls.of("sha256_of").values()) == {1}


def test_what_does_not_fit_is_a_point_that_says_why(built):
    engine = built / "engines" / f"{engine_of(SIZES[0])}.json"
    engine.write_text(json.dumps({**json.loads(engine.read_text()), "precision": "int8"}))
    result = bench(built, "onnxruntime", precision="int8")
    assert [point.failure is None for point in result.points] == [True, False, False]
    assert "no int8 onnxruntime engine for 20x24" in result.points[1].failure


@pytest.mark.parametrize("command", ["run", "verify", "inspect"])
def test_other_commands_read_each_file_once(built, srdeploy, tmp_path, calls, command):
    from tests.pipeline.conftest import DEMO

    words = {
        "run": ("-i", DEMO / "demo.png", "-o", tmp_path / "out"),
        "verify": ("--lr", tmp_path / "lr", "--hr", tmp_path / "hr", "--no-torch"),
        "inspect": (),
    }[command]
    if command == "verify":
        pictures(tmp_path)
    calls.count("sha256_of", file_name)
    calls.count("read_described", read_name, (engine_manifest, deployment_manifest))
    done = srdeploy(command, built, *words)
    assert done.code == 0, done.err
    # A picture and its original have one name; each is read once too.
    hashed = {name: count for name, count in calls.of("sha256_of").items() if not name.endswith(".png")}
    assert set(hashed.values()) == {1} and set(calls.of("read_described").values()) == {1}
    used = set(hashed) - {"model.onnx"}
    expected = {"run": 0, "verify": 2, "inspect": 4}[command]
    assert len(used) == expected, "only what is run, or shown, is read"


def pictures(folder):
    """Low-resolution pictures of two of the engines' sizes, of the first twice, and originals."""
    import numpy as np

    from sr_deploy.core.media.image import Picture, write_picture

    rng = np.random.default_rng(0)
    for number, (height, width) in enumerate((SIZES[0], SIZES[1], SIZES[0])):
        for place, scale in (("lr", 1), ("hr", 2)):
            (folder / place).mkdir(exist_ok=True)
            pixels = rng.integers(0, 256, (scale * height, scale * width, 3), dtype=np.uint8)
            write_picture(Picture(pixels), folder / place / f"{number}.png")


@pytest.mark.parametrize("engines_there", [0, 1])
def test_build_resolves_once(net, srdeploy, calls, engines_there):
    command = ("build", net, "--backend", "onnxruntime", "--precision", "int8", "--size")
    if engines_there:
        assert srdeploy(*command, "16").code == 0
    calls.count("sha256_of", file_name)
    calls.count("check_free", file_name)
    for name in ("open_deployment", "ready_plan", "open_plan", "choose_backend", "host_facts"):
        calls.count(name)
    done = srdeploy(*command, "16,20x24,24")
    assert done.code == 0, done.err
    for name in ("open_deployment", "ready_plan", "open_plan", "choose_backend"):
        assert list(calls.of(name).values()) == [1], name
    assert calls.of("sha256_of")["plan.json"] == 1
    sizes = ("20x24", "24x24") if engines_there else ("16x16", "20x24", "24x24")
    assert calls.of("check_free") == {f"onnxruntime_{size}_int8.onnx": 1 for size in sizes}
    assert ("was built before" in done.err) == bool(engines_there)


def test_build_that_makes_its_plan_asks_for_free_names_first_and_once(plain, srdeploy, calls):
    command = ("build", plain, "--backend", "onnxruntime", "--size", "16,24", "--precision", "fp16")
    command += ("--content", "photo")
    for name in ("open_deployment", "ready_plan", "plan_for"):
        calls.count(name)
    calls.count("check_free", file_name)
    assert srdeploy(*command).code == 0
    assert [sum(calls.of(name).values()) for name in ("open_deployment", "ready_plan", "plan_for")] == [1, 1, 1]
    free = calls.of("check_free")  # of the plan's folder too
    assert [free[f"onnxruntime_{size}_fp16.onnx"] for size in ("16x16", "24x24")] == [1, 1]
    again = srdeploy(*command, "--remake-plan")
    assert again.code == 2 and "exists" in again.err
    assert sum(calls.of("plan_for").values()) == 1, "no plan is made for an engine that cannot be written"
