"""jetson/clocks.sh with stand-ins for nvpmodel and jetson_clocks that keep their state in files.

The stand-ins follow NVIDIA's Jetson Linux Developer Guide and the outputs that people published; no board was at hand.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "jetson" / "clocks.sh"

NVPMODEL = """#!/bin/bash
case "$1" in
-q) echo "NVPM WARN: fan mode is not set!"; echo "NV Power Mode: MODE_$(cat "$BOARD/mode")"; cat "$BOARD/mode" ;;
-m) case "$2" in
    9) echo "NVPM WARN: Reboot required"; read -r answer; [ "$answer" = YES ] && echo 9 >"$BOARD/mode"; exit 0 ;;
    [0-8]) echo "$2" >"$BOARD/mode"; echo unlocked >"$BOARD/clocks" ;;
    *) echo "NVPM ERROR: mode unknown" >&2; exit 255 ;;
    esac ;;
esac
"""
JETSON_CLOCKS = """#!/bin/bash
case "${1:-}" in
--store) cp "$BOARD/clocks" "$2" ;;
--restore) cp "$2" "$BOARD/clocks" ;;
"") echo locked >"$BOARD/clocks" ;;
esac
"""


@dataclass(frozen=True)
class Board:
    folder: Path
    environment: dict

    def run(self, *words) -> subprocess.CompletedProcess:
        return subprocess.run([str(SCRIPT), *words], env=self.environment, capture_output=True, text=True, timeout=60)

    def start(self, *words) -> subprocess.Popen:
        return subprocess.Popen(
            [str(SCRIPT), *words],
            env=self.environment,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Under nohup, and in the background of a script, these are ignored, and a shell cannot trap what was
            # ignored when it began.
            preexec_fn=lambda: [signal.signal(one, signal.SIG_DFL) for one in (signal.SIGHUP, signal.SIGINT)],
        )

    @property
    def state(self):
        return (self.folder / "mode").read_text().strip(), (self.folder / "clocks").read_text().strip()

    def wait_for(self, name: str) -> None:
        deadline = time.monotonic() + 30
        while not (self.folder / name).exists():
            assert time.monotonic() < deadline, f"{name} never appeared"
            time.sleep(0.01)


@pytest.fixture
def board(tmp_path):
    if shutil.which("flock") is None or shutil.which("bash") is None:
        pytest.skip("no bash or flock here: apt-get install bash util-linux")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in (("nvpmodel", NVPMODEL), ("jetson_clocks", JETSON_CLOCKS)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    for name, text in (
        ("mode", "5"),
        ("clocks", "as booted"),
        ("boot_id", "first"),
        ("model", "NVIDIA Jetson Xavier NX"),
    ):
        (tmp_path / name).write_text(text + "\n")
    environment = dict(
        os.environ,
        PATH=f"{tools}:{os.environ['PATH']}",
        BOARD=str(tmp_path),
        SRDEPLOY_CLOCKS_STATE=str(tmp_path / "state"),
        SRDEPLOY_BOOT_ID_FILE=str(tmp_path / "boot_id"),
        SRDEPLOY_MODEL_FILE=str(tmp_path / "model"),
    )
    return Board(tmp_path, environment)


BEFORE = ("5", "as booted")
#: A command that notes the state it sees and then waits to be ended.
WAITS = ("bash", "-c", 'cat "$BOARD/mode" "$BOARD/clocks" >"$BOARD/seen"; exec sleep 60')


def test_run_sets_and_restores_and_passes_the_exit_code_on(board):
    done = board.run("run", "-m", "8", "--", "bash", "-c", 'cat "$BOARD/mode" "$BOARD/clocks" >"$BOARD/seen"; exit 7')
    assert done.returncode == 7, done.stderr
    assert (board.folder / "seen").read_text().split() == ["8", "locked"]
    assert board.state == BEFORE and "restored: mode 5" in done.stderr


def test_mode_5_of_a_xavier_nx_is_warned_of(board):
    for words in (("run", "--", "true"), ("status",)):
        done = board.run(*words)
        assert done.returncode == 0 and "510 of 1109 MHz" in done.stderr
    assert "510" not in board.run("run", "-m", "8", "--", "true").stderr
    (board.folder / "model").write_text("NVIDIA Jetson Orin Nano\n")
    assert "510" not in board.run("status").stderr


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_a_signal_ends_the_command_and_restores(board, kind, code):
    process = board.start("run", "-m", "8", "--", *WAITS)
    board.wait_for("seen")
    begun = time.monotonic()
    os.kill(process.pid, kind)
    assert process.wait(30) == code, process.stderr.read()
    assert time.monotonic() - begun < 30, "the command was ended, not waited for"
    assert board.state == BEFORE and not (board.folder / "state" / "mode").exists()


def test_after_kill_9_the_next_start_restores(board):
    process = board.start("run", "-m", "8", "--", *WAITS)
    board.wait_for("seen")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    assert board.state == ("8", "locked"), "nobody could restore"
    assert "to be restored: mode 5" in board.run("status").stdout
    done = board.run("run", "-m", "2", "--", "true")
    assert done.returncode == 0 and "ended without restoring" in done.stderr
    assert board.state == BEFORE, "the state before the killed run, not the one it left"


def test_restore_after_kill_9_and_after_a_restart_of_the_board(board):
    process = board.start("run", "-m", "8", "--", *WAITS)
    board.wait_for("seen")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    (board.folder / "boot_id").write_text("second\n")
    (board.folder / "clocks").write_text("as booted again\n")
    assert board.run("restore").returncode == 0
    # The mode outlives a restart; clocks that were stored before it would be wrong now.
    assert board.state == ("5", "unlocked")
    assert "nothing to restore" in board.run("restore").stderr


def test_set_then_restore_by_hand(board):
    assert board.run("set", "-m", "8").returncode == 0 and board.state == ("8", "locked")
    assert board.run("restore").returncode == 0 and board.state == BEFORE


@pytest.mark.parametrize("mode", ["9", "77"])
def test_a_mode_that_cannot_be_set_runs_nothing_and_restores(board, mode):
    done = board.run("run", "-m", mode, "--", "touch", str(board.folder / "ran"))
    assert done.returncode == 3 and f"mode {mode} could not be set" in done.stderr
    assert not (board.folder / "ran").exists() and board.state == BEFORE


def test_two_runs_do_not_restore_each_others_clocks(board):
    process = board.start("run", "-m", "8", "--", *WAITS)
    board.wait_for("seen")
    other = board.run("run", "-m", "2", "--", "true")
    assert other.returncode == 3 and "another clocks.sh" in other.stderr
    assert board.state == ("8", "locked")
    os.kill(process.pid, signal.SIGTERM)
    process.wait(30)
    assert board.state == BEFORE


def test_usage_and_missing_tools(board, tmp_path):
    for words in ((), ("run",), ("run", "true"), ("run", "-m", "x", "--", "true"), ("dance",)):
        done = board.run(*words)
        assert done.returncode == 2 and "clocks.sh run" in done.stderr, words
    (tmp_path / "tools" / "jetson_clocks").unlink()
    done = board.run("run", "--", "true")
    assert done.returncode == 3 and "no jetson_clocks here" in done.stderr


def test_the_script_is_clean():
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck here: apt-get install shellcheck")
    done = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
