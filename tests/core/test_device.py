"""Facts from the text that real machines print, and the findings that follow from them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sr_deploy.core.host.device import EXPORT_PACKAGES, doctor_findings, environment, environment_identity, gather_facts
from sr_deploy.core.host.doctor_tensorrt import runs_rtx
from sr_deploy.core.host.driver import cuda_in, cuda_packages, newest_cuda
from sr_deploy.core.host.finding import Facts
from sr_deploy.core.host.install import pip_install
from sr_deploy.core.host.machine import (
    Gpu,
    Jetson,
    Machine,
    available_memory_bytes,
    capability_of_jetson,
    parse_cpu_model,
    parse_meminfo,
    parse_nvidia_smi,
    parse_os_release,
    parse_power_mode,
    parse_tegra_release,
)
from sr_deploy.core.host.packages import (
    Software,
    SystemTensorRT,
    TensorRT,
    find_system_tensorrt,
    importable,
    version_of,
)
from sr_deploy.core.host.rtx import RTX_CAPABILITIES, rtx_capabilities

QUERY = ("name", "compute_cap", "memory.total", "driver_version")
H200 = Gpu("NVIDIA H200", "9.0", 143771 << 20, "570.133.20")
RTX = Gpu("NVIDIA GeForce RTX 3090", "8.6", 24576 << 20, "550.54.14")
PC = Machine("AMD EPYC 7763", "x86_64", 16, 64 << 30, 60 << 30, "Ubuntu 22.04.4 LTS", "3.11.7", (), None)
BOARD = replace(
    PC,
    architecture="aarch64",
    python="3.8.10",
    gpus=(Gpu("NVIDIA Jetson Xavier NX Developer Kit (integrated)", "7.2", None, None),),
    jetson=Jetson("NVIDIA Jetson Xavier NX Developer Kit", "35.4.1", 5, "MODE_10W_DESKTOP"),
)
BARE = Software({"numpy": "1.23.5"}, (), None, None, (), "")
EXPORT = dict.fromkeys(EXPORT_PACKAGES, "1.0")


def finding(facts: Facts, what: str):
    found = [f for f in doctor_findings(facts) if f.what == what]
    assert len(found) == 1, [f.what for f in doctor_findings(facts)]
    return found[0]


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64, "
            "DATE: Tue Aug  1 19:57:35 UTC 2023\n",
            "35.4.1",
        ),
        (
            "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
            "DATE: Wed Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\nTARGET_USERSPACE_LIB_DIR=nvidia\n",
            "36.4.3",
        ),
        ("# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t186ref\n", "32.7.1"),
        ("", None),
        ("something else", None),
    ],
)
def test_l4t_version(text, version):
    assert parse_tegra_release(text) == version


def test_nvidia_smi_of_two_cards():
    text = "NVIDIA GeForce RTX 3090, 8.6, 24576, 550.54.14\nNVIDIA H200, 9.0, 143771, 570.133.20\n"
    assert parse_nvidia_smi(text, QUERY) == (RTX, H200)


def test_nvidia_smi_without_compute_capability():
    fields = ("name", "memory.total", "driver_version")
    (gpu,) = parse_nvidia_smi("Tesla T4, 15109, 470.182.03\n", fields)
    assert gpu == Gpu("Tesla T4", None, 15109 << 20, "470.182.03")


def test_nvidia_smi_of_shared_memory_and_of_jetson():
    (gb10,) = parse_nvidia_smi("NVIDIA GB10, 12.1, [N/A], 580.95.05\n", QUERY)
    assert gb10 == Gpu("NVIDIA GB10", "12.1", None, "580.95.05")
    (orin,) = parse_nvidia_smi("Orin (nvgpu), [N/A], [N/A], 540.4.0\n", QUERY)
    assert orin == Gpu("Orin (nvgpu)", None, None, "540.4.0")


@pytest.mark.parametrize(
    "text",
    [
        "",
        'Field "compute_cap" is not a valid field to query.\n',
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n",
        "No devices were found\n",
    ],
)
def test_nvidia_smi_that_fails_names_no_gpu(text):
    assert parse_nvidia_smi(text, QUERY) == ()


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("NV Power Mode: MODE_10W_DESKTOP\n5\n", (5, "MODE_10W_DESKTOP")),
        ("NVPM WARN: fan mode is not set!\nNV Power Mode: MAXN\n0\n", (0, "MAXN")),
        ("NV Fan Mode:quiet\nNV Power Mode: MODE_20W_6CORE\n8\n", (8, "MODE_20W_6CORE")),
        ("NV Power Mode: 25W\n1\n", (1, "25W")),
        ("NVPM ERROR: Error opening /var/lib/nvpmodel/status: 2\n", (None, None)),
    ],
)
def test_power_mode(text, mode):
    assert parse_power_mode(text) == mode


def test_cpu_memory_and_system_texts():
    assert parse_cpu_model("processor\t: 0\nmodel name\t: AMD EPYC 7763 64-Core Processor\n") == (
        "AMD EPYC 7763 64-Core Processor"
    )
    assert parse_cpu_model("Architecture: aarch64\nModel name:            Cortex-A78AE\n") == "Cortex-A78AE"
    assert parse_cpu_model("processor\t: 0\nCPU part\t: 0x004\n") is None
    text = "MemTotal:       15817640 kB\nMemFree:          342676 kB\nMemAvailable:    9061592 kB\nSwapTotal: 0 kB\n"
    assert parse_meminfo(text) == (15817640 * 1024, 9061592 * 1024)
    assert parse_meminfo("") == (None, None)
    assert parse_os_release('NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 20.04.6 LTS"\n') == "Ubuntu 20.04.6 LTS"


@pytest.mark.parametrize(
    ("model", "capability"),
    [
        ("NVIDIA Jetson Xavier NX Developer Kit", "7.2"),
        ("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "8.7"),
        ("NVIDIA Jetson Nano Developer Kit", "5.3"),
        ("Raspberry Pi 4 Model B Rev 1.4", None),
        (None, None),
    ],
)
def test_capability_of_jetson(model, capability):
    assert capability_of_jetson(model) == capability


def test_environment_of_this_machine_is_json_and_equals_itself_read_back():
    found = environment()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["cores"] >= 1
    assert found["packages"]["numpy"] == __import__("numpy").__version__


def test_memory_of_this_machine_is_told_where_linux_tells_it():
    found = environment()
    if Path("/proc/meminfo").exists():
        assert 0 < available_memory_bytes() <= found["memory_total_bytes"]
        assert 0 < found["memory_available_bytes"] <= found["memory_total_bytes"]


def test_identity_ignores_free_memory_only():
    found = environment()
    assert environment_identity({**found, "memory_available_bytes": 1}) == environment_identity(found)
    for key in set(found) - {"memory_available_bytes"}:
        assert environment_identity({**found, key: "other"}) != environment_identity(found)


def test_environment_imports_nothing_heavy():
    code = (
        "import sys; from sr_deploy.core.host.device import environment; environment();"
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'tensorrt', 'tensorrt_rtx', 'cv2') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, timeout=60)
    assert out.stdout.decode().strip() == "[]"


def test_findings_of_this_machine():
    findings = doctor_findings(gather_facts())
    whats = {f.what for f in findings}
    assert {"machine", "NVIDIA GPU", "read checkpoints and export", "run TensorRT engines"} <= whats
    for f in findings:
        assert f.level in ("ok", "missing", "warning")
        assert f.found
        assert f.how_to_get or f.level == "ok"


def test_every_extra_that_doctor_names_exists():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    core = Path(__file__).parents[2] / "sr_deploy/core/host"
    source = "".join((core / name).read_text(encoding="utf-8") for name in ("device.py", "doctor_tensorrt.py"))
    for extra in ("export", "zoo", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx", "jetson"):
        assert f"\n{extra} = [" in text
        assert f'"{extra}"' in source or f"'{extra}'" in source


def test_bare_pc_learns_what_to_install():
    facts = Facts(PC, BARE)
    export = finding(facts, "read checkpoints and export")
    assert (export.level, export.how_to_get) == ("missing", pip_install("export"))
    assert "torch" in export.found
    assert finding(facts, "run on the CPU").how_to_get == pip_install("onnxruntime")
    assert finding(facts, "build TensorRT engines").how_to_get == pip_install("tensorrt-rtx")
    assert finding(facts, "run TensorRT engines").found == "no NVIDIA GPU"


def test_rtx_builds_without_a_gpu_and_tensorrt_does_not():
    rtx = replace(BARE, tensorrt=(TensorRT("tensorrt_rtx", "1.7.1.116"),))
    assert finding(Facts(PC, rtx), "build TensorRT engines").level == "ok"
    full = replace(BARE, tensorrt=(TensorRT("tensorrt", "10.3.0"),))
    assert finding(Facts(PC, full), "build TensorRT engines").level == "missing"
    assert finding(Facts(replace(PC, gpus=(RTX,)), full), "build TensorRT engines").level == "ok"


def test_running_engines_takes_gpu_tensorrt_and_binding():
    with_gpu = replace(PC, gpus=(RTX,))
    full = replace(BARE, tensorrt=(TensorRT("tensorrt", "10.3.0"),))
    assert finding(Facts(with_gpu, BARE), "run TensorRT engines").found == "no TensorRT"
    assert finding(Facts(with_gpu, full), "run TensorRT engines").how_to_get == 'pip install "cuda-python==12.*"'
    assert finding(Facts(with_gpu, replace(full, cuda_binding="pycuda")), "run TensorRT engines").level == "ok"


def test_rtx_is_refused_on_a_gpu_that_it_does_not_know():
    assert runs_rtx(RTX)
    assert not runs_rtx(H200)
    assert not runs_rtx(replace(RTX, compute_capability="7.0"))
    software = replace(BARE, tensorrt=(TensorRT("tensorrt_rtx", "1.7.1.116"),), cuda_binding="cuda-python")
    run = finding(Facts(replace(PC, gpus=(H200,)), software), "run TensorRT engines")
    assert (run.level, run.how_to_get) == ("missing", pip_install("tensorrt"))
    assert "9.0" in run.found


@pytest.mark.parametrize("capability", ["7.2", "8.7", "9.0", "10.0", "10.1", "10.3", "11.0"])
def test_rtx_is_never_recommended_on_a_gpu_that_it_does_not_know(capability):
    """Orin, Hopper, Thor and the data-centre Blackwells, which the module's ComputeCapability lacks."""
    machine = replace(PC, gpus=(replace(H200, compute_capability=capability),))
    assert "rtx" not in finding(Facts(machine, BARE), "build TensorRT engines").how_to_get
    with_rtx = replace(BARE, tensorrt=(TensorRT("tensorrt_rtx", "1.7.1.116"),), cuda_binding="cuda-python")
    run = finding(Facts(machine, with_rtx), "run TensorRT engines")
    assert (run.level, run.how_to_get) == ("missing", pip_install("tensorrt"))


