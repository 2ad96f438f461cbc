"""What a killed process leaves is put back or cleared away by the next one, and nothing else is touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from sr_deploy.core import artifact, temporary
from sr_deploy.core.artifact import atomic_file, atomic_folder
from sr_deploy.core.errors import UsageError
from sr_deploy.core.exchange import exchange
from sr_deploy.core.temporary import NEW, OLD, is_temporary, put_back, sweep, temporary_folder

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def nothing_swept_yet(monkeypatch):
    """Every test is a process of its own."""
    monkeypatch.setattr(temporary, "_swept", set())


def python(code: str, *arguments) -> subprocess.CompletedProcess:
    """Run code in another process, with ``arguments`` as sys.argv[1:] and a function ``die``."""
    begin = "import os, signal, sys\nfrom pathlib import Path\ndie = lambda: os.kill(os.getpid(), signal.SIGKILL)\n"
    command = [sys.executable, "-c", begin + textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_a_killed_process_leaves_nothing_for_long(tmp_path):
    code = """
    from sr_deploy.core.artifact import atomic_file, atomic_folder
    with atomic_file(Path(sys.argv[1]) / "a.json") as file, atomic_folder(Path(sys.argv[1]) / "net") as folder:
        file.write_text("{")
        (folder / "half").write_text("x")
        die()
    """
    assert python(code, tmp_path).returncode == -signal.SIGKILL
    left = sorted(os.listdir(tmp_path))
    assert len(left) == 2 and all(map(is_temporary, left))
    with atomic_file(tmp_path / "other.txt") as own:
        own.write_text("whole")
    assert os.listdir(tmp_path) == ["other.txt"]


def test_what_a_living_process_writes_is_left_alone(tmp_path):
    code = """
    from sr_deploy.core.artifact import atomic_file, atomic_folder
    with atomic_file(Path(sys.argv[1]) / "a.txt") as file, atomic_folder(Path(sys.argv[1]) / "net") as folder:
        (folder / "b.txt").write_text("b")
        print("ready", flush=True)
        sys.stdin.read()
        file.write_text("a")
    """
    begin = "import sys\nfrom pathlib import Path\n"
    command = [sys.executable, "-c", begin + textwrap.dedent(code), str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    sweep(tmp_path)
    put_back(tmp_path / "net")
    assert len(os.listdir(tmp_path)) == 2
    process.communicate()
    assert (tmp_path / "a.txt").read_text() == "a" and (tmp_path / "net" / "b.txt").read_text() == "b"
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "net"]


REPLACED = """
from sr_deploy.core import artifact, temporary
from sr_deploy.core.exchange import exchange
artifact.exchange = exchange if sys.argv[2] == "True" else lambda first, second: False
calls = [0]
def dying(call):
    def instead(*arguments, **named):
        calls[0] += 1
        if calls[0] == int(sys.argv[3]) and sys.argv[4] == "before": die()
        try:
            return call(*arguments, **named)
        finally:
            if calls[0] == int(sys.argv[3]): die()
    return instead
for name in ("rename", "replace", "unlink", "rmdir", "mkdir"):
    setattr(os, name, dying(getattr(os, name)))
artifact.exchange = dying(artifact.exchange)
with artifact.atomic_folder(Path(sys.argv[1]) / "net", force=True) as folder:
    (folder / "content").write_text("new")
