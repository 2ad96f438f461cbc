"""The HTML report: one file that fetches nothing, well-formed, with the numbers it was given and every name escaped."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from sr_deploy.bench.measure import summary
from sr_deploy.bench.result import Point, Result, save_result
from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.contract import SizeRules
from sr_deploy.core.deployment.manifest import GraphFile, Manifest, open_deployment, save_manifest
from sr_deploy.core.media.image import Picture, write_picture
from sr_deploy.core.quality.metrics import METRICS
from sr_deploy.engine.manifest import open_engine, save_engine
from sr_deploy.pipeline.verify import VerifyOptions, verify_quality
from tests.small_network import CONTRACT, small_graphs

VOID = {"meta", "link", "img", "source", "br", "hr"}


class Page(HTMLParser):
    """Parses strictly: every element that opens closes, in order; keeps tables, addresses and texts."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.addresses, self.ids, self.images = [], [], [], [], []
        self.text, self.rows, self.styles = "", [], ""
        self.feed(source)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        found = dict(attributes)
        assert len(found) == len(attributes), f"an attribute twice in {tag}"
        assert not [name for name in found if name.startswith("on")]
        fetching = ("src", "href", "srcset", "action", "data", "poster")
        self.addresses += [found[name] for name in fetching if name in found]
        self.ids += [found["id"]] if "id" in found else []
        if tag == "img":
            self.images.append(found)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.styles += data
            return
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    def row(self, name, columns):
        (row,) = [row for row in self.rows if row and row[0] == name and len(row) == columns]
        return row


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return small_graphs(tmp_path_factory.mktemp("graphs")).dynamic


