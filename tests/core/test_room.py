"""Pictures that would not fit into memory are refused by their header, and headers that lie are found out."""

from __future__ import annotations

import resource
import struct
import time
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest

from sr_deploy.core.contract import IOContract
from sr_deploy.core.errors import BadImage
from sr_deploy.core.media import room
from sr_deploy.core.media.formats import facts_of_file
from sr_deploy.core.media.image import Picture, from_network, read_picture, to_network
from sr_deploy.core.media.imagefile import PNG_SIGNATURE, png_chunk

FLOATS, BYTES = IOContract(1.0), IOContract(255.0, layout="NHWC", dtype="uint8")


def png(size, depth, colour_type, body=None, *extra):
    """A PNG of zeros; the data is that of the size unless it is given."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type]
    row = bytes(1 + (size[1] * channels * depth + 7) // 8)
    body = zlib.compress(row * size[0], 1) if body is None else body
    header = struct.pack(">IIBBBBB", size[1], size[0], depth, colour_type, 0, 0, 0)
    chunks = [png_chunk(b"IHDR", header), *extra, png_chunk(b"IDAT", body), png_chunk(b"IEND", b"")]
    return PNG_SIGNATURE + b"".join(chunks)


def jpeg(size=(64, 48), grey=False, progressive=False):
    pixels = np.random.default_rng(0).integers(0, 256, size if grey else (*size, 3), np.uint8)
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)]
    return cv2.imencode(".jpg", pixels, options)[1].tobytes()


def with_free(monkeypatch, count):
    monkeypatch.setattr(room, "available_memory_bytes", lambda: count)


def test_a_small_file_of_very_many_pixels_is_refused_and_not_decoded(tmp_path):
    path = tmp_path / "big.png"
    path.write_bytes(png((20_000, 20_000), 1, 0))
    assert path.stat().st_size < 400_000
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(BadImage, match=r"big\.png has 20000x20000 pixels \(400 million\)") as caught:
        read_picture(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000, "kilobytes; decoded it is 400,000"
    assert time.process_time() - start < 0.5
    assert "at most 268 million" in caught.value.wanted and "tiles" in caught.value.todo


@pytest.mark.parametrize(("depth", "colour_type"), [(8, 2), (16, 6), (1, 0), (8, 3)])
def test_what_is_free_decides_and_both_are_named(tmp_path, monkeypatch, depth, colour_type):
    path = tmp_path / "a.png"
    palette = [png_chunk(b"PLTE", bytes(6))] if colour_type == 3 else []
    path.write_bytes(png((1000, 1200), depth, colour_type, None, *palette))
    for free in (None, 10**9):
        with_free(monkeypatch, free)
        assert read_picture(path).size == (1000, 1200)
    with_free(monkeypatch, 10**7)
    with pytest.raises(BadImage, match=r"1000x1200 pixels, which need 0\.\d GB here, and 0\.0 GB are free") as caught:
        read_picture(path)
    assert "80%" in caught.value.wanted and caught.value.exit_code == 4


def test_what_the_network_makes_of_it_counts_before_it_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(png((1000, 1000), 8, 2))
    with_free(monkeypatch, 10**9)
    assert read_picture(path, room.bytes_to_upscale(FLOATS, 2)).size == (1000, 1000)
    with pytest.raises(BadImage, match=r"need 1\.\d GB here, and 1\.0 GB are free"):
        read_picture(path, room.bytes_to_upscale(FLOATS, 4))


@pytest.mark.parametrize("contract", [FLOATS, IOContract(255.0), BYTES])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("scale", [1, 4])
def test_the_estimate_is_above_what_is_really_taken(contract, channels, alpha, scale):
    height, width = 120, 200
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    picture = Picture(pixels, pixels[..., 0] if alpha else None)
    tracemalloc.start()
    low = to_network(picture, contract)
    axes = (1, 2) if contract.dtype == "uint8" else (2, 3)
    high = low.repeat(scale, axes[0]).repeat(scale, axes[1])
    from_network(high, contract, picture)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    estimate = height * width * room.bytes_to_upscale(contract, scale)
    assert taken < estimate + 300_000 < 8 * taken + 600_000


@pytest.mark.parametrize(
    "data",
    [
        png((5, 7), 8, 0), png((5, 7), 16, 0), png((5, 7), 1, 0), png((5, 7), 8, 2), png((5, 7), 16, 2),
        png((5, 7), 8, 4), png((5, 7), 16, 4), png((5, 7), 8, 6), png((5, 7), 16, 6),
        png((5, 7), 8, 3, None, png_chunk(b"PLTE", bytes(6))),
        png((5, 7), 8, 3, None, png_chunk(b"PLTE", bytes(6)), png_chunk(b"tRNS", bytes(2))),
        jpeg(), jpeg(grey=True), jpeg(progressive=True),
    ],
)  # fmt: skip
def test_the_header_tells_what_the_decoder_gives(tmp_path, data):
    facts = facts_of_file(data, tmp_path / "a")
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    decoded = decoded[:, :, None] if decoded.ndim == 2 else decoded
    assert (*facts.size, facts.channels) == decoded.shape
    assert facts.depth == 8 * decoded.dtype.itemsize
    assert (facts.scans > 1) == (data == jpeg(progressive=True))


def test_a_png_that_says_more_than_its_data_can_hold(tmp_path):
    path = tmp_path / "lie.png"
    path.write_bytes(png((16_000, 16_000), 8, 2, zlib.compress(bytes(1000))))
    with pytest.raises(BadImage, match="says that it has 16000x16000 pixels, and has .. bytes of data"):
        read_picture(path)


def test_a_jpeg_that_says_that_it_is_large(tmp_path):
    data = bytearray(jpeg())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 65_000, 65_000)
    (tmp_path / "lie.jpg").write_bytes(data)
    with pytest.raises(BadImage, match="65000x65000"):
        read_picture(tmp_path / "lie.jpg")
    # A second frame, small, behind the first does not hide it.
    frame = data.index(b"\xff\xc0")
    length = int.from_bytes(data[frame + 2 : frame + 4], "big") + 2
    small = bytearray(data[frame : frame + length])
    small[5:9] = struct.pack(">HH", 8, 8)
    (tmp_path / "two.jpg").write_bytes(data[: frame + length] + small + data[frame + length :])
    with pytest.raises(BadImage, match="65000x65000"):
        read_picture(tmp_path / "two.jpg")


def test_a_jpeg_of_very_many_scans(tmp_path):
    data = bytearray(jpeg(progressive=True))
    at = data.index(b"\xff\xc2") + 5
    data[at : at + 4] = struct.pack(">HH", 12_000, 12_000)
    scan = data.index(b"\xff\xda")
    last = data.rindex(b"\xff\xd9")
    (tmp_path / "busy.jpg").write_bytes(bytes(data[:last]) + bytes(data[scan : scan + 20]) * 200 + b"\xff\xd9")
    with pytest.raises(BadImage, match=r"12000x12000 pixels in 2\d\d scans"):
        read_picture(tmp_path / "busy.jpg")


@pytest.mark.parametrize("body", [b"\0", b"\0\1\2", bytes(4), bytes(6)])
def test_a_transparent_colour_of_another_length(tmp_path, body):
    (tmp_path / "a.png").write_bytes(png((2, 2), 8, 0, None, png_chunk(b"tRNS", body)))
    with pytest.raises(BadImage, match=r"a\.png is damaged: its transparent colour"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize(("depth", "colour_type"), [(0, 0), (8, 1), (8, 7), (255, 2)])
def test_kinds_of_png_that_are_not(tmp_path, depth, colour_type):
    header = struct.pack(">IIBBBBB", 2, 2, depth, colour_type, 0, 0, 0)
    data = [png_chunk(b"IHDR", header), png_chunk(b"tRNS", bytes(2)), png_chunk(b"IDAT", b"x"), png_chunk(b"IEND", b"")]
    (tmp_path / "a.png").write_bytes(PNG_SIGNATURE + b"".join(data))
    with pytest.raises(BadImage, match="no header"):
        read_picture(tmp_path / "a.png")


def test_the_name_of_a_chunk_cannot_write_to_the_terminal(tmp_path):
    bad = bytearray(png_chunk(b"\x1b[2J", b""))
    bad[-1] ^= 1
    (tmp_path / "a.png").write_bytes(png((2, 2), 8, 0, None, bytes(bad)))
    with pytest.raises(BadImage, match="checksum of its 1b 5b 32 4a chunk"):
        read_picture(tmp_path / "a.png")


def test_a_file_that_no_decoder_takes_is_not_read(tmp_path):
    with open(tmp_path / "huge.png", "wb") as stream:
        stream.write(png((2, 2), 8, 0))
        stream.truncate(50 << 30)  # sparse
    with pytest.raises(BadImage, match=r"huge\.png has 53\.7 GB"):
        read_picture(tmp_path / "huge.png")