"""


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_that_is_replaced_exists_whenever_it_is_killed(tmp_path, can_exchange):
    number, outcomes = 0, []
    while not outcomes or outcomes[-1][0]:
        number += 1
        for when in ("before", "after"):
            folder = tmp_path / f"{number}{when}"
            (folder / "net").mkdir(parents=True)
            (folder / "net" / "content").write_text("old")
            died = python(REPLACED, folder, can_exchange, number, when).returncode == -signal.SIGKILL
            if can_exchange:
                assert (folder / "net").is_dir(), "swapped in one step, nothing is missing even before it is put back"
            put_back(folder / "net")
            outcomes.append((died, (folder / "net" / "content").read_text()))
            with atomic_folder(folder / "net", force=True) as again:
                (again / "content").write_text("again")
            assert os.listdir(folder) == ["net"] and (folder / "net" / "content").read_text() == "again"
    assert {content for died, content in outcomes if died} == {"old", "new"} and number > 4


def test_exchange(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("text")
    assert exchange(tmp_path / "folder", tmp_path / "file")
    assert (tmp_path / "file").is_dir() and (tmp_path / "folder").read_text() == "text"
    assert not exchange(tmp_path / "file", tmp_path / "missing")


def test_an_error_between_the_two_renames_puts_the_old_one_back(tmp_path, monkeypatch):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "old").touch()
    monkeypatch.setattr(artifact, "exchange", lambda first, second: False)
    rename = os.rename

    def failing(first, second):
        if Path(first).name == NEW:
            raise KeyboardInterrupt
        rename(first, second)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", failing)
        with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "net", force=True):
            pass
    assert os.listdir(tmp_path) == ["net"] and os.listdir(tmp_path / "net") == ["old"]


def left_by_a_kill(folder: Path, target: str) -> Path:
    """A dead workplace between two renames."""
    place = folder / ".net.srdeploy-00000000"
    (place / OLD).mkdir(parents=True)
    (place / OLD / "content").write_text("old")
    (place / "lock").write_text(target)
    return place


def test_without_force_what_was_moved_aside_is_back_and_refused(tmp_path):
    left_by_a_kill(tmp_path, "net")
    with pytest.raises(UsageError, match="exists already"), atomic_folder(tmp_path / "net"):
        pass
    assert os.listdir(tmp_path) == ["net"] and (tmp_path / "net" / "content").read_text() == "old"


@pytest.mark.parametrize("target", ["../out", "..", ".", "", "a/b", "/tmp/net"])
def test_nothing_is_put_back_elsewhere(tmp_path, target):
    (tmp_path / "in" / "a").mkdir(parents=True)
    left_by_a_kill(tmp_path / "in", target)
    sweep(tmp_path / "in")
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["in", "in/a"]


def test_what_is_not_ours_stays(tmp_path):
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "file").touch()
    (tmp_path / ".a.srdeploy-00000000").symlink_to("victim")
    (tmp_path / ".a.srdeploy-0000000").mkdir()
    (tmp_path / "a.srdeploy-00000000").mkdir()
    (tmp_path / ".e.XXXXXX").mkdir()
    os.mkfifo(tmp_path / ".b.srdeploy-00000000")
    before = sorted(os.listdir(tmp_path))
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == before and (tmp_path / "victim" / "file").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_what_belongs_to_another_user_stays(tmp_path):
    place = left_by_a_kill(tmp_path, "net")
    os.chown(place, 12345, 12345)
    sweep(tmp_path)
    assert os.listdir(tmp_path) == [place.name]


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    place = left_by_a_kill(tmp_path, "net")
    (place / "lock").unlink()
    (tmp_path / "victim").write_text("net")
    (place / "lock").symlink_to(tmp_path / "victim")
    sweep(tmp_path)
    assert place.exists() and (tmp_path / "victim").read_text() == "net" and not (tmp_path / "net").exists()


def test_where_nothing_can_be_locked_nothing_is_cleared(tmp_path, monkeypatch):
    import fcntl

    def no_locks(handle, operation):
        raise OSError(37, "No locks available")

    left_by_a_kill(tmp_path, "net")
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with atomic_folder(tmp_path / "other") as folder:
        (folder / "file").touch()
    assert sorted(os.listdir(tmp_path)) == [".net.srdeploy-00000000", "other"]


def test_temporary_folders_of_the_system_are_cleared_too(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code = "import tempfile\ntempfile.tempdir = sys.argv[1]\nfrom sr_deploy.core.temporary import temporary_folder\n"
    python(code + "with temporary_folder() as folder: (folder / 'big.onnx').touch(); die()", tmp_path)
    assert len(os.listdir(tmp_path)) == 1
    with temporary_folder() as folder:
        assert os.listdir(folder) == [] and len(os.listdir(tmp_path)) == 1
    assert os.listdir(tmp_path) == []


def test_long_names_have_short_temporary_ones(tmp_path):
    name = "ü" * 120 + ".json"
    with atomic_file(tmp_path / name) as own:
        own.write_text("{}")
    with atomic_folder(tmp_path / ("f" * 255)) as folder:
        (folder / "file").touch()
    assert sorted(os.listdir(tmp_path)) == ["f" * 255, name]


ENDED = """
import time
from sr_deploy import cli
from sr_deploy.core.artifact import atomic_file, atomic_folder
def app(args):
    with atomic_folder(Path(sys.argv[1]) / "net"), atomic_file(Path(sys.argv[1]) / "a.json"):
        print("ready", flush=True)
        time.sleep(60)
cli.app = app
cli.main(["export"])
"""


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_as_ctrl_c_does(tmp_path, kind):
    begin = f"import signal, sys\nfrom pathlib import Path\nsignal.signal({int(kind)}, signal.SIG_DFL)\n"
    command = [sys.executable, "-c", begin + ENDED, str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    assert len(os.listdir(tmp_path)) == 2
    process.send_signal(kind)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 128 + kind and said == f"ended by {kind.name}; what was complete is kept\n"
    assert os.listdir(tmp_path) == []


def test_nohup_is_obeyed(tmp_path):
    begin = "import signal, sys\nfrom pathlib import Path\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    code = ENDED.replace("time.sleep(60)", "signal.raise_signal(signal.SIGHUP); print('alive', flush=True)")
    done = subprocess.run([sys.executable, "-c", begin + code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "ready\nalive\n" and done.returncode == 0, done.stderr
