"""The planes of a video decoder in and out: what the host would make of them, at any even size; TensorRT builds it."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from sr_deploy.core.contract import IOContract, SizeRules, picture_size, shape_in
from sr_deploy.core.errors import BadImage, UsageError
from sr_deploy.core.media.colour import Planes, planes_of_rgb, rgb_of_planes
from sr_deploy.core.media.image import Picture, from_network, to_network
from sr_deploy.core.media.sample import sample_for
from sr_deploy.core.media.surface import planes_of_surface, rgb_of_surface, surface_difference, surface_of_planes
from sr_deploy.core.tolerance import GRAPH_FP32
from sr_deploy.core.yuv import YuvColour
from sr_deploy.graph.planar_io import planar_graph
from sr_deploy.pipeline.export import contract_of
from sr_deploy.run.base import upscale
from sr_deploy.run.onnxruntime import runner_from_graph
from sr_deploy.run.parity import compare
from sr_deploy.run.torch import TorchRunner
from tests.nearest_network import deployed
from tests.small_network import SCALE, small_graphs, small_network

FORMS = [
    ("nv12", YuvColour("bt601", "limited", "left")),
    ("nv12", YuvColour("bt709", "full", "center")),
    ("p010", YuvColour("bt2020", "limited", "topleft")),
    ("p010", YuvColour("bt709", "full", "left")),
]
SIZES = ((8, 10), (2, 6), (12, 4))


@pytest.fixture(scope="module")
def floats(tmp_path_factory):
    return small_graphs(tmp_path_factory.mktemp("small")).dynamic


def planar(floats, folder, io, yuv):
    contract, path = contract_of(1.0, io, yuv), folder / f"{io}.onnx"
    onnx.save(planar_graph(onnx.load(str(floats)), contract, 1.0), str(path))
    return path, contract


@pytest.mark.parametrize(("io", "yuv"), FORMS)
def test_the_planes_are_those_that_the_host_would_make(floats, tmp_path, io, yuv):
    path, contract = planar(floats, tmp_path, io, yuv)
    runner = runner_from_graph(path, contract, SCALE)
    network = runner_from_graph(floats, IOContract(1.0), SCALE)
    for size in SIZES:
        surface = sample_for(contract, size)
        assert surface.shape == contract.shape(size) and picture_size(surface) == size
        rgb = rgb_of_surface(surface, contract)
        made = upscale(network, np.ascontiguousarray(rgb.transpose(2, 0, 1)[None]))[0].transpose(1, 2, 0)
        actual = upscale(runner, surface)
        assert surface_difference(actual, made, contract) <= GRAPH_FP32.steps
        wanted = planes_of_rgb(made, yuv, contract.depth, (2, 2), False)
        found = planes_of_surface(actual, contract)
        for one, other in zip((wanted.luma, *wanted.chroma), (found.luma, *found.chroma)):
            assert np.abs(one.astype(int) - other).max() <= 1
    assert max(compare(runner, TorchRunner(small_network()), SIZES, contract, 1.0).values()) <= GRAPH_FP32.steps


def test_another_matrix_range_or_siting_is_found(floats, tmp_path):
    """The proof is no formality: a graph whose contract says another meaning fails it."""
    path, contract = planar(floats, tmp_path, "nv12", FORMS[0][1])
    for yuv in (YuvColour("bt709"), YuvColour("bt601", "full"), YuvColour("bt601", "limited", "center")):
        runner = runner_from_graph(path, contract_of(1.0, "nv12", yuv), SCALE)
        told = contract_of(1.0, "nv12", yuv)
        assert compare(runner, TorchRunner(small_network()), SIZES[:1], told, 1.0)[SIZES[0]] > 0.5


@pytest.mark.parametrize("depth", [8, 10])
def test_bytes_are_those_of_a_decoder(depth):
    """Against FFmpeg's own nv12 and p010le."""
    av = pytest.importorskip("av")
    kind = np.uint8 if depth == 8 else np.uint16
    random = np.random.default_rng(0)
    luma, blue, red = (random.integers(0, 1 << depth, shape).astype(kind) for shape in ((6, 8), (3, 4), (3, 4)))
    frame = av.VideoFrame(8, 6, "yuv420p" if depth == 8 else "yuv420p10le")
    for plane, array in zip(frame.planes, (luma, blue, red)):
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        rows[:, : array.shape[1] * array.itemsize] = array.view(np.uint8)
        plane.update(rows)
    decoded = frame.reformat(format="nv12" if depth == 8 else "p010le")
    stored = b"".join(
        np.frombuffer(plane, np.uint8).reshape(plane.height, -1)[:, : 8 * luma.itemsize].tobytes()
        for plane in decoded.planes
    )
    surface = surface_of_planes(Planes(luma, (blue, red), depth))
    assert surface.tobytes() == stored
    contract = contract_of(1.0, "nv12" if depth == 8 else "p010", YuvColour("bt709"))
    back = planes_of_surface(surface, contract)
    assert all(np.array_equal(a, b) for a, b in zip((back.luma, *back.chroma), (luma, blue, red)))


