"""What another user of a shared board could do, and that the agent does not fall for it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sr_deploy.remote import agent_place
from sr_deploy.remote.call import program_of
from sr_deploy.remote.job import client_id

STRANGER, OTHER, GROUP = 54321, 54322, 54400
#: A Python that every user may start.
SYSTEM_PYTHON = "/usr/bin/python3"
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="files of another user are made by root")


def agent(operation, workdir, python=sys.executable, user=None, **request):
    """(REPLY or FAULT, what it said) of one operation, as the board's Python carries it out."""
    request = {"files": [], "client": client_id(), "workdir": str(workdir), **request}
    program, identity = program_of(operation, request).encode(), {}
    if user is not None:
        identity = {"user": user, "group": GROUP, "extra_groups": [], "env": {"PATH": "/usr/bin:/bin", "HOME": "/"}}
    done = subprocess.run([python, "-"], input=program, capture_output=True, timeout=60, **identity)
    assert done.returncode == 0, done.stderr.decode()
    word, _, told = done.stdout.decode().strip()[len("SRDEPLOY-") :].partition(" ")
    return word, json.loads(told)


@pytest.fixture
def shared(tmp_path):
    """A working folder as the playbook makes it: the group may write it, the sticky bit is set."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o3777)
    return folder


def program(path: Path, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\ntrue\n")
    path.chmod(mode)
    return path


def test_a_program_is_run_only_where_nobody_else_can_change_it(shared, monkeypatch, tmp_path):
    monkeypatch.setattr(agent_place, "PLACES", (str(tmp_path / "installed"), "{shared}/venv/bin"))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    planted = program(shared / "venv" / "bin" / "srdeploy")
    installed = program(tmp_path / "installed" / "srdeploy")
    assert agent_place.command_of(str(shared), "srdeploy") == ([str(installed)], [])

    installed.unlink()
    for place in (planted, planted.parent, planted.parents[1]):
        kept = place.stat().st_mode
        place.chmod(kept | 0o002)
        found, skipped = agent_place.command_of(str(shared), "srdeploy")
        assert found is None and f"{place} can be written by everybody" in skipped[0]
        assert agent_place.command_of(str(shared), str(planted))[0] is None, "an absolute path is no better"
        place.chmod(kept)
    assert agent_place.command_of(str(shared), "srdeploy -x") == ([str(planted), "-x"], [])


@needs_root
def test_what_belongs_to_another_user_is_not_run(shared, monkeypatch, tmp_path):
    monkeypatch.setattr(agent_place, "PLACES", ("{shared}/venv/bin",))
    monkeypatch.setenv("PATH", str(tmp_path / "first"))
    planted = program(shared / "venv" / "bin" / "srdeploy")
    for path in (planted, planted.parent, planted.parents[1]):
        os.chown(path, STRANGER, -1)
    mine = program(tmp_path / "first" / "srdeploy")
    os.chown(mine, STRANGER, -1)
    found, skipped = agent_place.command_of(str(shared), "srdeploy")
    assert found is None and len(skipped) == 2 and "belongs to user 54321" in skipped[0]
    link = tmp_path / "link"
    link.symlink_to(planted)
    assert "belongs to" in agent_place.changeable(str(link)), "a link is as safe as what it leads to"
    interpreter = program(tmp_path / "python")
    os.chown(interpreter, STRANGER, -1)
    mine.write_text(f"#!{interpreter}\n")
    os.chown(mine, 0, -1)
    found, skipped = agent_place.command_of(str(shared), "srdeploy")
    assert found is None and str(interpreter) in skipped[0], "nor is a program whose interpreter is another's"
    mine.write_text("#!/bin/sh\n")
    assert agent_place.command_of(str(shared), "srdeploy")[0] == [str(mine)]
    packages = tmp_path / "lib" / "python3.8" / "site-packages"
    packages.mkdir(parents=True)
    os.chown(packages, STRANGER, -1)
    found, skipped = agent_place.command_of(str(shared), "srdeploy")
    assert found is None and str(packages) in skipped[0], "nor one whose packages are"


@needs_root
def test_a_group_of_others_may_not_write_and_a_group_of_ones_own_may(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    os.chown(place, -1, 54322)
    place.chmod(0o775)
    assert agent_place.changeable(str(place)) == "", "a group without members"
    import grp
    import pwd

    other = next(user for user in pwd.getpwall() if user.pw_uid not in (0, os.getuid()))
    os.chown(place, -1, other.pw_gid)
    assert grp.getgrgid(other.pw_gid) and "can be written by its group" in agent_place.changeable(str(place))
    place.chmod(0o3775)
    assert agent_place.changeable(str(place)) == "", "the sticky bit keeps what is in it to its owners"


def test_everything_but_the_lock_is_the_users_own(shared):
    word, hello = agent("hello", shared, srdeploy="srdeploy")
    own = shared / f"uid-{os.getuid()}"
    assert word == "REPLY" and hello["workdir"] == str(own) and own.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in own.iterdir()) == ["deployments", "jobs", "store"]
    shared.chmod(0o777)
    word, fault = agent("hello", shared, srdeploy="srdeploy")
    assert word == "FAULT" and fault["errno"] == 0 and "can be written by everybody" in fault["error"]


@needs_root
def test_a_folder_that_another_made_in_ones_name_is_refused(shared):
    own = shared / f"uid-{os.getuid()}"
    own.mkdir(mode=0o777)
    os.chown(own, STRANGER, -1)
    word, fault = agent("hello", shared, srdeploy="srdeploy")
    assert word == "FAULT" and "belongs to user 54321" in fault["error"]
    own.rmdir()
    elsewhere = shared / "elsewhere"
    elsewhere.mkdir()
    os.chown(elsewhere, STRANGER, -1)
    own.symlink_to(elsewhere)
    word, fault = agent("hello", shared, srdeploy="srdeploy")
    assert word == "FAULT" and "belongs to user 54321" in fault["error"] and list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("kind", ["link", "second name", "pipe", "folder"])
def test_a_lock_that_is_something_else_is_not_written(shared, tmp_path, kind):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    lock = shared / "lock"
    {
        "link": lambda: lock.symlink_to(victim),
        "second name": lambda: os.link(victim, lock),
        "pipe": lambda: os.mkfifo(lock),
        "folder": lock.mkdir,
    }[kind]()
    job = {
        "id": "build-0",
        "title": "x",
        "files": {},
        "inputs": {},
        "arguments": [],
        "holder": "me",
        "deployment": "d/x",
    }
    for operation, more in (("hello", {"srdeploy": "srdeploy"}), ("start", {"job": job, "command": ["/bin/true"]})):
        word, fault = agent(operation, shared, **more)
        assert word == "FAULT" and "lock" in fault["error"]
    assert victim.read_text() == "mine"


def test_what_stands_in_the_lock_is_text_and_nothing_is_killed_for_it(shared):
    import fcntl

    bystander = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        with open(shared / "lock", "w+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for told in ('["x"]', "[" * 5000, '{"pid": -1, "holder": ["x"]}', "\xff"):
                lock.seek(0)
                lock.truncate()
                lock.write(told)
                lock.flush()
                word, hello = agent("hello", shared, srdeploy="srdeploy")
                assert word == "REPLY" and hello["busy"]["pid"] == 0 and len(hello["busy"]["holder"]) <= 200
            lock.seek(0)
            lock.truncate()
            json.dump({"job": "build-0", "pid": bystander.pid}, lock)
            lock.flush()
            assert agent("stop", shared, job="build-0") == ("REPLY", {"stopped": False})
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_the_store_is_hashed_again_before_it_is_used(shared):
    good = b"weights"
    sha = hashlib.sha256(good).hexdigest()
    agent("hello", shared, srdeploy="srdeploy")
    stored = shared / f"uid-{os.getuid()}" / "store" / sha
    stored.write_bytes(b"WEIGHTS")
    assert agent("commit", shared, files=[sha])[1]["bad"] == [sha] and not stored.exists()
    stored.with_name(f".{sha}.{client_id()}.part").write_bytes(good)
    assert agent("commit", shared, files=[sha])[1]["bad"] == [] and stored.read_bytes() == good


@needs_root
@pytest.mark.skipif(not os.path.exists(SYSTEM_PYTHON), reason="every user needs a Python")
def test_two_users_of_one_board():
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        shared = Path(folder) / "srdeploy"
        shared.mkdir()
        os.chown(shared, 0, GROUP)
        shared.chmod(0o3775)
        (shared / "lock").touch()
        os.chown(shared / "lock", 0, GROUP)
        (shared / "lock").chmod(0o664)
        as_user = {number: {"python": SYSTEM_PYTHON, "user": number} for number in (STRANGER, OTHER)}
        for number in (STRANGER, OTHER):
            word, hello = agent("hello", shared, srdeploy="srdeploy", **as_user[number])
            assert word == "REPLY" and hello["workdir"] == str(shared / f"uid-{number}") and hello["busy"] is None

        planted = program(shared / "venv" / "bin" / "srdeploy")
        for path in (planted, planted.parent, planted.parents[1]):
            os.chown(path, STRANGER, GROUP)
        assert agent("hello", shared, srdeploy="srdeploy", **as_user[STRANGER])[1]["srdeploy"] == [str(planted)]
        hello = agent("hello", shared, srdeploy="srdeploy", **as_user[OTHER])[1]
        assert hello["srdeploy"] is None and "belongs to user 54321" in hello["skipped"][-1]

        attack = (
            "import os, shutil, sys\n"
            f"own = {str(shared / f'uid-{OTHER}')!r}\n"
            f"lock = {str(shared / 'lock')!r}\n"
            "deeds = [lambda: os.listdir(own), lambda: os.rename(own, own + '.old'), lambda: os.unlink(lock),\n"
            "         lambda: os.rename(lock, lock + '.old'), lambda: open(own + '/store/x', 'w')]\n"
            "for deed in deeds:\n"
            "    try: deed()\n"
            "    except PermissionError: continue\n"
            "    sys.exit('done')\n"
        )
        done = subprocess.run([SYSTEM_PYTHON, "-c", attack], user=STRANGER, group=GROUP, extra_groups=[])
        assert done.returncode == 0

        sha = hashlib.sha256(b"").hexdigest()
        (shared / f"uid-{STRANGER}" / "store" / sha).touch()
        os.chown(shared / f"uid-{STRANGER}" / "store" / sha, STRANGER, GROUP)
        job = {"id": "build-0", "title": "x", "files": {"a": sha}, "inputs": {}, "holder": "him", "deployment": "d/x"}
        started = agent("start", shared, job=dict(job, arguments=["20"]), command=["/bin/sleep"], **as_user[STRANGER])
        assert started[1]["job"]["state"] == "running"
        try:
            busy = agent("hello", shared, srdeploy="srdeploy", **as_user[OTHER])[1]["busy"]
            assert busy["holder"] == "him" and busy["mine"] is False
            assert agent("stop", shared, job="build-0", **as_user[OTHER]) == ("REPLY", {"stopped": False})
            assert agent("status", shared, **as_user[OTHER])[1]["jobs"] == []
        finally:
            assert agent("stop", shared, job="build-0", **as_user[STRANGER]) == ("REPLY", {"stopped": True})
