"""The CUDA bindings' stand-ins by name, and how to make one of them the binding of this machine."""

from __future__ import annotations

import types
from typing import Any, Callable, Dict, Tuple

import sr_deploy.core.host.cuda_device as core
from tests.run.standin_cuda_python import cuda_python
from tests.run.standin_driver import Driver
from tests.run.standin_pycuda import pycuda

#: Name of a binding → the module that is imported, and its stand-in on a driver.
BINDINGS: Dict[str, Tuple[str, Callable[[Driver], types.ModuleType]]] = {
    "cuda-python 11.8": ("cuda.cudart", lambda driver: cuda_python(driver, "11")),
    "cuda-python 12": ("cuda.bindings.runtime", lambda driver: cuda_python(driver, "12")),
    "cuda-python 13": ("cuda.bindings.runtime", lambda driver: cuda_python(driver, "13")),
    "pycuda": ("pycuda.driver", pycuda),
}


def install(monkeypatch: Any, binding: str, driver: Driver) -> None:
    """Make this binding the one that imports; all others are absent, as on a machine that has this one alone."""
    wanted, make = BINDINGS[binding]
    module = make(driver)

    def only(name: str) -> Any:
        if name != wanted:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return module

    monkeypatch.setattr(core, "importlib", types.SimpleNamespace(import_module=only))
    core.cuda_device.cache_clear()
