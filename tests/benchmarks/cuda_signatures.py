"""The signatures of the CUDA runtime functions that the product calls, from a wheel of NVIDIA's cuda-python.

    python -m pip download --no-deps cuda-python==11.8.3 cuda-bindings==12.9.10 cuda-bindings==13.5.0
    python tests/benchmarks/cuda_signatures.py WHEEL -o tests/engine/bindings/cuda_signatures_11.txt

tests/run/standin_cuda_python.py gives its functions these parameters and numbers of results. The extension module is
imported, which needs the Python of the wheel's tag and no driver: Cython writes each signature and result into the
docstring. A line is "name(parameters) -> results", the error first.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import re
import sys
import tempfile
import zipfile
from pathlib import Path

FUNCTIONS = (
    "cudaGetDeviceCount", "cudaGetDeviceProperties", "cudaDeviceGetAttribute", "cudaDeviceGetPCIBusId",
    "cudaStreamCreate", "cudaStreamDestroy", "cudaStreamSynchronize", "cudaMalloc", "cudaFree", "cudaHostAlloc",
    "cudaFreeHost", "cudaMemcpyAsync", "cudaEventCreateWithFlags", "cudaEventRecord", "cudaEventSynchronize",
    "cudaEventElapsedTime", "cudaEventDestroy", "cudaStreamBeginCapture", "cudaStreamEndCapture",
    "cudaGraphInstantiate", "cudaGraphInstantiateWithFlags", "cudaGraphDestroy", "cudaGraphLaunch",
    "cudaGraphExecDestroy",
)  # fmt: skip
HANDLES = ("cudaStream_t", "cudaEvent_t", "cudaGraph_t", "cudaGraphExec_t")
#: Enumeration → the members that the product names, and the errors that the stand-in gives.
ENUMS = {
    "cudaError_t": (
        "cudaSuccess", "cudaErrorInvalidValue", "cudaErrorMemoryAllocation", "cudaErrorInsufficientDriver",
        "cudaErrorNoDevice", "cudaErrorInvalidResourceHandle", "cudaErrorIllegalState", "cudaErrorNotReady",
        "cudaErrorStreamCaptureUnsupported", "cudaErrorStreamCaptureInvalidated",
    ),
    "cudaMemcpyKind": ("cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost"),
    "cudaStreamCaptureMode": ("cudaStreamCaptureModeThreadLocal",),
    "cudaDeviceAttr": (
        "cudaDevAttrComputeCapabilityMajor", "cudaDevAttrComputeCapabilityMinor", "cudaDevAttrIntegrated",
    ),
}  # fmt: skip


def signature(function: object) -> str:
    """One line of the list, from the docstring that Cython and NVIDIA wrote."""
    text = function.__doc__.splitlines()  # type: ignore[union-attr]
    at = next(index for index, line in enumerate(text) if line.strip() == "Returns")
    indent = len(text[at]) - len(text[at].lstrip())
    results = []
    for line, following in zip(text[at + 2 :], [*text[at + 3 :], ""]):
        if following.strip().startswith("---"):
            break
        found = re.match(r"(cudaError_t$|\w+(?= : ))", line.strip())
        if found and len(line) - len(line.lstrip()) == indent:
            results.append(found.group())
    return f"{text[0]} -> {' '.join(results)}"


def kinds(runtime: object) -> list:
    """What the arguments may be: whether handles of one value are equal; the base and members of the enumerations."""
    lines = []
    for name in HANDLES:
        made = getattr(runtime, name)
        words = ["equal" if made(5) == made(5) else "distinct", *(["int"] if int(made(5)) == 5 else [])]
        lines.append(f"{name}: {' '.join(words)}")
    for name, members in ENUMS.items():
        kind = getattr(runtime, name)
        values = " ".join(f"{member}={int(getattr(kind, member))}" for member in members)
        lines.append(f"{name}: {kind.__mro__[1].__name__} {values}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(given.wheel).extractall(folder)
        sys.path.insert(0, folder)
        for module in ("cuda.bindings.runtime", "cuda.cudart"):
            try:
                runtime = importlib.import_module(module)
                break
            except ImportError:
                continue
        lines = [signature(getattr(runtime, name)) for name in FUNCTIONS] + kinds(runtime)
    digest = hashlib.sha256(given.wheel.read_bytes()).hexdigest()
    head = [f"# signatures of {module}", f"# from {given.wheel.name}", f"# sha256 {digest}",
            "# by tests/benchmarks/cuda_signatures.py"]  # fmt: skip
    given.out.write_text("\n".join(head + lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
