"""First contact with ONNX Runtime: the CPU, and CUDA with and without TensorFloat-32."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any, Dict

from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.host.machine import this_machine
from sr_deploy.core.media.sample import sample_for
from sr_deploy.engine.onnxruntime import import_onnxruntime, providers_here
from sr_deploy.engine.onnxruntime_cuda import CPU, CUDA, preload_cuda
from tests.hardware.material import largest_step
from tests.hardware.rows import Rows, StillOpen

TIMED = 5


def onnxruntime(rows: Rows, material: Path) -> None:
    """Pictures and times of the first network."""
    known = json.loads((material / "material.json").read_text("utf-8"))
    deployment, size = material / known["networks"][0], tuple(known["sizes"][0])
    rows.look("ONNX Runtime: its providers", lambda: ", ".join(providers_here()))
    rows.look("ONNX Runtime on the CPU", lambda: ran(deployment, size, CPU, {}), told)
    for tf32 in ("0", "1"):
        name = f"ONNX Runtime with CUDA, TF32 {'off' if tf32 == '0' else 'on'}"
        rows.look(name, lambda tf32=tf32: with_cuda(deployment, size, tf32), told)
    rows.look("ONNX Runtime as the product opens it", lambda: chosen(deployment))


def with_cuda(deployment: Path, size: Any, tf32: str) -> Dict[str, float]:
    """The same through CUDA."""
    if CUDA not in providers_here():
        raise StillOpen("this ONNX Runtime has no CUDA provider")
    if not this_machine().gpus:
        raise StillOpen("no GPU")
    preload_cuda(import_onnxruntime())
    return ran(deployment, size, CUDA, {"use_tf32": tf32})


def ran(deployment: Path, size: Any, provider: str, options: Dict[str, str]) -> Dict[str, float]:
    """Largest difference from the expected picture in 8-bit steps, and the median of a few runs in milliseconds."""
    ort = import_onnxruntime()
    contract = open_deployment(deployment).manifest.contract
    asked = [(provider, options)] if provider == CPU else [(provider, options), CPU]
    session = ort.InferenceSession(str(deployment / "model.onnx"), providers=asked, enable_fallback=0)
    if session.get_providers()[0] != provider:
        raise AssertionError(f"{provider} did not start: {session.get_providers()[0]} is there instead")
    feed = {contract.input_name: sample_for(contract, size)}
    (made,) = session.run(None, feed)
    times = []
    for _ in range(TIMED):
        started = time.perf_counter()
        session.run(None, feed)
        times.append(1e3 * (time.perf_counter() - started))
    return {"steps": largest_step(made, deployment, contract, size), "host_ms": statistics.median(times)}


def told(found: Dict[str, float]) -> str:
    """In words."""
    return f"{found['steps']:.4f} of 255 from the expected picture, {found['host_ms']:.1f} ms"


def chosen(deployment: Path) -> str:
    """What the product takes when nothing is asked for, and how it has set TF32."""
    from sr_deploy.run.onnxruntime import runner_from_graph

    manifest = open_deployment(deployment).manifest
    runner = runner_from_graph(deployment / "model.onnx", manifest.contract, manifest.scale)
    said = runner.describe()
    runner.close()
    return f"{said['provider']} ({said['provider_reason']}), TF32 {said['tf32']}"
