"""Sensors from files and lines of machines that are not at hand, and the judgement over them."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from sr_deploy.bench import sensors
from sr_deploy.bench.monitor import watch_machine, why_invalid
from sr_deploy.bench.sensors import parse_smi, peak_rss_bytes, read_kernel, reset_peak_rss, throttle_names
from sr_deploy.bench.tegrastats import parse_tegrastats

# Lines in the documented layout of each release, written by hand for this test.
XAVIER = (
    "RAM 2641/7772MB (lfb 4x1MB) SWAP 120/3886MB (cached 3MB) CPU [12%@1420,off,7%@1418,0%@1421,off,off] "
    "EMC_FREQ 21%@1600 GR3D_FREQ 97%@1109 VIC_FREQ 0%@115 APE 150 MTS fg 0% bg 3% AO@38.5C GPU@41C "
    "PMIC@50C AUX@38.5C CPU@40.25C thermal@39.6C VDD_IN 9874/8123 VDD_CPU_GPU_CV 5012/3990 VDD_SOC 1604/1580"
)
JP5 = (
    "07-14-2023 10:11:12 RAM 3204/15823MB (lfb 2700x4MB) SWAP 0/7911MB (cached 0MB) "
    "CPU [5%@1190,2%@1190,0%@1190,0%@1190,off,off] EMC_FREQ 3%@1600 GR3D_FREQ 55%@803 "
    "NVDEC off CV0@-256C CPU@45.5C SOC2@44.1C VDD_IN 5200mW/4980mW VDD_SOC 1.5W/1.4W"
)
JP7 = "RAM 5000/62000MB (lfb 9x4MB) CPU [1%@2201,0%@2201] EMC_FREQ 1%@3199 GR3D_FREQ 40%@[1300,1250] gpu@47.2C"
THOR = "RAM 5000/125000MB (lfb 9x4MB) CPU [1%@2600] GR3D_FREQ @[1575,1575,1575] tj@50.1C VDD_GPU 12000mW/11000mW"
NO_ROOT = "RAM 100/200MB (lfb 1x1MB) CPU [0%@102] EMC_FREQ 0% GR3D_FREQ 0%"


def test_xavier_line():
    found = parse_tegrastats(XAVIER)
    assert found["ram_used_bytes"] == 2641 << 20 and found["ram_total_bytes"] == 7772 << 20
    assert (found["cpus_on"], found["cpu_mhz"]) == (3, pytest.approx(1419.7))
    assert (found["gpu_percent"], found["gpu_mhz"]) == (97, 1109)
    assert (found["memory_controller_percent"], found["memory_controller_mhz"]) == (21, 1600)
    assert (found["GPU_c"], found["CPU_c"]) == (41, 40.25)
    watts = [found[f"{rail}_w"] for rail in ("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC")]
    assert watts == pytest.approx([9.874, 5.012, 1.604])


def test_lines_of_other_releases():
    found = parse_tegrastats(JP5)
    assert (found["gpu_mhz"], found["VDD_IN_w"], found["VDD_SOC_w"]) == (803, 5.2, 1.5)
    assert "CV0_c" not in found and found["SOC2_c"] == 44.1
    assert (parse_tegrastats(JP7)["gpu_mhz"], parse_tegrastats(JP7)["gpu_percent"]) == (1250, 40)
    thor = parse_tegrastats(THOR)
    assert (thor["gpu_mhz"], thor["VDD_GPU_w"], "gpu_percent" in thor) == (1575, 12.0, False)
    bare = parse_tegrastats(NO_ROOT)
    assert bare["gpu_percent"] == 0 and "gpu_mhz" not in bare
    assert parse_tegrastats("") == {}


def written(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


def test_kernel_files(tmp_path):
    found = read_kernel(
        written(
            tmp_path,
            {
                "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil",
                "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "performance",
                "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1000000",
                "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "2000000",
                "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "2000000",
                "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3",
                "sys/class/thermal/thermal_zone0/type": "GPU-therm",
                "sys/class/thermal/thermal_zone0/temp": "41500",
                "sys/class/thermal/cooling_device0/type": "gpu-throttle-alert",
                "sys/class/thermal/cooling_device0/cur_state": "1",
                "sys/class/thermal/cooling_device1/type": "pwm-fan",
                "sys/class/thermal/cooling_device1/cur_state": "2",
                "sys/class/devfreq/17000000.gv11b/cur_freq": "1109250000",
                "sys/class/devfreq/17000000.gv11b/max_freq": "1109250000",
                "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/in1_label": "VDD_IN",
                "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/in1_input": "5000",
                "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/curr1_input": "2000",
                "sys/class/hwmon/hwmon5/oc1_event_cnt": "2",
                "proc/loadavg": "0.50 0.40 0.30 1/100 7",
            },
        )
    )
    assert found == {
        "cpu_governor": "performance+schedutil",
        "cpu_mhz": 1500.0,
        "cpu_max_mhz": 2000.0,
        "cpu_throttle_count": 3,
        "GPU-therm_c": 41.5,
        "throttle_alerts": ["gpu-throttle-alert"],
        "gpu_mhz": 1109.25,
        "gpu_max_mhz": 1109.25,
        "VDD_IN_w": 10.0,
        "overcurrent_count": 2,
        "load_1min": 0.5,
    }
    assert read_kernel(tmp_path / "nothing") == {}


def test_nvidia_smi_line():
    found = parse_smi("1980, 2619, 412.55, 700.00, 61, 2048, 0x0000000000000044\n")
    assert (found["gpu_mhz"], found["gpu_w"], found["gpu_used_bytes"]) == (1980.0, 412.55, 2 << 30)
    assert found["gpu_throttle"] == ["software power cap", "hardware thermal slowdown"]
    assert parse_smi("[N/A], [N/A], [N/A], [N/A], 50, 10, [Not Supported]") == {
        "gpu_c": 50.0,
        "gpu_used_bytes": 10 << 20,
    }
    assert parse_smi("") == {} and parse_smi("no devices were found") == {}


def test_names_of_throttle_reasons_are_nvmls():
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    assert throttle_names(pynvml.nvmlClocksThrottleReasonHwSlowdown) == ["hardware slowdown"]
    assert throttle_names(pynvml.nvmlClocksThrottleReasonSwPowerCap) == ["software power cap"]
    assert throttle_names(pynvml.nvmlClocksThrottleReasonSwThermalSlowdown) == ["software thermal slowdown"]
    assert throttle_names(pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown) == ["hardware power brake"]
    assert throttle_names(pynvml.nvmlClocksThrottleReasonSyncBoost) == ["sync boost"]
    assert throttle_names(pynvml.nvmlClocksThrottleReasonGpuIdle) == ["idle"]
    assert throttle_names(1 << 40) == ["reason 0x10000000000"]
    source = inspect.getsource(sensors.nvml_reader)
    names = set(re.findall(r"pynvml\.(\w+)", source)) | {"nvmlDeviceGetCurrentClocksEventReasons"}
    assert len(names) > 10 and not [name for name in names if not hasattr(pynvml, name)]


QUIET = {"gpu_throttle": ["idle"], "gpu_mhz": 1980.0, "cpu_governor": "performance", "power_mode": "8 (20W_6CORE)"}


@pytest.mark.parametrize(
    ("during", "after", "word"),
    [
        ([], {"gpu_throttle": ["hardware thermal slowdown"]}, "throttled: hardware thermal slowdown"),
        ([{**QUIET, "gpu_throttle": ["software power cap"]}], QUIET, "software power cap"),
        ([], {**QUIET, "power_mode": "0 (15W_2CORE)"}, r"power mode changed from 8 \(20W_6CORE\) to 0"),
        ([], {**QUIET, "cpu_governor": "powersave"}, "governor changed from performance to powersave"),
        ([QUIET, {**QUIET, "gpu_mhz": 1200.0}], QUIET, "between 1200 and 1980 MHz"),
        ([{"throttle_alerts": ["cpu-throttle-alert"]}], QUIET, "board throttled: cpu-throttle-alert"),
        ([], {**QUIET, "cpu_throttle_count": 9}, "CPU throttled 4 times"),
    ],
)
def test_changed_and_throttled_machines_are_found(during, after, word):
    assert re.search(word, why_invalid({**QUIET, "cpu_throttle_count": 5}, during, after))


def test_a_quiet_machine_is_valid():
    # Rising clocks between the idle reading before and the load, and idling after, are as it should be.
    busy = {**QUIET, "gpu_throttle": [], "gpu_mhz": 1980.0}
    assert why_invalid({**QUIET, "gpu_mhz": 345.0}, [busy, {**busy, "gpu_mhz": 1965.0}], QUIET) is None
    assert why_invalid({}, [], {}) is None
    assert why_invalid({}, [{"gpu_throttle": ["application clocks"]}], {}) is None


def test_the_watch_reads_this_machine_and_stops():
    reset_peak_rss()
    with watch_machine(interval=0.05) as watch:
        time.sleep(0.12)
        watch.timing_begins()
        block = np.ones(30_000_000, np.uint8)
        time.sleep(0.3)
        del block
    assert len(watch.sensors["during"]) >= 2
    assert set(watch.sensors) == {"before", "during", "after"}
    assert "load_1min" in watch.sensors["after"]
    assert watch.peak_memory["rss_bytes"] >= 30_000_000
    assert not watch._thread.is_alive()


def test_peak_memory_begins_anew():
    code = (
        "import numpy as np\n"
        "from sr_deploy.bench.sensors import peak_rss_bytes, reset_peak_rss\n"
        "x = np.ones(80_000_000, np.uint8); del x\n"
        "before = peak_rss_bytes(); done = reset_peak_rss(); print(int(done), before - peak_rss_bytes())\n"
    )
    done, fell = map(int, subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout.split())
    if not done:
        pytest.skip("this kernel does not let a process reset its peak")
    assert fell > 70_000_000
    assert peak_rss_bytes() > 0


def fake_tool(folder, name, text):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_jetsons_tools_are_asked_and_a_changed_mode_is_invalid(tmp_path, monkeypatch):
    fake_tool(tmp_path, "tegrastats", f"while :; do echo '{XAVIER}'; sleep 0.02; done")
    fake_tool(tmp_path, "nvpmodel", f"cat {tmp_path}/mode")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "mode").write_text("NV Power Mode: MODE_20W_6CORE\n8\n")
    with watch_machine(interval=0.05) as watch:
        time.sleep(0.3)
    assert watch.invalid is None
    assert watch.sensors["during"][-1]["gpu_mhz"] == 1109
    assert watch.sensors["before"]["power_mode"] == "8 (MODE_20W_6CORE)"
    with watch_machine(interval=0.05) as watch:
        (tmp_path / "mode").write_text("NV Power Mode: MODE_10W_DESKTOP\n5\n")
    assert "power mode changed from 8 (MODE_20W_6CORE) to 5 (MODE_10W_DESKTOP)" in watch.invalid
