"""Tiles: a picture made in parts by a local network equals the one made whole, at every size and for every tile."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sr_deploy.core.contract import IOContract, SizeRules
from sr_deploy.core.errors import BadDeployment, BadInput, CheckFailed
from sr_deploy.core.reach import GlobalNode, Reach
from sr_deploy.run.base import upscale
from sr_deploy.run.fake import FakeClock, FakeRunner
from sr_deploy.run.tiled import TiledRunner
from sr_deploy.run.tiles import SEEN_BY_BOTH, cut_for, mirrored

ANY = SizeRules()


class Blur(FakeRunner):
    """Looks ``reach`` pixels around (a box of ones, zeros outside), in whole numbers, and takes only some sizes."""

    def __init__(self, reach, contract, only=None, multiple=1):
        super().__init__(2, lambda size, n: 0.0, FakeClock().sleep)
        self.reach, self.contract, self.only, self.multiple = reach, contract, only, multiple
        self.io_dtype = contract.dtype
        self.prepared = []

    def prepare(self, size):
        if self.only not in (None, size) or size[0] % self.multiple or size[1] % self.multiple:
            raise BadInput(f"{size}")
        self._size = size
        self.prepared.append(size)

    def upload(self, lr):
        self._lr = lr

    def compute(self):
        axis = self.contract.row_axis
        wide = [(0, 0)] * 4
        wide[axis] = wide[axis + 1] = (self.reach, self.reach)
        padded = np.pad(self._lr.astype(np.int64), wide)
        total = np.zeros(self._lr.shape, np.int64)
        for dy, dx in itertools.product(range(2 * self.reach + 1), repeat=2):
            place = [slice(None)] * 4
            place[axis] = slice(dy, dy + self._lr.shape[axis])
            place[axis + 1] = slice(dx, dx + self._lr.shape[axis + 1])
            total += (dy + 3 * dx + 1) * padded[tuple(place)]
        # Where the network has a stride, what it gives depends on the place within it.
        for offset in (0, 1):
            index = np.arange(total.shape[axis + offset]) % self.multiple
            total += index.reshape([-1 if k == axis + offset else 1 for k in range(4)])
        sr = total.repeat(2, axis=axis).repeat(2, axis=axis + 1)
        self._sr = (sr % 251).astype(self.contract.dtype)

    def download(self):
        return self._sr.copy()


class Centred(Blur):
    """Takes the mean of the whole picture off: no halo is enough."""

    def compute(self):
        self._sr = (self._lr - self._lr.mean()).repeat(2, axis=2).repeat(2, axis=3)


CONTRACTS = (IOContract(255.0), IOContract(255.0, layout="NHWC", dtype="uint8"))


@pytest.mark.parametrize("contract", CONTRACTS, ids=("float32", "uint8"))
@pytest.mark.parametrize("fixed", [False, True])
def test_tiles_equal_the_whole_at_many_sizes(contract, fixed):
    rng = np.random.default_rng(0)
    for _ in range(40):
        reach, multiple = int(rng.integers(0, 4)), int(rng.choice([1, 1, 2, 4]))
        rules = SizeRules(multiple=multiple)
        tile = tuple(multiple * int(n) for n in rng.integers(-(-(2 * reach + 2 + multiple) // multiple), 16, 2))
        size = tuple(multiple * int(n) for n in rng.integers(1, 40 // multiple, 2))
        if fixed:
            size = tuple(max(pair) for pair in zip(size, tile))
        cut = cut_for(Reach(reach, multiple), rules, tile, fixed, "net")
        inner = Blur(reach, contract, tile if fixed else None, multiple)
        tiled = TiledRunner(inner, cut, contract, 2)
        lr = rng.integers(0, 200, contract.shape(size)).astype(contract.dtype)
        sr = upscale(tiled, lr)
        assert np.array_equal(sr, upscale(Blur(reach, contract, multiple=multiple), lr)), (size, tile, reach, multiple)
        assert tiled.seams.largest == 0
        assert all(height <= tile[0] and width <= tile[1] for height, width in inner.prepared)
        assert tiled.describe()["tiles"]["count"] == cut.layout(size).count


def test_a_halo_that_is_too_small_is_seen_along_the_borders():
    contract = CONTRACTS[0]
    rng = np.random.default_rng(1)
    lr = rng.integers(0, 200, contract.shape((30, 34))).astype("float32")
    cut = cut_for(Reach(1, 1), ANY, (16, 16), False, "net")
    with pytest.raises(CheckFailed, match="differ by .* along their borders"):
        upscale(TiledRunner(Blur(3, contract), cut, contract, 2), lr)


def test_what_is_not_local_is_measured_and_refused_or_allowed():
    contract = CONTRACTS[0]
    lr = np.random.default_rng(1).integers(0, 200, contract.shape((150, 170))).astype("float32")
    spectral = Reach(0, 1, (GlobalNode("fu", "MatMul", "mixes all rows"),))
    cut = cut_for(spectral, ANY, (80, 80), False, "net")
    with pytest.raises(CheckFailed, match="two tiles of it differ by up to [0-9.]+ of 255") as refused:
        upscale(TiledRunner(Centred(0, contract), cut, contract, 2), lr)
    assert "mixes all rows" in refused.value.found and "--allow-inexact" in refused.value.todo
    allowed = TiledRunner(Centred(0, contract), cut, contract, 2, inexact=True)
    assert upscale(allowed, lr).shape == (1, 3, 300, 340)
    assert 0 < allowed.seams.mean <= allowed.seams.largest
    alone = cut_for(spectral, ANY, (96, 96), True, "net")
    with pytest.raises(CheckFailed, match="filled up with its mirror image"):
        upscale(TiledRunner(Centred(0, contract, (96, 96)), alone, contract, 2), lr[:, :, :50, :60])


def test_a_picture_smaller_than_a_fixed_tile_is_reflected():
    contract = CONTRACTS[0]
    lr = np.arange(3 * 5 * 7, dtype=np.float32).reshape(1, 3, 5, 7)
    cut = cut_for(Reach(1, 1), ANY, (12, 16), True, "net")
    assert cut.layout((5, 7)).padded == (12, 16)
    sr = upscale(TiledRunner(Blur(1, contract, (12, 16)), cut, contract, 2), lr)
    mirror = np.pad(lr, ((0, 0), (0, 0), (0, 7), (0, 9)), mode="reflect")
    assert np.array_equal(sr, upscale(Blur(1, contract), mirror)[:, :, :10, :14])


def test_what_the_network_does_not_take_is_padded_to_what_it_takes():
    cut = cut_for(Reach(2, 4), SizeRules(16, 4), (32, 32), False, "net")
    assert cut.layout((3, 41)).padded == (16, 44)
    assert cut.layout((40, 44)).padded == (40, 44)


def test_mirrored_is_numpys_reflection():
    for length in range(1, 6):
        line = np.arange(length)
        for more in range(12):
            expected = np.pad(line, (0, more), mode="reflect") if length > 1 else np.zeros(1 + more)
            assert np.array_equal(line[mirrored(0, length + more, length)], expected)


def test_borders_lie_where_both_tiles_know_the_pixels():
    cut = cut_for(Reach(5, 2), SizeRules(multiple=2), (32, 32), True, "net")
    spans = cut.layout((32, 101)).columns
    assert spans[0].first == 0 and spans[-1].last == 101 and spans[-1].stop == 102
    for left, right in zip(spans, spans[1:]):
        assert left.last == right.first and right.start % 2 == 0 and right.stop - right.start == 32
        assert left.last + 5 + SEEN_BY_BOTH <= left.stop and right.first - 5 - SEEN_BY_BOTH >= right.start


def test_what_cannot_be_tiled_says_so():
    with pytest.raises(BadDeployment, match="all halo"):
        cut_for(Reach(30, 1), ANY, (48, 48), True, "net")
    with pytest.raises(BadDeployment, match="does not say"):
        cut_for(None, ANY, (48, 48), True, "net")
    spectral = Reach(0, 1, (GlobalNode("a", "MatMul", "mixes all rows"),))
    assert not cut_for(spectral, ANY, (128, 128), True, "net").exact and "not local" in spectral.explained()
