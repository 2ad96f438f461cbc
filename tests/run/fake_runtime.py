"""A runtime that no package has: it computes with onnx's own reference evaluator. What a new runtime's file needs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Optional

import numpy as np

from sr_deploy.core.contract import format_size
from sr_deploy.core.errors import BadInput
from sr_deploy.engine.built import BuiltEngine, write_engine
from sr_deploy.engine.runtimes import Runtime
from sr_deploy.run.base import DeviceTime
from sr_deploy.run.inputs import checked_input, nothing_uploaded
from sr_deploy.run.settings import refuse_settings

ROW = Runtime(
    "fake",
    ".fake",
    version="tests.run.fake_runtime:version",
    build="tests.run.fake_runtime:build_engine",
    open="tests.run.fake_runtime:open_engine",
    title="the fake runtime",
)


def version() -> str:
    return "1.0"


def build_engine(deployment, plan, options, say):
    """The engine is the graph's own bytes."""
    manifest, graph = deployment.manifest, deployment.path_of(plan.graph)
    say("the fake runtime builds")
    built = BuiltEngine("fake", graph.read_bytes(), plan.profile, plan.precision, (), None, version(), None, None, 0.0,
                        {}, ())  # fmt: skip
    return write_engine(built, deployment.engines_folder, graph, manifest.contract, manifest.scale)


def open_engine(path: Path, manifest, threads: Optional[int]):
    return ReferenceRunner(path, manifest)


class ReferenceRunner:
    """See ``run/base.py``."""

    runtime, device = "fake", "fake device"
    asynchronous = device_events = False
    io_dtype = "float32"

    def __init__(self, path, manifest):
        from onnx.reference import ReferenceEvaluator

        self._evaluator, self._manifest = ReferenceEvaluator(str(path)), manifest
        self._size = self._lr = self._sr = None

    def configure(self, settings):
        refuse_settings(settings, "the fake runtime")

    def prepare(self, size):
        if not self._manifest.takes(size):
            raise BadInput(f"{self._manifest.file} does not take {format_size(size)}", self._manifest.allowed_sizes())
        self._size, self._lr, self._sr = tuple(size), None, None

    def upload(self, lr):
        self._lr, self._sr = checked_input(lr, self._size).copy(), None

    def compute(self):
        if self._lr is None:
            raise nothing_uploaded()
        (self._sr,) = self._evaluator.run(None, {self._manifest.contract.input_name: self._lr})

    def synchronize(self):
        """It is done when ``compute`` returns."""

    def timed_compute(self):
        started = time.perf_counter()
        self.compute()
        return DeviceTime(time.perf_counter() - started, 0.0)

    def download(self):
        if self._sr is None:
            raise nothing_uploaded()
        return np.array(self._sr, np.float32, order="C")

    def describe(self):
        told = self._manifest
        return {"runtime": "fake", "version": version(), "provider": "numpy", "threads": None,
                "precision": told.precision, "file": told.file}  # fmt: skip

    def close(self):
        self._size = self._lr = self._sr = None
