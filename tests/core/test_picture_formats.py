"""PNG, JPEG, WebP, TIFF and BMP in and out: pixels, profiles to the byte, EXIF, XMP; what would be lost is said."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from sr_deploy.core.errors import BadImage, UsageError
from sr_deploy.core.media.encode import FORMATS, Saving
from sr_deploy.core.media.image import Picture, check_writable, read_picture, said_but_not_kept, write_picture
from sr_deploy.core.media.imagefile import png_chunk
from sr_deploy.core.media.metadata import Metadata, exif_of, orientation_of

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
XMP = b"<?xpacket begin=''?><x:xmpmeta xmlns:x='adobe:ns:meta/'/>"


def exif_block(orientation=6):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Maker"
    exif.get_ifd(0x8769).update({0xA002: 5, 0xA003: 4, 0x9003: "2024:01:02 03:04:05"})
    return exif.tobytes()[6:]


ABOUT = Metadata(ICC, exif_block(1), XMP)


def pixels(channels, dtype=np.uint8, size=(6, 9), seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, (*size, channels), dtype=dtype)


def picture_of(channels, alpha, dtype=np.uint8, about=ABOUT):
    return Picture(pixels(channels, dtype), pixels(1, dtype, seed=1)[..., 0] if alpha else None, about)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".bmp"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_lossless_formats_keep_pixels_and_what_is_said(tmp_path, suffix, channels, alpha, dtype):
    picture, path = picture_of(channels, alpha, dtype), tmp_path / f"a{suffix}"
    form = FORMATS[suffix]
    deep_grey = dtype == np.uint16 and alpha and channels == 1
    if (alpha and not form.alpha) or (dtype == np.uint16 and not form.deep) or (deep_grey and suffix == ".tif"):
        with pytest.raises(UsageError, match=f"{form.name} has no place for"):
            write_picture(picture, path)
        return
    write_picture(picture, path)
    again = read_picture(path)
    wanted = picture.pixels if suffix != ".webp" else np.broadcast_to(picture.pixels, (6, 9, 3))
    np.testing.assert_array_equal(again.pixels, wanted)
    if alpha:
        np.testing.assert_array_equal(again.alpha, picture.alpha)
    assert (again.alpha is None) != alpha and again.pixels.dtype == dtype
    if suffix == ".bmp":
        assert said_but_not_kept(picture, path) == ("colour profile", "EXIF", "XMP")
        assert again.about == Metadata()
    else:
        assert said_but_not_kept(picture, path) == ()
        assert again.about.icc == ICC and again.about.xmp == XMP
        assert described(again.about.exif) == described(exif_of(ABOUT.exif, (6, 9)))
    # Another reader sees the same.
    if dtype == np.uint8:
        with Image.open(path) as image:
            assert image.info.get("icc_profile", b"") == again.about.icc
            assert np.array_equal(np.asarray(image.convert("RGB")), np.broadcast_to(again.pixels, (6, 9, 3)))


def described(block):
    """The tags of an EXIF block that describe the photograph."""
    exif = Image.Exif()
    exif.load(block)
    return exif.get(0x010F), dict(exif.get_ifd(0x8769))


@pytest.mark.parametrize(("chroma", "sampling"), [(None, (1, 1)), ("444", (1, 1)), ("422", (2, 1)), ("420", (2, 2))])
def test_jpeg_keeps_what_is_said_and_takes_its_options(tmp_path, chroma, sampling):
    picture = Picture(np.kron(pixels(3, size=(3, 4)), np.ones((16, 16, 1), np.uint8)), None, ABOUT)
    write_picture(picture, tmp_path / "a.jpg", Saving(quality=80, chroma=chroma))
    again = read_picture(tmp_path / "a.jpg")
    assert (again.about.icc, again.about.xmp) == (ICC, XMP)
    assert described(again.about.exif)[0] == "Maker"
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.layer[0][1:3] == sampling and image.quantization[0][0] == 6
    write_picture(picture, tmp_path / "b.jpg", Saving(strip=True))
    assert read_picture(tmp_path / "b.jpg").about == Metadata(ICC)


def test_a_long_profile_in_many_segments(tmp_path):
    long = ICC + bytes(200_000)
    for suffix in (".jpg", ".png", ".webp", ".tif"):
        write_picture(Picture(pixels(3), None, Metadata(long)), tmp_path / f"a{suffix}")
        assert read_picture(tmp_path / f"a{suffix}").about.icc == long


def test_webp_is_lossless_or_of_a_quality(tmp_path):
    picture = picture_of(3, True)
    write_picture(picture, tmp_path / "a.webp", Saving(quality=50))
    assert not np.array_equal(read_picture(tmp_path / "a.webp").pixels, picture.pixels)


@pytest.mark.parametrize(
    ("suffix", "saving", "message"),
    [
        (".png", Saving(quality=50), "--quality has no meaning for a PNG"),
        (".webp", Saving(chroma="420"), "--chroma has no meaning for a WebP"),
        (".jpg", Saving(quality=0), "--quality 0"),
        (".jpg", Saving(chroma="411"), "there is no --chroma '411'"),
    ],
)
def test_options_without_meaning_are_refused(tmp_path, suffix, saving, message):
    with pytest.raises(UsageError, match=message):
        check_writable(tmp_path / f"a{suffix}", picture_of(3, False), saving)


def test_what_png_says_of_its_colours_stays_and_is_named_elsewhere(tmp_path):
    chunks = ((b"cICP", b"\x09\x10\x00\x01"), (b"gAMA", struct.pack(">I", 45455)))
    picture = Picture(pixels(3), None, Metadata(png_colour=chunks))
    write_picture(picture, tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").about.png_colour == chunks
    assert said_but_not_kept(picture, tmp_path / "a.jpg") == ("PNG gamma or primaries",)


def test_exif_is_changed_in_its_place_alone():
    before = exif_block(6)
    after = exif_of(before, (40, 50))
    assert (orientation_of(before), orientation_of(after), len(before)) == (6, 1, len(after))
    exif = Image.Exif()
    exif.load(after)
    assert (exif.get_ifd(0x8769)[0xA002], exif.get_ifd(0x8769)[0xA003]) == (50, 40)
    assert sum(a != b for a, b in zip(before, after)) == 3
    for broken in (b"", b"II", b"II*\0\xff\xff\xff\xff", before[:20], b"XX" + before[2:]):
        assert orientation_of(broken) in range(1, 9) and len(exif_of(broken, (1, 1))) == len(broken)


@pytest.mark.parametrize("suffix", [".tif", ".webp"])
def test_orientation_is_applied_in_every_format(tmp_path, suffix):
    array = pixels(3, size=(4, 5))
    options = {"exif": b"Exif\0\0" + exif_block(6)} if suffix == ".webp" else {"tiffinfo": {274: 6}}
    Image.fromarray(array).save(tmp_path / f"a{suffix}", **options, **({"lossless": True} if suffix == ".webp" else {}))
    picture = read_picture(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(picture.pixels, np.rot90(array, -1))
    assert orientation_of(picture.about.exif) == 1


def saved(path, mode, kind, **options):
    """A file that Pillow wrote, and Pillow's own reading of it."""
    image = Image.fromarray(pixels(3)).convert(mode)
    image.save(path, kind, **options)
    with Image.open(path) as again:
        again.load()
        return again.copy()


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("TIFF", "1", {}), ("TIFF", "L", {}), ("TIFF", "P", {}), ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "RGBA", {"compression": "tiff_adobe_deflate"}), ("TIFF", "LA", {}),
        ("BMP", "1", {}), ("BMP", "L", {}), ("BMP", "P", {}), ("BMP", "RGB", {}),
        ("WEBP", "RGB", {"lossless": True}), ("WEBP", "RGB", {}), ("WEBP", "RGBA", {"lossless": True, "exact": True}),
    ],
)  # fmt: skip
def test_what_others_write_is_read(tmp_path, kind, mode, options):
    image = saved(tmp_path / "a", mode, kind, **options)
    picture = read_picture(tmp_path / "a")
    grey = mode in ("1", "L", "LA") or (kind == "BMP" and image.mode in ("1", "L"))
    wanted = np.asarray(image.convert("L" if grey else "RGB")).reshape(6, 9, -1)
    np.testing.assert_array_equal(picture.pixels, wanted)
    assert (picture.alpha is not None) == (image.mode in ("RGBA", "LA"))


