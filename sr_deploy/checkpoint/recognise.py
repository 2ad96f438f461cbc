"""What kind of file a file is, by its first bytes; its name is not asked."""

from __future__ import annotations

from pathlib import Path

from sr_deploy.core.errors import BadCheckpoint

#: How much is looked at.
HEAD_BYTES = 1024
#: Keys of the first fields of an ONNX model: ir_version, then producer, domain, graph or operator sets.
_ONNX_SECOND_FIELDS = (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42)

_WANTED = "a PyTorch checkpoint (.pth .pt .pth.tar .ckpt) or a .safetensors file"


def container_of(path: Path, head: bytes) -> str:
    """Decide how a file is to be opened.

    Args:
        path: named in errors.
        head: the first ``HEAD_BYTES`` bytes of the file, or all of it.

    Returns:
        "zip", "safetensors" or "legacy" (a pickle, or perhaps one: opening it will tell).

    Raises:
        BadCheckpoint: an empty file, or one of a kind that is known and is no checkpoint. The message says which.
    """
    if not head:
        raise BadCheckpoint(f"{path} is empty (0 bytes)", _WANTED, "the download or the copy was cut off: get it again")
    if head[:4] == b"PK\x03\x04":
        return "zip"
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 40:
        return "safetensors"
    what, todo = _known_stranger(head)
    if what:
        raise BadCheckpoint(f"{path} is {what}, not a checkpoint", _WANTED, todo)
    if path.suffix == ".safetensors" and head[:1] != b"\x80":
        raise BadCheckpoint(
            f"{path} has no safetensors header (a length of 8 bytes, then JSON)", _WANTED, "get the file again"
        )
    return "legacy"


def is_onnx(head: bytes) -> bool:
    """Whether a file that begins so may be an ONNX model: a version, then one of the fields that come next."""
    return head[:1] == b"\x08" and len(head) > 2 and 1 <= head[1] <= 32 and head[2] in _ONNX_SECOND_FIELDS


def _known_stranger(head: bytes) -> tuple:
    """What else the file is, in words, and what to do; two empty texts when it is nothing that is known here."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer: a few lines of text in place of the real file", "run git lfs pull in its repository"
    if text.startswith(b"<") and any(mark in text for mark in (b"<html", b"<!doctype", b"<head", b"<body", b"<?xml")):
        return (
            "a web page (HTML or XML)",
            "the link led to a page, not to the file: open it in a browser and use the download link",
        )
    if text.startswith((b'{"', b"{\n", b'[{"')):
        return "JSON text", "if a server answered with an error message, get the file again"
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "an HDF5 file (Keras .h5, MATLAB)", "this tool reads PyTorch networks; convert the weights first"
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model", "this tool reads PyTorch networks"
    if is_onnx(head):
        return "an ONNX model or another protocol buffer", "name it FILE.onnx where it is a network"
    if head[:2] == b"\x1f\x8b":
        return "a gzip archive", "unpack it first (gunzip, tar xzf)"
    if head[:6] in (b"7z\xbc\xaf\x27\x1c", b"\xfd7zXZ\x00") or head[:4] == b"Rar!":
        return "a packed archive", "unpack it first"
    if head[257:262] == b"ustar":
        return (
            "a tar archive (or a checkpoint of PyTorch 0.1)",
            "unpack it first, or load it in PyTorch and write it again with torch.save",
        )
    if head[:8] == b"\x89PNG\r\n\x1a\n" or head[:3] == b"\xff\xd8\xff":
        return "a picture", "give the weights"
    return "", ""
