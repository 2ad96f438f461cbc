"""A PNG written in bands is the one written whole, whatever the bands and the kind of picture."""

from __future__ import annotations

import io

import numpy as np
import pytest

from sr_deploy.core.media.formats import facts_of_file
from sr_deploy.core.media.image import Picture, read_picture
from sr_deploy.core.media.rows import PngRows


def written(array, bands, before=()):
    stream = io.BytesIO()
    height, width, channels = array.shape
    rows = PngRows(stream, (height, width), channels, 8 * array.dtype.itemsize, before)
    for band in np.array_split(array, bands):
        rows.write(band)
    rows.close()
    return stream.getvalue()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pictures_come_back_as_they_were(tmp_path, dtype, channels):
    array = np.random.default_rng(channels).integers(0, np.iinfo(dtype).max + 1, (23, 17, channels), dtype)
    for bands in (1, 4, 23):
        path = tmp_path / f"{bands}.png"
        path.write_bytes(written(array, bands))
        back = read_picture(path)
        alpha = channels in (2, 4)
        assert np.array_equal(back.pixels, array[:, :, :-1] if alpha else array)
        assert alpha == (back.alpha is not None) and (not alpha or np.array_equal(back.alpha, array[:, :, -1]))
        assert isinstance(back, Picture) and back.pixels.dtype == dtype


def test_chunks_before_the_pixels_are_kept(tmp_path):
    data = written(np.zeros((2, 3, 3), np.uint8), 1, [(b"gAMA", b"\x00\x00\xb1\x8f")])
    assert data.index(b"IHDR") < data.index(b"gAMA") < data.index(b"IDAT")
    assert facts_of_file(data, tmp_path / "a.png").size == (2, 3)


def test_rows_that_do_not_belong_are_refused():
    rows = PngRows(io.BytesIO(), (4, 5), 3, 8)
    for wrong in (np.zeros((1, 6, 3), np.uint8), np.zeros((1, 5, 3), np.uint16), np.zeros((5, 5, 3), np.uint8)):
        with pytest.raises(ValueError):
            rows.write(wrong)
    with pytest.raises(ValueError, match="0 rows of 4"):
        rows.close()
