"""Y'CbCr and RGB: against FFmpeg's swscale with accurate rounding, and against the standards' formulas in float64."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest

from sr_deploy.core.media.colour import COEFFICIENTS, COSITED, Planes, planes_of_rgb, rgb_of_planes
from sr_deploy.core.yuv import YuvColour

MATRICES = ("bt601", "bt709", "bt2020")
#: Places of chroma as swscale counts them, in 256ths of a luma sample: horizontal, vertical.
PLACES = {"left": (0, 128), "center": (128, 128), "topleft": (0, 0)}
ACCURATE = "flags=accurate_rnd+full_chroma_int+full_chroma_inp+bilinear"
YUV = {(8, (2, 2)): "yuv420p", (8, (1, 2)): "yuv422p", (8, (1, 1)): "yuv444p", (10, (2, 2)): "yuv420p10le"}
COLOURS = [YuvColour(m, r, s) for m in MATRICES for r in ("limited", "full") for s in PLACES]


def waves(size, low, high, seed):
    """A smooth plane, so that no colour leaves the gamut."""
    coarse = np.random.default_rng(seed).random((size[0] // 4 + 2, size[1] // 4 + 2)).astype(np.float32)
    return np.rint(low + (high - low) * cv2.resize(coarse, (size[1], size[0])))


def sample_planes(depth, subsampling, size=(46, 62)):
    kind, step = (np.uint8, 1) if depth == 8 else (np.uint16, 1 << (depth - 8))
    small = tuple(-(-edge // times) for edge, times in zip(size, subsampling))
    luma = waves(size, 80 * step, 180 * step, 1).astype(kind)
    chroma = [waves(small, 100 * step, 156 * step, seed).astype(kind) for seed in (2, 3)]
    return Planes(luma, (chroma[0], chroma[1]), depth, subsampling)


def swscale(arrays, form, to, options):
    """Planes through FFmpeg's scale filter, which knows nothing of this package."""
    import av

    height, width = arrays[0].shape
    frame = av.VideoFrame(width, height, form)
    for plane, array in zip(frame.planes, arrays):
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        raw = np.ascontiguousarray(array).view(np.uint8).reshape(array.shape[0], -1)
        rows[:, : raw.shape[1]] = raw
        plane.update(rows)
    graph = av.filter.Graph()
    source = graph.add_buffer(width=width, height=height, format=frame.format, time_base=Fraction(1, 25))
    graph.link_nodes(source, graph.add("scale", options), graph.add("format", to), graph.add("buffersink")).configure()
    frame.pts = 0
    graph.push(frame)
    return [
        np.frombuffer(plane, np.uint8)
        .reshape(plane.height, plane.line_size)[:, : plane.width * arrays[0].itemsize]
        .copy()
        .view(arrays[0].dtype)
        .astype(int)
        for plane in graph.pull().planes
    ]


def options_of(colour, side, subsampling=(2, 2)):
    # An axis that is not subsampled has its samples in one place, whatever the siting.
    vertical, horizontal = (
        place if times == 2 else 0 for place, times in zip(reversed(PLACES[colour.siting]), subsampling)
    )
    here, there = {"limited": "tv", "full": "pc"}[colour.range], "pc"
    ranges = (here, there) if side == "in" else (there, here)
    return (
        f"{side}_color_matrix={colour.matrix}:in_range={ranges[0]}:out_range={ranges[1]}:{ACCURATE}"
        f":{side}_h_chr_pos={horizontal}:{side}_v_chr_pos={vertical}"
    )


@pytest.mark.parametrize("subsampling", [(2, 2), (1, 2), (1, 1)])
@pytest.mark.parametrize("colour", COLOURS)
def test_8_bits_are_within_a_step_of_swscale(colour, subsampling):
    pytest.importorskip("av")
    planes, form = sample_planes(8, subsampling), YUV[8, subsampling]
    rgb = np.rint(rgb_of_planes(planes, colour) * 255).astype(np.uint8)
    green, blue, red = swscale([planes.luma, *planes.chroma], form, "gbrp", options_of(colour, "in", subsampling))
    assert np.abs(rgb - np.stack([red, green, blue], 2)).max() <= 1
    back = swscale([rgb[:, :, i] for i in (1, 2, 0)], "gbrp", form, options_of(colour, "out", subsampling))
    mine = planes_of_rgb(rgb / np.float32(255), colour, 8, subsampling, False)
    for one, other in zip((mine.luma, *mine.chroma), back):
        assert np.abs(one.astype(int) - other).max() <= 1


@pytest.mark.parametrize("colour", COLOURS)
def test_10_bits_are_within_an_8_bit_step_of_swscale(colour):
    """Three of the four steps are swscale's own: it takes the white of 10 bits for 1020 in limited range."""
    pytest.importorskip("av")
    planes = sample_planes(10, (2, 2))
    rgb = np.rint(rgb_of_planes(planes, colour) * 1023).astype(np.uint16)
    green, blue, red = swscale([planes.luma, *planes.chroma], "yuv420p10le", "gbrp10le", options_of(colour, "in"))
    difference = np.abs(rgb - np.stack([red, green, blue], 2)).max()
    assert difference <= (1 if colour.range == "full" else 4)
    back = swscale([rgb[:, :, i] for i in (1, 2, 0)], "gbrp10le", "yuv420p10le", options_of(colour, "out"))
    mine = planes_of_rgb(rgb / np.float32(1023), colour, 10, (2, 2), False)
    assert max(np.abs(a.astype(int) - b).max() for a, b in zip((mine.luma, *mine.chroma), back)) <= 4