def test_16_bits_of_tiff(tmp_path):
    import cv2

    array = pixels(3, np.uint16)
    cv2.imwrite(str(tmp_path / "a.tif"), array)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").pixels, array[:, :, ::-1])
    Image.fromarray(array[:, :, 0]).save(tmp_path / "b.tif")
    np.testing.assert_array_equal(read_picture(tmp_path / "b.tif").pixels, array[:, :, :1])


def cmyk_profile():
    """A profile of four inks, put together by hand: a device class "prtr" whose A2B0 table maps inks to Lab.

    ICC.1, lut8Type: four input curves, a 2x2x2x2 grid, three output curves.
    """
    ramp = bytes(range(256))
    grid = b""
    for node in range(16):
        inks = [(node >> shift) & 1 for shift in (3, 2, 1, 0)]
        light = max(0, 255 - 200 * inks[3] - 40 * inks[0] - 40 * inks[1] - 10 * inks[2])
        grid += bytes([light, 128 + 40 * (inks[1] - inks[0]), 128 + 40 * (inks[2] - inks[0])])
    matrix = struct.pack(">9i", *(1 << 16 if i % 4 == 0 else 0 for i in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + ramp * 4 + grid + ramp * 3
    table += bytes(-len(table) % 4)
    text = b"text" + bytes(4) + b"made in a test\0\0"
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    name = b"desc" + bytes(4) + struct.pack(">I", 5) + b"inks\0" + bytes(78)
    blocks = [(b"A2B0", table), (b"cprt", text), (b"desc", name), (b"wtpt", white)]
    at = 128 + 4 + 12 * len(blocks)
    tags, body = struct.pack(">I", len(blocks)), b""
    for name, block in blocks:
        block += bytes(-len(block) % 4)
        tags += name + struct.pack(">II", at + len(body), len(block))
        body += block
    size = struct.pack(">I", at + len(body))
    header = size + bytes(4) + struct.pack(">I", 0x02400000) + b"prtrCMYKLab " + bytes(12) + b"acsp" + bytes(28)
    header += struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + tags + body


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted_with_its_profile(tmp_path, kind):
    """White paper is white, black ink is dark; and as lcms makes it through Pillow."""
    profile = cmyk_profile()
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[8:, :, 3] = 255
    Image.fromarray(inks, "CMYK").save(tmp_path / "a", kind, icc_profile=profile)
    picture = read_picture(tmp_path / "a")
    assert picture.kind == "rgb" and picture.about.icc == b""
    assert picture.pixels[2, 2].min() > 245 and picture.pixels[13, 2].max() < 80
    with Image.open(tmp_path / "a") as image:
        wanted = ImageCms.profileToProfile(
            image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )  # fmt: skip
    np.testing.assert_array_equal(picture.pixels, np.asarray(wanted))


def test_inks_without_or_with_a_wrong_profile_are_refused(tmp_path):
    inks = Image.new("CMYK", (8, 8))
    for kind in ("JPEG", "TIFF"):
        inks.save(tmp_path / "a", kind)
        with pytest.raises(BadImage, match="CMYK without a colour profile"):
            read_picture(tmp_path / "a")
        inks.save(tmp_path / "a", kind, icc_profile=ICC)
        with pytest.raises(BadImage, match="does not convert it"):
            read_picture(tmp_path / "a")


@pytest.mark.parametrize("kind", ["WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_cut_off_files_are_bad_pictures(tmp_path, kind, keep):
    saved(tmp_path / "a", "RGB", kind)
    data = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(data[: int(keep * len(data))])
    with pytest.raises(BadImage):
        read_picture(tmp_path / "a")


@pytest.mark.parametrize("kind", ["WEBP", "TIFF", "BMP", "JPEG", "PNG"])
def test_changed_bytes_are_bad_pictures_or_pictures(tmp_path, kind):
    about = {"exif": b"Exif\0\0" + exif_block(3), "icc_profile": ICC} if kind != "BMP" else {}
    saved(tmp_path / "a", "RGB", kind, **about)
    data = (tmp_path / "a").read_bytes()
    random = np.random.default_rng(1)
    for _ in range(60):
        changed = bytearray(data)
        for place in random.integers(0, min(len(data), 400), 3):
            changed[place] = random.integers(256)
        (tmp_path / "b").write_bytes(changed)
        try:
            read_picture(tmp_path / "b")
        except BadImage as error:
            assert error.wanted


def test_several_pictures_in_one_file_are_refused(tmp_path):
    one, two = Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4), "red")
    one.save(tmp_path / "a.tif", save_all=True, append_images=[two])
    with pytest.raises(BadImage, match="TIFF of 2 pages"):
        read_picture(tmp_path / "a.tif")
    one.save(tmp_path / "a.webp", save_all=True, append_images=[two])
    with pytest.raises(BadImage, match="animated WebP"):
        read_picture(tmp_path / "a.webp")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(BadImage, match="TIFF of the form F"):
        read_picture(tmp_path / "f.tif")


def test_a_profile_that_cannot_be_unpacked_is_damage(tmp_path):
    write_picture(Picture(pixels(3)), tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[:33] + png_chunk(b"iCCP", b"x\0\0not deflate") + data[33:])
    with pytest.raises(BadImage, match="colour profile cannot be unpacked"):
        read_picture(tmp_path / "a.png")