def test_the_list_of_gpus_is_the_modules_own():
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    names = {name for name in trt.ComputeCapability.__members__ if name.startswith("SM")}
    assert {f"SM{capability.replace('.', '')}" for capability in rtx_capabilities()} == names
    if trt.__version__ == "1.7.1.116":
        assert rtx_capabilities() == RTX_CAPABILITIES
    newer = Facts(replace(PC, gpus=(H200,)), replace(BARE, rtx_capabilities=("9.0",)))
    assert finding(newer, "build TensorRT engines").how_to_get == pip_install("tensorrt-rtx")


@pytest.mark.parametrize(
    ("driver", "newest"),
    [("535.183.01", 12), ("550.54.14", 12), ("580.65.06", 13), ("470.182.03", 11), ("390.1", 0), (None, None)],
)
def test_newest_cuda_of_a_driver(driver, newest):
    assert newest_cuda(driver) == newest


@pytest.mark.parametrize(
    ("name", "version", "needed", "cuda"),
    [
        ("tensorrt", "11.4.0.106", ["tensorrt_cu13==11.4.0.106"], 13),
        ("tensorrt-cu12", "10.16.1.11", ["tensorrt_cu12_libs==10.16.1.11"], 12),
        ("tensorrt-rtx", "1.7.1.116", ["tensorrt_rtx_cu13==1.7.1.116"], 13),
        ("cuda-python", "13.4.4", ["cuda-bindings~=13.4.4"], 13),
        ("cuda-bindings", "12.9.10", [], 12),
        ("onnxruntime-gpu", "1.26.0", ["flatbuffers", 'nvidia-cuda-runtime-cu12~=12.0; extra == "cuda"'], 12),
        ("onnxruntime-gpu", "1.31.1", ["flatbuffers", 'nvidia-cuda-runtime~=13.0; extra == "cuda"'], 13),
        ("onnxruntime-gpu", "1.17.1", ["flatbuffers"], None),
    ],
)
def test_cuda_of_a_distribution(name, version, needed, cuda):
    """Lines of the metadata of the real wheels."""
    assert cuda_in(name, version, needed) == cuda


