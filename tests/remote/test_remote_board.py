"""srdeploy remote against a real sshd: what comes home, what survives a cut, and what each fault says."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from sr_deploy.pipeline.ship.remote import RemoteOptions, run_remote, worst
from sr_deploy.remote.inventory import boards_of
from tests.remote import loopback

ORT = ("--backend", "onnxruntime")


def options_of(board, net, out, command="build", arguments=ORT, **more):
    (nx,) = boards_of(["nx"], board.inventory)
    return RemoteOptions((nx,), out, net, command, tuple(arguments), **more)


def only(outcomes):
    (outcome,) = outcomes
    return outcome


def running_children(workdir):
    """Processes that hold a job of this workdir open."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
            if any(link.startswith(str(workdir)) and "/jobs/" in link for link in links):
                found.append(int(pid))
    return found


@contextlib.contextmanager
def held_by_another(board):
    """Hold the board's lock as another person's job does."""
    import fcntl

    board.workdir.mkdir(parents=True, exist_ok=True)
    with open(board.workdir / "lock", "w+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        holder = {"holder": "eva@lab", "pid": 4711, "since": "2026-01-02T03:04:05Z", "job": "bench-1"}
        json.dump({**holder, "command": "bench x"}, lock)
        lock.flush()
        yield


def test_build_bench_verify_and_run_come_home(srdeploy, board, net, pictures, tmp_path):
    words = ["remote", "--inventory", board.inventory, "-o", tmp_path / "out", "nx"]
    home = tmp_path / "out" / "nx"

    outcome = srdeploy(*words, "build", net, *ORT)
    assert outcome.code == 0, outcome.err
    assert "copying 2 of 2 files" in outcome.err and "onnxruntime_dynamic" in outcome.out
    engine = json.loads((home / "engines" / "onnxruntime_dynamic.json").read_text())
    assert engine["backend"] == "onnxruntime" and [p.name for p in (home / "engines").iterdir()] == [
        "onnxruntime_dynamic.json"
    ], "the manifest comes home, the engine stays where it runs"

    outcome = srdeploy(*words, "bench", net, "--size", "24,32x40", "--runs", "3")
    assert outcome.code == 0, outcome.err
    assert "copying" not in outcome.err, "nothing has changed, so nothing is copied"
    assert "engine onnxruntime_dynamic.onnx" in outcome.err, "the engine built before is the one timed"
    result = json.loads((home / "results" / "bench_best_fp32_compute.json").read_text())
    assert [point["size"] for point in result["points"]] == [[24, 24], [32, 40]]
    assert (home / "results" / "bench_best_fp32_compute.png").read_bytes().startswith(b"\x89PNG")

    outcome = srdeploy(*words, "verify", net, "--lr", pictures / "lr", "--hr", pictures / "hr")
    assert outcome.code == 0, outcome.err
    assert "copying 2 of 4 files" in outcome.err and "PSNR-Y" in outcome.out and "ramp" in outcome.out

    outcome = srdeploy(*words, "run", net, "-i", pictures / "lr" / "ramp.png")
    assert outcome.code == 0, outcome.err
    assert "copying" not in outcome.err, "the picture is there from verify"
    assert srdeploy("run", net, "-i", pictures / "lr" / "ramp.png", "-o", tmp_path / "here").code == 0
    there, here = (cv2.imread(str(p / "ramp.png")) for p in (home / "pictures", tmp_path / "here"))
    assert there.shape == (48, 64, 3) and cv2.absdiff(there, here).max() <= 1

    refused = srdeploy(*words, "run", net, "-i", pictures / "lr" / "ramp.png")
    assert refused.code == 2 and "holds pictures already" in refused.err
    left = [p for p in board.workdir.rglob("*") if p.suffix in (".part", ".new") or p.name == "reserve"]
    assert left == [] and not list(home.glob(".incoming*"))


#: A name in Latin-1, one that Windows would not take, one beyond the basic plane, one with a newline.
NAMES = (b"stra\xdfe \xfcber.png", b"12:30.png", "\U0001f4f7 größe.png".encode(), b"a\n::error::b.png", b"plain.png")


def test_results_of_pictures_with_odd_names_come_home(srdeploy, board, net, pictures, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in NAMES:
        shutil.copy(pictures / "lr" / "ramp.png", os.path.join(os.fsencode(folder), name))
    words = ["remote", "--inventory", board.inventory, "-o", tmp_path / "out", "nx"]
    outcome = srdeploy(*words, "run", net, "-i", folder)
    home = tmp_path / "out" / "nx"
    # A name with a newline is the one that is not brought home, and is named.
    assert sorted(os.listdir(os.fsencode(home / "pictures"))) == sorted(set(NAMES) - {NAMES[3]})
    assert outcome.code == 3 and "not brought home: pictures/a\\n\\x3a:error::b.png" in outcome.err, outcome.err
    assert "\n::error" not in outcome.out + outcome.err
    assert (board.own / "jobs").is_dir() and not list((board.own / "jobs").glob("*/fetched"))

    os.unlink(os.path.join(os.fsencode(folder), NAMES[3]))
    outcome = srdeploy(*words, "run", net, "-i", folder, "--force")
    assert outcome.code == 0, outcome.err
    here = [str(board.program), "run", str(net), "-i", str(folder), "-o", str(tmp_path / "here"), *ORT]
    printed = subprocess.run(here, capture_output=True, check=True).stdout
    assert rb"/stra\udcdfe \udcfcber.png" + b"\n" in printed, "bytes that are no UTF-8 are shown as escapes"
    for name in set(NAMES) - {NAMES[3]}:
        there, local = (
            cv2.imdecode(np.fromfile(os.path.join(os.fsencode(place), name), np.uint8), cv2.IMREAD_COLOR)
            for place in (home / "pictures", tmp_path / "here")
        )
        assert there.shape == (48, 64, 3) and cv2.absdiff(there, local).max() <= 1


def test_a_packed_deployment_is_taken(srdeploy, board, net, tmp_path):
    assert srdeploy("pack", net, "-o", tmp_path / "net.srd").code == 0
    outcome = srdeploy(
        "remote", "--inventory", board.inventory, "-o", tmp_path / "out", "nx", "build", tmp_path / "net.srd", *ORT
    )
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "out" / "nx" / "engines" / "onnxruntime_dynamic.json").is_file()


def test_what_fails_there_fails_here_with_its_code_and_its_log(srdeploy, board, net, tmp_path):
    words = ["remote", "--inventory", board.inventory, "-o", tmp_path / "out", "nx", "build", net, *ORT]
    assert srdeploy(*words).code == 0
    outcome = srdeploy(*words, "--json")
    assert outcome.code == 2 and "exists already" in outcome.err
    (told,) = json.loads(outcome.out)
    assert told["state"] == "failed" and told["exit_code"] == 2 and "exists already" in told["error"]["found"]
    logs = [path for path in told["files"] if path.endswith("/log")]
    assert len(logs) == 1 and "exists already" in Path(logs[0]).read_text()


def test_a_connection_cut_while_it_runs_goes_on(board, net, tmp_path):
    said, cuts = [], []

    def say(text):
        said.append(text)
        # The first size is done, the second is being timed.
        if "24x24: median" in text and not cuts:
            cuts.append(board.server.cut())

    arguments = ("--size", "24,32", "--seconds", "0.6", "--ci", "0", *ORT)
    outcome = only(run_remote(options_of(board, net, tmp_path / "out", "bench", arguments), say))
    assert outcome.error is None, outcome.error
    assert cuts and cuts[0] >= 1 and outcome.progress.drops >= 1
    assert sum("started" in line for line in said) == 1 and any("dropped" in line for line in said)
    assert [sum(f"{size}: median" in line for line in said) for size in ("24x24", "32x32")] == [1, 1], "no line twice"
    result = json.loads((tmp_path / "out" / "nx" / "results" / "bench_onnxruntime_fp32_compute.json").read_text())
    assert len(result["points"]) == 2


def test_who_leaves_finds_the_job_again_by_the_same_command_and_by_attach(srdeploy, board, net, tmp_path):
    def leave(text):
        if "24x24: median" in text:
            raise_in_follow.set()

    # What Ctrl-C does: the thread stops looking, the job goes on.
    raise_in_follow = threading.Event()
    arguments = ("--size", "24,32", "--seconds", "1.0", "--iterations", "10", "--ci", "0.0", *ORT)
    options = options_of(board, net, tmp_path / "first", "bench", arguments)
    from sr_deploy.pipeline.ship.remote import job_of
    from sr_deploy.remote.progress import Progress, Session
    from sr_deploy.remote.session import bring_home

    job = job_of(net, "net", options)
    progress = Progress()
    session = Session(options.boards[0], job, "", tmp_path / "first" / "nx", 10.0, leave, raise_in_follow)
    bring_home(session, progress)
    assert progress.state == "left running" and running_children(board.workdir)

    outcome = only(run_remote(options_of(board, net, tmp_path / "second", "bench", arguments)))
    assert outcome.error is None and outcome.progress.attached and outcome.progress.job == job.id
    assert (tmp_path / "second" / "nx" / "results" / "bench_onnxruntime_fp32_compute.json").is_file()
    assert len(list((board.own / "jobs").iterdir())) == 1, "not started twice"

    attached = srdeploy("remote", "--inventory", board.inventory, "-o", tmp_path / "third", "nx", "attach", "bench")
    assert attached.code == 0, attached.err
    assert (tmp_path / "third" / "nx" / "results" / "bench_onnxruntime_fp32_compute.json").is_file()
    unknown = srdeploy("remote", "--inventory", board.inventory, "nx", "attach", "nothing")
    assert unknown.code == 2 and "no job 'nothing'" in unknown.err


def test_a_connection_cut_while_copying_sends_only_the_rest(board, net, pictures, tmp_path):
    folder = tmp_path / "lr"
    folder.mkdir()
    shutil.copy(pictures / "lr" / "ramp.png", folder)
    big = folder / "zz.png"
    # A PNG ends at its end chunk; what follows makes it large without another format.
    big.write_bytes((folder / "ramp.png").read_bytes() + os.urandom(24 << 20))
    options = options_of(board, net, tmp_path / "out", "run", ORT, pictures=(("-i", (folder,)),))
    cutter = threading.Thread(target=cut_when_half_there, args=(board, big.stat().st_size))
    cutter.start()
    outcome = only(run_remote(options))
    cutter.join()
    assert outcome.error is None, outcome.error
    total = sum(p.stat().st_size for p in (*net.glob("*"), *folder.glob("*")) if p.is_file())
    assert outcome.progress.drops >= 1
    # Sent twice is at most what was on its way when it was cut, not the file from its beginning.
    assert total <= outcome.progress.sent < total + (12 << 20)
    stored = board.own / "store" / hashlib.sha256(big.read_bytes()).hexdigest()
    assert stored.stat().st_size == big.stat().st_size
    assert sorted(p.name for p in (tmp_path / "out" / "nx" / "pictures").iterdir()) == ["ramp.png", "zz.png"]


def cut_when_half_there(board, size):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        parts = list((board.own / "store").glob(".*.part")) if board.workdir.exists() else []
        if any(part.stat().st_size > size // 2 for part in parts):
            board.server.cut()
            return
        time.sleep(0.002)


def test_a_killed_job_is_told_and_can_be_started_again(board, net, tmp_path, monkeypatch):
    import sr_deploy.remote.follow as follow

    monkeypatch.setattr(follow, "SILENT_SECONDS", 0.5)

    def kill(text):
        if "24x24: median" in text:
            for pid in running_children(board.workdir):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)

    arguments = ("--size", "24,32", "--seconds", "0.6", "--ci", "0", *ORT)
    error = only(run_remote(options_of(board, net, tmp_path / "out", "bench", arguments), kill)).error
    assert error.exit_code == 3 and "without an exit status" in error.found
    again = ("--size", "24", "--runs", "2", *ORT)
    assert only(run_remote(options_of(board, net, tmp_path / "out", "bench", again))).error is None


def test_a_busy_board_names_its_holder_and_nothing_is_copied(srdeploy, board, net):
    with held_by_another(board):
        outcome = srdeploy("remote", "--inventory", board.inventory, "nx", "build", net, *ORT)
    assert outcome.code == 3
    assert "busy: eva@lab runs bench x since 2026-01-02T03:04:05Z (process 4711)" in outcome.err
    assert list((board.own / "store").iterdir()) == []


def test_a_second_job_waits_for_nobody(board, net, tmp_path):
    arguments = ("--size", "24,32", "--seconds", "0.6", "--ci", "0", *ORT)
    seen = []

    def say(text):
        if "24x24: median" in text and not seen:
            seen.append(only(run_remote(options_of(board, net, tmp_path / "b", "build", ORT))).error)

    assert only(run_remote(options_of(board, net, tmp_path / "a", "bench", arguments), say)).error is None
    (error,) = seen
    assert error.exit_code == 3 and "runs bench net since" in error.found and f"@{os.uname().nodename}" in error.found


@pytest.fixture
def small_disk(board, tmp_path):
    """The board's workdir on a file system of its own of 4 MiB."""
    board.workdir.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(board.workdir)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small file system needs the right to mount: {mounted.stderr.strip()}")
    yield board.workdir
    for _ in range(50):
        if subprocess.run(["umount", str(board.workdir)], capture_output=True).returncode == 0:
            return
        time.sleep(0.1)


def test_a_full_disk_is_found_before_copying(small_disk, board, net, pictures, tmp_path):
    big = tmp_path / "big.png"
    big.write_bytes((pictures / "lr" / "ramp.png").read_bytes() + os.urandom(6 << 20))
    options = options_of(board, net, tmp_path / "out", "run", ORT, pictures=(("-i", (big,)),))
    error = only(run_remote(options)).error
    assert error.exit_code == 3 and "the board's disk is full" in error.found and "nothing incomplete" in error.wanted
    assert list((board.own / "store").iterdir()) == [] and list((board.own / "jobs").iterdir()) == []


def test_a_disk_that_fills_while_copying(small_disk, board, net, pictures, tmp_path, monkeypatch):
    import sr_deploy.remote.session as session

    big = tmp_path / "big.png"
    big.write_bytes((pictures / "lr" / "ramp.png").read_bytes() + os.urandom(2 << 20))
    ask = session.ask

    def fill_after_hello(link, kind, **request):
        reply = ask(link, kind, **request)
        if kind.operation == "doctor":
            (small_disk / "somebody's file").write_bytes(bytes(int(2.5 * 2**20)))
        return reply

    # Somebody else writes in the moment between the check and the copy.
    monkeypatch.setattr(session, "ask", fill_after_hello)
    options = options_of(board, net, tmp_path / "out", "run", ORT, pictures=(("-i", (big,)),))
    error = only(run_remote(options)).error
    assert error.exit_code == 3 and "the board's disk is full" in error.found
    assert [p.name for p in (board.own / "store").iterdir() if p.name.endswith(".part")] == []
    assert list((board.own / "jobs").iterdir()) == []


def test_missing_tensorrt_and_missing_srdeploy_are_named_before_copying(srdeploy, board, net, tmp_path):
    # A None in sys.modules is how Python itself says that a module cannot be had.
    bare = loopback.command_file(
        tmp_path / "bare" / "srdeploy", "sys.modules['tensorrt_rtx'] = sys.modules['tensorrt'] = None"
    )
    board.write_inventory(srdeploy=str(bare))
    words = ["remote", "--inventory", board.inventory, "nx", "build", net]
    outcome = srdeploy(*words, "--backend", "tensorrt", "--size", "24")
    assert outcome.code == 3 and "nx cannot build TensorRT engines" in outcome.err
    assert "no TensorRT" in outcome.err and "pip install" in outcome.err
    assert list((board.own / "store").iterdir()) == []
    board.write_inventory(srdeploy="no-such-srdeploy")
    outcome = srdeploy(*words, *ORT)
    assert outcome.code == 3 and "nx has no srdeploy" in outcome.err and "playbook" in outcome.err
    board.write_inventory(python="no-such-python")
    outcome = srdeploy(*words, *ORT)
    assert outcome.code == 3 and "no-such-python did not work there" in outcome.err


def test_the_hosts_key_must_be_the_known_one(srdeploy, board, net, tmp_path):
    words = ["remote", "--inventory", board.inventory, "nx", "build", net, *ORT]
    good = board.known_hosts.read_text()
    other = loopback.make_key(tmp_path / "other").with_suffix(".pub").read_text().split()
    name = good.split()[0]
    board.known_hosts.write_text(f"{name} {other[0]} {other[1]}\n")
    changed = srdeploy(*words)
    assert changed.code == 3 and "has CHANGED" in changed.err and f"ssh-keygen -R '{name}'" in changed.err
    board.known_hosts.write_text("")
    unknown = srdeploy(*words)
    assert unknown.code == 3 and "not in known_hosts" in unknown.err and "ssh-keyscan -p" in unknown.err
    assert board.known_hosts.read_text() == "", "a key that is not known is not added"
    marked = f"@cert-authority * {other[0]} {other[1]}\n@revoked {good}{good}garbage\n"
    board.known_hosts.write_text(marked)
    revoked = srdeploy(*words)
    assert revoked.code == 3 and "revoked" in revoked.err
    board.known_hosts.write_text(f"@cert-authority * {other[0]} {other[1]}\n# mine\n{good}")
    assert srdeploy(*words).code == 0


def test_a_key_must_be_taken(srdeploy, board, net, tmp_path):
    words = ["remote", "--inventory", board.inventory, "nx", "build", net, *ORT]
    stranger = loopback.make_key(tmp_path / "stranger")
    refused = srdeploy(*words, "--key", stranger)
    assert refused.code == 3 and "takes none of your keys" in refused.err and str(stranger) in refused.err
    assert "ssh-copy-id" in refused.err
    missing = srdeploy(*words, "--key", tmp_path / "gone")
    assert missing.code == 3 and "there is no key" in missing.err
    locked = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "word", "-f", str(locked)], check=True)
    closed = srdeploy(*words, "--key", locked)
    assert closed.code == 3 and "passphrase" in closed.err and "ssh-add" in closed.err
    for name in ("id_ed25519", "id_ed25519.pub"):
        (board.home / ".ssh" / name).unlink()
    none = srdeploy(*words)
    assert none.code == 3 and "takes none of your keys" in none.err


