"""Damaged and hostile bundles: each is refused or unpacks to what the good one holds, and nothing lands outside.

    python tests/benchmarks/bundle_fuzz.py [--times 10000] [--seed 0]

A small bundle is mutated: bytes flipped, pieces cut, doubled, moved and added; files renamed and injected with ``..``,
absolute, hidden, doubled and case-changed names; links and devices in place of files; indexes that lie about sizes,
hashes and schema; files that do not belong together. Most of the last four kinds carry a correct sha256 everywhere, as
an attacker's would. After each, the sandbox around the target folder is compared with what it was. Printed is the count
of each outcome by kind of mutation; exit code 1 for any other exception than BadInput, for a file elsewhere, and for
other content.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Callable, Dict, List, Tuple

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sr_deploy.bundle.golden import Golden, golden_files  # noqa: E402
from sr_deploy.bundle.layout import BLOCK, INDEX_NAME, header, padding  # noqa: E402
from sr_deploy.bundle.open import unpack  # noqa: E402
from sr_deploy.bundle.recipe import Recipe, recipe_text  # noqa: E402
from sr_deploy.bundle.write import write_bundle  # noqa: E402
from sr_deploy.core.contract import IOContract, SizeRules  # noqa: E402
from sr_deploy.core.deployment.manifest import GraphFile, Manifest, save_manifest  # noqa: E402
from sr_deploy.core.errors import BadInput  # noqa: E402

Files = Dict[str, bytes]
#: What a name must not be. ABSOLUTE is replaced by a path into the sandbox.
EVIL_NAMES = (
    "../escaped", "../../escaped", "golden/../../escaped", "./model.onnx", "golden//8x8_lr.npy", "/ABSOLUTE",
    "ABSOLUTE", "..", ".", "", "/", "model.onnx/", "model.onnx/x.onnx", "..\\escaped", "C:\\escaped", "C:escaped.onnx",
    ".hidden.onnx", "precision/.hidden.json", "MODEL.ONNX", "Model.onnx", "model.onnx ", "model.onnx.", "model\0.onnx",
    "golden", "Golden/8x8_lr.npy", "engines/x.engine", "engines/x.onnx", "x.engine", "x.so", "x.py", "bundle.json",
    "precision/a/b/c.json", "precision/../x.json", "a" * 101 + ".onnx", "a" * 5000, "mod\u00e9l.onnx", "\ud800.onnx",
    "golden/0x8_lr.npy", "golden/8x8_xx.npy", "golden/..%2fx", "~/x.onnx", "$HOME.onnx", "con:.onnx", "a\nb.onnx",
)  # fmt: skip


def small_bundle(folder: Path) -> Tuple[Path, Files]:
    """A bundle of some kilobytes and its files. Its graph is never run: a ModelProto that is all doc_string."""
    folder.mkdir(parents=True)
    graph = b"\x32\xb5\x17" + bytes(random.Random(1).randrange(256) for _ in range(2997))
    entry = GraphFile("model.onnx", None, hashlib.sha256(graph).hexdigest(), 16, 10, 100, 1000, (8, 8))
    source = {"file": "net.pth", "path": "net.pth", "sha256": "0" * 64, "load_options": {}}
    rest: dict = {"source": source, "hyperparameters": {}, "fold": {}, "proofs": {}, "pinned_fp32": {}}
    save_manifest(
        folder,
        Manifest(
            architecture="EDSR", form="folded", scale=2, contract=IOContract(1.0), sizes=SizeRules(), graphs=(entry,),
            parameters=10, notes=(), tools={}, target="xavier-nx", **rest,
        ),
    )  # fmt: skip
    golden = Golden((8, 8), np.full((1, 3, 8, 8), 0.5, np.float32), np.full((1, 3, 16, 16), 0.25, np.float32))
    files = {
        **golden_files(golden),
        "manifest.json": (folder / "manifest.json").read_bytes(),
        "model.onnx": graph,
        "recipe.toml": recipe_text(Recipe(sizes=((8, 8),))).encode(),
    }
    write_bundle(folder / "net.srd", files, "xavier-nx")
    return folder / "net.srd", files


def forged(members: List[Tuple[str, bytes]], changes: Callable[[dict], None] = lambda content: None) -> bytes:
    """An archive as an attacker writes it: any names, any fields of the index, every hash right."""
    content = {"kind": "srdeploy bundle", "schema": 1, "srdeploy": "0.1.0", "target": "xavier-nx"}
    content["members"] = [
        {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in members
    ]
    changes(content)
    content["sha256"] = hashlib.sha256(canonical(content)).hexdigest()
    return archive([(INDEX_NAME, canonical(content)), *members])


def canonical(content: dict) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def archive(members: List[Tuple[str, bytes]]) -> bytes:
    parts = []
    for name, data in members:
        short = name.encode("utf-8", "replace")[:100].decode("latin-1").encode("ascii", "replace").decode()
        parts += [header(short, len(data)), data, bytes(padding(len(data)))]
    return b"".join(parts) + bytes(2 * BLOCK)


def flip(rng: random.Random, good: bytes, files: Files) -> bytes:
    raw = bytearray(good)
    for _ in range(rng.choice((1, 1, 2, 8))):
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    return bytes(raw)


def cut(rng: random.Random, good: bytes, files: Files) -> bytes:
    return good[: rng.randrange(len(good))]


def pieces(rng: random.Random, good: bytes, files: Files) -> bytes:
    """Delete, double, move, blank or append a piece, by blocks or by bytes."""
    step = rng.choice((1, BLOCK))
    a, b = sorted(rng.randrange(0, len(good) // step) * step for _ in range(2))
    b += step
    piece, noise = good[a:b], bytes(rng.randrange(256) for _ in range(rng.randrange(1, 600)))
    blank = good[:a] + bytes(b - a) + good[b:]
    kinds = (
        good[:a] + good[b:], good[:b] + piece + good[b:], piece + good[:a] + good[b:], blank,
        good + noise, good + bytes(BLOCK), noise + good, good + good, good[:a] + noise + good[b:], noise, b"",
    )  # fmt: skip
    return rng.choice(kinds)


def rename(rng: random.Random, good: bytes, files: Files, elsewhere: str = "") -> bytes:
    """One file under another name: in its header only, or in the index too with all hashes right."""
    evil = rng.choice(EVIL_NAMES).replace("ABSOLUTE", elsewhere)
    victim = rng.choice(sorted(files))
    if rng.random() < 0.3:
        at = good.index(header(victim, len(files[victim])))
        name = evil.encode("ascii", "replace")[:100].decode()
        return good[:at] + header(name, len(files[victim])) + good[at + BLOCK :]
    return forged(sorted((evil if name == victim else name, data) for name, data in files.items()))


def inject(rng: random.Random, good: bytes, files: Files, elsewhere: str = "") -> bytes:
    """One file more under a hostile name, in the index or behind its back."""
    evil = rng.choice(EVIL_NAMES).replace("ABSOLUTE", elsewhere)
    more = sorted([*files.items(), (evil, b"written outside")])
    if rng.random() < 0.3:
        start = good.index(header(min(files), len(files[min(files)])))
        return good[:start] + archive(more)
    return forged(more)


def link(rng: random.Random, good: bytes, files: Files, elsewhere: str = "") -> bytes:
    """A link, device, folder or pipe in place of a file."""
    victim = rng.choice(sorted(files))
    at = good.index(header(victim, len(files[victim])))
    block = bytearray(good[at : at + BLOCK])
    block[156] = ord(rng.choice("123456gxLKSVD\0"))
    place = rng.choice(("../escaped", elsewhere, "/etc/passwd", "model.onnx")).encode()[:100]
    block[157 : 157 + len(place)] = place
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return good[:at] + bytes(block) + good[at + BLOCK :]


def lie(rng: random.Random, good: bytes, files: Files) -> bytes:
    """An index that is well formed, hashed and wrong."""
    sizes = (-1, 0, 1, 2**31, 2**40, 2**70, 1.5, True, None, "12", 10**400, 8 << 30)
    hashes = ("", "0" * 64, "0" * 63, None, 5, "Z" * 64, "0" * 65)
    wrong = (None, 0, 2, "1", [], {}, -1, 1.0, True)

    def change(content: dict) -> None:
        member = rng.choice(content["members"])
        kind = rng.randrange(9)
        if kind == 0:
            member["size"] = rng.choice([size for size in sizes if size != member["size"]])
        elif kind == 1:
            member["sha256"] = rng.choice(hashes)
        elif kind == 2:
            content["schema"] = rng.choice(wrong)
        elif kind == 3:
            content["kind"] = rng.choice((*wrong, "zip"))
        elif kind == 4:
            content["members"] = rng.choice((*wrong, [None], [[]], content["members"] * 2, content["members"][::-1]))
        elif kind == 5:
            content[rng.choice(("target", "srdeploy"))] = rng.choice(
                (None, 0, [], {}, True, "", "../x", "a\nb", "\x1b[2J")
            )
        elif kind == 6:
            del member[rng.choice(("name", "size", "sha256"))]
        elif kind == 7:
            content[rng.choice(("extra", "path"))] = "../escaped"
        else:
            content["members"] = [dict(member, name=f"m{i}.onnx") for i in range(rng.choice((1001, 3000)))]

    return forged(sorted(files.items()), change)


def content(rng: random.Random, good: bytes, files: Files, elsewhere: str = "") -> bytes:
    """Files that do not belong together or point elsewhere; every hash of the bundle is right."""
    files = dict(files)
    manifest = json.loads(files["manifest.json"])
    kind = rng.randrange(7)
    if kind == 0:
        manifest["graphs"][0]["file"] = rng.choice(("../model.onnx", elsewhere, "/etc/passwd", "golden", "", "x.onnx"))
    elif kind == 1:
        files["model.onnx"] = files["model.onnx"][:-1]
    elif kind == 2:
        del files[rng.choice(("manifest.json", "model.onnx", "recipe.toml", "golden/8x8_sr.npy"))]
    elif kind == 3:
        name = rng.choice(("golden/8x8_sr.npy", "golden/8x8_lr.npy"))
        files[name] = rng.choice((b"", files[name][:-1], files[name] + b"\0", b"\x93NUMPY\x01\0\x10\0" + b"9" * 400))
    elif kind == 4:
        files["recipe.toml"] = rng.choice((b"", b"schema = 2", b"schema = 1\nrm = 1", b"[" * 5000, b"\xff", b"schema"))
    elif kind == 5:
        wrong = rng.choice(("x", 7.5, None, [], {}, -1, 0, {"value_range": "x"}, [None], [[]]))
        manifest[rng.choice(("scale", "contract", "graphs", "schema"))] = wrong
        if rng.random() < 0.5:
            manifest["graphs"] = [dict(json.loads(files["manifest.json"])["graphs"][0], file=wrong)]
    else:
        files["manifest.json"] = rng.choice((b"{", b"[]", b"null", b"[" * 100_000, b"\xff"))
    if kind in (0, 5) and "manifest.json" in files:
        files["manifest.json"] = json.dumps(manifest).encode()
    return forged(sorted(files.items()))


MUTATIONS = (flip, cut, pieces, rename, inject, link, lie, content)


def tree(folder: Path) -> Dict[str, bytes]:
    """All files below a folder, and links as what they point to."""
    return {
        str(path.relative_to(folder)): str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def fuzz(times: int, seed: int, sandbox: Path) -> Tuple[Counter, List[str]]:
    """Unpack ``times`` mutated bundles.

    Returns:
        How often (mutation, outcome), and every violation in words.
    """
    rng = random.Random(seed)
    good_path, files = small_bundle(sandbox / "good")
    good = good_path.read_bytes()
    unpack(good_path, sandbox / "expected")
    expected = tree(sandbox / "expected")
    (sandbox / "work").mkdir()
    hostile, target = sandbox / "hostile.srd", sandbox / "work" / "net"
    elsewhere = str(sandbox / "escaped")
    hostile.write_bytes(b"")
    before = set(sandbox.rglob("*"))
    counts: Counter = Counter()
    violations: List[str] = []
    for number in range(times):
        mutate = MUTATIONS[number % len(MUTATIONS)]
        needs_place = mutate in (rename, inject, link, content)
        hostile.write_bytes(mutate(rng, good, files, elsewhere) if needs_place else mutate(rng, good, files))
        try:
            unpack(hostile, target)
            outcome = "unpacked, identical"
            if tree(target) != expected:
                outcome = "unpacked, other content"
        except BadInput:
            outcome = "refused"
        except Exception as error:  # noqa: BLE001 - any other error is what this looks for
            outcome = f"raised {type(error).__name__}: {error}"
        if outcome.startswith("unpacked"):
            for path in sorted(target.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            target.rmdir()
        after = set(sandbox.rglob("*"))
        if after != before:
            violations.append(f"{number} {mutate.__name__}: files elsewhere: {sorted(map(str, after ^ before))}")
            before = after
        if outcome not in ("refused", "unpacked, identical"):
            violations.append(f"{number} {mutate.__name__}: {outcome}")
        counts[(mutate.__name__, outcome)] += 1
    if tree(sandbox / "expected") != expected or good_path.read_bytes() != good:
        violations.append("files beside the target were changed")
    return counts, violations


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="srdeploy-fuzz-") as folder:
        counts, violations = fuzz(options.times, options.seed, Path(folder) / "deep" / "er")
    for (name, outcome), count in sorted(counts.items()):
        print(f"{name:8} {outcome:24} {count}")
    print(f"{sum(counts.values())} bundles, {len(violations)} violations")
    for line in violations[:20]:
        print(line, file=sys.stderr)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
