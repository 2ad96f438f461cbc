"""Reading, writing and converting pictures; what is refused, and that nothing is dropped silently."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from sr_deploy.core.contract import IOContract
from sr_deploy.core.errors import BadDeployment, BadImage, CheckFailed, UsageError
from sr_deploy.core.media.bicubic import resize
from sr_deploy.core.media.image import (
    Picture,
    check_writable,
    find_images,
    from_network,
    read_picture,
    to_network,
    write_picture,
)
from sr_deploy.core.media.imagefile import PNG_SIGNATURE, png_chunk

UNIT, BYTE = IOContract(1.0), IOContract(255.0)


def random_pixels(channels, dtype=np.uint8, size=(13, 17), seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max + 1, (*size, channels), dtype=dtype)


def saved(path, array, mode=None, **options):
    """A file written by Pillow, so that the product's own writer is not its own judge."""
    image = Image.fromarray(array if array.shape[-1] != 1 else array[..., 0])
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def raw_png(width, height, depth, colour_type, rows, *extra):
    """A PNG put together by hand from unfiltered rows of bytes: forms that Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\x00" + row for row in rows))
    chunks = [png_chunk(b"IHDR", header), *extra, png_chunk(b"IDAT", body), png_chunk(b"IEND", b"")]
    return PNG_SIGNATURE + b"".join(chunks)


# Reading


@pytest.mark.parametrize(
    ("channels", "kind", "alpha"), [(1, "grey", False), (2, "grey", True), (3, "rgb", False), (4, "rgb", True)]
)
def test_png_kinds_are_read_as_they_are(tmp_path, channels, kind, alpha):
    array = random_pixels(channels)
    picture = read_picture(saved(tmp_path / "a.png", array))
    assert (picture.kind, picture.depth, picture.size) == (kind, 8, (13, 17))
    colours = array[..., :-1] if alpha else array
    np.testing.assert_array_equal(picture.pixels, colours)
    if alpha:
        np.testing.assert_array_equal(picture.alpha, array[..., -1])
    else:
        assert picture.alpha is None


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bit_png_is_read_exactly(tmp_path, colour_type, channels):
    array = random_pixels(channels, np.uint16)
    (tmp_path / "a.png").write_bytes(raw_png(17, 13, 16, colour_type, [row.astype(">u2").tobytes() for row in array]))
    picture = read_picture(tmp_path / "a.png")
    colours = channels - (channels + 1) % 2
    assert picture.depth == 16
    np.testing.assert_array_equal(picture.pixels, array[..., :colours])
    assert (picture.alpha is not None) == (colours < channels)
    if picture.alpha is not None:
        np.testing.assert_array_equal(picture.alpha, array[..., -1])


def test_palette_png_is_read_as_colour(tmp_path):
    image = Image.fromarray(random_pixels(3)).quantize(16)
    image.save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert picture.kind == "rgb"
    assert picture.alpha is None
    np.testing.assert_array_equal(picture.pixels, np.asarray(image.convert("RGB")))
    image.save(tmp_path / "b.png", transparency=bytes(range(0, 256, 16)))
    np.testing.assert_array_equal(read_picture(tmp_path / "b.png").alpha, np.asarray(image) * 16)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_few_bit_grey_png_fills_the_range(tmp_path, depth):
    (tmp_path / "a.png").write_bytes(raw_png(8 // depth, 1, depth, 0, [b"\xe4"]))
    values = [int(f"{0xE4:08b}"[k : k + depth], 2) * 255 // (2**depth - 1) for k in range(0, 8, depth)]
    picture = read_picture(tmp_path / "a.png")
    assert picture.kind == "grey"
    assert picture.pixels[0, :, 0].tolist() == values


@pytest.mark.parametrize(
    ("depth", "colour_type", "row", "key", "alpha"),
    [
        (8, 0, bytes([7, 200, 7]), (7,), [0, 255, 0]),
        (2, 0, b"\xe4", (2,), [255, 0, 255]),
        (16, 0, struct.pack(">3H", 7, 300, 65535), (300,), [65535, 0, 65535]),
        (8, 2, bytes([1, 2, 3, 9, 2, 3, 1, 2, 3]), (1, 2, 3), [0, 255, 0]),
    ],
)
def test_a_transparent_colour_becomes_alpha(tmp_path, depth, colour_type, row, key, alpha):
    chunk = png_chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
    (tmp_path / "a.png").write_bytes(raw_png(3, 1, depth, colour_type, [row], chunk))
    assert read_picture(tmp_path / "a.png").alpha[0].tolist() == alpha


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_kinds(tmp_path, mode, channels, progressive):
    smooth = np.kron(random_pixels(3, size=(3, 4)), np.ones((16, 16, 1), np.uint8))
    path = saved(tmp_path / "a.jpg", smooth, mode, quality=98, subsampling=0, progressive=progressive)
    picture = read_picture(path)
    assert picture.pixels.shape == (48, 64, channels)
    with Image.open(path) as image:
        expected = np.asarray(image).reshape(48, 64, channels).astype(int)
    assert np.abs(picture.pixels - expected).max() <= 3  # decoders may differ by their inverse transform


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_exif_orientation_is_applied(tmp_path, orientation, suffix):
    array = np.kron(random_pixels(3, size=(2, 3)), np.ones((8, 8, 1), np.uint8))
    exif = Image.Exif()
    exif[274] = orientation
    options = {"quality": 100, "subsampling": 0} if suffix == ".jpg" else {}
    path = saved(tmp_path / f"a{suffix}", array, exif=exif, **options)
    with Image.open(path) as image:
        image.load()
        expected = np.asarray(ImageOps.exif_transpose(image)).astype(int)
    picture = read_picture(path)
    assert picture.pixels.shape == expected.shape
    assert np.abs(picture.pixels - expected).max() <= 3


def test_the_content_decides_not_the_name(tmp_path):
    saved(tmp_path / "a.jpg", random_pixels(4), format="PNG")
    assert read_picture(tmp_path / "a.jpg").alpha is not None


# What is refused


@pytest.mark.parametrize("keep", [0.05, 0.5, 0.97, "all but the end marker"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_cut_off_files_are_refused(tmp_path, suffix, keep):
    path = saved(tmp_path / f"a{suffix}", random_pixels(3, size=(64, 64)))
    data = path.read_bytes()
    path.write_bytes(data[:-2] if isinstance(keep, str) else data[: int(len(data) * keep)])
    with pytest.raises(BadImage, match=f"a{suffix} is cut off"):
        read_picture(path)


def test_a_cut_off_jpeg_with_a_whole_thumbnail_is_refused(tmp_path):
    thumbnail = io.BytesIO()
    Image.fromarray(random_pixels(3, size=(8, 8))).save(thumbnail, "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", 2 + 6 + len(thumbnail.getvalue())) + b"Thumb\x00" + thumbnail.getvalue()
    data = saved(tmp_path / "a.jpg", random_pixels(3, size=(64, 64))).read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[:2] + segment + data[2:])
    assert read_picture(tmp_path / "a.jpg").size == (64, 64)
    (tmp_path / "a.jpg").write_bytes((data[:2] + segment + data[2:])[: -len(data) // 3])
    with pytest.raises(BadImage, match="cut off"):
        read_picture(tmp_path / "a.jpg")


def test_a_flipped_bit_in_a_png_is_found(tmp_path):
    path = saved(tmp_path / "a.png", random_pixels(3))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(BadImage, match=r"a\.png is damaged: the checksum of its IDAT"):
        read_picture(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"hello, this is text", "is not a picture: its first bytes are 68 65"),
        (b"\x00\x00\x00\x20ftypisom\x00\x00", "is a video"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "is a video"),
        (b"\x1aE\xdf\xa3\x01\x00\x00\x00", "is a video"),
        (b"GIF89a\x01\x00", "is a GIF"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "is damaged: its header cannot be read"),
        (b"\xff\xd8\xff", "cut off"),
        (b"\xff\xd8\xff\xdb\x00\x04\x01\x02\x03\x04\x05\x06", "no marker at byte 8"),
        (PNG_SIGNATURE, "cut off"),
        (raw_png(3, 1, 8, 0, [b"\x00"]), "cannot be decoded"),
        (raw_png(3, 1, 8, 0, [b"\x00\x01\x02"], png_chunk(b"acTL", struct.pack(">II", 2, 0))), "animated"),
    ],
)
def test_what_is_no_picture_is_refused_by_name(tmp_path, data, message):
    path = tmp_path / "input.png"
    path.write_bytes(data)
    with pytest.raises(BadImage, match=f"input.png.*{message}") as caught:
        read_picture(path)
    assert caught.value.exit_code == 4
    assert caught.value.wanted


def test_cmyk_is_refused(tmp_path):
    with pytest.raises(BadImage, match=r"a\.jpg is CMYK without a colour profile"):
        read_picture(saved(tmp_path / "a.jpg", random_pixels(3), "CMYK"))


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(BadImage, match=r"cannot read .*gone\.png: No such file"):
        read_picture(tmp_path / "gone.png")
    with pytest.raises(BadImage, match="Is a directory"):
        read_picture(tmp_path)


# Finding


def test_folders_are_searched_in_order(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.PNG", "a.jpeg", "c.jpg", "notes.txt", ".hidden.png", "sub/deep.png"):
        (tmp_path / name).write_bytes(b"")
    named = tmp_path / "sub" / "deep.png"
    found = find_images([named, tmp_path, tmp_path / "c.jpg"])
    assert found == (named, tmp_path / "a.jpeg", tmp_path / "b.PNG", tmp_path / "c.jpg")


def test_a_folder_without_pictures_names_the_suffixes(tmp_path):
    (tmp_path / "movie.mp4").write_bytes(b"")
    with pytest.raises(BadImage, match=r"(?s)no pictures in the folder .*\.png, \.jpg, \.jpeg"):
        find_images([tmp_path])
    with pytest.raises(BadImage, match="does not exist"):
        find_images([tmp_path / "gone"])


# To the network and back


@pytest.mark.parametrize("colour", ["RGB", "BGR"])
@pytest.mark.parametrize("value_range", [1.0, 255.0])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_there_and_back_is_exact(colour, value_range, dtype, channels):
    contract = IOContract(value_range, colour=colour)
    picture = Picture(random_pixels(channels, dtype), random_pixels(1, dtype)[..., 0])
    array = to_network(picture, contract)
    assert (array.dtype, array.shape) == (np.float32, (1, 3, 13, 17))
    assert array.flags.c_contiguous
    red = array[0, 2 if colour == "BGR" else 0]
    np.testing.assert_allclose(red, picture.pixels[..., 0] * (value_range / np.iinfo(dtype).max), rtol=1e-6)
    back = from_network(array, contract, picture)
    np.testing.assert_array_equal(back.pixels, picture.pixels)
    np.testing.assert_array_equal(back.alpha, picture.alpha)
    assert back.pixels.dtype == dtype


def test_values_are_clipped_and_rounded_half_to_even():
    like = Picture(np.zeros((1, 5, 3), np.uint8))
    array = np.tile(np.array([-3.0, 0.5, 1.5, 254.6, 300.0], np.float32), (1, 3, 1, 1))
    assert from_network(array, BYTE, like).pixels[0, :, 0].tolist() == [0, 0, 2, 255, 255]


def test_grey_results_are_luma_and_alpha_is_bicubic():
    like = Picture(random_pixels(1, size=(4, 5)), random_pixels(1, size=(4, 5), seed=1)[..., 0])
    array = np.zeros((1, 3, 8, 10), np.float32)
    array[0, :, :, :] = np.array([100.0, 150.0, 200.0], np.float32)[:, None, None]
    result = from_network(array, BYTE, like)
    assert result.pixels.shape == (8, 10, 1)
    assert (result.pixels == round(0.299 * 100 + 0.587 * 150 + 0.114 * 200)).all()
    np.testing.assert_array_equal(result.alpha, resize(like.alpha, (8, 10)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_is_never_made_a_pixel(bad):
    array = np.zeros((1, 3, 8, 8), np.float32)
    array[0, 1, 2, 3] = bad
    with pytest.raises(CheckFailed, match="1 of 192 output values are NaN"):
        from_network(array, UNIT, Picture(np.zeros((4, 4, 3), np.uint8)))


@pytest.mark.parametrize("shape", [(1, 3, 8, 9), (1, 3, 3, 3), (1, 1, 8, 8), (1, 3, 0, 0)])
def test_outputs_of_another_size_are_an_error(shape):
    with pytest.raises(ValueError, match="does not belong"):
        from_network(np.zeros(shape, np.float32), UNIT, Picture(np.zeros((4, 4, 3), np.uint8)))


@pytest.mark.parametrize("change", [{"layout": "NHWC"}, {"colour": "YUV"}, {"dtype": "float16"}])
def test_contracts_that_are_not_known_are_refused(change):
    with pytest.raises(BadDeployment, match=next(iter(change.values()))):
        to_network(Picture(np.zeros((4, 4, 3), np.uint8)), IOContract(1.0, **change))


# Writing


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_png_keeps_everything(tmp_path, dtype, alpha, channels):
    picture = Picture(random_pixels(channels, dtype), random_pixels(1, dtype, seed=1)[..., 0] if alpha else None)
    write_picture(picture, tmp_path / "out.PNG")
    again = read_picture(tmp_path / "out.PNG")
    np.testing.assert_array_equal(again.pixels, picture.pixels)
    assert again.pixels.dtype == dtype
    if alpha:
        np.testing.assert_array_equal(again.alpha, picture.alpha)
    else:
        assert again.alpha is None
    if dtype == np.uint8:
        modes = {(1, False): "L", (1, True): "LA", (3, False): "RGB", (3, True): "RGBA"}
        with Image.open(tmp_path / "out.PNG") as image:
            assert image.mode == modes[channels, alpha]
            planes = np.dstack([picture.pixels, picture.alpha]) if alpha else picture.pixels
            np.testing.assert_array_equal(np.asarray(image).reshape(planes.shape), planes)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_written_at_quality_95_in_the_right_order(tmp_path, channels):
    smooth = np.kron(random_pixels(channels, size=(3, 4)), np.ones((16, 16, 1), np.uint8))
    write_picture(Picture(smooth), tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as image:
        pixels = np.asarray(image).reshape(smooth.shape).astype(int)
        assert image.quantization[0][0] == 2  # luminance table of T.81 annex K (16) at quality 95: 10 per cent
    inside = (slice(4, 12), slice(4, 12))
    assert np.abs(pixels[inside].mean((0, 1)) - smooth[inside].mean((0, 1))).max() < 4


def test_what_jpeg_would_lose_is_refused_and_nothing_is_written(tmp_path):
    alpha = Picture(random_pixels(3), random_pixels(1)[..., 0])
    with pytest.raises(UsageError, match="JPEG has no place for transparency"):
        write_picture(alpha, tmp_path / "out.jpg")
    with pytest.raises(UsageError, match="JPEG has no place for 16 bits per channel"):
        write_picture(Picture(random_pixels(3, np.uint16)), tmp_path / "out.jpeg")
    with pytest.raises(UsageError, match="transparency and 16 bits"):
        deep = Picture(random_pixels(3, np.uint16), random_pixels(1, np.uint16)[..., 0])
        check_writable(tmp_path / "out.JPG", deep)
    with pytest.raises(UsageError, match=r"unknown suffix '\.gif'"):
        write_picture(alpha, tmp_path / "out.gif")
    assert list(tmp_path.iterdir()) == []
