"""Who am I: the environment that every result carries, and what this machine can do, lacks, and how to get it.

The facts are gathered in machine.py and packages.py beside it; the judging here is pure: facts in, findings out.
"""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from sr_deploy.core.errors import EnvironmentFault, UsageError
from sr_deploy.core.host.doctor_tensorrt import build_tensorrt, driver_findings, run_tensorrt
from sr_deploy.core.host.finding import MISSING, OK, WARNING, Facts, Finding, gpu_text, version_tuple
from sr_deploy.core.host.install import pip_install
from sr_deploy.core.host.l4t import IMAGE_VARIABLE, check_container
from sr_deploy.core.host.machine import XAVIER_NX_GPU_MHZ, Jetson, Machine, this_machine
from sr_deploy.core.host.packages import installed_packages, this_software

#: What reading a checkpoint and writing its graph takes (the extra "export").
EXPORT_PACKAGES = ("torch", "onnx", "onnxscript", "onnx-graphsurgeon", "onnxruntime", "safetensors")
#: The oldest Python that the extra "export" fits, and where to export when this one is older.
EXPORT_PYTHON = (3, 10)
EXPORT_ELSEWHERE = "export on a PC with Python 3.10 or newer and copy the deployment folder here"


def environment() -> Dict[str, Any]:
    """What every result carries: machine and package versions, ready for JSON. Imports no heavy package."""
    found = {**dataclasses.asdict(this_machine()), "packages": installed_packages()}
    # Through JSON once, so that it equals itself when it is read back from a result file (lists, not tuples).
    plain: Dict[str, Any] = json.loads(json.dumps(found))
    return plain


def environment_identity(environment_of_a_result: Dict[str, Any]) -> Dict[str, Any]:
    """The part of an environment that must agree for two measurements to belong together.

    Free memory changes from second to second and is left out; all else (device, driver, power mode, versions) counts.
    """
    return {key: value for key, value in environment_of_a_result.items() if key != "memory_available_bytes"}


def gather_facts() -> Facts:
    """Look at this machine and this interpreter; raises nothing."""
    return Facts(this_machine(), this_software())


def doctor_findings(facts: Optional[Facts] = None) -> Tuple[Finding, ...]:
    """Judge the facts: one finding for each capability, and one more for each thing that will hurt.

    Args:
        facts: None for those of this machine. Gathering them imports ONNX Runtime; nothing raises.
    """
    facts = facts or gather_facts()
    findings = [_machine(facts.machine), _gpu(facts.machine), *driver_findings(facts), _export(facts), _zoo(facts)]
    findings += _onnxruntime(facts)
    findings += [build_tensorrt(facts), run_tensorrt(facts)]
    if facts.machine.jetson:
        findings += _jetson(facts, facts.machine.jetson)
    return tuple(findings + _numpy(facts) + _container())


def unmet(findings: Sequence[Finding], needed: Sequence[str]) -> Tuple[str, ...]:
    """What of ``needed`` no finding says ok of, each with what was found.

    Args:
        findings: from ``doctor_findings``.
        needed: the ``what`` of findings, such as "run TensorRT engines".

    Raises:
        UsageError: there is no such finding here.
    """
    of = {what: [finding for finding in findings if finding.what == what] for what in needed}
    unknown = [what for what in needed if not of[what] and what not in ("container", "Jetson")]
    if unknown:
        raise UsageError(
            f"doctor says nothing of {unknown[0]!r}", "one of " + ", ".join(dict.fromkeys(f.what for f in findings))
        )
    return tuple(
        f"{what}: {of[what][0].found if of[what] else 'not here'}"
        for what in needed
        if not of[what] or any(finding.level == MISSING for finding in of[what])
    )


def _numpy(facts: Facts) -> List[Finding]:
    """TensorRT 8.5, which JetPack 5 has, uses numpy.bool, which numpy 1.24 removed."""
    numpy = facts.software.packages.get("numpy", "")
    versions = [flavour.version or "" for flavour in facts.software.tensorrt if flavour.module == "tensorrt"]
    if facts.machine.jetson and (facts.machine.jetson.l4t or "").startswith("35."):
        versions.append("8.5")
    if version_tuple(numpy) < (1, 24) or (8, 5) not in [version_tuple(version)[:2] for version in versions]:
        return []
    found = f"numpy {numpy} breaks the TensorRT 8.5 of JetPack 5"
    return [Finding(WARNING, "numpy", found, 'pip install "numpy<1.24"')]


def _container() -> List[Finding]:
    """Whether the image fits the board; nothing outside of an image for a board."""
    image = os.environ.get(IMAGE_VARIABLE)
    if not image:
        return []
    try:
        check_container()
    except EnvironmentFault as fault:
        return [Finding(MISSING, "container", fault.found, fault.todo)]
    return [Finding(OK, "container", f"the image is for L4T {image}, as the board has")]


