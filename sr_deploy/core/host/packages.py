"""Which Python packages are here, found without importing them. Nothing here raises."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Iterable, Optional, Tuple

from sr_deploy.core.host.driver import cuda_packages
from sr_deploy.core.host.rtx import RTX_CAPABILITIES, rtx_capabilities

#: Distributions whose version matters to a result, by their name on the package index.
WATCHED = (
    "srdeploy",
    "numpy",
    "torch",
    "onnx",
    "onnxscript",
    "onnx-graphsurgeon",
    "safetensors",
    "spandrel",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-cu12",
    "tensorrt-cu13",
    "tensorrt-rtx",
    "tensorrt-rtx-cu12",
    "tensorrt-rtx-cu13",
    "polygraphy",
    "cuda-python",
    "cuda-bindings",
    "pycuda",
    "nvidia-ml-py",
    "opencv-python-headless",
    "opencv-python",
    "pillow",
    "av",
    "matplotlib",
)

#: Import names of the TensorRT flavours and the distributions that may hold each.
TENSORRT_FLAVOURS = (
    ("tensorrt", ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")),
    ("tensorrt_rtx", ("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12")),
)


@dataclass(frozen=True)
class TensorRT:
    """One TensorRT flavour that this interpreter can import.

    Attributes:
        module: import name, "tensorrt" or "tensorrt_rtx".
        version: None when the installation carries no metadata.
    """

    module: str
    version: Optional[str]


@dataclass(frozen=True)
class SystemTensorRT:
    """The TensorRT Python package that JetPack puts into the system's Python.

    Attributes:
        folder: the dist-packages folder that holds it.
        version: of TensorRT; None when nothing beside it tells.
        python: the Python version it was built for, such as "3.8"; None for a folder that names none.
    """

    folder: str
    version: Optional[str]
    python: Optional[str]


@dataclass(frozen=True)
class Software:
    """The Python side of a machine.

    Attributes:
        packages: version of each watched distribution that is installed.
        tensorrt: the flavours that can be imported.
        system_tensorrt: a TensorRT of the system that this interpreter does not see; None if there is none.
        cuda_binding: "cuda-python" or "pycuda", whichever can be imported; None without one.
        onnxruntime_providers: execution providers; empty without ONNX Runtime.
        onnxruntime_problem: why ONNX Runtime, though installed, does not import; "" when all is well.
        cuda: the major release of CUDA that a distribution was made for, where its metadata tells.
        rtx_capabilities: compute capabilities that TensorRT-RTX supports, as "8.6".
    """

    packages: Dict[str, str]
    tensorrt: Tuple[TensorRT, ...]
    system_tensorrt: Optional[SystemTensorRT]
    cuda_binding: Optional[str]
    onnxruntime_providers: Tuple[str, ...]
    onnxruntime_problem: str
    cuda: Dict[str, int] = field(default_factory=dict)
    rtx_capabilities: Tuple[str, ...] = RTX_CAPABILITIES


def this_software() -> Software:
    """Look at the packages of this interpreter. Imports ONNX Runtime and TensorRT-RTX, nothing else that is heavy."""
    flavours = importable_tensorrt()
    providers, problem = onnxruntime_providers()
    visible = any(flavour.module == "tensorrt" for flavour in flavours)
    return Software(
        packages=installed_packages(),
        tensorrt=flavours,
        system_tensorrt=None if visible else find_system_tensorrt(system_package_folders()),
        cuda_binding=cuda_binding(),
        onnxruntime_providers=providers,
        onnxruntime_problem=problem,
        cuda=cuda_packages(),
        rtx_capabilities=rtx_capabilities(),
    )


def installed_packages() -> Dict[str, str]:
    """Version of each distribution of WATCHED that is installed, by name."""
    found = {name: version_of(name) for name in WATCHED}
    return {name: version for name, version in found.items() if version is not None}


def version_of(distribution: str) -> Optional[str]:
    """Installed version of a distribution, from its metadata; None when it is not there or its metadata is broken."""
    try:
        return importlib.metadata.version(distribution)
    except Exception:
        # PackageNotFoundError, or one of several errors that damaged metadata of somebody else's package gives.
        return None


def importable(module: str) -> bool:
    """Whether a top-level module can be found. It is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def importable_tensorrt() -> Tuple[TensorRT, ...]:
    """The TensorRT flavours that can be found, with their versions."""
    return tuple(
        TensorRT(module, next(filter(None, map(version_of, distributions)), None))
        for module, distributions in TENSORRT_FLAVOURS
        if importable(module)
    )


def cuda_binding() -> Optional[str]:
    """The package that can allocate GPU memory for TensorRT: cuda-python, else pycuda."""
    # By metadata: "cuda" is a namespace package, and any folder of that name on the path would look like it.
    if version_of("cuda-python") or version_of("cuda-bindings"):
        return "cuda-python"
    return "pycuda" if importable("pycuda") else None


def onnxruntime_providers() -> Tuple[Tuple[str, ...], str]:
    """(execution providers, problem): what ONNX Runtime offers, and why not when its import fails."""
    if not importable("onnxruntime"):
        return (), ""
    try:
        return tuple(importlib.import_module("onnxruntime").get_available_providers()), ""
    except Exception as error:
        # A broken shared library or two packages of one import name end in several kinds of error.
        return (), f"{type(error).__name__}: {error}"


def system_package_folders() -> Tuple[Path, ...]:
    """Where Debian and Ubuntu, and so JetPack, keep the Python packages of the system."""
    roots = (Path("/usr/lib"), Path("/usr/local/lib"))
    return tuple(folder for root in roots for folder in sorted(root.glob("python3*/dist-packages")))


def find_system_tensorrt(folders: Iterable[Path]) -> Optional[SystemTensorRT]:
    """The first of ``folders`` that holds a ``tensorrt`` package which this interpreter does not search.

    A virtual environment hides the system's packages, which is why ``import tensorrt`` fails on a Jetson that has it.
    """
    searched = {str(Path(entry)) for entry in sys.path}
    for folder in folders:
        if str(folder) in searched or not (folder / "tensorrt" / "__init__.py").is_file():
            continue
        versions = (
            re.match(r"tensorrt-([\d.]*\d)(?:-py[\d.]+)?\.(?:dist|egg)-info$", entry.name)
            for entry in sorted(folder.glob("tensorrt-*-info"))
        )
        version = next((found.group(1) for found in versions if found), None)
        python = re.search(r"python(3\.\d+)", str(folder))
        return SystemTensorRT(str(folder), version, python.group(1) if python else None)
    return None