def test_cuda_of_what_is_installed_here():
    for name, cuda in cuda_packages().items():
        assert version_of(name) and cuda in (11, 12, 13)
    if version_of("cuda-python"):
        assert str(cuda_packages()["cuda-python"]) == version_of("cuda-python").split(".")[0]


NEW = replace(
    BARE,
    packages={"tensorrt-cu13": "11.4.0.106", "cuda-python": "13.4.4"},
    cuda={"tensorrt-cu13": 13, "cuda-python": 13},
    tensorrt=(TensorRT("tensorrt", "11.4.0.106"),),
    cuda_binding="cuda-python",
)


def test_a_driver_that_is_too_old_for_what_is_installed():
    """R550 and CUDA 13: cudaErrorInsufficientDriver at the first call, and doctor said all was well."""
    old = Facts(replace(PC, gpus=(RTX,)), NEW)
    driver = finding(old, "NVIDIA driver")
    assert driver.level == "missing" and driver.found.startswith("driver 550.54.14 runs CUDA 12;")
    assert "tensorrt-cu13 11.4.0.106 (CUDA 13)" in driver.found and "cuda-python 13.4.4 (CUDA 13)" in driver.found
    assert "580 or newer" in driver.how_to_get and pip_install("tensorrt") in driver.how_to_get
    for what in ("build TensorRT engines", "run TensorRT engines"):
        assert finding(old, what).level == "missing" and "too old for tensorrt-cu13" in finding(old, what).found