@pytest.mark.parametrize("io", ["nv12", "p010"])
def test_tensorrt_builds_it(floats, tmp_path, io):
    """TensorRT-RTX, for one size and for a range of sizes."""
    pytest.importorskip("tensorrt_rtx")
    from sr_deploy.core.errors import BadDeployment
    from sr_deploy.engine.built import write_engine
    from sr_deploy.engine.tensorrt import engine_from_graph

    path, contract = planar(floats, tmp_path, io, YuvColour("bt709"))
    for profile in (((8, 10),) * 3, ((8, 8), (16, 16), (32, 24))):
        built = engine_from_graph("tensorrt-rtx", path, profile, ("8.6",))
        manifest = write_engine(built, tmp_path, path, contract, SCALE)
        assert (manifest.contract.layout, manifest.contract.yuv, manifest.profile) == (
            io.upper(),
            YuvColour("bt709"),
            profile,
        )
    with pytest.raises(BadDeployment, match="of 8x10 only, not 10x10"):
        fixed = tmp_path / "fixed.onnx"
        from sr_deploy.graph.specialise import static_graph

        onnx.save(static_graph(path, (8, 10)), str(fixed))
        engine_from_graph("tensorrt-rtx", fixed, ((10, 10),) * 3, ("8.6",))


def test_contracts_of_planes():
    contract = contract_of(1.0, "p010", YuvColour("bt709"))
    assert (contract.io, contract.depth, contract.shape((4, 6))) == ("p010", 10, (1, 6, 6, 2))
    assert shape_in("NV12", (4, 6)) == (1, 6, 6, 1)
    assert contract.is_known and not IOContract(255.0, layout="NV12", dtype="uint8").is_known
    assert not IOContract(1.0, yuv=YuvColour("bt709")).is_known
    assert SizeRules(1, 1).even() == SizeRules(2, 2) and SizeRules(16, 15).even() == SizeRules(16, 30)
    with pytest.raises(UsageError, match="--io nv12 does not say"):
        contract_of(1.0, "nv12")
    with pytest.raises(UsageError, match="takes RGB"):
        contract_of(1.0, "uint8", YuvColour("bt709"))
    with pytest.raises(BadImage, match="16 bits per channel"):
        to_network(Picture(np.zeros((4, 4, 3), np.uint16)), contract)


def test_the_commands_follow_the_contract(srdeploy, tmp_path):
    """export with its proof, run on a picture and on a clip, build, bench and inspect."""
    import cv2

    folder = deployed(tmp_path, io="nv12", yuv=YuvColour("bt709", "limited", "left"))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["contract"]["yuv"] == {"matrix": "bt709", "range": "limited", "siting": "left"}
    assert manifest["sizes"] == {"minimum": 2, "multiple": 2}
    grey = np.repeat(np.random.default_rng(0).integers(30, 220, (12, 16, 1), np.uint8), 3, 2)
    cv2.imwrite(str(tmp_path / "a.png"), grey)
    done = srdeploy("run", folder, "-i", tmp_path / "a.png", "-o", tmp_path / "out")
    assert done.code == 0, done.err
    made = cv2.imread(str(tmp_path / "out" / "a.png"))
    assert np.abs(made.astype(int) - grey.repeat(2, 0).repeat(2, 1)).max() <= 2
    cv2.imwrite(str(tmp_path / "odd.png"), grey[:11])
    assert srdeploy("run", folder, "-i", tmp_path / "odd.png", "-o", tmp_path / "out").code == 4
    built = srdeploy("build", folder, "--size", "12x16", "--backend", "tensorrt-rtx", "--compute-capability", "8.6")
    assert built.code == 0, built.err
    short = ("--size", "12x16", "--seconds", "0", "--iterations", "2", "--json")
    out = srdeploy("bench", folder, "--backend", "onnxruntime", *short)
    assert out.code == 0, out.err
    (point,) = json.loads(out.out)["points"]
    assert (point["input_bytes"], point["output_bytes"], point["description"]["io"]) == (288, 1152, "uint8 NV12")
    assert '"layout": "NV12"' in srdeploy("inspect", folder, "--json").out


