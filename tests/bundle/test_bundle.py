"""Bundles: the same bytes every time, readable by tar, and refused wherever a byte is not as the index says."""

from __future__ import annotations

import hashlib
import io
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from sr_deploy.bundle.golden import Golden, golden_files, read_goldens
from sr_deploy.bundle.layout import MAX_TOTAL_BYTES, archive_size, header, is_allowed
from sr_deploy.bundle.open import check_bundle, read_index, unpack
from sr_deploy.bundle.recipe import Recipe, build_arguments, read_recipe, recipe_text
from sr_deploy.bundle.write import write_bundle
from sr_deploy.core.contract import IOContract
from sr_deploy.core.errors import BadInput, DiskFull, UsageError
from tests.benchmarks.bundle_fuzz import EVIL_NAMES, MUTATIONS, forged, fuzz, link, small_bundle, tree


@pytest.fixture
def good(tmp_path):
    """A small bundle and its files by name."""
    return small_bundle(tmp_path / "made")


def refused(path, raw, folder, match):
    path.write_bytes(raw)
    with pytest.raises(BadInput, match=match):
        unpack(path, folder)
    assert not folder.exists()


def test_the_same_files_give_the_same_bytes(good, tmp_path):
    bundle, files = good
    os.utime(tmp_path / "made" / "manifest.json", (1, 1))
    write_bundle(tmp_path / "again.srd", dict(reversed(files.items())), "xavier-nx")
    assert (tmp_path / "again.srd").read_bytes() == bundle.read_bytes()
    # The layout is a promise to bundles that exist: another digest here means another schema.
    data = {"model.onnx": b"graph", "manifest.json": b"{}"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sr_deploy.bundle.write.__version__", "0.1.0")
        write_bundle(tmp_path / "fixed.srd", data, "orin")
    digest = hashlib.sha256((tmp_path / "fixed.srd").read_bytes()).hexdigest()
    assert digest == "03cad60dfdb542c15373ed9e8f69cb81002610a552829c87ac6797dfcc9a3e93"


def test_a_bundle_is_a_tar_archive_of_its_files(good):
    bundle, files = good
    with tarfile.open(bundle) as archive:
        members = archive.getmembers()
        assert [member.name for member in members] == ["bundle.json", *sorted(files)]
        assert {(m.mode, m.uid, m.gid, m.mtime, m.type) for m in members} == {(0o644, 0, 0, 0, tarfile.REGTYPE)}
        assert all(archive.extractfile(name).read() == data for name, data in files.items())
    if shutil.which("tar"):
        listed = subprocess.run(["tar", "-tf", str(bundle)], check=True, capture_output=True, text=True).stdout
        assert listed.split() == ["bundle.json", *sorted(files)]


def test_unpacking_gives_the_files_back(good, tmp_path):
    bundle, files = good
    index = unpack(bundle, tmp_path / "out" / "net")
    content = tree(tmp_path / "out" / "net")
    assert content.pop("bundle.json") and content == files
    assert index == read_index(bundle) == check_bundle(bundle) and index.target == "xavier-nx"
    assert archive_size(index) == bundle.stat().st_size
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["net"]


def test_an_existing_folder_stays_without_force(good, tmp_path):
    bundle, _ = good
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "mine").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        unpack(bundle, tmp_path / "net")
    assert tree(tmp_path / "net") == {"mine": b"mine"}
    bundle.write_bytes(bundle.read_bytes()[:-1])
    with pytest.raises(BadInput):
        unpack(bundle, tmp_path / "net", force=True)
    assert tree(tmp_path / "net") == {"mine": b"mine"}, "a bad bundle replaces nothing"


def test_every_byte_counts(good, tmp_path):
    bundle, _ = good
    raw = bundle.read_bytes()
    rng = random.Random(0)
    for at in [*range(600), *(rng.randrange(len(raw)) for _ in range(200)), *range(len(raw) - 20, len(raw))]:
        altered = bytearray(raw)
        altered[at] ^= 1 << rng.randrange(8)
        bundle.write_bytes(altered)
        with pytest.raises(BadInput):
            check_bundle(bundle)


@pytest.mark.parametrize("length", [0, 1, 511, 512, 700, 5000, -1, -512, -1024])
def test_truncated_bundles_are_refused(good, tmp_path, length):
    bundle, _ = good
    refused(bundle, bundle.read_bytes()[:length], tmp_path / "net", "bundle|bytes|index")


@pytest.mark.parametrize("name", EVIL_NAMES, ids=ascii)
def test_hostile_names_are_refused_though_every_hash_is_right(good, tmp_path, name):
    bundle, files = good
    name = name.replace("ABSOLUTE", str(tmp_path / "escaped"))
    assert is_allowed(name) == (name == "Model.onnx"), "that one is refused beside model.onnx only"
    refused(
        bundle,
        forged(sorted([*files.items(), (name, b"x")])),
        tmp_path / "net",
        "lists (a file|files twice)|hex escape",
    )
    assert not list(tmp_path.rglob("*escaped*"))


