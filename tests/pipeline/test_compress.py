"""``srdeploy compress`` on a whole deployment: what it writes, what it refuses, how it goes on, what comes after it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys

import numpy as np
import onnx
import pytest

from sr_deploy.core.contract import IOContract
from sr_deploy.core.deployment.manifest import open_deployment, save_manifest
from sr_deploy.core.media.image import Picture, read_picture, write_picture
from sr_deploy.pipeline.compress.choose import Way, target_of
from sr_deploy.pipeline.compress.ground import ground_of, subject_on
from sr_deploy.pipeline.compress.request import CompressRequest
from sr_deploy.pipeline.compress.source import plain_graph
from sr_deploy.pipeline.compress.timed import fitting_share
from sr_deploy.pipeline.export import ExportOptions, export_deployment
from sr_deploy.pipeline.load import LoadOptions
from sr_deploy.report.compression import said
from tests.compress.graphs import Case, model_of
from tests.precision import small_plans

QUICK = ("--batch", "4", "--patch", "24", "--device", "cpu", "--rate", "0.002", "--no-refit")


@pytest.fixture(scope="module", autouse=True)
def few_squares():
    """A network of 12 channels is seen well enough on a quarter of the squares."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sr_deploy.pipeline.compress.ground.SQUARES", 6)
        yield


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Four pictures of 72x72."""
    folder = tmp_path_factory.mktemp("photographs")
    for index, array in enumerate(small_plans.pictures(4, (72, 72))):
        pixels = np.rint(array[0].transpose(1, 2, 0) * 255).astype(np.uint8)
        write_picture(Picture(np.ascontiguousarray(pixels)), folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A residual network of 12 channels, given as ONNX."""
    folder = tmp_path_factory.mktemp("deployment")
    onnx.save(small_plans.network(), str(folder / "net.onnx"))
    load = LoadOptions(value_range=1.0, colours="rgb")
    return export_deployment(ExportOptions(folder / "net.onnx", folder / "net", load=load)).folder


@pytest.fixture(scope="module")
def compressed(exported, photographs, tmp_path_factory):
    """The demo's network at 60 % of its multiply-accumulates, after 8 steps, and its photographs."""
    from sr_deploy.pipeline.compress.compress import compress_deployment

    out = tmp_path_factory.mktemp("compressed") / "small"
    made = compress_deployment(
        CompressRequest(
            exported, out, photographs, macs=0.6, steps=8, batch=4, patch=24, rate=0.002, refit=False, device="cpu"
        )
    )
    return made.deployment.folder


def test_the_result_is_a_deployment_with_its_record(compressed, exported, photographs, srdeploy):
    small, whole = open_deployment(compressed), open_deployment(exported)
    [record] = small.manifest.compression
    assert record["source_sha256"] == whole.manifest.graphs[0].sha256 and record["asked"] == "--macs 0.6"
    assert record["macs"][1] <= 0.6 * record["macs"][0] and record["parameters"][1] < record["parameters"][0]
    assert record["widths"] and all(after < before for before, after in record["widths"].values())
    assert record["steps"] == record["best_step"] == 8 and record["pictures"] == 4
    assert record["fidelity_db"] > record["fitted_db"]
    assert small.manifest.architecture == whole.manifest.architecture and small.manifest.scale == whole.manifest.scale
    assert said(record) in small.manifest.notes and max(small.manifest.proofs.values()) < 0.05
    assert (compressed / "training.png").read_bytes().startswith(b"\x89PNG")
    assert not compressed.with_name("small.unfinished").exists()
    # It is proved against its own plain graph, which lies in it, so it may be moved.
    moved = shutil.copytree(compressed, compressed.with_name("moved"))
    big = compressed.with_name("big")
    for file in sorted(photographs.iterdir()):
        write_picture(Picture(np.repeat(np.repeat(read_picture(file).pixels, 2, 0), 2, 1)), big / file.name)
    verified = srdeploy("verify", moved, "--lr", photographs, "--hr", big)
    assert verified.code == 0, verified.err