def test_a_picture_there_and_back_through_planes():
    contract = contract_of(1.0, "p010", YuvColour("bt709"))
    picture = Picture(np.full((4, 6, 3), (200, 100, 50), np.uint8))
    surface = to_network(picture, contract)
    back = from_network(np.ascontiguousarray(surface), contract, picture)
    assert np.abs(back.pixels.astype(int) - picture.pixels).max() <= 1
    assert np.allclose(
        rgb_of_planes(planes_of_surface(surface, contract), YuvColour("bt709")) * 255, (200, 100, 50), atol=1
    )


def test_frames_go_through_as_they_are_or_are_refused(tmp_path):
    """A pipe of nv12 and a graph of nv12: nothing is converted on the host, and another meaning is refused."""
    import io

    from sr_deploy.core.errors import BadInput
    from sr_deploy.core.media.video.clip import Assumed
    from sr_deploy.pipeline.video.pipe import PipeOptions, upscale_pipe

    folder = deployed(tmp_path, io="nv12", yuv=YuvColour("bt709"))
    luma = np.random.default_rng(0).integers(60, 180, (4, 6), np.uint8)
    frame = luma.tobytes() + bytes([128]) * 12
    out = io.BytesIO()
    upscale_pipe(PipeOptions(folder, ("nv12", "6x4"), Assumed("bt709")), io.BytesIO(frame), out)
    made = np.frombuffer(out.getvalue(), np.uint8)
    assert np.array_equal(made[:96].reshape(8, 12), luma.repeat(2, 0).repeat(2, 1)) and (made[96:] == 128).all()
    for raw, assumed in ((("nv12", "6x4"), Assumed("bt601")), (("p010le", "6x4"), Assumed("bt709")),
                         (("rgb24", "6x4"), Assumed()), (("yuv444p", "6x4"), Assumed("bt709"))):  # fmt: skip
        with pytest.raises(BadInput, match="bt709 limited left of 8 bits"):
            upscale_pipe(PipeOptions(folder, raw, assumed), io.BytesIO(frame), io.BytesIO())


def test_weights_are_fitted_on_parts_of_any_form():
    """Squares for fitting to 8 bits: of pixels and of planes the same places as of floats."""
    from sr_deploy.precision.fit.layerwise import squares_from

    rgb = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    of_floats = squares_from([np.ascontiguousarray(rgb.transpose(2, 0, 1)[None], np.float32)], 2, 8)
    of_bytes = squares_from([rgb[None]], 2, 8)
    assert np.array_equal(of_bytes.numpy().transpose(0, 3, 1, 2), of_floats.numpy())
    for io, last in (("nv12", 1), ("p010", 2)):
        contract = contract_of(1.0, io, YuvColour("bt709"))
        surface = to_network(Picture(rgb), contract)
        squares = squares_from([surface, surface], 3, 9).numpy().astype(np.uint8)
        assert squares.shape == (3, 12, 8, last)
        whole = planes_of_surface(surface, contract)
        part = planes_of_surface(squares[:1], contract)
        found = [
            (top, left)
            for top in range(0, 17, 2)
            for left in range(0, 25, 2)
            if np.array_equal(whole.luma[top : top + 8, left : left + 8], part.luma)
        ]
        ((top, left),) = found
        assert np.array_equal(whole.chroma[0][top // 2 : top // 2 + 4, left // 2 : left // 2 + 4], part.chroma[0])