def test_a_board_that_is_not_there(srdeploy, board, net, monkeypatch):
    import socket

    import sr_deploy.remote.connect as connect

    nobody = srdeploy("remote", f"127.0.0.1:{loopback.free_port()}", "build", net)
    assert nobody.code == 3 and "refuses the connection" in nobody.err
    unknown = srdeploy("remote", "no-such-board.invalid", "build", net)
    assert unknown.code == 3 and "no-such-board.invalid is not known" in unknown.err
    monkeypatch.setattr(connect, "CONNECT_SECONDS", 1.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        mute = srdeploy("remote", f"127.0.0.1:{silent.getsockname()[1]}", "build", net)
    assert mute.code == 3 and "no SSH at" in mute.err and "Traceback" not in mute.err


def test_the_users_ssh_config_counts(srdeploy, board, net, tmp_path):
    hidden = tmp_path / "elsewhere"
    shutil.move(str(board.home / ".ssh" / "id_ed25519"), str(hidden))
    (board.home / ".ssh" / "config").write_text(
        f"Host desk\n  HostName 127.0.0.1\n  Port {board.server.port}\n  IdentityFile {hidden}\n  IdentitiesOnly yes\n"
    )
    kept = [line for line in board.inventory.read_text().splitlines() if not line.startswith("port")]
    board.inventory.write_text("\n".join(kept).replace("127.0.0.1", "desk"))
    outcome = srdeploy("remote", "--inventory", board.inventory, "-o", tmp_path / "out", "nx", "build", net, *ORT)
    assert outcome.code == 0, outcome.err


def test_one_bad_board_of_two(srdeploy, board, net, tmp_path):
    board.inventory.write_text(
        board.inventory.read_text() + f'[boards.off]\nhost = "127.0.0.1"\nport = {loopback.free_port()}\n'
    )
    words = ["remote", "--inventory", board.inventory, "-o", tmp_path / "out", "all", "build", net, *ORT]
    outcome = srdeploy(*words)
    assert outcome.code == 3 and "1 of 2 boards failed" in outcome.err
    assert "Boards" in outcome.out and "done" in outcome.out and "failed" in outcome.out
    assert (tmp_path / "out" / "nx" / "engines").is_dir() and not (tmp_path / "out" / "off").exists()
    assert "[nx] job build-" in outcome.err


def test_stop_ends_a_job(srdeploy, board, net, tmp_path):
    arguments = ("--size", "24", "--seconds", "60", "--max-seconds", "60", *ORT)
    told = []

    def say(text):
        if "started" in text:
            told.append(srdeploy("remote", "--inventory", board.inventory, "nx", "stop"))

    error = only(run_remote(options_of(board, net, tmp_path / "out", "bench", arguments), say)).error
    assert told[0].code == 0 and "stopped" in told[0].out
    assert error.exit_code == 3 and "signal 15" in error.found
    assert "nothing runs" in srdeploy("remote", "--inventory", board.inventory, "nx", "stop").out
    assert worst(()) is None
