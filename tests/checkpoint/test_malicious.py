"""Hostile files: each payload is shown to work with Python's own unpickler first, then must do nothing here.

Every payload makes one file, the canary, inside the test's own folder; nothing else.
"""

from __future__ import annotations

import collections
import copyreg
import io
import os
import pickle
import pickletools
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from sr_deploy.checkpoint.described import Global
from sr_deploy.checkpoint.read import checkpoint_from_file
from sr_deploy.core.errors import BadCheckpoint

REAL = {"head.weight": torch.arange(6.0).reshape(2, 3)}


class Trap:
    """Makes the canary whatever is done with it. The canary's path is left here by the test."""

    canary = None

    @staticmethod
    def spring():
        Path(Trap.canary).touch()

    def __new__(cls, *_):
        cls.spring()
        return object.__new__(cls)

    def __setstate__(self, state):
        self.spring()

    def __setitem__(self, key, value):
        self.spring()

    def extend(self, values):
        self.spring()

    append = add = update = extend


def short(text):
    """Push a short text (protocol 4)."""
    raw = text.encode()
    return b"\x8c" + bytes([len(raw)]) + raw


def named(module, name):
    """Push a name by STACK_GLOBAL; dots in the name are followed from protocol 4 on."""
    return b"\x80\x04" + short(module) + short(name) + b"\x93"


def payloads(canary):
    """Name → (instructions without the final STOP, the name that the refusal must give)."""
    touch = f"touch {canary}"
    call = short(touch) + b"\x85R"
    script = f"open({str(canary)!r}, 'w').close()"
    line = f"S{touch!r}\n".encode()
    popen = named("subprocess", "Popen") + b"](" + short("touch") + short(str(canary)) + b"e\x85R"
    once = named("timeit", "timeit") + b"(" + short(script) + short("0") + named("time", "perf_counter") + b"K\x01tR"
    nested = b"cos\nsystem\n(" + line + b"tR."
    mapped = named("builtins", "map") + named("os", "system") + b"](" + short(touch) + b"e\x86R"
    by_type = named("torch._tensor", "_rebuild_from_type_v2")
    module = named("sys", "modules.get") + short("os") + b"\x85R"
    imported = b"c__builtin__\n__import__\n(S'os'\ntR"
    return {
        "GLOBAL": (b"cos\nsystem\n(" + line + b"tR", "os.system"),
        "the name that os.system is pickled by": (b"cposix\nsystem\n(" + line + b"tR", "posix.system"),
        "STACK_GLOBAL": (named("os", "system") + call, "os.system"),
        "dotted name": (named("os", "system.__call__") + call, "os.system.__call__"),
        "by way of torch": (named("torch.serialization", "os.system") + call, "torch.serialization.os.system"),
        "by way of the standard library": (named("zipfile", "os.system") + call, "zipfile.os.system"),
        "INST": (b"(" + line + b"ios\nsystem\n", "os.system"),
        "OBJ": (b"(cos\nsystem\n" + line + b"o", "os.system"),
        "EXT1": (b"\x82\xf0" + call, None),
        "subprocess": (popen, "subprocess.Popen"),
        "eval": (named("builtins", "eval") + short(script) + b"\x85R", "builtins.eval"),
        "exec of Python 2": (b"c__builtin__\nexec\n(" + f"S{script!r}\n".encode() + b"tR", "__builtin__.exec"),
        "open": (named("io", "open") + short(str(canary)) + short("w") + b"\x86R", None),
        "getattr of __import__": (
            b"c__builtin__\ngetattr\n(" + imported + b"S'system'\ntR(" + line + b"tR",
            "__builtin__.__import__",
        ),
        "getattr of a module": (
            b"c__builtin__\ngetattr\n(" + named("torch.serialization", "os") + short("system") + b"tR" + call,
            "torch.serialization.os.system",
        ),
        "sys.modules": (
            b"c__builtin__\ngetattr\n(" + module + short("system") + b"tR" + call,
            "sys.modules.get",
        ),
        "map": (named("builtins", "list") + mapped + b"\x85R", "os.system"),
        "pickle in a pickle": (
            named("pickle", "loads") + b"C" + bytes([len(nested)]) + nested + b"\x85R",
            "pickle.loads",
        ),
        "a function that no list has": (once, None),
        "REDUCE": (named(__name__, "Trap.spring") + b")R", None),
        "NEWOBJ": (named(__name__, "Trap") + b")\x81", None),
        "NEWOBJ_EX": (named(__name__, "Trap") + b")}\x92", None),
        "BUILD": (named("copyreg", "__newobj__") + named(__name__, "Trap") + b"\x85R}b", None),
        "SETITEM": (named(__name__, "Trap") + b")\x81" + short("a") + b"Ns", None),
        "SETITEMS": (named(__name__, "Trap") + b")\x81(" + short("a") + b"Nu", None),
        "APPEND": (named(__name__, "Trap") + b")\x81Na", None),
        "APPENDS": (named(__name__, "Trap") + b")\x81(NNe", None),
        "ADDITEMS": (named(__name__, "Trap") + b")\x81(NN\x90", None),
        "rebuild with a hostile builder": (
            by_type + b"(" + named("os", "system") + b"N" + short(touch) + b"\x85NtR",
            "os.system",
        ),
    }


