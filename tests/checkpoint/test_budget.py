"""Small checkpoints that ask for much work or memory are refused soon, in little memory, and told what is wrong."""

from __future__ import annotations

import collections
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sr_deploy.checkpoint import budget
from sr_deploy.checkpoint.read import checkpoint_from_file
from sr_deploy.core.errors import BadCheckpoint
from sr_deploy.models.base import Asked
from sr_deploy.models.registry import model_from_tensors

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from checkpoint_attacks import MOST_BYTES, Outcome  # noqa: E402
from checkpoint_shapes import lying, module, put, state, tensor, text, zipped  # noqa: E402

#: Seconds of processor time: the limit of ``checkpoint_attacks.py``, five times, for a machine that has other work too.
#: What these files cost before was minutes.
SOON = 10


def refused(path, *words):
    with pytest.raises(BadCheckpoint) as caught:
        checkpoint_from_file(path)
    for word in words:
        assert word in str(caught.value), caught.value
    return caught.value


def test_a_sample_of_the_attacks_ends_in_little_memory_and_does_nothing(tmp_path):
    """Some of every family, and some of each mutation: in children, with their memory and deeds.

    Seconds depend on the machine and on what else it does: ``checkpoint_attacks.py`` judges them on one that is idle.
    Here the kernel ends a child that takes ten times as long, and what a file costs is counted in steps (below).
    The children are those of a process of its own: to fork one that has run tests before takes longer than its file.
    """
    command = [sys.executable, str(BENCHMARKS / "checkpoint_attacks.py"), "--sample", "--times", "100", "--seed", "1"]
    done = subprocess.run(
        [*command, "--outcomes", tmp_path / "found.json"], capture_output=True, text=True, timeout=550
    )
    assert done.returncode in (0, 1), done.stderr[-2000:]
    outcomes = [Outcome(**told) for told in json.loads((tmp_path / "found.json").read_text())]
    assert sum(outcome.group != "built" for outcome in outcomes) == 100 and len(outcomes) > 120
    assert {"read", "refused"} == {outcome.result for outcome in outcomes}, outcomes
    assert [outcome for outcome in outcomes if outcome.grown > MOST_BYTES] == []


def test_the_judge_sees_time_memory_and_deeds(tmp_path, monkeypatch):
    """What the attacks are judged by finds each of what must not happen."""
    import checkpoint_attacks

    def slow(path):
        end = time.process_time() + 2.2
        while time.process_time() < end:
            pass

    def large(path):
        # Twice what is allowed: a machine short of memory takes back pages of the libraries meanwhile.
        bytearray(2 * MOST_BYTES)

    def deed(path):
        compile("1", "x", "eval")

    def wrong(path):
        raise KeyError("x")

    for act, seen in ((slow, "read"), (large, "read"), (deed, "deed: compile"), (wrong, "traceback: KeyError")):
        monkeypatch.setattr(checkpoint_attacks, "inspect_path", act)
        (outcome,) = checkpoint_attacks.judged([("group", "name", b"x")], tmp_path / "x")
        assert outcome.violation and outcome.result.startswith(seen), (act, outcome)


LISTS = b"](" + b"N" * 100_000 + b"e" + put(0) + b"0cbuiltins\nlist\n" + put(1) + b"0"
AGAIN = b"j\1\0\0\0j\0\0\0\0\x85R"
HIDDEN = b"](" + b"".join(text(f"q{i}") for i in range(9_000)) + b"e"
MANY = b"}(" + b"".join(text(f"k{i}") + b"j\5\0\0\0" for i in range(9_000)) + b"u"


@pytest.mark.parametrize(
    ("pickled", "words"),
    [
        (state({"module." * 400_000 + "w": tensor()}), ("2,800,001 letters in the name of a tensor", "at most 512")),
        (LISTS + b"(" + AGAIN * 50_000 + b"l", ("more than 560,000 steps to read its pickle",)),
        (state({f"k{i}": tensor((100_000,), (0,)) for i in range(1_000)}), ("its tensors say that they take 0.4 GB",)),
        (b"]" * 800_000, ("more than 560,000 steps",)),
        (b"I" + b"1" * 5_000 + b"\n", ("bytes in a line of its pickle",)),
        (b"c" + b"m" * 300 + b"\nC\n", ("letters in the name of a class",)),
        (state({"module." * 20 + "w": tensor()}), ("17 wrappers around its network",)),
        (state({"a\x1b[2J": tensor()}), ("the name a?[2J has characters that cannot be shown",)),
        (tensor() + put(5) + b"0" + b"}(" + b"".join(text(f"k{i}") + b"j\5\0\0\0" for i in range(10_001)) + b"u",
         ("10,001 tensors under one name", "at most 10,000")),
    ],
)  # fmt: skip
def test_what_is_asked_for_and_what_is_allowed_are_named(tmp_path, pickled, words):
    (tmp_path / "a.pth").write_bytes(zipped(pickled))
    start = time.process_time()
    error = refused(tmp_path / "a.pth", *words)
    assert time.process_time() - start < SOON
    assert error.exit_code == 4 and error.wanted and len(str(error)) < 600


def test_what_was_quadratic_is_read(tmp_path):
    """Hidden names, loops and shared parts that cost nothing are no reason to refuse."""
    loop = (
        tensor() + put(5) + b"0}" + put(6) + MANY[1:-1] + text("params") + b"j\6\0\0\0" + text("model") + b"j\6\0\0\0u"
    )
    for pickled in (tensor() + put(5) + b"0" + module(MANY, hidden=HIDDEN), loop):
        (tmp_path / "a.pth").write_bytes(zipped(pickled))
        start = time.process_time()
        assert len(checkpoint_from_file(tmp_path / "a.pth").tensors) == 9_000
        assert time.process_time() - start < SOON


def test_an_entry_that_unpacks_to_more_than_it_says_is_cut_there(tmp_path):
    import resource

    (tmp_path / "a.pth").write_bytes(lying(200 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(tmp_path / "a.pth", "damaged")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kilobytes"


def test_shapes_that_describe_terabytes_make_no_network(tmp_path):
    """Tensors without elements, or of one, can have any shape."""
    wide = torch.zeros(1).expand(10**5, 3, 1, 1)
    keys = ("conv_first", "upsample.0", "body.0.conv1", "body.0.conv2", "conv_last")
    tensors = collections.OrderedDict((f"{key}.weight", wide) for key in keys)
    tensors["upsample.0.weight"] = torch.zeros(1).expand(4 * 10**5, 10**5, 0, 1)
    with pytest.raises(BadCheckpoint, match="far more than the checkpoint") as caught:
        model_from_tensors(tensors, Asked(res_scale=1.0), None)
    assert caught.value.exit_code == 4


def test_the_limits_leave_room_for_every_shared_checkpoint(assets):
    """The largest of them is at least ten times below each limit that is a count."""
    from sr_deploy.checkpoint.archive import open_zip

    most = collections.Counter()
    spent = []
    original = budget.Budget.spend

    def spend(self, steps=1):
        original(self, steps)
        spent.append(steps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget.Budget, "spend", spend)
        for path in sorted((assets / "weights").iterdir()):
            found = checkpoint_from_file(path)
            most["steps"] = max(most["steps"], sum(spent))
            most["tensors"] = max(most["tensors"], len(found.tensors))
            most["letters"] = max(most["letters"], *map(len, found.tensors))
            assert open_zip(path).root is not None
            del spent[:]
    assert 10 * most["steps"] < budget.STEPS and 10 * most["letters"] < budget.KEY_LETTERS
    assert 12 * most["tensors"] < budget.TENSORS
