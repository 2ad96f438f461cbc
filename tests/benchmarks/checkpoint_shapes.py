"""Checkpoints in which structure, not bytes, is hostile: depth, sharing, cycles, sizes, counts, names and strides.

Each is a valid file of its container, written by hand; none is larger than some megabytes, most have a few kilobytes.
``built_cases`` gives them all.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from typing import Callable, Dict, Iterator, List, Mapping, Sequence, Tuple

Case = Tuple[str, bytes]
START, EMPTY_MODULE = b"\x80\x02", b"c__main__\nM\n)\x81"
KNOWN = ("params_ema", "params", "model_ema", "ema", "state_dict", "model_state_dict", "model", "generator", "net")
NOTHING: Mapping[str, bytes] = {}
NINE_ZEROS: Mapping[str, bytes] = {"0": bytes(36)}
#: Whole numbers i · PRIME all have the hash 0 in CPython.
PRIME = 2**61 - 1


STRANGE = (
    "", ".", "..", "\x1b[2J", "\x1b]0;t\x07", "a\nb", "::error::x", "a\0b", "\ud800", "\u202eabc",
    "e" + "\u0301" * 300, "\U0001f600", "__class__", "__dict__.x", "[/b]", "<img src=x>", "%s%n", "{0}", "x" * 513,
    "x" * 2_000_000, "名前", "../../w", "/etc/passwd", "C:\\w", "w" * 512, "\u2028", "\x7f", "\x9b31m",
)  # fmt: skip


def text(value: str) -> bytes:
    """Instructions that push a text."""
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    """Instructions that push a whole number."""
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw if len(raw) < 256 else b"\x8b" + struct.pack("<i", len(raw)) + raw


def put(place: int) -> bytes:
    return b"r" + struct.pack("<I", place)


def get(place: int) -> bytes:
    return b"j" + struct.pack("<I", place)


def numbers(values: Sequence[int]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(
    size: Sequence[int] = (9,), stride: Sequence[int] = (1,), offset: int = 0, key: str = "0", kind: str = "Float",
    count: int = 9,
) -> bytes:  # fmt: skip
    """Instructions that push a tensor of torch's own form."""
    storage = b"(" + text("storage") + f"ctorch\n{kind}Storage\n".encode() + text(key) + text("cpu") + number(count)
    shape = number(offset) + numbers(size) + numbers(stride)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"tQ" + shape + b"\x89NtR"