NAMES = sorted(payloads("x"))


@pytest.fixture
def canary(tmp_path):
    """Where the canary would appear; the extension code that one payload uses is registered meanwhile."""
    Trap.canary = tmp_path / "canary"
    copyreg.add_extension("os", "system", 240)
    yield Trap.canary
    copyreg.remove_extension("os", "system", 240)
    copyreg.clear_extension_cache()


def in_zip(path, pickled):
    """A torch zip whose data.pkl is this one."""
    torch.save(REAL, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, pickled(data) if name.endswith("data.pkl") else data)


def in_legacy(path, pickled):
    """A legacy file whose fourth pickle, the object, is this one."""
    torch.save(REAL, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    stream = io.BytesIO(whole)
    ends = []
    for _ in range(4):
        collections.deque(pickletools.genops(stream), maxlen=0)
        ends.append(stream.tell())
    path.write_bytes(whole[: ends[2]] + pickled(whole[ends[2] : ends[3]]) + whole[ends[3] :])


def works_with_pickle(instructions, canary):
    """Let Python's unpickler run the payload and see the canary appear; then remove it."""
    try:
        result = pickle.loads(instructions + b".")
        if hasattr(result, "wait"):
            result.wait()
    except Exception as error:
        assert canary.exists(), error
    appeared = canary.exists()
    canary.unlink(missing_ok=True)
    return appeared


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["plain", "zip", "legacy"])
def test_nothing_runs(tmp_path, canary, name, place):
    instructions, asked = payloads(canary)[name]
    assert works_with_pickle(instructions, canary), "the payload itself is broken"
    path = tmp_path / "evil.pth"
    if place == "plain":
        path.write_bytes(b"\x80\x02" + instructions + b".")
        with pytest.raises(BadCheckpoint) as caught:
            checkpoint_from_file(path)
    else:
        # The real state dict, then the payload, whose result is thrown away: a file that loads as if nothing was.
        (in_zip if place == "zip" else in_legacy)(path, lambda real: real[:-1] + instructions + b"0.")
        if asked is None:
            found = checkpoint_from_file(path)
            assert torch.equal(found.tensors["head.weight"], REAL["head.weight"])
            assert "inert stand-ins, not run" in found.notes[0]
        else:
            with pytest.raises(BadCheckpoint) as caught:
                checkpoint_from_file(path)
    if asked is not None:
        assert f"asks to run {asked}" in str(caught.value) and "nothing was run" in str(caught.value)
        assert caught.value.exit_code == 4
    assert not canary.exists()


