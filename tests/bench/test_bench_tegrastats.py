"""tegrastats and nvpmodel as boards printed them: lines that their owners published, one a board and release.

Xavier NX and Orin were not at hand. Where a line's release is known from what was published beside it, it is named.
"""

from __future__ import annotations

import pytest

from sr_deploy.bench.tegrastats import parse_tegrastats
from sr_deploy.core.host.machine import parse_power_mode

MIB = 1 << 20
LINES = {
    "Xavier NX, JetPack 5.1.2": (
        "07-09-2024 13:31:31 RAM 3168/6851MB (lfb 2x4MB) SWAP 161/3426MB (cached 0MB) "
        "CPU [23%@1397,17%@1192,16%@1190,13%@1190,23%@1190,10%@1190] EMC_FREQ 2%@204 GR3D_FREQ 0%@[114] VIC_FREQ 115 "
        "APE 150 AUX@45C CPU@46.5C thermal@45.6C AO@45C GPU@45.5C PMIC@50C "
        "VDD_IN 2763mW/2846mW VDD_CPU_GPU_CV 650mW/670mW VDD_SOC 650mW/711mW",
        {"ram_used_bytes": 3168 * MIB, "ram_total_bytes": 6851 * MIB, "swap_used_bytes": 161 * MIB, "cpus_on": 6,
         "cpu_mhz": 1224.8, "gpu_percent": 0, "gpu_mhz": 114, "memory_controller_percent": 2,
         "memory_controller_mhz": 204, "GPU_c": 45.5, "AUX_c": 45.0, "thermal_c": 45.6, "VDD_IN_w": 2.763,
         "VDD_CPU_GPU_CV_w": 0.65, "VDD_SOC_w": 0.65},
    ),
    "Xavier NX in mode 5, JetPack 5": (
        "RAM 2690/6854MB (lfb 6x1MB) SWAP 479/3427MB (cached 3MB) CPU [3%@1904,7%@1906,1%@1905,0%@1907,off,off] "
        "EMC_FREQ 0%@1600 GR3D_FREQ 0%@[510] VIC_FREQ 601 APE 150 AUX@39C CPU@39.5C AO@37.5C GPU@37.5C PMIC@50C "
        "VDD_IN 5079mW/5079mW VDD_CPU_GPU_CV 696mW/696mW VDD_SOC 1104mW/1104mW",
        {"cpus_on": 4, "cpu_mhz": 1905.5, "gpu_mhz": 510, "memory_controller_mhz": 1600, "VDD_IN_w": 5.079},
    ),
    "Orin Nano, JetPack 6": (
        "10-08-2026 04:38:21 RAM 1343/7620MB (lfb 157x4MB) SWAP 165/3810MB (cached 3MB) "
        "CPU [0%@1497,0%@729,0%@729,0%@729,0%@729,0%@729] EMC_FREQ 15%@204 GR3D_FREQ 0%@[305] NVDEC off NVJPG off "
        "VIC off OFA off APE 200 cpu@48.562C soc2@46.593C soc0@48.625C gpu@49.625C tj@49.312C soc1@47.937C "
        "VDD_IN 5251mW/8535mW VDD_CPU_GPU_CV 512mW/1944mW VDD_SOC 2720mW/3659mW",
        {"gpu_mhz": 305, "memory_controller_percent": 15, "gpu_c": 49.625, "tj_c": 49.312, "VDD_IN_w": 5.251,
         "VDD_CPU_GPU_CV_w": 0.512, "VDD_SOC_w": 2.72},
    ),
    "AGX Orin, JetPack 6 (L4T 36.4.4)": (
        "05-09-2026 18:42:06 RAM 18207/62841MB (lfb 466x4MB) SWAP 86/31420MB (cached 0MB) CPU [14%@2188,5%@2112,"
        "8%@2035,14%@2201,46%@1267,47%@1267,2%@1267,10%@1267,4%@1036,5%@1036,6%@1036,10%@1036] EMC_FREQ 3%@2133 "
        "GR3D_FREQ 0%@[0,0] NVENC 79%@166 NVDEC off NVJPG off NVJPG1 off VIC 36%@115 OFA off NVDLA0 off NVDLA1 off "
        "PVA0_FREQ off APE 174 cpu@52.562C soc2@48.437C soc0@49.093C tj@52.562C soc1@49.656C "
        "VDD_GPU_SOC 2412mW/2412mW VDD_CPU_CV 1607mW/1607mW VIN_SYS_5V0 4707mW/4707mW",
        {"ram_used_bytes": 18207 * MIB, "cpus_on": 12, "gpu_percent": 0, "gpu_mhz": 0, "cpu_c": 52.562,
         "VDD_GPU_SOC_w": 2.412, "VDD_CPU_CV_w": 1.607, "VIN_SYS_5V0_w": 4.707},
    ),
    "AGX Orin, sensors off": (
        "04-11-2025 10:36:27 RAM 4321/62801MB (lfb 1759x4MB) SWAP 19/31400MB (cached 0MB) CPU [0%@729,0%@729,0%@729,"
        "0%@729,0%@729,0%@729,0%@729,0%@729,0%@729,0%@729,0%@729,0%@729] EMC_FREQ 0%@2133 GR3D_FREQ 0%@[0,0] "
        "VIC_FREQ 729 APE 174 CV0@-256C CPU@44.562C Tboard@32C SOC2@40.093C Tdiode@33C SOC0@41.093C CV1@-256C "
        "GPU@-256C tj@44.343C SOC1@41.25C CV2@-256C VDD_GPU_SOC 2340mW/2340mW VDD_CPU_CV 390mW/390mW "
        "VIN_SYS_5V0 4025mW/4025mW NC 0mW/0mW VDDQ_VDD2_1V8AO 301mW/301mW NC 0mW/0mW",
        {"cpu_mhz": 729.0, "CPU_c": 44.562, "Tboard_c": 32.0, "VDDQ_VDD2_1V8AO_w": 0.301},
    ),
    "Thor, JetPack 7 (L4T 38.4)": (
        "05-17-2026 10:00:33 RAM 4280/125773MB (lfb 29x4MB) SWAP 0/2048MB (cached 0MB) CPU [0%@972,0%@972,0%@972,"
        "0%@972,1%@972,0%@972,1%@972,0%@972,0%@2601,17%@2601,1%@972,9%@972,0%@972,1%@972] EMC_FREQ 0%@665 "
        "GR3D_FREQ @[0,0,0] NVENC0_FREQ @0 NVENC1_FREQ @0 NVDEC0_FREQ @0 NVDEC1_FREQ @0 NVJPG0_FREQ @0 VIC off "
        "OFA_FREQ @0 PVA0_FREQ off APE 300 cpu@35.25C tj@36.031C soc012@36.062C soc345@34.5C VDD_GPU 0mW/0mW "
        "VDD_CPU_SOC_MSS 4923mW/4544mW VIN_SYS_5V0 4327mW/4227mW",
        {"cpus_on": 14, "gpu_mhz": 0, "memory_controller_mhz": 665, "tj_c": 36.031, "VDD_GPU_w": 0.0,
         "VDD_CPU_SOC_MSS_w": 4.923, "VIN_SYS_5V0_w": 4.327},
    ),
    "Thor under load, JetPack 7 (L4T 39)": (
        "08-08-2026 21:00:39 RAM 8353/125749MB (lfb 31x4MB) CPU [90%@2601,75%@2601,off,7%@2601] EMC_FREQ 34%@4266 "
        "GR3D_FREQ 87%@[1574,1574,1574] NVENC0_FREQ @1691 VIC off cpu@58.25C/61.75C tj@66.625C/66.625C "
        "gpu@56.937C/66.625C soc012@55.375C/58.781C soc345@55.812C/60.031C VDD_GPU 37939mW/8660mW/37939mW "
        "VDD_CPU_SOC_MSS 30059mW/12281mW/30059mW VIN_SYS_5V0 15486mW/7424mW/15486mW VIN 124486mW/36487mW/124486mW",
        {"cpus_on": 3, "cpu_mhz": 2601.0, "gpu_percent": 87, "gpu_mhz": 1574, "gpu_c": 56.937, "VDD_GPU_w": 37.939,
         "VIN_w": 124.486},
    ),
    "Thor idle, JetPack 7 (L4T 39)": (
        "08-08-2026 20:58:23 RAM 3429/125749MB (lfb 120x4MB) CPU [0%,5%,off]@2601 EMC_FREQ @4266 "
        "GR3D_FREQ @[1574,1574,1574] cpu@49.75C/49.75C tj@51.218C/51.218C gpu@51.218C/51.218C "
        "VDD_GPU 6330mW/6330mW/6330mW VIN 28906mW/14453mW/28906mW",
        {"cpus_on": 2, "cpu_mhz": 2601.0, "memory_controller_mhz": 4266, "gpu_mhz": 1574, "tj_c": 51.218,
         "VDD_GPU_w": 6.33, "VIN_w": 28.906},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_published_lines(name):
    line, wanted = LINES[name]
    found = parse_tegrastats(line)
    assert {key: found.get(key) for key in wanted} == pytest.approx(wanted)


def test_what_a_line_does_not_hold_is_absent():
    off = parse_tegrastats(LINES["AGX Orin, sensors off"][0])
    assert not {"GPU_c", "CV0_c", "CV1_c", "NC_w"} & set(off)
    idle = parse_tegrastats(LINES["Thor idle, JetPack 7 (L4T 39)"][0])
    assert not {"gpu_percent", "memory_controller_percent", "swap_used_bytes"} & set(idle)


def test_a_cluster_that_is_off_is_not_the_gpus_clock():
    # Orin Nano: one of two clusters runs. A minimum of 0 would look like throttling.
    assert parse_tegrastats("RAM 3099/7471MB GR3D_FREQ 0%@[764,0]")["gpu_mhz"] == 764


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        # Xavier NX as it boots, and with -q --verbose as JetPack 5 prints it.
        ("NV Power Mode: MODE_10W_DESKTOP\n5\n", (5, "MODE_10W_DESKTOP")),
        (
            "NVPM VERB: Config file: /etc/nvpmodel.conf\nNVPM VERB: parsing done for /etc/nvpmodel.conf\n"
            "NV Fan Mode:quiet\nNVPM VERB: Current mode: NV Power Mode: MODE_15W_6CORE\n2\n"
            "NVPM VERB: PARAM CPU_ONLINE: ARG CORE_0: PATH /sys/devices/system/cpu/cpu0/online: REAL_VAL: 1\n",
            (2, "MODE_15W_6CORE"),
        ),
        # Orin, JetPack 6 and 7.
        ("NV Power Mode: 15W\n0\n", (0, "15W")),
        ("NV Power Mode: MAXN\n0\n", (0, "MAXN")),
        ("NV Power Mode: MAXN_SUPER\n2\n", (2, "MAXN_SUPER")),
        ("", (None, None)),
    ],
)
def test_published_answers_of_nvpmodel(text, mode):
    assert parse_power_mode(text) == mode
