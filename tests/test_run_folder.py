"""``run`` over several pictures: a bad one costs its own result and no other, and a second run goes on."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib

import cv2
import numpy as np
import pytest

from sr_deploy.core.media.imagefile import PNG_SIGNATURE, png_chunk
from sr_deploy.pipeline.pictures.finished import RECORD_NAME


@pytest.fixture(scope="module")
def deployment(demo_export, tmp_path_factory):
    return shutil.copytree(demo_export, tmp_path_factory.mktemp("run") / "net")


def picture(path, shape=(16, 18, 3)):
    path.parent.mkdir(exist_ok=True)
    assert cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    return path


def animated(path):
    """A PNG of two frames, by its acTL chunk."""
    data = picture(path).read_bytes()
    path.write_bytes(data[:33] + png_chunk(b"acTL", struct.pack(">II", 2, 0)) + data[33:])


def bomb(path):
    """A valid PNG of 20,000² pixels in less than a megabyte."""
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    body = zlib.compress(bytes(2501) * 20_000, 1)
    path.write_bytes(PNG_SIGNATURE + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b""))


@pytest.fixture
def mixed(tmp_path):
    """Good pictures before, between and behind bad ones."""
    folder = tmp_path / "in"
    for name in ("a.png", "f.png", "z.png"):
        picture(folder / name)
    animated(folder / "b.png")
    (folder / "c.png").write_bytes(b"no picture")
    bomb(folder / "d.png")
    (folder / "e.jpg").write_bytes(picture(folder / "a.png").read_bytes()[:-20])
    return folder


BAD = ("b.png", "c.png", "d.png", "e.jpg")
GOOD = ("a.png", "f.png", "z.png")


def names_in(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_bad_pictures_are_named_and_the_rest_is_done(srdeploy, tmp_path, deployment, mixed):
    outcome = srdeploy("run", deployment, "-i", mixed, "-o", tmp_path / "out")
    assert outcome.code == 1 and "Traceback" not in outcome.err
    assert names_in(tmp_path / "out") == list(GOOD)
    assert [line.rsplit("/", 1)[-1] for line in outcome.out.splitlines()] == list(GOOD)
    summary = outcome.err[outcome.err.index("4 of 7 pictures were skipped:") :]
    for name, why in zip(BAD, ("animated", "is not a picture", "400 million", "cut off")):
        assert any(name in line and why in line for line in summary.splitlines()), summary
    for name in GOOD:
        assert cv2.imread(str(tmp_path / "out" / name)).shape == (32, 36, 3)


def test_the_second_run_keeps_what_is_done_and_makes_the_rest(srdeploy, tmp_path, deployment, mixed):
    command = ("run", deployment, "-i", mixed, "-o", tmp_path / "out")
    srdeploy(*command)
    before = {name: (tmp_path / "out" / name).stat() for name in GOOD}
    refused = srdeploy(*command)
    assert refused.code == 2 and "--resume" in refused.err and "--force" in refused.err

    for name in BAD:
        (mixed / name).unlink()
    picture(mixed / "b.png")
    outcome = srdeploy(*command, "--resume")
    assert outcome.code == 0, outcome.err
    assert outcome.out.split() == [str(tmp_path / "out" / "b.png")]
    assert "3 results were there already and were kept" in outcome.err
    after = {name: (tmp_path / "out" / name).stat() for name in GOOD}
    assert all((before[n].st_mtime_ns, before[n].st_ino) == (after[n].st_mtime_ns, after[n].st_ino) for n in GOOD)

    again = srdeploy(*command, "--resume")
    assert (again.code, again.out) == (0, "") and "4 results were there already" in again.err
    replaced = srdeploy(*command, "--force")
    assert replaced.code == 0 and len(replaced.out.split()) == 4
    assert (tmp_path / "out" / "a.png").stat().st_ino != before["a.png"].st_ino
    both = srdeploy(*command, "--force", "--resume")
    assert (both.code, both.out) == (0, "") and "4 results were there already" in both.err


def test_only_results_of_the_same_request_are_kept(srdeploy, tmp_path, deployment):
    folder, out = tmp_path / "in", tmp_path / "out"
    for name in ("a.png", "b.png", "c.png"):
        picture(folder / name)
    command = ("run", deployment, "-i", folder, "-o", out)
    assert srdeploy(*command).code == 0
    picture(folder / "b.png", (20, 22, 3))
    record = out / RECORD_NAME
    record.write_bytes(record.read_bytes()[:-9])
    outcome = srdeploy(*command, "--resume")
    assert outcome.code == 1 and "1 results were there already" in outcome.err and outcome.out == ""
    for name in ("b.png", "c.png"):
        assert any(name in line and "not made by this command" in line for line in outcome.err.splitlines())
    outcome = srdeploy(*command, "--resume", "--force")
    assert outcome.code == 0 and [line.rsplit("/", 1)[-1] for line in outcome.out.split()] == ["b.png", "c.png"]
    assert cv2.imread(str(out / "b.png")).shape == (40, 44, 3)
    # Another network, or another way to write, is another request.
    outcome = srdeploy(*command, "--resume", "--format", "jpg")
    assert outcome.code == 0 and len(outcome.out.split()) == 3
    (out / "a.png").unlink()
    outcome = srdeploy(*command, "--resume")
    assert outcome.code == 0 and outcome.out.split() == [str(out / "a.png")]


def test_json_lists_what_was_written_kept_and_skipped(srdeploy, tmp_path, deployment, mixed):
    out = tmp_path / "out"
    out.mkdir()
    shutil.copy(mixed / "z.png", out / "z.png")
    outcome = srdeploy("run", deployment, "-i", mixed, "-o", out, "--resume", "--json")
    told = json.loads(outcome.out)
    assert outcome.code == 1
    assert told["written"] == [str(out / "a.png"), str(out / "f.png")] and told["kept"] == []
    # What lies there and was made by nobody knows whom is neither kept nor replaced.
    assert [one["picture"] for one in told["skipped"]] == [str(mixed / name) for name in (*BAD, "z.png")]
    assert all(one["error"] and one["wanted"] for one in told["skipped"])
    alone = srdeploy("run", deployment, "-i", mixed / "a.png", "-o", tmp_path / "other", "--json")
    assert alone.code == 0
    assert json.loads(alone.out) == {"written": [str(tmp_path / "other" / "a.png")], "kept": [], "skipped": []}


@pytest.mark.parametrize("name", BAD)
def test_a_picture_alone_is_bad_input(srdeploy, tmp_path, deployment, mixed, name):
    outcome = srdeploy("run", deployment, "-i", mixed / name, "-o", tmp_path / "out", "--json")
    assert outcome.code == 4 and name in outcome.err and "wanted:" in outcome.err
    assert json.loads(outcome.out)["exit_code"] == 4
    assert not (tmp_path / "out").exists()


def test_what_the_format_or_an_engine_does_not_take_is_skipped_too(srdeploy, tmp_path, deployment):
    folder = tmp_path / "in"
    picture(folder / "alpha.png", (16, 18, 4))
    picture(folder / "plain.png")
    outcome = srdeploy("run", deployment, "-i", folder, "-o", tmp_path / "jpg", "--format", "jpg")
    assert outcome.code == 1 and "transparency" in outcome.err and names_in(tmp_path / "jpg") == ["plain.jpg"]

    net = shutil.copytree(deployment, tmp_path / "net")
    assert srdeploy("build", net, "--backend", "onnxruntime", "--size", "16x18").code == 0
    (engine,) = (net / "engines").glob("*.onnx")
    picture(folder / "other.png", (20, 20, 3))
    outcome = srdeploy("run", net, "-i", folder, "-o", tmp_path / "sized", "--engine", engine)
    assert outcome.code == 1 and names_in(tmp_path / "sized") == ["alpha.png", "plain.png"]
    assert "other.png" in outcome.err and "20x20" in outcome.err


def test_what_the_network_itself_needs_is_asked_before_it_runs(srdeploy, tmp_path, deployment, monkeypatch):
    import sr_deploy.pipeline.tiling as tiling

    folder = tmp_path / "in"
    picture(folder / "large.png", (200, 200, 3))
    picture(folder / "small.png")
    monkeypatch.setattr(tiling, "available_memory_bytes", lambda: 2 << 20)
    outcome = srdeploy("run", deployment, "-i", folder, "-o", tmp_path / "out")
    assert outcome.code == 1 and names_in(tmp_path / "out") == ["small.png"]
    assert "even tiles of" in outcome.err and "--memory" not in outcome.err.splitlines()[0]
    assert srdeploy("run", deployment, "-i", folder / "large.png", "-o", tmp_path / "alone").code == 3


def test_a_deployment_at_fault_stops_at_once(srdeploy, tmp_path, deployment, mixed):
    net = shutil.copytree(deployment, tmp_path / "net")
    (net / "model.onnx").write_bytes(b"no graph")
    outcome = srdeploy("run", net, "-i", mixed, "-o", tmp_path / "out")
    assert outcome.code == 4 and "skipped" not in outcome.err
    assert srdeploy("run", deployment, "-i", mixed, "-o", tmp_path / "out", "--backend", "openvino").code == 2


def test_resume_has_no_meaning_on_a_board(srdeploy, tmp_path, deployment):
    source = picture(tmp_path / "in" / "a.png")
    outcome = srdeploy("remote", "user@192.0.2.1", "run", deployment, "-i", source, "--resume", "-o", tmp_path / "out")
    assert outcome.code == 2 and "--resume has no meaning on a board" in outcome.err
    outcome = srdeploy("remote", "user@192.0.2.1", "build", deployment, "--dry-run")
    assert outcome.code == 2 and "--dry-run has no meaning on a board" in outcome.err


def test_one_picture_can_be_a_file(srdeploy, tmp_path, deployment):
    source = picture(tmp_path / "in" / "a.png")
    command = ("run", deployment, "-i", source, "-o")
    assert srdeploy(*command, tmp_path / "new" / "b.png").code == 0
    assert cv2.imread(str(tmp_path / "new" / "b.png")).shape == (32, 36, 3)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["b.png"]
    assert srdeploy(*command, tmp_path / "c.JPG").code == 0
    assert (tmp_path / "c.JPG").read_bytes()[:2] == b"\xff\xd8"
    for words, why in (
        ((tmp_path / "new" / "b.png",), "exists already"),
        ((tmp_path / "d.png", "--resume"), "names one picture"),
        ((tmp_path / "d.png", "--format", "jpg"), "not the format"),
        ((tmp_path / "d.gif",), "in GIF, which is not written here"),
        ((source, "--force"), "would be replaced"),
    ):
        outcome = srdeploy(*command, *words)
        assert outcome.code == 2 and why in outcome.err, (words, outcome.err)
    picture(source.parent / "b.png")
    outcome = srdeploy("run", deployment, "-i", source.parent, "-o", tmp_path / "e.png")
    assert outcome.code == 2 and "names one picture, and 2 are" in outcome.err


def test_folders_in_folders_keep_their_structure(srdeploy, tmp_path, deployment):
    folder, out = tmp_path / "in", tmp_path / "out"
    for name in ("a.png", "one/a.png", "one/two/a.png", ".hidden/a.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(folder / name)
    (folder / "folder.png").mkdir()
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    outcome = srdeploy("run", deployment, "-i", folder, "-o", out, "--recursive")
    assert outcome.code == 1 and "gone.png" in outcome.err and "1 of 4 pictures were skipped" in outcome.err
    made = sorted(str(path.relative_to(out)) for path in out.rglob("*.png"))
    assert made == ["a.png", "one/a.png", "one/two/a.png"]
    outcome = srdeploy("run", deployment, "-i", folder / "one", "-o", tmp_path / "flat")
    assert outcome.code == 0 and names_in(tmp_path / "flat") == ["a.png"]
    again = srdeploy("run", deployment, "-i", folder, "-o", out, "--recursive", "--resume")
    assert again.out == "" and "3 results were there already" in again.err


def test_results_do_not_lie_among_the_pictures_unless_it_is_meant(srdeploy, tmp_path, deployment):
    folder = tmp_path / "in"
    source = picture(folder / "a.png")
    before = source.read_bytes()
    for words in (("-o", folder), ("-o", folder / "sub", "--recursive"), ("-o", folder, "--format", "jpg")):
        outcome = srdeploy("run", deployment, "-i", folder, *words)
        assert outcome.code == 2 and ("among the pictures" in outcome.err or "would be replaced" in outcome.err)
    outcome = srdeploy("run", deployment, "-i", folder, "-o", folder, "--force")
    assert outcome.code == 2 and source.read_bytes() == before
    outcome = srdeploy("run", deployment, "-i", folder, "-o", folder, "--format", "jpg", "--force")
    assert outcome.code == 0 and names_in(folder) == ["a.jpg", "a.png"] and source.read_bytes() == before


def test_the_cases_that_stopped_a_folder(srdeploy, tmp_path, deployment, assets):
    folder = assets / "cases" / "folder"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    outcome = srdeploy("run", deployment, "-i", folder, "-o", tmp_path / "out")
    assert outcome.code == 1 and names_in(tmp_path / "out") == ["alpha_black.png", "palette.png"]
    assert "anim.png" in outcome.err and "animated" in outcome.err


def test_a_run_that_is_killed_leaves_no_half_picture_and_is_resumed(tmp_path, deployment):
    """The process is killed as soon as the first result is there, while the next ones are made."""
    import signal
    import subprocess
    import sys
    import time

    for index in range(30):
        picture(tmp_path / "in" / f"{index:02}.png", (64, 64, 3))
    words = ["run", str(deployment), "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    command = [sys.executable, "-m", "sr_deploy.cli", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(tmp_path.glob("out/[0-9]*.png")):
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = [path for path in sorted((tmp_path / "out").iterdir()) if not path.name.startswith(".")]
    assert done
    for path in done:
        assert cv2.imread(str(path)).shape == (128, 128, 3), path
    finished = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert len(list((tmp_path / "out").glob("[0-9]*.png"))) == 30
    assert f"{len(done)} results were there already" in finished.stderr


def test_profiles_come_out_as_they_went_in_and_what_is_lost_is_said(srdeploy, tmp_path, deployment, assets):
    from PIL import Image

    cases = assets / "cases"
    done = srdeploy("run", deployment, "-i", cases / "icc.png", "-i", cases / "icc.jpg", "-o", tmp_path / "out",
                    "--format", "png", "--force")  # fmt: skip
    assert done.code == 2 and "two inputs" in done.err
    for name, suffix in (("icc.png", "png"), ("icc.jpg", "jpg"), ("icc.jpg", "webp"), ("icc.png", "tif")):
        done = srdeploy("run", deployment, "-i", cases / name, "-o", tmp_path / suffix, "--format", suffix)
        assert done.code == 0, done.err
        with Image.open(cases / name) as before, Image.open(tmp_path / suffix / f"icc.{suffix}") as after:
            assert before.info["icc_profile"] == after.info["icc_profile"]
    done = srdeploy("run", deployment, "-i", cases / "icc.png", "-o", tmp_path / "bmp", "--format", "bmp")
    assert done.code == 0 and "icc.bmp has no place for what icc.png says besides its pixels: colour" in done.err
    done = srdeploy("run", deployment, "-i", cases / "icc.png", "-o", tmp_path / "q", "--quality", "50")
    assert done.code == 2 and "--quality has no meaning for a PNG" in done.err