class _Reduces:
    """Pickles as whatever it is given."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce_ex__(self, _):
        return self.reduced


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize(
    "where", [lambda evil: {"params": REAL, "x": evil}, lambda evil: {"params": {**REAL, "x": evil}}, lambda evil: evil]
)
def test_reduce_ex_inside_and_beside_a_state_dict(tmp_path, canary, modern, where):
    path = tmp_path / "evil.pth"
    torch.save(where(_Reduces(os.system, (f"touch {canary}",))), path, _use_new_zipfile_serialization=modern)
    with pytest.raises(BadCheckpoint, match="asks to run posix.system"):
        checkpoint_from_file(path)
    assert not canary.exists()


def test_names_that_are_dangerous_and_names_that_are_not():
    for module, name in (
        ("os", "system"), ("os.path", "x"), ("torch", "os.system"), ("builtins", "eval"), ("__builtin__", "open"),
        ("builtins", "eval.__call__"), ("x", "builtins.exec"), ("subprocess", "run"), ("shutil", "rmtree"),
    ):  # fmt: skip
        assert Global(module, name).dangerous, (module, name)
    for module, name in (
        ("builtins", "getattr"), ("__main__", "Net"), ("code.model", "EDSR"), ("pathlib", "PosixPath"),
        ("numpy", "dtype"), ("argparse", "Namespace"), ("__main__", "open"),
        ("models.os_net", "OSNet"), ("collections", "OrderedDict"),
    ):  # fmt: skip
        assert not Global(module, name).dangerous, (module, name)


class _Storage:
    """Stands for a storage reference when a hostile tensor is pickled."""

    def __init__(self, *identity):
        self.identity = identity


class _WithReferences(pickle.Pickler):
    def persistent_id(self, value):
        return value.identity if isinstance(value, _Storage) else None


def tensor_file(
    path, offset=0, size=(2, 3), stride=(3, 1), kind=torch.FloatStorage, key="0", count=6, builder=None, more=()
):
    """A file with one tensor whose description is not the one that torch would write."""
    storage = _Storage("storage", kind, key, "cpu", count)
    arguments = (storage, offset, size, stride, False, collections.OrderedDict(), *more)
    stream = io.BytesIO()
    _WithReferences(stream, 2).dump({"w": _Reduces(builder or torch._utils._rebuild_tensor_v2, arguments)})
    in_zip(path, lambda _: stream.getvalue())
    return path


def test_the_hand_made_tensor_file_is_good(tmp_path):
    assert torch.equal(checkpoint_from_file(tensor_file(tmp_path / "t.pth")).tensors["w"], REAL["head.weight"])


@pytest.mark.parametrize(
    "lie",
    [
        {"offset": 1},
        {"offset": -1},
        {"offset": 2**62},
        {"offset": 0.5},
        {"offset": True},
        {"size": (3, 3)},
        {"size": (2**40, 2**40)},
        {"size": (-2, -3)},
        {"size": (2**31, 2**31), "stride": (0, 0)},
        {"size": "ab"},
        {"size": (1,) * 100, "stride": (1,) * 100},
        {"stride": (3, 2)},
        {"stride": (-3, 1)},
        {"stride": (2**61, 1)},
        {"stride": (1,)},
        {"count": 2**50},
        {"count": -6},
        {"count": 5},
        {"key": "../../../etc/passwd"},
        {"key": "7"},
        {"kind": torch.DoubleStorage},
        {"kind": dict},
        {"kind": torch.UntypedStorage},
        {"builder": torch._utils._rebuild_tensor_v3, "more": (torch.float64, {})},
        {"builder": torch._utils._rebuild_tensor_v3, "more": (torch.compile, {})},
    ],
)
def test_tensors_that_lie_about_their_storage(tmp_path, lie):
    with pytest.raises(BadCheckpoint, match="t.pth"):
        checkpoint_from_file(tensor_file(tmp_path / "t.pth", **lie))


def test_containers_that_hold_themselves(tmp_path):
    ring = {"a": 1}
    ring["model"] = ring
    torch.save(ring, tmp_path / "ring.pth")
    with pytest.raises(BadCheckpoint, match="no tensors"):
        checkpoint_from_file(tmp_path / "ring.pth")
    module = torch.nn.Linear(2, 2)
    module._modules["again"] = module
    torch.save(module, tmp_path / "module.pth")
    with pytest.raises(BadCheckpoint, match="without end"):
        checkpoint_from_file(tmp_path / "module.pth")


def test_deep_nests_neither_crash_nor_hang(tmp_path):
    for level, use in ((b"\x85", b"Ns"), (b"\x85", b"0"), (b"(l", b"0")):
        # Two hundred thousand tuples in each other, as a dictionary's key: hashing them would exhaust the stack.
        nest = b"}N" + level * 200_000 + use + b"."
        in_zip(tmp_path / "deep.pth", lambda _, nest=nest: b"\x80\x02" + nest)
        with pytest.raises(BadCheckpoint):
            checkpoint_from_file(tmp_path / "deep.pth")


def test_an_old_tar_checkpoint_is_not_opened(tmp_path, canary):
    """PyTorch 0.1 wrote tar archives with pickles in them, which are no better than other pickles."""
    with tarfile.open(tmp_path / "old.pth", "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            data = payloads(canary)["GLOBAL"][0] + b"."
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    with pytest.raises(BadCheckpoint, match="tar archive"):
        checkpoint_from_file(tmp_path / "old.pth")
    assert not canary.exists()


def test_a_whole_module_with_a_hostile_part_is_refused(tmp_path, canary):
    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    module.hook = _Reduces(os.popen, (f"touch {canary}",))
    torch.save(module, tmp_path / "m.pth")
    with pytest.raises(BadCheckpoint, match="asks to run os.popen"):
        checkpoint_from_file(tmp_path / "m.pth")
    assert not canary.exists()
