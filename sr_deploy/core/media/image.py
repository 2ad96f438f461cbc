"""Picture files ↔ network tensors: the only place that knows channel order and value range.

What is kept: grey stays grey, alpha stays alpha, 16 bits stay 16 bits; so do the colour profile, EXIF and XMP. The
orientation is applied to the pixels on reading, as viewers do, and EXIF then says upright. A profile is applied to inks
alone.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterable, List, Optional, Tuple

import numpy as np

from sr_deploy.core.artifact import atomic_file
from sr_deploy.core.contract import KNOWN_FORMS, IOContract, Size, picture_size
from sr_deploy.core.errors import BadDeployment, BadImage, CheckFailed, UsageError
from sr_deploy.core.media.bicubic import resize
from sr_deploy.core.media.decode import decoded
from sr_deploy.core.media.encode import DEFAULT, FORMATS, Saving, format_of, not_kept
from sr_deploy.core.media.formats import facts_of_file
from sr_deploy.core.media.imagefile import WANTED, FileFacts
from sr_deploy.core.media.metadata import Metadata
from sr_deploy.core.media.room import PLANES_BYTES, check_room
from sr_deploy.core.media.surface import rgb_of_surface, surface_of_rgb

#: What a folder is searched for, and what can be written.
SUFFIXES = tuple(FORMATS)
#: What OpenCV decodes at most.
MOST_FILE_BYTES = (1 << 31) - 1
#: BT.601's weights of R, G, B in luma: how a colour result becomes grey again.
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Picture:
    """A picture as its file has it.

    Attributes:
        pixels: uint8 or uint16, (H, W, 3) in RGB order or (H, W, 1) for grey.
        alpha: (H, W) of the same dtype, full value = opaque; None: the file has none.
        about: what else the file says.
    """

    pixels: np.ndarray
    alpha: Optional[np.ndarray] = None
    about: Metadata = Metadata()

    @property
    def kind(self) -> str:
        """ "grey" or "rgb"."""
        return "grey" if self.pixels.shape[2] == 1 else "rgb"

    @property
    def depth(self) -> int:
        """Bits per channel, 8 or 16."""
        return 8 * self.pixels.dtype.itemsize

    @property
    def size(self) -> Size:
        """(height, width) in pixels."""
        return int(self.pixels.shape[0]), int(self.pixels.shape[1])


def in_8_bits(picture: Picture) -> Picture:
    """The picture with 8 bits a channel, rounded, without its alpha; PSNR is defined on those."""
    if picture.pixels.dtype == np.uint8:
        return picture
    return Picture(np.rint(picture.pixels / 257.0).astype(np.uint8))


def find_images(paths: Iterable[Path]) -> Tuple[Path, ...]:
    """The picture files that ``paths`` name: files as they are, of folders the pictures directly inside.

    Args:
        paths: files and folders. Order is kept, folders are listed by name, repeated files are taken once.

    Raises:
        BadImage: a path that does not exist, or a folder without pictures.
    """
    found: List[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = [p for p in sorted(path.iterdir()) if p.suffix.lower() in SUFFIXES and p.is_file()]
            inside = [p for p in inside if not p.name.startswith(".")]
            if not inside:
                raise BadImage(
                    f"no pictures in the folder {path}",
                    "files ending in " + ", ".join(SUFFIXES) + " (in any case), directly inside it",
                    "name another folder, or the files themselves",
                )
            found.extend(inside)
        elif path.exists():
            found.append(path)
        else:
            raise BadImage(f"{path} does not exist", f"{WANTED}, or a folder of them", "check the path")
    return tuple(dict.fromkeys(found))


def read_picture(path: Path, beside: int = PLANES_BYTES, room: Optional[Callable[[FileFacts], None]] = None) -> Picture:
    """Read a PNG, JPEG, WebP, TIFF or BMP: 8 or 16 bits; grey, colour or palette; with or without alpha.

    What the file is follows from its content, not from its name. Its header is read before it is decoded. CMYK is
    converted to sRGB with the file's own profile.

    Args:
        path: the file.
        beside: bytes per pixel that will be wanted besides; a picture without room for them is refused undecoded.
        room: instead, is told what the header says, and raises BadImage for a picture that shall not be decoded.

    Raises:
        BadImage: missing, empty, cut off, damaged, of another format, animated, a video, CMYK without a profile, or too
            large (see ``check_room``).
    """
    path = Path(path)
    try:
        with open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            # Not more than that of what has no size, such as a device.
            data = stream.read(MOST_FILE_BYTES) if size <= MOST_FILE_BYTES else b""
    except OSError as error:
        raise BadImage(f"cannot read {path}: {error.strerror}", WANTED, "check the path") from error
    if size > MOST_FILE_BYTES:
        most = f"at most {MOST_FILE_BYTES / 1e9:.1f} GB"
        raise BadImage(f"{path} has {size / 1e9:.1f} GB", most, "cut it into tiles")
    facts = facts_of_file(data, path)
    if room is None:
        check_room(facts, path, beside)
    else:
        room(facts)
    pixels, alpha = decoded(data, facts, path)
    turned = _upright(pixels, facts.orientation)
    about = dataclasses.replace(facts.about, icc=b"") if facts.cmyk else facts.about
    upright = (int(turned.shape[0]), int(turned.shape[1]))
    return Picture(turned, None if alpha is None else _upright(alpha, facts.orientation), about.of_size(upright))


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation (1…8, TIFF 6.0 tag 274) to (H, W[, C])."""
    if orientation >= 5:
        array = np.swapaxes(array, 0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def to_network(picture: Picture, contract: IOContract) -> np.ndarray:
    """The picture's colours as the network takes them; alpha is left out, grey is repeated in three channels.

    Returns:
        float32 (1, 3, H, W) in ``0…contract.value_range``, or uint8 (1, H, W, 3), channels in the contract's order; or
        the planes of a video, rounded, see core/media/surface.py.

    Raises:
        BadDeployment: the contract asks for a colour order, layout or type that is not known here.
        BadImage: the picture has 16 bits and the graph takes fewer.
    """
    _check(contract)
    if contract.dtype == "uint8":
        return _bytes_of(picture, contract)
    full = np.iinfo(picture.pixels.dtype).max
    colours = np.broadcast_to(picture.pixels, picture.size + (3,)).astype(np.float32)
    if full != contract.value_range:
        colours *= np.float32(contract.value_range / full)
    if contract.colour == "BGR":
        colours = colours[:, :, ::-1]
    return np.ascontiguousarray(colours.transpose(2, 0, 1)[None])


def _bytes_of(picture: Picture, contract: IOContract) -> np.ndarray:
    """Pixels as they are, uint8 (1, H, W, 3), or as planes; the graph itself converts, scales and rounds."""
    if picture.depth != 8:
        raise BadImage(
            f"the picture has {picture.depth} bits per channel, and this graph takes and gives {contract.depth}",
            "an 8-bit picture",
            f"export the network without --io {contract.io}, or convert the picture",
        )
    if contract.yuv is not None:
        rgb = np.broadcast_to(picture.pixels, picture.size + (3,)).astype(np.float32) / np.float32(255)
        return surface_of_rgb(rgb, contract)
    colours = np.broadcast_to(picture.pixels, picture.size + (3,))
    return np.ascontiguousarray((colours[:, :, ::-1] if contract.colour == "BGR" else colours)[None])


def from_network(array: np.ndarray, contract: IOContract, like: Picture) -> Picture:
    """The network's output as a picture of the same kind and depth as its input ``like``.

    Floats are limited to the range and rounded, half to even; uint8 has been rounded so in the graph. A grey input
    gives a grey output, BT.601 luma of the three channels. Alpha is enlarged bicubically; the network never sees it,
    nor do transparent pixels count as less.

    Args:
        array: float (1, 3, scale·H, scale·W) in ``0…contract.value_range``, values outside are clipped; or uint8
            (1, scale·H, scale·W, 3) or planes.
        contract: of the graph that made it.
        like: the picture that went in.

    Raises:
        CheckFailed: NaN or infinite values.
        ValueError: the shape is not that of ``like`` times a whole number.
    """
    _check(contract)
    height, width = like.size
    scale = picture_size(array)[0] // height
    if array.shape != contract.shape((scale * height, scale * width)) or scale < 1:
        raise ValueError(f"an output of {array.shape} does not belong to an input of {like.size}")
    sick = int(np.count_nonzero(~np.isfinite(array)))
    if sick:
        raise CheckFailed(
            f"{sick} of {array.size} output values are NaN or infinite",
            "finite values",
            "build the engine again with float32, and verify it on this device",
        )
    colours = colours_of(array, contract, like)
    pixels = np.rint(np.clip(colours, 0, np.iinfo(like.pixels.dtype).max)).astype(like.pixels.dtype)
    size = (scale * height, scale * width)
    alpha = None if like.alpha is None else resize(like.alpha, size)
    return Picture(pixels, alpha, like.about.of_size(size))


def colours_of(array: np.ndarray, contract: IOContract, like: Picture) -> np.ndarray:
    """The colours of the network's output before they are limited and rounded, in the units of ``like``.

    Args:
        array, contract, like: as for ``from_network``; finite, of a fitting shape.

    Returns:
        (scale·H, scale·W, 3) RGB or (scale·H, scale·W, 1) grey; white is the largest value of ``like``'s type. Floats,
        of a graph that rounds itself whole numbers.
    """
    full = np.iinfo(like.pixels.dtype).max
    if contract.yuv is not None:
        colours = rgb_of_surface(array, contract) * np.float32(255)
    else:
        colours = array[0] if contract.layout == "NHWC" else array[0].transpose(1, 2, 0)
    if colours.dtype != np.uint8:
        colours = colours * np.float32(full / contract.value_range)
    if contract.colour == "BGR":
        colours = colours[:, :, ::-1]
    if like.kind == "grey":
        colours = (colours @ np.asarray(LUMA))[:, :, None]
    return colours


def _check(contract: IOContract) -> None:
    """Refuse contracts that other tools may have written and this one cannot follow."""
    if not contract.is_known:
        raise BadDeployment(
            f"the graph takes {contract.colour} {contract.layout} {contract.dtype}, white = {contract.value_range:g}",
            f"RGB or BGR; {KNOWN_FORMS}",
            "export it again with srdeploy export",
        )


def check_writable(path: Path, picture: Picture, saving: Saving = DEFAULT) -> None:
    """Refuse, before any work is done, a file format that cannot hold the picture, or does not know an option.

    Args:
        path: the file to be written; its suffix names the format.
        picture: what it shall hold, or what it is made from.
        saving: how.

    Raises:
        UsageError: a suffix that is not written here, a format that would lose alpha or 16 bits, or see ``Saving``.
    """
    saving.check()
    form = format_of(path)
    given = [name for name in ("quality", "chroma") if getattr(saving, name) is not None]
    for name in given:
        if name not in form.options:
            raise UsageError(f"--{name} has no meaning for a {form.name}", "a format that has it", "leave it out")
    no_alpha, shallow = picture.alpha is not None and not form.alpha, picture.depth != 8 and not form.deep
    lost = ["transparency"] * no_alpha + [f"{picture.depth} bits per channel"] * shallow
    if not lost and picture.depth != 8 and picture.kind == "grey" and picture.alpha is not None:
        lost = [] if form.deep_grey_alpha else ["grey of 16 bits with transparency"]
    if lost:
        raise UsageError(
            f"cannot write {path}: {form.name} has no place for {' and '.join(lost)}",
            "a format that keeps them",
            "use .png",
        )


def said_but_not_kept(picture: Picture, path: Path, saving: Saving = DEFAULT) -> Tuple[str, ...]:
    """What the picture's file said and a file of this suffix has no place for, such as "EXIF"."""
    return not_kept(saving.kept(picture.about), path)


def write_picture(picture: Picture, path: Path, saving: Saving = DEFAULT) -> None:
    """Write a picture in the format of the suffix; whole or not at all.

    Raises:
        UsageError: see ``check_writable``, or more pixels a side than the format has numbers for.
        DiskFull, EnvironmentFault: the place cannot be written.
    """
    path = Path(path)
    check_writable(path, picture, saving)
    data = format_of(path).encode(picture.pixels, picture.alpha, saving.kept(picture.about), saving)
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)
