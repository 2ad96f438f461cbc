"""Which GPU is meant where there are several, and what a Jetson's container without nvidia-smi tells."""

from __future__ import annotations

import sys
import types

import pytest

import sr_deploy.core.host.machine as machine
from sr_deploy.core.host.cuda_device import CudaDevice, bus_id
from sr_deploy.core.host.machine import Gpu, parse_nvidia_smi, with_cuda_first

QUERY = ("name", "compute_cap", "memory.total", "driver_version", "pci.bus_id")
TWO = (
    "NVIDIA GeForce GT 1030, 6.1, 2048, 550.54.14, 00000000:03:00.0\n"
    "NVIDIA GeForce RTX 3090, 8.6, 24576, 550.54.14, 00000000:65:00.0\n"
)
RTX = CudaDevice("NVIDIA GeForce RTX 3090", "8.6", "0000:65:00.0", 25 << 30, False)
XAVIER = CudaDevice("Xavier", "7.2", "0000:00:00.0", 8 << 30, True)


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        (b"0000:65:00.0\x00                   ", "0000:65:00.0"),
        ("00000000:0A:1F.3", "0000:0a:1f.3"),
        ("00010000:65:00.0", "10000:65:00.0"),
        ("[N/A]", None),
        ("", None),
    ],
)
def test_bus_ids_of_all_who_tell_them_are_written_alike(told, wanted):
    assert bus_id(told) == wanted


def test_the_gpu_that_cuda_runs_on_comes_first_with_what_the_driver_knows_of_it():
    first, other = with_cuda_first(parse_nvidia_smi(TWO, QUERY), RTX)
    assert (first.name, first.memory_bytes, first.driver) == ("NVIDIA GeForce RTX 3090", 24576 << 20, "550.54.14")
    assert (first.pci_bus_id, first.integrated) == ("0000:65:00.0", False)
    assert other.name == "NVIDIA GeForce GT 1030"


def test_two_cards_of_one_kind_are_told_apart_by_their_bus():
    text = "".join(f"NVIDIA H200, 9.0, 143771, 570.133.20, 00000000:{bus}:00.0\n" for bus in ("19", "3B"))
    second = CudaDevice("NVIDIA H200", "9.0", "0000:3b:00.0", 140 << 30, False)
    assert [gpu.pci_bus_id for gpu in with_cuda_first(parse_nvidia_smi(text, QUERY), second)] == [
        "0000:3b:00.0", "0000:19:00.0",
    ]  # fmt: skip


def test_a_gpu_that_the_driver_tools_do_not_know_is_taken_from_cuda():
    (gpu,) = with_cuda_first((), RTX)
    assert gpu == Gpu("NVIDIA GeForce RTX 3090", "8.6", 25 << 30, None, "0000:65:00.0", False)
    assert with_cuda_first((), None) == ()


def test_jetpack_6_whose_nvidia_smi_tells_no_bus_is_one_gpu():
    orin = CudaDevice("Orin", "8.7", "0000:00:00.0", 8 << 30, True)
    told = parse_nvidia_smi("Orin (nvgpu), [N/A], [N/A], 540.4.0, [N/A]\n", QUERY)
    assert with_cuda_first(told, orin) == (Gpu("Orin (nvgpu)", "8.7", None, "540.4.0", "0000:00:00.0", True),)


@pytest.fixture
def bare(monkeypatch):
    """A machine whose system files and tools say nothing: a default container of JetPack 5, with CUDA's device."""
    monkeypatch.setattr(machine, "_text_of", lambda path: "")
    monkeypatch.setattr(machine, "command_output", lambda command, timeout_seconds=10.0: "")
    monkeypatch.setattr(machine, "_gpus_by_nvml", lambda: ())
    monkeypatch.setattr(machine, "cuda_device", lambda: XAVIER)


def test_a_jetson_container_without_device_tree_and_nvidia_smi(bare):
    found = machine.this_machine()
    assert found.jetson is None
    assert found.gpus == (Gpu("Xavier (integrated)", "7.2", None, None, "0000:00:00.0", True),)


def test_there_an_engine_has_its_capability_and_its_memory_is_the_boards(bare, monkeypatch):
    from sr_deploy.core.host.cuda_device import cuda_device
    from sr_deploy.engine.preflight import shares_memory
    from sr_deploy.engine.tensorrt import targets_of
    from tests.engine.standin_8_5 import stand_in

    monkeypatch.setitem(sys.modules, "tensorrt", stand_in())
    assert targets_of("tensorrt", ()) == (("7.2",), "Xavier (integrated)")
    assert shares_memory(machine.this_machine())
    cuda_device.cache_clear()


def two_gpus_of_nvml(monkeypatch):
    """pynvml with two GPUs that differ in their clocks, by number and by bus."""
    nvml = types.ModuleType("pynvml")
    handles = {b"0000:03:00.0": 1, b"0000:65:00.0": 2}
    nvml.nvmlInit = lambda: None
    nvml.nvmlDeviceGetCount = lambda: len(handles)
    nvml.nvmlDeviceGetHandleByIndex = lambda index: index + 1
    nvml.nvmlDeviceGetHandleByPciBusId = lambda bus: handles[bus]
    nvml.nvmlDeviceGetClockInfo = lambda handle, kind: 1000 * handle
    nvml.nvmlDeviceGetCurrentClocksThrottleReasons = lambda handle: 0
    nvml.NVML_CLOCK_SM = nvml.NVML_CLOCK_MEM = 0
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return handles


def test_nvml_is_asked_for_the_gpu_of_cuda(monkeypatch):
    from sr_deploy.bench import monitor
    from sr_deploy.bench.sensors import nvml_reader

    handles = two_gpus_of_nvml(monkeypatch)
    monkeypatch.setattr(monitor, "cuda_device", lambda: RTX)
    with monitor._gpu_reader() as read:
        assert read()["gpu_mhz"] == 2000
    assert nvml_reader("0000:99:00.0") is None
    assert nvml_reader(None) is None, "of two GPUs none is meant"
    del handles[b"0000:65:00.0"]
    assert nvml_reader(None)()["gpu_mhz"] == 1000


def test_nvidia_smi_is_asked_for_the_gpu_of_cuda(monkeypatch):
    from sr_deploy.bench import sensors

    line, asked = "1980, 2619, 412.55, 700.00, 61, 2048, 0x0000000000000000\n", []
    monkeypatch.setattr(sensors, "command_output", lambda command: asked.append(command) or line)
    assert sensors.read_smi("0000:65:00.0")["gpu_mhz"] == 1980
    assert asked[0][:3] == ["nvidia-smi", "-i", "0000:65:00.0"]
    assert sensors.parse_smi(line * 2) == {}, "of two GPUs none is meant"