def _machine(machine: Machine) -> Finding:
    def gib(count: Optional[int]) -> str:
        return "?" if count is None else f"{count / 2**30:.1f}"

    text = (
        f"{machine.cpu}, {machine.cores} cores, {gib(machine.memory_available_bytes)} of "
        f"{gib(machine.memory_total_bytes)} GiB free, {machine.system}, Python {machine.python}"
    )
    if machine.memory_available_bytes is not None and machine.memory_available_bytes < 2**30:
        return Finding(WARNING, "machine", text, "less than 1 GiB is free: close other programs before a build")
    return Finding(OK, "machine", text)


def _gpu(machine: Machine) -> Finding:
    if not machine.gpus:
        return Finding(
            MISSING,
            "NVIDIA GPU",
            "none (no answer from CUDA, nvidia-smi or NVML)",
            "everything but running TensorRT engines works without one; in a container, start it with --gpus all",
        )
    return Finding(OK, "NVIDIA GPU", "; ".join(map(gpu_text, machine.gpus)))


def _export(facts: Facts) -> Finding:
    what, packages = "read checkpoints and export", facts.software.packages
    absent = [name for name in EXPORT_PACKAGES if not _has(packages, name)]
    if not absent:
        return Finding(OK, what, ", ".join(f"{name} {packages[name]}" for name in EXPORT_PACKAGES if name in packages))
    if version_tuple(facts.machine.python) < EXPORT_PYTHON:
        found = f"no {', '.join(absent)}, and Python {facts.machine.python} is too old for them"
        return Finding(MISSING, what, found, EXPORT_ELSEWHERE)
    return Finding(MISSING, what, f"no {', '.join(absent)}", pip_install("export"))


def _zoo(facts: Facts) -> Finding:
    what, packages = "architectures of spandrel", facts.software.packages
    if "spandrel" in packages:
        return Finding(OK, what, f"spandrel {packages['spandrel']}")
    get = pip_install("zoo") if version_tuple(facts.machine.python) >= EXPORT_PYTHON else EXPORT_ELSEWHERE
    return Finding(MISSING, what, "no spandrel (only needed for networks that are not built in)", get)


def _onnxruntime(facts: Facts) -> List[Finding]:
    software, packages = facts.software, facts.software.packages
    both = [name for name in ("onnxruntime", "onnxruntime-gpu") if name in packages]
    if software.onnxruntime_problem:
        return [
            Finding(
                MISSING,
                "run on the CPU",
                f"ONNX Runtime is installed and does not import: {software.onnxruntime_problem}",
                f"pip uninstall -y onnxruntime onnxruntime-gpu && {pip_install('onnxruntime')}",
            )
        ]
    if not software.onnxruntime_providers:
        return [Finding(MISSING, "run on the CPU", "no ONNX Runtime", pip_install("onnxruntime"))]
    named = ", ".join(f"{name} {packages[name]}" for name in both) or "ONNX Runtime"
    findings = [Finding(OK, "run on the CPU", f"{named}: {', '.join(software.onnxruntime_providers)}")]
    if len(both) == 2:
        findings.append(
            Finding(
                WARNING,
                "ONNX Runtime",
                "onnxruntime and onnxruntime-gpu are both installed; they overwrite each other's files",
                f"pip uninstall -y onnxruntime onnxruntime-gpu && {pip_install('onnxruntime-gpu')}",
            )
        )
    elif (
        facts.machine.gpus
        and not facts.machine.jetson
        and "CUDAExecutionProvider" not in software.onnxruntime_providers
    ):
        findings.append(
            Finding(
                MISSING,
                "run ONNX Runtime on the GPU",
                "this ONNX Runtime has no CUDA provider",
                f"pip uninstall -y onnxruntime && {pip_install('onnxruntime-gpu')}",
            )
        )
    return findings


def _jetson(facts: Facts, jetson: Jetson) -> List[Finding]:
    name = jetson.model or "a Jetson (model unknown: no device tree in this container)"
    power = _power_text(facts.machine)
    findings = [Finding(OK, "Jetson", f"{name}, L4T {jetson.l4t or 'unknown'}, power mode {power}")]
    mode = jetson.power_mode if "Xavier NX" in (jetson.model or "") else None
    mhz = XAVIER_NX_GPU_MHZ.get(mode) if mode is not None else None
    fastest = max(XAVIER_NX_GPU_MHZ.values())
    if mhz is not None and mhz < fastest:
        findings.append(
            Finding(
                WARNING,
                "Jetson power mode",
                f"mode {power} runs the GPU at {mhz} of {fastest} MHz",
                "before measuring: sudo nvpmodel -m 8 && sudo jetson_clocks (mode 8 draws 20 W; mode 2 draws 15 W)",
            )
        )
    return findings


def _power_text(machine: Machine) -> str:
    jetson = machine.jetson
    if jetson is None or jetson.power_mode is None:
        return "unknown"
    return f"{jetson.power_mode} ({jetson.power_mode_name})"


def _has(packages: Mapping[str, str], name: str) -> bool:
    """onnxruntime-gpu holds all that onnxruntime does."""
    return name in packages or (name == "onnxruntime" and "onnxruntime-gpu" in packages)