# The standards' own formulas, pixel by pixel in float64, chroma by its distance from luma


def by_formula(luma, chroma, colour, depth):
    """R'G'B' of one pixel, from H.273's equations as they stand there."""
    red, blue = COEFFICIENTS[colour.matrix]
    if colour.range == "limited":
        step = 2.0 ** (depth - 8)
        y, b, r = (luma / step - 16) / 219, (chroma[0] / step - 128) / 224, (chroma[1] / step - 128) / 224
    else:
        white, half = 2.0**depth - 1, 2.0 ** (depth - 1)
        y, b, r = luma / white, (chroma[0] - half) / white, (chroma[1] - half) / white
    to_red, to_blue = y + 2 * (1 - red) * r, y + 2 * (1 - blue) * b
    return to_red, (y - red * to_red - blue * to_blue) / (1 - red - blue), to_blue


def chroma_at(plane, row, column, subsampling, siting):
    """Chroma at a luma sample by its distance from the samples around it; the edge is repeated."""
    value = 0.0
    offsets = [0.0 if cosited else (times - 1) / 2 for cosited, times in zip(COSITED[siting], subsampling)]
    places = [(at - offset) / times for at, offset, times in zip((row, column), offsets, subsampling)]
    for i in (int(np.floor(places[0])), int(np.floor(places[0])) + 1):
        for j in (int(np.floor(places[1])), int(np.floor(places[1])) + 1):
            weight = max(0, 1 - abs(places[0] - i)) * max(0, 1 - abs(places[1] - j))
            value += weight * plane[np.clip(i, 0, plane.shape[0] - 1), np.clip(j, 0, plane.shape[1] - 1)]
    return value


@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize("colour", [*COLOURS, YuvColour("fcc"), YuvColour("smpte240m", "full")])
def test_the_formulas_of_the_standards(colour, depth):
    planes = sample_planes(depth, (2, 2), (7, 9))
    rgb = rgb_of_planes(planes, colour)
    for row in range(7):
        for column in range(9):
            chroma = [chroma_at(plane, row, column, (2, 2), colour.siting) for plane in planes.chroma]
            wanted = by_formula(float(planes.luma[row, column]), chroma, colour, depth)
            assert np.abs(rgb[row, column] - np.clip(wanted, 0, 1)).max() < 1e-5


@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize("colour", COLOURS[::3])
def test_the_formulas_of_the_standards_backwards(colour, depth):
    rgb = np.random.default_rng(0).random((9, 11, 3)).astype(np.float32)
    planes = planes_of_rgb(rgb, colour, depth, (1, 1), False)
    back = np.zeros((9, 11, 3))
    for place in np.ndindex(9, 11):
        chroma = [plane[place] for plane in planes.chroma]
        back[place] = by_formula(float(planes.luma[place]), chroma, colour, depth)
    # Half a step of each of the three samples, by the weight that it has.
    assert np.abs(back - rgb).max() < 0.5 * (1 + 1.9) / (219 * 2 ** (depth - 8)) + 1e-5
    smeared = planes_of_rgb(rgb, colour, depth, (2, 2), False)
    assert np.array_equal(smeared.luma, planes.luma)


def test_known_colours():
    """White, black and the primaries in BT.709, limited range: the numbers that the standard prints (8 bits)."""
    bars = {(1, 1, 1): (235, 128, 128), (0, 0, 0): (16, 128, 128), (1, 0, 0): (63, 102, 240), (0, 0, 1): (32, 240, 118)}
    for rgb, (luma, blue, red) in bars.items():
        flat = np.broadcast_to(np.float32(rgb), (4, 4, 3))
        planes = planes_of_rgb(flat, YuvColour("bt709"), 8, (2, 2), False)
        assert (planes.luma == luma).all() and (planes.chroma[0] == blue).all() and (planes.chroma[1] == red).all()
        assert np.abs(rgb_of_planes(planes, YuvColour("bt709")) - flat).max() < 0.01


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (5, 7), (8, 3)])
@pytest.mark.parametrize("subsampling", [(2, 2), (1, 2), (1, 1)])
def test_any_size_there_and_back(size, subsampling):
    flat = np.full((*size, 3), (0.25, 0.5, 0.75), np.float32)
    planes = planes_of_rgb(flat, YuvColour("bt601"), 10, subsampling, False)
    assert planes.chroma[0].shape == tuple(-(-edge // times) for edge, times in zip(size, subsampling))
    assert np.abs(rgb_of_planes(planes, YuvColour("bt601")) - flat).max() < 2 / 1023


def test_grey_has_no_chroma():
    planes = planes_of_rgb(np.full((3, 4, 3), 0.5, np.float32), YuvColour("bt709"), 8, (1, 1), True)
    assert planes.chroma is None and (planes.luma == 126).all()
    assert np.abs(rgb_of_planes(planes, YuvColour("bt709")) - 0.5).max() < 0.005