def test_a_forged_bundle_without_an_evil_name_is_taken(good, tmp_path):
    """So that the refusals above are for the names and not for the forging."""
    bundle, files = good
    bundle.write_bytes(forged(sorted([*files.items(), ("other.onnx", b"x")])))
    unpack(bundle, tmp_path / "net")
    assert (tmp_path / "net" / "other.onnx").read_bytes() == b"x"


@pytest.mark.parametrize(
    "names",
    [("a.onnx", "a.onnx"), ("A.onnx", "a.onnx"), ("precision/A/x.json", "precision/a/y.json"), ("b.onnx", "a.onnx")],
)
def test_names_twice_in_another_case_or_out_of_order_are_refused(good, tmp_path, names):
    bundle, files = good
    members = [*((name, b"x") for name in names), *sorted(files.items())]
    if names != ("b.onnx", "a.onnx"):
        members.sort()
    refused(bundle, forged(members), tmp_path / "net", "lists files twice")


def test_a_file_that_is_a_folder_too_is_refused(good, tmp_path):
    bundle, files = good
    members = sorted([*files.items(), ("precision/a.json", b"x"), ("precision/a.json/b.json", b"x")])
    refused(bundle, forged(members), tmp_path / "net", "lists")


def test_links_and_devices_are_refused(good, tmp_path):
    bundle, files = good
    raw = bundle.read_bytes()
    (tmp_path / "outside").write_text("untouched")
    for seed in range(40):
        hostile = link(random.Random(seed), raw, files, str(tmp_path / "outside"))
        refused(bundle, hostile, tmp_path / "net", "was altered before")
    assert (tmp_path / "outside").read_text() == "untouched"


def test_declared_sizes_are_checked_before_anything_is_read(good, tmp_path):
    bundle, files = good

    def declare(size):
        return forged(sorted(files.items()), lambda content: content["members"][0].update(size=size))

    refused(bundle, declare(MAX_TOTAL_BYTES), tmp_path / "net", "more than 4 GiB")
    refused(bundle, declare(1 << 31), tmp_path / "net", "bytes")
    refused(bundle, declare(-1), tmp_path / "net", "size")
    refused(bundle, declare(True), tmp_path / "net", r"members\[0\].size is True")
    many = [(f"m{number:04}.onnx", b"") for number in range(1001)]
    refused(bundle, forged(many), tmp_path / "net", "not 1001")


def test_another_schema_says_what_to_do(good, tmp_path):
    bundle, files = good
    newer = forged(sorted(files.items()), lambda content: content.update(schema=2))
    refused(bundle, newer, tmp_path / "net", "has schema 2\nwanted: schema 1\nnext: .*install that srdeploy")


def test_a_bundle_of_known_hash(good, tmp_path):
    bundle, _ = good
    digest = hashlib.sha256(bundle.read_bytes()).hexdigest()
    with pytest.raises(BadInput, match="another bundle"):
        unpack(bundle, tmp_path / "net", sha256="0" * 64)
    unpack(bundle, tmp_path / "net", sha256=digest.upper())


def test_what_is_no_bundle(tmp_path):
    with pytest.raises(BadInput, match="there is no bundle"):
        unpack(tmp_path, tmp_path / "net")
    with pytest.raises(BadInput, match="there is no bundle"):
        unpack(tmp_path / "missing", tmp_path / "net")
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../x"), io.BytesIO())
    refused(tmp_path / "x.srd", stream.getvalue(), tmp_path / "net", "no bundle")


def test_a_full_disk_leaves_nothing(good, tmp_path):
    bundle, _ = good
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, before[1]))
    try:
        with pytest.raises(DiskFull):
            unpack(bundle, tmp_path / "out" / "net")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "out").iterdir()) == []


def test_writing_refuses_what_reading_would(tmp_path):
    with pytest.raises(BadInput, match="lists a file 'engines/x.engine'"):
        write_bundle(tmp_path / "x.srd", {"engines/x.engine": b"plan"}, "any")
    write_bundle(tmp_path / "x.srd", {"model.onnx": b"1"}, "any")
    with pytest.raises(UsageError, match="exists already"):
        write_bundle(tmp_path / "x.srd", {"model.onnx": b"2"}, "any")
    write_bundle(tmp_path / "x.srd", {"model.onnx": b"2"}, "any", force=True)
    assert read_index(tmp_path / "x.srd").members[0].sha256 == hashlib.sha256(b"2").hexdigest()


