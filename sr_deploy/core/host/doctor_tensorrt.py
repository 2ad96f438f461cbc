"""What ``doctor`` says of TensorRT: building and running with it, and the driver below. Facts in, findings out."""

from __future__ import annotations

from typing import Dict, List, Sequence

from sr_deploy.core.host.driver import OLDEST_DRIVER, newest_cuda, too_new
from sr_deploy.core.host.finding import MISSING, OK, Facts, Finding, gpu_text, version_tuple
from sr_deploy.core.host.install import pip_install
from sr_deploy.core.host.machine import Gpu
from sr_deploy.core.host.rtx import RTX_CAPABILITIES

#: Extras of CUDA 12, which every driver from 525 on runs; those of CUDA 13 have "-cu13" in their name.
CUDA_12_EXTRAS = ("tensorrt", "tensorrt-rtx", "onnxruntime-gpu")
#: The oldest Python that TensorRT-RTX has wheels for.
RTX_PYTHON = (3, 9)


def driver_findings(facts: Facts) -> List[Finding]:
    """Packages of a newer CUDA than the driver runs; nothing when there are none."""
    wrong = _too_new(facts)
    if not wrong:
        return []
    driver = facts.machine.gpus[0].driver
    versions = facts.software.packages
    named = ", ".join(f"{name} {versions.get(name, '?')} (CUDA {cuda})" for name, cuda in wrong.items())
    newest = newest_cuda(driver)
    ready = f"CUDA {newest}" if newest else f"no CUDA from {min(OLDEST_DRIVER)} on"
    found = f"driver {driver} runs {ready}; installed for a newer one: {named}"
    return [Finding(MISSING, "NVIDIA driver", found, _older_cuda(facts, wrong))]


def _too_new(facts: Facts) -> Dict[str, int]:
    """See ``core.driver.too_new``. A Jetson's CUDA comes with JetPack, and its driver's number says nothing of it."""
    machine = facts.machine
    return {} if machine.jetson or not machine.gpus else too_new(facts.software.cuda, machine.gpus[0].driver)


def _too_old(facts: Facts, wrong: Dict[str, int]) -> str:
    return f"driver {facts.machine.gpus[0].driver} is too old for " + ", ".join(wrong)


def _older_cuda(facts: Facts, wrong: Dict[str, int]) -> str:
    """The way out of ``wrong`` packages: those of CUDA 12 where the driver runs it, else a newer driver."""
    driver = f"a driver of {OLDEST_DRIVER.get(max(wrong.values()), max(OLDEST_DRIVER.values()))} or newer"
    if newest_cuda(facts.machine.gpus[0].driver) != 12:
        return driver
    bases = {name.split("-cu")[0] for name in wrong}
    extras = [extra for extra in CUDA_12_EXTRAS if extra in bases] or ["tensorrt"]
    return f"{driver}; or, in a new virtual environment, {pip_install(','.join(extras))} (CUDA 12)"


def build_tensorrt(facts: Facts) -> Finding:
    """Whether engines can be built here, with which TensorRT."""
    what, jetson = "build TensorRT engines", facts.machine.jetson
    modules = {flavour.module: flavour.version or "?" for flavour in facts.software.tensorrt}
    ways = []
    wrong = {name: cuda for name, cuda in _too_new(facts).items() if name.split("-cu")[0] == "tensorrt"}
    if "tensorrt" in modules and facts.machine.gpus and not wrong:
        ways.append(f"TensorRT {modules['tensorrt']} for the GPU of this machine")
    if "tensorrt_rtx" in modules:
        ways.append(f"TensorRT-RTX {modules['tensorrt_rtx']} for any compute capability it knows, without a GPU")
    if ways:
        return Finding(OK, what, "; ".join(ways))
    if wrong:
        return Finding(MISSING, what, _too_old(facts, wrong), _older_cuda(facts, wrong))
    if "tensorrt" in modules:
        return Finding(
            MISSING,
            what,
            f"TensorRT {modules['tensorrt']}, and no GPU: it builds only on the GPU that runs the engine",
            f"build on that machine, or {pip_install('tensorrt-rtx')} to build for an RTX GPU from here",
        )
    hidden = facts.software.system_tensorrt
    if hidden:
        return Finding(
            MISSING,
            what,
            f"the system's TensorRT {hidden.version or ''} in {hidden.folder} is not visible "
            "to this Python (No module named tensorrt)",
            _unhide(facts),
        )
    if jetson:
        return Finding(MISSING, what, "no TensorRT", "sudo apt-get install python3-libnvinfer")
    if any(not runs_rtx(gpu, facts.software.rtx_capabilities) for gpu in facts.machine.gpus):
        return Finding(MISSING, what, "no TensorRT", pip_install("tensorrt"))
    new_enough = version_tuple(facts.machine.python) >= RTX_PYTHON
    first = "" if new_enough else f"with Python {'.'.join(map(str, RTX_PYTHON))} or newer: "
    return Finding(MISSING, what, "no TensorRT", first + pip_install("tensorrt-rtx"))


def _unhide(facts: Facts) -> str:
    """The step that makes JetPack's TensorRT visible; its extension module fits one Python version only."""
    hidden = facts.software.system_tensorrt
    built_for = hidden.python if hidden else None
    if built_for and version_tuple(built_for) != version_tuple(facts.machine.python)[:2]:
        return f"it is built for Python {built_for}: python{built_for} -m venv --system-site-packages .venv"
    return "python3 -m venv --system-site-packages .venv"


def run_tensorrt(facts: Facts) -> Finding:
    """Whether engines run here."""
    what, machine, software = "run TensorRT engines", facts.machine, facts.software
    if not machine.gpus:
        return Finding(MISSING, what, "no NVIDIA GPU", "copy the deployment to a machine that has one")
    modules = [flavour.module for flavour in software.tensorrt]
    if not modules:
        return Finding(MISSING, what, "no TensorRT", build_tensorrt(facts).how_to_get)
    if not software.cuda_binding:
        newest = min(newest_cuda(machine.gpus[0].driver) or 12, max(OLDEST_DRIVER))
        get = pip_install("jetson") if machine.jetson else f'pip install "cuda-python=={newest}.*"'
        return Finding(MISSING, what, "no CUDA binding for Python (cuda-python or pycuda)", get)
    wrong = {name: cuda for name, cuda in _too_new(facts).items() if name != "onnxruntime-gpu"}
    if wrong:
        return Finding(MISSING, what, _too_old(facts, wrong), _older_cuda(facts, wrong))
    if modules == ["tensorrt_rtx"] and not any(runs_rtx(gpu, software.rtx_capabilities) for gpu in machine.gpus):
        return Finding(
            MISSING, what, f"TensorRT-RTX does not run on {gpu_text(machine.gpus[0])}", pip_install("tensorrt")
        )
    return Finding(OK, what, f"{' and '.join(modules)} with {software.cuda_binding}")


def runs_rtx(gpu: Gpu, supported: Sequence[str] = RTX_CAPABILITIES) -> bool:
    """Whether TensorRT-RTX, which supports these compute capabilities, runs on a GPU (of an unknown one: yes)."""
    return gpu.compute_capability is None or gpu.compute_capability in supported