def test_the_chain_goes_on(compressed, photographs, tmp_path, srdeploy, explored_here):
    """Compressed once more, packed and unpacked: both steps are in the manifest, the first one first."""
    again = srdeploy(
        "compress", compressed, "-o", tmp_path / "again", "--images", photographs, "--macs", "0.7", "--json"
    )
    assert again.code == 0, again.err
    told = json.loads(again.out)
    assert told["asked"] == "--macs 0.7" and told["steps"] == 0 and told["refitted"]
    steps = open_deployment(tmp_path / "again").manifest.compression
    assert [step["asked"] for step in steps] == ["--macs 0.6", "--macs 0.7"]
    assert steps[1]["macs"][0] == pytest.approx(steps[0]["macs"][1])
    packed = srdeploy(
        "pack", tmp_path / "again", "-o", tmp_path / "net.srd", "--backend", "onnxruntime", "--size", "16"
    )
    assert packed.code == 0, packed.err
    assert srdeploy("unpack", tmp_path / "net.srd", "-o", tmp_path / "board").code == 0
    assert open_deployment(tmp_path / "board").manifest.compression == steps
    page = srdeploy("report", tmp_path / "again", compressed, "-o", tmp_path / "page.html")
    assert page.code == 0, page.err
    text = (tmp_path / "page.html").read_text()
    assert "Compression" in text and "--macs 0.7" in text


def test_a_dry_run_shows_what_budgets_leave(exported, photographs, srdeploy):
    shown = srdeploy("compress", exported, "--images", photographs, "--dry-run", "--macs", "0.5", "--json")
    rows = json.loads(shown.out)["would"]
    costs = [row["cost"] for row in rows]
    assert costs == sorted(costs, reverse=True) and costs[0] == 1.0 and rows[0]["predicted_db"] is None
    for one, other in zip(rows[1:], rows[2:]):
        assert one["predicted_db"] > other["predicted_db"] and one["parameters"] > other["parameters"]