@pytest.fixture
def make(tmp_path, graph):
    """Make a deployment of the small network, with sweeps given as {size: ms}."""

    def make(name, times=None, runtime="fake", precision="fp32"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(graph.read_bytes())
        file = GraphFile("model.onnx", None, sha256_of(graph), 17, 1100, 123456789, 5 << 20, (180, 320))
        block = {"name": "head", "was": "RepBlock", "became": "Conv2d", "macs_before": 900, "macs_after": 300,
                 "error_float64": 1.5e-15}  # fmt: skip
        save_manifest(folder, Manifest(
            architecture="Small <&>", form="folded", scale=2, contract=CONTRACT, sizes=SizeRules(1, 1), graphs=(file,),
            source={"file": "w<u>.pth", "sha256": "ab" * 32, "path": "/secret/place/w.pth", "load_options": {}},
            parameters=4321,
            hyperparameters={"width": 8}, fold={"blocks": [block], "kept": [], "network_error": 2.5e-7},
            proofs={"model.onnx at 40x56": 0.00123}, pinned_fp32={}, notes=("note <s>",), tools={"torch": "2.5"},
        ))  # fmt: skip
        if times:
            points = []
            for edge, ms in times.items():
                samples = tuple(ms / 1e3 * (1 + 0.001 * (n % 7)) for n in range(30))
                points.append(Point((edge, edge), "compute", runtime, "Device <1>", {"precision": precision},
                                    output_pixels=4 * edge * edge, warmup_stable=True, samples_s=samples,
                                    **summary(samples)))  # fmt: skip
            result = Result(name, {"cpu": "CPU <2>", "packages": {"numpy": "1"}}, {"scope": "compute"}, tuple(points),
                            "2026-01-02T03:04:05+00:00")  # fmt: skip
            save_result(folder / "results" / "bench.json", result)
        return folder

    return make


@pytest.fixture
def pictures(tmp_path):
    """Two pairs for scale 2, one of them grey, one with a name that is markup."""
    generator = np.random.default_rng(0)
    for name, channels in (("<img src=x>", 3), ("grey", 1)):
        hr = generator.integers(0, 256, (96, 120, channels), np.uint8)
        hr = cv2.GaussianBlur(hr, (0, 0), 2).reshape(96, 120, channels)
        lr = cv2.resize(hr, (60, 48), interpolation=cv2.INTER_AREA).reshape(48, 60, channels)
        write_picture(Picture(hr), tmp_path / "hr" / f"{name}.png")
        write_picture(Picture(lr), tmp_path / "lr" / f"{name}x2.png")
    return tmp_path / "lr", tmp_path / "hr"


def page_of(path):
    source = path.read_text(encoding="utf-8")
    assert len(source.encode()) < 5e6
    page = Page(source)
    assert page.addresses
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not re.search(r"url\s*\(|@import|http", page.styles)
    assert "http:" not in source.replace("http-equiv", "")
    assert "https:" not in source
    assert str(path.parent) not in source, "a page is mailed: no path of this machine"
    assert not {"script", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert len(set(page.ids)) == len(page.ids)
    assert all(image.get("alt", "").strip() for image in page.images)
    assert source.index("default-src 'none'") < source.index("<style>")
    return page, source


#: Metrics that are taken of every picture.
TAKEN = sum(not metric.beside for metric in METRICS)


def shown(figures):
    return [f"{figures[metric.key]:.{metric.decimals}f}" for metric in METRICS if not metric.beside]


def test_one_deployment_with_everything(make, pictures, tmp_path, srdeploy):
    folder = make("<b>", {16: 1.2345, 32: 4.5678})
    lr, hr = pictures
    outcome = srdeploy("report", folder, "-o", tmp_path / "r.html", "--lr", lr, "--hr", hr)
    assert outcome.code == 0, outcome.err
    page, source = page_of(tmp_path / "r.html")
    # Escaped: the deployment, a picture, the device, the checkpoint. Nothing of theirs became an element.
    assert not {"b", "i", "u", "s"} & set(page.tags)
    assert "<img src=x>" not in source
    for wanted in ("<b>", "<img src=x>", "Small <&>", "Device <1>", "w<u>.pth", "note <s>", "CPU <2>"):
        assert wanted in page.text
    assert "/secret/place" not in source
    # The numbers are the inputs.
    report = verify_quality(VerifyOptions(folder, lr, hr, against_torch=False)).to_dict()
    for image in report["images"]:
        assert page.row(image["name"], 1 + 2 * TAKEN)[1 + TAKEN :] == shown(image)
    assert page.row("mean", 1 + 2 * TAKEN)[1 + TAKEN :] == shown(report["mean"])
    assert page.row("16×16", 7)[1:4] == ["1.238", "1.242", "1.242"]
    assert page.row("32×32", 7)[6] == "30"
    assert page.row("model.onnx at 40x56", 2) == ["model.onnx at 40x56", "0.00123"]
    assert page.row("head", 6)[3:] == ["900", "300", "1.5e-15"]
    assert "at most 5.0 MiB of activations" in page.text
    assert "No engine has been built" in page.text
    # Low resolution, bicubic, network and original, each whole and enlarged; two error maps; three plots, two of them
    # light and dark, and a scale.
    assert len(page.images) == 2 * (2 * 4 + 2 * 2 + 1) + 5


def test_without_pictures_and_without_results_the_page_says_what_to_do(make, tmp_path, srdeploy):
    folder = make("net")
    assert srdeploy("report", folder, "-o", tmp_path / "r.html").code == 0
    page, _ = page_of(tmp_path / "r.html")
    assert "no pictures were given: srdeploy report … --lr FOLDER --hr FOLDER" in page.text
    assert "srdeploy bench net" in page.text
    assert "PSNR" not in page.text
    assert not page.images


def test_several_deployments_are_compared_at_a_common_size(make, pictures, tmp_path, srdeploy):
    folders = [make("a", {16: 1.0, 32: 4.0}), make("b", {16: 2.0, 32: 3.0, 64: 9.0}), make("c")]
    lr, hr = pictures
    outcome = srdeploy("report", *folders, "-o", tmp_path / "r.html", "--lr", lr, "--hr", hr, "--pictures", "1")
    assert outcome.code == 0, outcome.err
    page, _ = page_of(tmp_path / "r.html")
    # The same network in all: equal quality, so the faster one at 32x32, the largest size of both, beats the other.
    assert page.row("a FP32", 4 + TAKEN)[-1] == "beaten"
    assert page.row("b FP32", 4 + TAKEN)[-1] == "on the front"
    assert page.row("b FP32", 4 + TAKEN)[1] == "3.009"
    assert [heading for heading in ("a", "b", "c") if re.search(rf"\b{heading}\b", page.text)]
    assert "input 32×32" in page.text


def test_results_that_are_not_alike_are_not_compared(make, tmp_path, srdeploy):
    folders = [make("a", {16: 1.0}), make("b", {16: 2.0}, runtime="other")]
    assert srdeploy("report", *folders, "-o", tmp_path / "r.html").code == 0
    page, _ = page_of(tmp_path / "r.html")
    assert "no two deployments have a sweep with the same runtime" in page.text
    assert "Pareto front" not in page.text


def test_engines_their_memory_and_unreadable_files(make, tmp_path, srdeploy):
    folder = make("net", {16: 1.0})
    assert srdeploy("build", folder, "--backend", "onnxruntime", "--size", "48x60").code == 0
    (folder / "results" / "notes.json").write_text("{}")
    # Streamed, by its manifest: only TensorRT's builder streams, and it is not needed to see what is told of it.
    (built,) = (folder / "engines").glob("*.onnx")
    settings = {**open_engine(built).settings, "strips": "24", "memory_budget_bytes": str(300 << 20)}
    save_engine(built, built.read_bytes(), dataclasses.replace(open_engine(built), settings=settings))
    assert srdeploy("report", folder, "-o", tmp_path / "r.html").code == 0
    page, _ = page_of(tmp_path / "r.html")
    assert "runs in 24 row strips to stay within 300.0 MiB" in page.text
    assert "24 row strips" in srdeploy("inspect", folder, "--json").out
    (engine,) = [row for row in page.rows if row and row[0].endswith(".onnx") and len(row) == 5]
    assert engine[2:4] == ["48×60", "fp32"] and "activations MiB" not in page.text, "no column without a figure"
    assert "notes.json is left out" in page.text


def test_engines_of_two_precisions_are_judged_and_paired_with_their_own_sweeps(make, pictures, tmp_path, srdeploy):
    folder = make("net", {32: 4.0})
    assert srdeploy("build", folder, "--backend", "onnxruntime", "--size", "48x60").code == 0
    (first,) = (folder / "engines").glob("*.onnx")
    # A second engine that says it is FP16 (its bytes are the first one's: the picture is the same, the name counts).
    other = dataclasses.replace(open_engine(first), file="z_fp16.onnx", precision="fp16")
    save_engine(folder / "engines" / "z_fp16.onnx", first.read_bytes(), other)
    half = make("other", {32: 2.0}, precision="fp16") / "results" / "bench.json"
    half.rename(folder / "results" / "half.json")
    lr, hr = pictures
    outcome = srdeploy("report", folder, "-o", tmp_path / "r.html", "--lr", lr, "--hr", hr)
    assert outcome.code == 0, outcome.err
    page, _ = page_of(tmp_path / "r.html")
    assert (
        page.row("mean", 1 + 3 * TAKEN)[1 + TAKEN : 1 + 2 * TAKEN] == page.row("mean", 1 + 3 * TAKEN)[1 + 2 * TAKEN :]
    )
    assert "net z_fp16" in page.text
    assert page.row("net FP16", 4 + TAKEN)[-1] == "on the front"
    assert page.row("net FP32", 4 + TAKEN)[-1] == "beaten"


def test_pictures_of_another_scale_are_refused(make, pictures, tmp_path, srdeploy):
    folder = make("net")
    outcome = srdeploy("report", folder, "-o", tmp_path / "r.html", "--lr", pictures[1], "--hr", pictures[1])
    assert outcome.code == 4
    assert not (tmp_path / "r.html").exists()


def test_pictures_that_fit_one_of_two_scales(make, pictures, tmp_path, srdeploy):
    small, large = make("small"), make("large")
    manifest = open_deployment(large).manifest
    save_manifest(large, dataclasses.replace(manifest, scale=3))
    lr, hr = pictures
    outcome = srdeploy("report", small, large, "-o", tmp_path / "r.html", "--lr", lr, "--hr", hr)
    assert outcome.code == 0, outcome.err
    page, _ = page_of(tmp_path / "r.html")
    assert "large: Quality was not judged, because the pictures that were given are not of scale 3." in page.text
    assert page.row("large", 7 + TAKEN)[-1] == "–"
    assert "no quality for scale 3" in outcome.err


def test_usage(make, pictures, tmp_path, srdeploy):
    folder = make("net")
    out = tmp_path / "r.html"
    assert srdeploy("report", folder, "-o", out, "--lr", pictures[0]).code == 2
    assert srdeploy("report", folder, folder, "-o", out).code == 2
    assert srdeploy("report", tmp_path, "-o", out).code == 4
    out.write_text("mine")
    assert srdeploy("report", folder, "-o", out).code == 2
    assert out.read_text() == "mine"
    assert srdeploy("report", folder, "-o", out, "--force").code == 0


def test_two_folders_of_one_name_are_told_apart(make, tmp_path, srdeploy):
    folders = [make("x/net", {16: 1.0}), make("y/net", {16: 2.0})]
    assert srdeploy("report", *folders, "-o", tmp_path / "r.html").code == 0
    page, _ = page_of(tmp_path / "r.html")
    compared = [row for row in page.rows if row[0].endswith("/net FP32")]
    assert [row[:2] for row in compared] == [["x/net FP32", "1.003"], ["y/net FP32", "2.006"]]


def test_import_makes_a_result_that_the_report_shows(make, tmp_path, srdeploy):
    folder = make("net")
    data = Path(__file__).parent / "data"
    arguments = ("import", data / "trtexec_8_5_handwritten_times.json", "--size", "180x320", "--device", "Xavier NX",
                 "-o", folder / "results" / "trtexec.json", "--trtexec-version", "8.5.2", "--scale", "2",
                 "--profile", data / "trtexec_8_5_handwritten_profile.json")  # fmt: skip
    outcome = srdeploy(*arguments)
    assert outcome.code == 0, outcome.err
    assert "7.312" in outcome.out or "7.313" in outcome.out
    assert srdeploy(*arguments).code == 2
    assert srdeploy("report", folder, "-o", tmp_path / "r.html").code == 0
    page, _ = page_of(tmp_path / "r.html")
    assert "trtexec on Xavier NX, compute: compute only" in page.text
    assert "unknown; off by default in trtexec 8.5.2" in page.text
    assert page.row("Conv_2 + Add_3", 3) == ["Conv_2 + Add_3", "1.500", "60.0"]


def test_import_needs_size_and_device(tmp_path, srdeploy):
    times = Path(__file__).parent / "data" / "trtexec_11_handwritten_times.json"
    assert srdeploy("import", times, "-o", tmp_path / "o.json", "--size", "64").code == 2
    assert srdeploy("import", times, "-o", tmp_path / "o.json", "--device", "GPU").code == 2
    outcome = srdeploy("import", times, "-o", tmp_path / "o.json", "--device", "GPU", "--size", "64")
    assert outcome.code == 0
    assert "recorded as unknown" in outcome.err
