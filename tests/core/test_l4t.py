"""Lines of /etc/nv_tegra_release in NVIDIA's format; GCID and date differ from build to build."""

from __future__ import annotations

import pytest

from sr_deploy.core.errors import EnvironmentFault
from sr_deploy.core.host.l4t import DOCKERFILES, check_container, check_release
from sr_deploy.core.host.machine import parse_tegra_release

XAVIER_NX = (
    "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64, "
    "DATE: Tue Aug  1 19:57:35 UTC 2023\n"
)
ORIN = (
    "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 2025\n"
    "# KERNEL_VARIANT: oot\nTARGET_USERSPACE_LIB_DIR=nvidia\n"
    "TARGET_USERSPACE_LIB_DIR_PATH=usr/lib/aarch64-linux-gnu/nvidia\n"
)
THOR = "# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic, EABI: aarch64, DATE: Fri Aug 22 2025\n"


@pytest.mark.parametrize(
    ("image", "text", "release"), [("35", XAVIER_NX, "35.4.1"), ("36", ORIN, "36.4.3"), ("38 39", THOR, "38.2.0")]
)
def test_the_same_major_release_fits(image, text, release, tmp_path):
    assert parse_tegra_release(text) == release
    check_release(image, text)
    file = tmp_path / "nv_tegra_release"
    file.write_text(text)
    check_container({"SRDEPLOY_L4T": image}, file)


@pytest.mark.parametrize(
    ("image", "text", "words"),
    [
        ("35", ORIN, "(?s)for L4T 35.x, and the board runs L4T 36.4.3.*docker/jetpack6.Dockerfile"),
        ("36", XAVIER_NX, "(?s)for L4T 36.x, and the board runs L4T 35.4.1.*docker/jetpack5.Dockerfile"),
        ("38 39", ORIN, "(?s)for L4T 38.x or 39.x, and the board runs L4T 36.4.3"),
        ("35", "# R32 (release), REVISION: 7.1, GCID: 1", "(?s)board runs L4T 32.7.1.*docker/README.md"),
        ("35", "", "tells no release of L4T: it is empty"),
        ("35", "hello", "tells no release of L4T: hello"),
    ],
)
def test_another_release_names_both_and_what_to_do(image, text, words):
    with pytest.raises(EnvironmentFault, match=words):
        check_release(image, text)


def test_no_release_file_in_a_board_image(tmp_path):
    with pytest.raises(EnvironmentFault, match="(?s)L4T 35.x.*is not here.*--runtime nvidia -v /etc/nv_tegra_release"):
        check_container({"SRDEPLOY_L4T": "35"}, tmp_path / "absent")


def test_outside_of_an_image_nothing_is_checked(tmp_path):
    check_container({}, tmp_path / "absent")


def test_the_command_line_refuses_a_foreign_image_before_any_work(srdeploy, monkeypatch, tmp_path):
    monkeypatch.setenv("SRDEPLOY_L4T", "35")
    outcome = srdeploy("inspect", tmp_path)
    assert outcome.code == 3 and "this image is for a Jetson with L4T 35.x" in outcome.err
    # doctor still tells what is here, and says that it does not fit.
    outcome = srdeploy("doctor", "--json", "--need", "container")
    assert outcome.code == 3 and '"what": "container"' in outcome.out


def test_every_dockerfile_named_here_exists():
    from pathlib import Path

    root = Path(__file__).resolve().parents[2]
    for major, name in DOCKERFILES.items():
        assert f'SRDEPLOY_L4T="{"38 39" if major in ("38", "39") else major}"' in (root / name).read_text("utf-8")