def test_a_header_is_what_the_standard_says():
    block = header("golden/8x8_lr.npy", 0o1234)
    parsed = tarfile.TarInfo.frombuf(block, "ascii", "strict")
    assert (parsed.name, parsed.size, parsed.mode, parsed.mtime) == ("golden/8x8_lr.npy", 0o1234, 0o644, 0)
    assert len(block) == 512 and block[257:265] == b"ustar\x0000"


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_golden_pictures_round_trip_and_numpy_reads_them(tmp_path, dtype):
    contract = IOContract(1.0) if dtype == "float32" else IOContract(255.0, layout="NHWC", dtype="uint8")
    generator = np.random.default_rng(0)
    lr = generator.random(contract.shape((4, 6))).astype(dtype)
    sr = generator.random(contract.shape((8, 12))).astype(dtype)
    (tmp_path / "golden").mkdir()
    for name, data in golden_files(Golden((4, 6), lr, sr)).items():
        (tmp_path / name).write_bytes(data)
        assert np.load(tmp_path / name, allow_pickle=False).dtype == dtype
    (pair,) = read_goldens(tmp_path, contract, 2)
    assert pair.size == (4, 6) and np.array_equal(pair.lr, lr) and np.array_equal(pair.sr, sr)
    with pytest.raises(BadInput, match="is not a golden picture"):
        read_goldens(tmp_path, contract, 3)


def test_a_golden_picture_with_nan_is_refused(tmp_path):
    lr = np.zeros((1, 3, 4, 4), np.float32)
    (tmp_path / "golden").mkdir()
    for name, data in golden_files(Golden((4, 4), lr, np.full_like(lr, np.nan))).items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(BadInput, match="not finite"):
        read_goldens(tmp_path, IOContract(1.0), 1)


RECIPES = (
    Recipe(),
    Recipe("tensorrt", ((144, 144), (360, 640)), None, 512, 600_000_000),
    Recipe("tensorrt-rtx", (), ((64, 64), (360, 640), (1080, 1920))),
    Recipe("tensorrt", ((144, 144),), dla_core=0),
    Recipe("tensorrt", ((144, 144),), plan="int8"),
)


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_round_trip(tmp_path, recipe):
    (tmp_path / "recipe.toml").write_text(recipe_text(recipe))
    assert read_recipe(tmp_path / "recipe.toml") == recipe


def test_a_recipe_is_a_build_command():
    assert build_arguments(RECIPES[1], "net") == [
        "build", "net", "--backend", "tensorrt", "--size", "144x144,360x640", "--workspace", "512",
        "--memory-budget", "600.000000MB",
    ]  # fmt: skip
    sizes = ["--min-size", "64x64", "--opt-size", "360x640", "--max-size", "1080x1920"]
    assert build_arguments(RECIPES[3], "net")[-4:] == ["--size", "144x144", "--dla", "0"]
    assert build_arguments(RECIPES[4], "net")[-2:] == ["--plan", "net/precision/int8"]
    assert build_arguments(RECIPES[2], "net") == ["build", "net", "--backend", "tensorrt-rtx", *sizes]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "schema = 2",
        "schema = 1\nspeed = 3",
        "schema = 1\nsizes = '144'",
        "schema = 1\nsizes = ['big']",
        "schema = 1\nsizes = [144]",
        "schema = 1\nbackend = 'tflite'",
        "schema = 1\nprofile = ['9', '8', '7']",
        "schema = 1\nprofile = ['8']",
        "schema = 1\nsizes = []\nprofile = ['7', '8', '9']",
        "schema = 1\nworkspace_mib = -1",
        "schema = 1\ndla_core = -1",
        "schema = 1\nplan = 3",
        "schema = 1\nplan = ''",
        "schema = 1\nplan = '../int8'",
        "schema = 1\nplan = '/etc'",
        "schema = 1\nplan = '.hidden'",
        "schema = 1\nmemory_budget = true",
        "schema = 1\nschema = 1",
    ],
)
def test_recipes_that_mean_nothing_are_refused(tmp_path, line):
    (tmp_path / "recipe.toml").write_text(line)
    with pytest.raises(BadInput):
        read_recipe(tmp_path / "recipe.toml")


def test_three_hundred_mutations(tmp_path):
    counts, violations = fuzz(300, 7, tmp_path / "deep" / "er")
    assert not violations
    assert sum(counts.values()) == 300 and {name for name, _ in counts} == {one.__name__ for one in MUTATIONS}


def test_reading_a_bundle_needs_only_numpy():
    code = "import sr_deploy.bundle.open, sys; print(' '.join({m.split('.')[0] for m in sys.modules}))"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    )
    assert not loaded & {"torch", "onnx", "onnxruntime", "cv2", "tensorrt", "matplotlib", "typer", "rich"}