def state(entries: Dict[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def module(parameters: bytes = b"}", modules: bytes = b"}", hidden: bytes = b"]") -> bytes:
    inside = text("_parameters") + parameters + text("_buffers") + b"}" + text("_modules") + modules
    return EMPTY_MODULE + b"}(" + inside + text("_non_persistent_buffers_set") + hidden + b"ub"


def zipped(pickled: bytes, more: Mapping[str, bytes] = NOTHING, storages: Mapping[str, bytes] = NINE_ZEROS) -> bytes:
    """A torch zip, deflated."""
    entries = {"a/data.pkl": START + pickled + b".", "a/byteorder": b"little", **more}
    entries.update({f"a/data/{key}": value for key, value in storages.items()})
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return stream.getvalue()


def legacy(
    pickled: bytes, keys: bytes = b"](X\1\0\0\0" + b"0e", tail: bytes = struct.pack("<q", 9) + bytes(36)
) -> bytes:
    """A file as torch.save wrote it before the zip."""
    head = START + number(0x1950A86A20F9469CFC6C) + b"." + START + number(1001) + b"."
    return head + START + state({"little_endian": b"\x88"}) + b"." + START + pickled + b"." + START + keys + b"." + tail


def safetensors(header: object, data: bytes = b"", length: int = -1) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length < 0 else length) + raw + data


def both(name: str, pickled: bytes) -> Iterator[Case]:
    yield f"{name}, zip", zipped(pickled)
    yield f"{name}, legacy", legacy(pickled)


def depths() -> Iterator[Case]:
    """Containers, calls and modules inside each other."""
    good = state({"w": tensor()})
    for count in (40, 3_000, 200_000):
        yield from both(f"{count} tuples in each other", b"N" + b"\x85" * count)
        yield from both(f"{count} lists in each other", b"(" * count + b"l" * count)
        yield f"{count} dictionaries under model", zipped((b"}" + text("model")) * count + good + b"s" * count)
        yield f"{count} dictionaries under x", zipped((b"}" + text("x")) * count + good + b"s" * count)
        yield f"{count} tuples as a key", zipped(b"}N" + b"\x85" * count + b"Ns")
        yield f"{count} marks", zipped(b"(" * count + good)
        call = b"c__main__\nf\n" + put(0) + b"0"
        yield f"{count} calls in each other", zipped(call + b"N" + (put(1) + b"0" + get(0) + get(1) + b"\x85R") * count)
        typed = b"ctorch._tensor\n_rebuild_from_type_v2\n" + put(0) + b"0)"
        yield (
            f"{count} builders in each other",
            zipped(typed + (put(1) + b"0(" + get(0) + b"N" + get(1) + b"Nt") * count),
        )
        yield f"{count} results called", zipped(b"c__main__\nf\n" + b")R" * count)
        yield f"{count} states", zipped(EMPTY_MODULE + (put(0) + b"0" + EMPTY_MODULE + get(0) + b"b") * count)
    for count in (20, 49, 500, 20_000):
        nest = module(state({"w": tensor()}))
        for _ in range(min(count, 2_000)):
            nest = module(modules=b"}" + text("m") + nest + b"s")
        yield f"{min(count, 2_000)} modules in each other", zipped(nest)
        yield f"{count} levels of JSON", safetensors(b'{"a":' + b"[" * count + b"]" * count + b"}")


def sharing() -> Iterator[Case]:
    """One thing in many places."""
    for count in (100, 9_999, 150_000):
        one = tensor() + put(1) + b"0"
        names = b"".join(text(f"k{i}") + get(1) for i in range(count))
        yield from both(f"a tensor under {count} names", one + b"}(" + names + b"u")
        yield f"a module with {count} tensors", zipped(one + module(b"}(" + names + b"u"))
        yield (
            f"a module in {count} places",
            zipped(module(state({"w": tensor()})) + put(1) + b"0" + module(modules=b"}(" + names + b"u")),
        )
        yield f"a dictionary under {count} names", zipped(state({"w": tensor()}) + put(1) + b"0}(" + names + b"u")
        everywhere = state({name: get(1) for name in KNOWN})
        nested = one + b"}(" + names + b"u" + put(1) + b"0" + (everywhere + put(1) + b"0") * 3 + get(1)
        yield f"{count} tensors under all known names of all known names", zipped(nested)
        hidden = b"](" + b"".join(text(f"q{i}") for i in range(count)) + b"e"
        yield f"{count} hidden names", zipped(one + module(b"}(" + names + b"u", hidden=hidden))
    for maker in ("list", "tuple", "set", "frozenset", "dict"):
        source = (
            b"](" + b"N" * 50_000 + b"e"
            if maker != "dict"
            else b"}(" + b"".join(number(i) + b"N" for i in range(50_000)) + b"u"
        )
        for place in ("builtins", "__builtin__"):
            again = f"c{place}\n{maker}\n".encode() + put(0) + b"0" + source + put(1) + b"0"
            yield (
                f"50,000 copies by {place}.{maker}",
                zipped(again + b"(" + (get(0) + get(1) + b"\x85R") * 50_000 + b"l"),
            )
    for builder in ("collections\nOrderedDict", "torch\nSize", "__main__\nf", "collections\ndefaultdict"):
        source = f"c{builder}\n".encode() + put(0) + b"0(" + b"NN\x86" * 50_000 + b"l" + put(1) + b"0"
        yield (
            f"50,000 copies by {builder.split()[1]}",
            zipped(source + b"(" + (get(0) + get(1) + b"\x85R") * 50_000 + b"l"),
        )
    long_tuple = b"c__main__\nf\n" + put(0) + b"0(" + get(0) * 50_000 + b"t" + put(1) + b"0"
    yield "50,000 calls with 50,000 arguments", zipped(long_tuple + b"(" + (get(0) + get(1) + b"R0") * 50_000 + b"l")
    yield "a size of 50,000 numbers", zipped(tensor((1,) * 50_000, (1,) * 50_000))
    yield "300,000 places of the memo", zipped(b"N" + b"".join(put(i) for i in range(300_000)))
    for builder in ("_rebuild_parameter", "_rebuild_tensor_v3", "_rebuild_sparse_tensor"):
        yield (
            f"300,000 calls of {builder}",
            zipped(f"ctorch._utils\n{builder}\n".encode() + put(0) + (get(0) + b"N\x85R0") * 300_000),
        )


def cycles() -> Iterator[Case]:
    """Things that hold themselves."""
    for name in KNOWN:
        entries = {f"k{i}": get(1) for i in range(2_000)}
        ring = tensor() + put(1) + b"0}" + put(0) + b"(" + b"".join(text(k) + v for k, v in entries.items())
        yield f"a dictionary that holds itself under {name}", zipped(ring + text(name) + get(0) + b"u")
    inside = b"".join(text(name) + get(0) for name in KNOWN)
    many = b"".join(text(f"k{i}") + get(1) for i in range(20_000))
    yield (
        "a dictionary that holds itself under all names",
        zipped(tensor() + put(1) + b"0}" + put(0) + b"(" + many + inside + b"u"),
    )
    first, second = b"}" + put(0) + b"0}" + put(1) + b"0", text("model") + get(1) + text("w") + tensor()
    yield (
        "two that hold each other",
        zipped(first + get(0) + b"(" + second + b"u0" + get(1) + text("params") + get(0) + b"s"),
    )
    yield "a list that holds itself", zipped(b"]" + put(0) + get(0) + b"a")
    yield "a stand-in that is its own state", zipped(EMPTY_MODULE + put(0) + get(0) + b"b")
    yield (
        "a dictionary of strangers that holds itself",
        zipped(EMPTY_MODULE + put(0) + b"(" + inside + text("w") + tensor() + b"u"),
    )
    for fan in (1, 2, 50, 3_000):
        again = b"}(" + b"".join(text(f"m{i}") + get(0) for i in range(fan)) + b"u"
        body = b"}(" + text("_parameters") + state({"w": tensor()}) + text("_buffers") + b"}" + text("_modules") + again
        yield f"a module that holds itself {fan} times", zipped(EMPTY_MODULE + put(0) + body + b"ub")
        empty = b"}(" + text("_parameters") + b"}" + text("_buffers") + b"}" + text("_modules") + again
        yield f"an empty module that holds itself {fan} times", zipped(EMPTY_MODULE + put(0) + empty + b"ub")


def sizes_and_strides() -> Iterator[Case]:
    """Tensors and storages that say that they are large."""
    huge = (10**12, 2**62, 2**63 - 1)
    for length in (10**6, 10**7, *huge):
        for kind in ("Float", "Byte", "ComplexDouble", "Half"):
            yield (
                f"one {kind} seen {length} times",
                zipped(state({"w": tensor((length,), (0,), kind=kind, count=1)}), storages={"0": bytes(16)}),
            )
        yield f"{length} by nothing", zipped(state({"w": tensor((length, 0), (1, 1))}))
        yield f"offset {length}", zipped(state({"w": tensor(offset=length)}))
        yield f"stride {length}", zipped(state({"w": tensor((2,), (length,))}))
        yield from both(f"storage of {length}", state({"w": tensor(count=length)}))
    for shape, stride in (
        ((3, 3), (1, 1)),
        ((9, 9), (0, 1)),
        ((2,) * 64, (0,) * 64),
        ((1,) * 64, (1,) * 64),
        ((2,) * 65, (0,) * 65),
    ):
        yield f"shape {shape[:3]}, strides {stride[:3]}", zipped(state({"w": tensor(shape, stride)}))
    thousand = {f"k{i}": tensor((100_000,), (0,)) for i in range(1_000)}
    yield "a thousand tensors of one element", zipped(state(thousand))
    for kind in ("QInt8", "Untyped", "BFloat16", "Nothing", "X" * 300):
        yield f"storages of {kind[:10]}", zipped(state({"w": tensor(kind=kind)}))
    for bits in (3_000, 8_000_000):
        yield f"a number of {bits} bits as a size", zipped(state({"w": tensor((2**bits,), (0,))}))
        yield (
            f"a number of {bits} bits as a key",
            zipped(b"}(" + (number(2**bits) + put(1) + b"N") + (get(1) + b"N") * 10_000 + b"u"),
        )
    for digits in (4_000, 1_000_000):
        for code in (b"I", b"L", b"F", b"p", b"g"):
            yield (
                f"{code.decode()} with {digits} digits",
                zipped(b"N" + code + b"9" * digits + (b"L\n" if code == b"L" else b"\n")),
            )


def counts() -> Iterator[Case]:
    """Very many of what is allowed, and archives that hold more than they weigh."""
    for count in (200_000, 20_000_000):
        for code in (b"]", b"}", b"N0", b"(", b")", b"\x88", b"N\x94", b"(l"):
            yield f"{count} times {code!r}", zipped(code * count)
    for count in (1_000, 9_999, 20_000):
        own = {f"layer.{i}.weight": tensor(key=str(i)) for i in range(count)}
        yield f"{count} tensors of their own", zipped(state(own), storages={str(i): bytes(36) for i in range(count)})
        yield f"{count} stand-ins", zipped(b"".join(f"c__main__\nC{i}\n)\x81".encode() for i in range(count)))
        yield f"{count} entries", zipped(state({"w": tensor()}), {f"a/.data/{i}": b"" for i in range(count)})
        yield (
            f"{count} folders with data.pkl",
            zipped(state({"w": tensor()}), {f"f{i}/data.pkl": b"" for i in range(count)}),
        )
        entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
        yield f"{count} empty tensors", safetensors({f"k{i}": entry for i in range(count)})
        yield (
            f"{count} storages in the list",
            legacy(
                state({"w": tensor()}), b"](" + text("0") * count + b"e", (struct.pack("<q", 9) + bytes(36)) * count
            ),
        )
    for size in (40 << 20, 63 << 20, 200 << 20):
        good = state({"w": tensor()})
        yield f"{size >> 20} MiB of zeros beside", zipped(good, {"a/zeros": bytes(size)})
        yield (
            f"{size >> 20} MiB of zeros as numbers",
            zipped(state({"w": tensor((size // 4,), count=size // 4)}), storages={"0": bytes(size)}),
        )
        yield f"{size >> 20} MiB that say that they are 36 bytes", lying(size)
        yield f"{size >> 20} MiB of float8", zipped(_float8(size), storages={"0": bytes(size)})
        yield f"{size >> 20} MiB of text", zipped(b"}" + text("\U0001f600" + "a" * (size - 4)) + tensor() + b"s")


def lying(size: int) -> bytes:
    """An archive one of whose entries unpacks to ``size`` zeros and says that it has 36 bytes."""
    lie = bytearray(zipped(state({"w": tensor()}), storages={"0": bytes(size)}))
    for at in _places(bytes(lie), struct.pack("<I", size)):
        lie[at : at + 4] = struct.pack("<I", 36)
    return bytes(lie)


def _float8(size: int) -> bytes:
    storage = b"(" + text("storage") + b"ctorch\nUntypedStorage\n" + text("0") + text("cpu") + number(size) + b"tQ"
    shape = number(0) + numbers((size,)) + numbers((1,)) + b"\x89N"
    return b"}" + text("w") + b"ctorch._utils\n_rebuild_tensor_v3\n(" + storage + shape + b"ctorch\nfloat8_e4m3fn\nNtRs"


def _places(data: bytes, what: bytes) -> List[int]:
    found, at = [], data.find(what)
    while at >= 0:
        found.append(at)
        at = data.find(what, at + 1)
    return found


def names() -> Iterator[Case]:
    """Names that are long, strange, doubled, or chosen for their hashes."""
    for prefix in ("module.", "net.", "model.module.", "_orig_mod."):
        for count in (3, 60, 40_000):
            yield f"{count} times {prefix}", zipped(state({prefix * count + "w": tensor()}))
    many = {"net." * 100 + f"{i:04}": get(1) for i in range(9_000)}
    yield "9,000 names of 100 wrappers", zipped(tensor() + put(1) + b"0" + state(many))
    for index, name in enumerate(STRANGE):
        yield f"name {index}", zipped(state({name: tensor(), "b": tensor()}))
        yield f"name {index} above", zipped(state({name: state({"w": tensor()}), "b": state({"w": tensor()})}))
        yield f"name {index} of a storage", zipped(state({"w": tensor(key=name)}))
        yield f"name {index} of a class", zipped(b"}" + text("m") + text(name) + text(name) + b"\x93)\x81s")
        yield (
            f"name {index} in safetensors",
            safetensors({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        )
    keys: Dict[str, Callable[[int], bytes]] = {
        "numbers of one hash": lambda i: number(i * PRIME),
        "numbers": number,
        "floats": lambda i: b"G" + struct.pack(">d", i * 2.0**61),
        "NaN": lambda i: b"G" + struct.pack(">d", float("nan")),
        "bytes": lambda i: b"C\3" + i.to_bytes(3, "big"),
        "tuples": lambda i: number(i) + b"\x85",
        "classes": lambda i: f"cm\nC{i}\n".encode(),
        "nothing": lambda i: b"N",
    }
    for what, key in keys.items():
        yield (
            f"60,000 keys: {what}",
            zipped(b"}(" + b"".join(key(i) + b"N" for i in range(60_000)) + text("w") + tensor() + b"u"),
        )
    for step in (1, PRIME):
        yield f"60,000 places in steps of {step}", zipped(b"N" + b"".join(b"p%d\n" % (i * step) for i in range(60_000)))
    grow = b"cbuiltins\ngetattr\n" + put(0) + b"0cm\nC\n"
    for length in (1, 200, 100_000):
        longer = put(1) + b"0" + get(0) + get(1) + get(2) + b"\x86R"
        yield f"a name grown by {length}", zipped(text("x" * length) + put(2) + b"0" + grow + longer * 3_000)
    doubled = io.BytesIO(zipped(state({"w": tensor()})))
    with zipfile.ZipFile(doubled, "a") as archive:
        archive._didModify, archive.NameToInfo = True, {}  # so that zipfile does not warn
        archive.writestr("a/data.pkl", START + b"N.")
    yield "data.pkl twice", doubled.getvalue()
    one = b'"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    yield "a name twice in safetensors", safetensors(b"{" + one + b"," + one + b"}", bytes(4))
    for length in (0, 1, 2**31, 2**39, 2**63):
        yield f"a header of {length} bytes", safetensors({"w": 1}, length=length)
    for shape, offsets in (
        ((2**40, 2**40), (0, 4)),
        ((2**62, 0), (0, 0)),
        ((1,) * 1_000, (0, 4)),
        ((-1,), (0, 4)),
        ((1,), (4, 0)),
    ):
        yield (
            f"safetensors {shape[:2]} {offsets}",
            safetensors({"w": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}, bytes(4)),
        )


def networks() -> Iterator[Case]:
    """Shapes that an architecture is recognised by, and that describe a network of terabytes."""
    blocks = ("body.{}.conv1.weight", "body.{}.conv2.weight")
    fixed = ("conv_first.weight", "upsample.0.weight", "conv_last.weight")
    for width in (0, 3_000, 10**5, 10**9):
        stride = (0, 0, 0, 0)
        shape = (width, 3, 0 if width > 10**6 else 1, 1)
        own = {key: tensor(shape, stride) for key in (*fixed, *(block.format(0) for block in blocks))}
        own["upsample.0.weight"] = tensor((4 * width, width or 1, 0, 1), stride)
        yield f"EDSR of {width} channels", zipped(state(own))
        group = "layers.0.residual_group.blocks.0."
        for window in (8, 30, 300):
            table = {f"{group}attn.relative_position_bias_table": tensor(((2 * window - 1) ** 2, 1), (0, 0))}
            for number_of in range(400):
                table[f"layers.0.residual_group.blocks.{number_of}.norm1.weight"] = tensor((1,), (1,))
            more = {
                key: tensor(shape, stride)
                for key in ("conv_first.weight", f"{group}mlp.fc1.weight", "upsample.0.weight")
            }
            yield f"SwinIR of {width} channels and windows of {window}", zipped(state({**more, **table}))
        rlfn = {key: tensor(shape, stride) for key in ("conv_1.weight", "conv_2.weight", "block_1.c1_r.weight")}
        rlfn.update({f"block_1.{key}.weight": tensor(shape, stride) for key in ("c2_r", "c3_r", "c5")})
        rlfn.update({f"block_1.esa.{key}.weight": tensor(shape, stride) for key in ("conv1", "conv4")})
        rlfn["upsampler.0.weight"] = tensor((3 * 3 * 3, width or 1, 0, 1), stride)
        yield f"RLFN of {width} channels", zipped(state(rlfn))
    far = {f"body.{number_of}.weight": tensor((12, 3, 1, 1), (0, 0, 1, 1)) for number_of in (0, 10**9)}
    yield "Compact of 1000000000 layers", zipped(state(far))
    for count in (1_000, 4_900):
        small = {block.format(i): tensor((1, 1, 3, 3), (9, 9, 3, 1)) for i in range(count) for block in blocks}
        ends = {
            "conv_first.weight": tensor((1, 3, 3, 3), (0, 0, 3, 1)),
            "conv_last.weight": tensor((3, 1, 3, 3), (0, 0, 3, 1)),
        }
        ends["upsample.0.weight"] = tensor((4, 1, 3, 3), (0, 0, 3, 1))
        yield f"EDSR of {count} blocks", zipped(state({**small, **ends}))


FAMILIES: Tuple[Callable[[], Iterator[Case]], ...] = (
    depths,
    sharing,
    cycles,
    sizes_and_strides,
    counts,
    names,
    networks,
)


def built_cases() -> Iterator[Tuple[str, str, bytes]]:
    """(family, what it is, the file's bytes) of every case."""
    for family in FAMILIES:
        for name, data in family():
            yield family.__name__, name, data