def test_ctrl_c_writes_the_best_and_resume_goes_on_to_the_bit(
    exported, photographs, compressed, tmp_path, srdeploy, monkeypatch, explored_here
):
    """What is at its place is a deployment of the best so far; gone on with, it is what it would have been."""
    from sr_deploy.compress import distil

    out = tmp_path / "small"
    words = ("compress", exported, "-o", out, "--images", photographs, "--macs", "0.6", "--steps", "8")
    real = distil.Distiller.learn

    def pressed(self, step):
        if step == 2:
            raise KeyboardInterrupt
        return real(self, step)

    with monkeypatch.context() as patched:
        patched.setattr(distil.Distiller, "learn", pressed)
        stopped = srdeploy(*words, *QUICK)
    assert stopped.code == 130 and "the best so far" in stopped.err, stopped.err
    assert open_deployment(out).manifest.compression[0]["steps"] == 2
    refused = srdeploy(*words, *QUICK)
    assert refused.code == 2 and "--force" in refused.err
    shutil.rmtree(out)
    refused = srdeploy(*words, *QUICK)
    assert refused.code == 2 and "--resume goes on with it" in refused.err
    other = srdeploy(*words[:-3], "0.7", "--steps", "8", *QUICK, "--resume")
    assert other.code == 2 and "'--macs 0.6', now '--macs 0.7'" in other.err, other.err
    kept = out.with_name("small.unfinished") / "network.onnx"
    whole = kept.read_bytes()
    for broken in (b"", whole[: len(whole) // 2], b"nonsense"):
        kept.write_bytes(broken)
        damaged = srdeploy(*words, *QUICK, "--resume")
        assert damaged.code == 4 and "network.onnx is missing or damaged" in damaged.err, damaged.err
        assert "next:   begin again with --force" in damaged.err
    kept.write_bytes(whole)
    done = srdeploy(*words, *QUICK, "--resume")
    assert done.code == 0 and "going on after step 1" in done.err, done.err
    assert f"next: srdeploy build {out} --size HxW" in done.err and "training form" not in done.err
    assert (out / "network.onnx").read_bytes() == (compressed / "network.onnx").read_bytes()
    assert not out.with_name("small.unfinished").exists()


def test_killed_before_the_first_step_is_kept_resume_begins_with_it(
    exported, photographs, compressed, tmp_path, srdeploy, monkeypatch, explored_here
):
    """The fitted graph is there, and no state of the training yet."""
    out = tmp_path / "small"
    words = ("compress", exported, "-o", out, "--images", photographs, "--macs", "0.6", "--steps", "8", *QUICK)
    with monkeypatch.context() as patched:
        patched.setattr("sr_deploy.pipeline.compress.compress._distilled", lambda *_: sys.exit(137))
        assert srdeploy(*words).code == 137
    assert not (out.with_name("small.unfinished") / "training.pt").exists() and not out.exists()
    assert "--resume goes on with it" in srdeploy(*words).err
    done = srdeploy(*words, "--resume")
    assert done.code == 0 and "it begins with the first one" in done.err, done.err
    assert (out / "network.onnx").read_bytes() == (compressed / "network.onnx").read_bytes()


def test_what_cannot_be_is_refused(exported, photographs, tmp_path, srdeploy):
    """One sentence each, the exit code of the README, and nothing at the place."""
    one = tmp_path / "one"
    one.mkdir()
    shutil.copy(photographs / "0.png", one)
    tiny = tmp_path / "tiny"
    tiny.mkdir()
    for index in range(3):
        write_picture(Picture(np.zeros((20, 20, 3), np.uint8)), tiny / f"{index}.png")
    asked = ("--images", photographs)
    cases = (
        ((*asked,), 2, "exactly one of"),
        ((*asked, "--macs", "0.5", "--time", "0.5"), 2, "exactly one of"),
        ((*asked, "--macs", "1.5"), 2, "between 0 and 1"),
        ((*asked, "--psnr-budget", "0"), 2, "no loss to allow"),
        ((*asked, "--macs", "0.5", "--for", "xavier-nx"), 2, "--for has no meaning"),
        ((*asked, "--time", "0.5", "--for", "abacus"), 2, "one of"),
        ((*asked, "--macs", "0.5", "--importance", "luck"), 2, "obs, l1, lamp"),
        ((*asked, "--macs", "0.5", "--resume"), 2, "--resume"),
        ((*asked, "--macs", "0.5", "--steps", "3", "--resume"), 2, "no unfinished"),
        ((*asked, "--macs", "0.001"), 1, "or more"),
        ((*asked, "--macs", "0.9", "--multiple", "999"), 1, "wanted: --multiple 1"),
        ((*asked, "--psnr-budget", "inf"), 2, "no loss to allow"),
        ((*asked, "--macs", "0.5", "--seed", "-1"), 2, "--seed"),
        *(((*asked, "--macs", "0.5", "--minutes", word), 2, "no time to train") for word in ("inf", "nan", "0")),
        ((*asked, "--macs", "0.5", "--threads", "1"), 2, "--threads has no meaning with --macs"),
        ((*asked, "--time", "0.5", "--for", "xavier-nx", "--threads", "1"), 2, "no meaning with --for"),
        ((*asked, "--macs", "0.5", "--batch", "2"), 2, "--batch has no meaning without --steps"),
        ((*asked, "--macs", "0.5", "--steps", "3", "--patch", "80"), 4, "give a smaller --patch"),
        ((*asked, "--macs", "0.5", "-o", exported, "--force"), 2, "which is read"),
        ((*asked, "--macs", "0.5", "-o", photographs, "--force"), 2, "which is read"),
        ((*asked, "--macs", "0.5", "-o", photographs.parent, "--force"), 2, "which is read"),
        (("--images", one, "--macs", "0.5"), 4, "at least 2"),
        (("--images", tiny, "--macs", "0.5"), 4, "tiny/0.png of 20x20, as 2 more are, is smaller"),
        (("--images", tiny, "--macs", "0.5"), 4, "next:   leave it out\n"),
        ((*asked, "--macs", "0.5", "-o", one / "0.png" / "small"), 3, "a writable place"),
        (("--images", tmp_path / "none", "--macs", "0.5"), 4, "none"),
    )
    for words, code, message in cases:
        outcome = srdeploy("compress", exported, "-o", tmp_path / "out", *words)
        assert outcome.code == code and message in outcome.err, (words, outcome)
        assert not (tmp_path / "out").exists() and not (tmp_path / "out.unfinished").exists()


def test_a_network_of_one_layer_has_nothing_to_prune(photographs, tmp_path, srdeploy):
    """Its inputs are colours and its outputs pixels."""
    onnx.save(model_of(Case("a = Conv(lr, w) sr = DepthToSpace<blocksize=2>(a)", {"w": (12, 3, 1, 1)}, ())),
              str(tmp_path / "net.onnx"))  # fmt: skip
    load = LoadOptions(value_range=1.0, colours="rgb")
    net = export_deployment(ExportOptions(tmp_path / "net.onnx", tmp_path / "net", load=load)).folder
    for words in (("-o", tmp_path / "out", "--macs", "0.5"), ("--dry-run",)):
        outcome = srdeploy("compress", net, "--images", photographs, *words)
        assert outcome.code == 4 and "nothing in the graph of" in outcome.err, outcome.err
    assert not (tmp_path / "out").exists()


def test_grey_alpha_and_16_bits_are_read_as_everywhere(exported, photographs, tmp_path):
    """Grey is repeated, alpha left out, 16 bits are the same values: the network sees what it sees of 8-bit colour."""
    request = CompressRequest(exported, None, photographs, macs=0.5)
    deployment = open_deployment(exported)
    plain = plain_graph(deployment, tmp_path, lambda _: None)
    expected = ground_of(request, deployment, plain)
    odd = tmp_path / "odd"
    odd.mkdir()
    for index, file in enumerate(sorted(photographs.iterdir())):
        pixels = read_picture(file).pixels
        alpha = np.full(pixels.shape[:2], 9, np.uint8)
        written = (Picture(pixels, alpha), Picture(pixels.astype(np.uint16) * 257), Picture(pixels[:, :, :1]))[
            index % 3
        ]
        write_picture(written, odd / file.name)
    found = ground_of(dataclasses.replace(request, images=odd), deployment, plain)
    for index, (one, other) in enumerate(zip(found.images, expected.images)):
        wanted = np.repeat(other[:, :1], 3, 1) if index % 3 == 2 else other
        assert np.allclose(one, wanted, atol=1e-6) and one.shape == other.shape
    assert len(found.scenes) == len(expected.scenes) and found.pictures_sha256 != expected.pictures_sha256


def test_deployments_that_cannot_be_compressed(exported, photographs, tmp_path, srdeploy):
    manifest = open_deployment(exported).manifest
    fixed = dataclasses.replace(manifest, graphs=(dataclasses.replace(manifest.graphs[0], size=(24, 24)),))
    byte = dataclasses.replace(manifest, contract=IOContract(255.0, layout="NHWC", dtype="uint8"))
    for name, changed, message in (("bytes", byte, "8-bit"), ("fixed", fixed, "fixed sizes")):
        folder = shutil.copytree(exported, tmp_path / name)
        save_manifest(folder, changed)
        outcome = srdeploy("compress", folder, "-o", tmp_path / "out", "--images", photographs, "--macs", "0.5")
        assert outcome.code == 4 and message in outcome.err, outcome.err
        assert not (tmp_path / "out").exists()


def test_the_share_that_takes_the_time_asked_for():
    """Of a machine whose time does not follow the model: within what was asked, and as near as a few tries come."""
    asked = []

    def measured(share):
        asked.append(share)
        return 0.3 + 0.7 * share

    assert 0.3 + 0.7 * fitting_share(measured, 0.75) == pytest.approx(0.75, rel=0.05)
    assert len(asked) <= 4 and fitting_share(measured, 0.2) <= 0.2


def test_a_record_of_half_a_step_is_no_manifest(compressed, tmp_path, srdeploy):
    text = json.loads((compressed / "manifest.json").read_text())
    for key, value in (("widths", {"x": [3]}), ("macs", [1.0]), ("parameters", []), ("time_kind", None)):
        (step,) = text["compression"]
        (tmp_path / "manifest.json").write_text(json.dumps({**text, "compression": [{**step, key: value}]}))
        outcome = srdeploy("report", tmp_path, "-o", tmp_path / "page.html")
        assert outcome.code == 4 and key in outcome.err, outcome.err


def test_a_psnr_budget_is_kept_and_a_time_is_taken(exported, photographs, tmp_path):
    """Searched by cutting, fitting and judging; what it costs is timed in turn with the whole, and is some number."""
    request = CompressRequest(exported, None, photographs, psnr_budget=0.02, multiple=4, size=(16, 16), threads=1)
    deployment = open_deployment(exported)
    ground = ground_of(request, deployment, plain_graph(deployment, tmp_path, lambda _: None))
    subject, target = subject_on(ground, request, lambda _: None), target_of(request, ground)
    said_of: list = []
    widths = Way(request, ground, subject, target).for_psnr(0.02, said_of.append)
    narrow = subject.narrowed(widths)
    assert ground.lost(narrow) <= 0.02 and widths.cost < 1.0 and len(said_of) == 5
    assert 0.05 < target.share(ground.model, narrow, widths.cost) < 20.0
    assert "ONNX Runtime here, 16x16, 1 thread" in target.kind
