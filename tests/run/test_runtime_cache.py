"""TensorRT-RTX's runtime cache, with a stand-in of the two objects: making real ones needs a GPU. Names are compared
with the module's own. That a second start is faster, and what a real cache refuses, only a GPU can show."""

from __future__ import annotations

import types
import warnings

import pytest

from sr_deploy.run.runtime_cache import RuntimeCache
from sr_deploy.run.tensorrt import _context_of


class Kernels:
    """An ``IRuntimeCache``: takes what it has written itself."""

    def __init__(self) -> None:
        self.compiled = b""

    def deserialize(self, blob: bytes) -> bool:
        if not blob.startswith(b"kernels"):
            return False
        self.compiled = blob
        return True

    def serialize(self) -> bytes:
        return self.compiled


class Config:
    """An ``IRuntimeConfig``."""

    dynamic_shapes_kernel_specialization_strategy = None
    cache = None

    def create_runtime_cache(self) -> Kernels:
        return Kernels()

    def set_runtime_cache(self, cache: Kernels) -> bool:
        self.cache = cache
        return True


class Engine:
    def create_runtime_config(self) -> Config:
        return Config()

    def create_execution_context(self, config: Config) -> Config:
        return config


TRT = types.SimpleNamespace(DynamicShapesKernelSpecializationStrategy=types.SimpleNamespace(EAGER="eager"))


def start(path):
    """One start of an engine: opened, run, closed."""
    cache = RuntimeCache(path)
    context = _context_of(TRT, Engine(), cache)
    assert context.dynamic_shapes_kernel_specialization_strategy == "eager"
    found = context.cache.compiled
    context.cache.compiled = b"kernels of 8x10"
    cache.save()
    return cache.state, found


def test_the_stand_in_has_no_name_of_its_own():
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    for ours, theirs in ((Kernels, trt.IRuntimeCache), (Config, trt.IRuntimeConfig), (Engine, trt.ICudaEngine)):
        assert {name for name in vars(ours) if name[0] != "_" and name != "cache"} <= set(dir(theirs))


def test_the_second_start_finds_what_the_first_compiled(tmp_path):
    path = tmp_path / "a.runtime.cache"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert start(path) == ("new", b"")
        assert start(path) == ("read", b"kernels of 8x10")
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_damaged_or_foreign_cache_is_said_and_replaced(tmp_path):
    path = tmp_path / "a.runtime.cache"
    path.write_bytes(b"of another driver")
    with pytest.warns(UserWarning, match="a.runtime.cache is refused.*a new one is begun"):
        assert start(path) == ("refused", b"")
    assert start(path)[0] == "read"


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="the runtime cache was not kept"):
        start(tmp_path / "file" / "below")


def test_what_has_no_runtime_cache(tmp_path):
    """TensorRT 8.5 to 11: no ``create_runtime_config``, or one without a cache."""
    cache = RuntimeCache(tmp_path / "a.runtime.cache")
    engine = types.SimpleNamespace(create_execution_context=lambda: "context")
    assert _context_of(TRT, engine, cache) == "context"
    cache.save()
    assert cache.state == "none" and not list(tmp_path.iterdir())