def test_a_driver_that_is_new_enough_or_not_to_be_judged():
    for gpu, software, jetson in (
        (replace(RTX, driver="580.65.06"), NEW, None),
        (RTX, replace(NEW, cuda={"tensorrt-cu12": 12, "cuda-python": 12}), None),
        (replace(RTX, driver=None), NEW, None),
        # JetPack 6: the number is of another series, and CUDA comes with JetPack.
        (replace(RTX, driver="540.4.0"), NEW, BOARD.jetson),
    ):
        facts = Facts(replace(PC, gpus=(gpu,), jetson=jetson), software)
        assert not [f for f in doctor_findings(facts) if f.what == "NVIDIA driver"]
        assert finding(facts, "run TensorRT engines").level == "ok"
    ancient = Facts(replace(PC, gpus=(replace(RTX, driver="470.182.03"),)), replace(NEW, cuda={"tensorrt-cu12": 12}))
    assert finding(ancient, "NVIDIA driver").how_to_get == "a driver of 525 or newer"


def test_an_extra_brings_one_cuda_and_no_newer_one():
    """An extra without an upper bound takes whatever CUDA is newest."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    for extra, cuda in (("tensorrt", 12), ("tensorrt-cu13", 13), ("tensorrt-rtx", 12), ("tensorrt-rtx-cu13", 13)):
        line = next(line for line in text.splitlines() if line.startswith(f"{extra} = ["))
        packages = re.findall(r'"([^"]+)"', line)
        assert f"cuda-python>={cuda},<{cuda + 1}" in packages
        assert re.match(rf"{extra.split('-cu')[0]}-cu{cuda}(==|>=[\d.]+,<)", packages[0])
    assert "[cuda,cudnn]>=1.21,<1.27" in text and "[cuda,cudnn]>=1.27,<2" in text


def test_broken_and_doubled_onnxruntime():
    broken = replace(BARE, onnxruntime_problem="ImportError: libcudart.so.12: cannot open shared object file")
    assert "libcudart" in finding(Facts(PC, broken), "run on the CPU").found
    doubled = replace(
        BARE,
        packages={"onnxruntime": "1.18.0", "onnxruntime-gpu": "1.18.0"},
        onnxruntime_providers=("CPUExecutionProvider",),
    )
    assert finding(Facts(PC, doubled), "ONNX Runtime").level == "warning"
    cpu_only = replace(doubled, packages={"onnxruntime": "1.18.0"})
    assert finding(Facts(replace(PC, gpus=(RTX,)), cpu_only), "run ONNX Runtime on the GPU").level == "missing"


def test_jetson_in_mode_5_is_warned():
    warned = finding(Facts(BOARD, BARE), "Jetson power mode")
    assert warned.level == "warning"
    assert "510 of 1109 MHz" in warned.found
    assert "nvpmodel -m 8" in warned.how_to_get
    fast = replace(BOARD, jetson=replace(BOARD.jetson, power_mode=8, power_mode_name="MODE_20W_6CORE"))
    assert not [f for f in doctor_findings(Facts(fast, BARE)) if f.what == "Jetson power mode"]
    # Mode 5 of another board means something else.
    orin = replace(BOARD, jetson=replace(BOARD.jetson, model="NVIDIA Jetson AGX Orin Developer Kit"))
    assert not [f for f in doctor_findings(Facts(orin, BARE)) if f.what == "Jetson power mode"]


def test_jetson_with_tensorrt_hidden_by_a_virtual_environment():
    hidden = SystemTensorRT("/usr/lib/python3.8/dist-packages", "8.5.2.2", "3.8")
    build = finding(Facts(BOARD, replace(BARE, system_tensorrt=hidden)), "build TensorRT engines")
    assert "No module named tensorrt" in build.found
    assert "8.5.2.2" in build.found
    assert build.how_to_get == "python3 -m venv --system-site-packages .venv"
    newer = Facts(replace(BOARD, python="3.10.12"), replace(BARE, system_tensorrt=hidden))
    assert "python3.8 -m venv --system-site-packages" in finding(newer, "run TensorRT engines").how_to_get


def test_jetson_with_a_numpy_that_breaks_its_tensorrt():
    facts = Facts(BOARD, replace(BARE, packages={"numpy": "1.24.4"}))
    assert finding(facts, "numpy").how_to_get == 'pip install "numpy<1.24"'
    assert not [f for f in doctor_findings(Facts(BOARD, BARE)) if f.what == "numpy"]


def test_old_python_learns_what_a_newer_one_is_needed_for():
    old = Facts(replace(PC, python="3.8.10"), BARE)
    assert "3.10" in finding(old, "architectures of spandrel").how_to_get
    assert finding(old, "build TensorRT engines").how_to_get.startswith("with Python 3.9 or newer: pip install")
    assert "PC" in finding(Facts(BOARD, BARE), "read checkpoints and export").how_to_get
    assert finding(Facts(PC, replace(BARE, packages=EXPORT)), "read checkpoints and export").level == "ok"


def test_system_tensorrt_is_found_in_a_folder_that_python_does_not_search(tmp_path, monkeypatch):
    folder = tmp_path / "python3.8" / "dist-packages"
    (folder / "tensorrt").mkdir(parents=True)
    assert find_system_tensorrt([folder]) is None
    (folder / "tensorrt" / "__init__.py").write_text("")
    (folder / "tensorrt-8.5.2.2.dist-info").mkdir()
    assert find_system_tensorrt([tmp_path / "none", folder]) == SystemTensorRT(str(folder), "8.5.2.2", "3.8")
    monkeypatch.syspath_prepend(str(folder))
    assert find_system_tensorrt([folder]) is None


def test_packages_that_are_and_are_not_there():
    assert importable("json")
    assert not importable("no_such_module_anywhere")
    assert version_of("numpy")
    assert version_of("no-such-distribution-anywhere") is None
