"""What a board may not do to this machine: the worst lies one by one, and a part of the numbered attacks."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from sr_deploy.pipeline.demo import ASSETS
from tests.benchmarks.hostile_boards import in_process, through_sshd
from tests.remote.attacks import HONEST, Attack, entry, line
from tests.remote.hostile import CLAIMED

JOB = "bench-0123456789ab"


class Lie(Attack):
    """A board that answers ``attach`` with a job, and lies where a test says so."""

    def __init__(self, job=JOB, entries=None, log=b"one\n", status=None, content=b"{}", command="attach"):
        super().__init__(0)
        self.wanted = ()
        self.command, self.job, self.entries, self.log, self.status, self.content = (
            command, job, entries, log, status or {}, content,
        )  # fmt: skip

    def reply(self, request):
        said = HONEST[request["op"]](request)
        if request["op"] == "status":
            said["jobs"][0].update(id=self.job, state="ended")
        return [line(said)], b"", 0

    def files(self, job, folder):
        import json

        entries = self.entries or [entry(f"{folder}/jobs/{job}/result", "results/a.json", self.content)]
        status = {"exit_code": 0, "seconds": 1.0, "ended": "now", "files": len(entries)}
        status.update(bytes=sum(each["size"] for each in entries), **self.status)
        listed = b"".join(json.dumps(each).encode() + b"\n" for each in entries)
        return {"status.json": json.dumps(status).encode(), "files": listed, "log": self.log, "result": self.content}


@pytest.fixture
def suffered(net, tmp_path):
    """What happened to this machine."""
    picture = tmp_path / "a.png"
    shutil.copy(ASSETS / "demo.png", picture)
    base = tmp_path / "base"
    base.mkdir()
    return lambda attack: in_process(attack, net, picture, base)


def test_an_honest_board_is_believed(suffered, tmp_path):
    verdict = suffered(Lie())
    assert verdict.problems == [] and verdict.code == 0, verdict
    assert (tmp_path / "base/out/hostile/results/a.json").read_bytes() == b"{}"
    assert "fetching 1 files, 0.0 MiB" in verdict.said
    stage = [p.name for p in (tmp_path / "base/out/hostile").glob(".incoming-*")]
    assert stage == [".incoming-x"], "the folder of this job's is gone, another's is not touched"


@pytest.mark.parametrize(
    "job", ["x/../../../victim", "../victim", "/etc", "", "x", ".", "a\nb", "bench-" + "9" * 200, None, 7]
)
def test_a_job_s_id_is_no_path(suffered, job):
    verdict = suffered(Lie(job))
    assert verdict.problems == []
    # "x" is an id, and its stage has something of the user's in it.
    assert verdict.code == (0 if job == "x" else 4), verdict.said


@pytest.mark.parametrize(
    ("to", "code"),
    [
        ("../../victim/.ssh/authorized_keys", 4),
        ("results/%2E%2E/%2E%2E/x", 4),
        ("results/link/.ssh", 4),
        ("results/link/x", 4),
        ("precious", 4),
        ("results/.bashrc", 4),
        ("pictures/a.png", 4),
        ("jobs/other/log", 4),
        ("engines/net.engine", 4),
        ("results/%0A", 3),
        ("results/" + "x" * 300, 3),
        ("results/%FF", 0),
    ],
)
def test_results_go_where_results_belong(suffered, to, code, tmp_path):
    good = entry(f"{CLAIMED}/jobs/{JOB}/result", "results/good.json", b"{}")
    verdict = suffered(Lie(entries=[{**good, "to": to}, good]))
    assert verdict.problems == [] and verdict.code == code, verdict
    # One name that this system cannot hold does not lose the others.
    assert (tmp_path / "base/out/hostile/results/good.json").exists() == (code != 4)


@pytest.mark.parametrize("other", ["results/a", "results/a/b"])
def test_places_that_clash(suffered, other):
    good = entry(f"{CLAIMED}/jobs/{JOB}/result", "results/a", b"{}")
    verdict = suffered(Lie(entries=[good, {**good, "to": other}]))
    assert verdict.code == 4 and verdict.problems == []


def test_names_that_this_file_system_takes_for_one(suffered, monkeypatch, tmp_path):
    import sr_deploy.remote.home as home

    good = entry(f"{CLAIMED}/jobs/{JOB}/result", "results/a.json", b"{}")
    both = Lie(entries=[good, {**good, "to": "results/A.json"}])
    assert suffered(both).code == 0
    # A file system that does not tell them apart shows a folder under another spelling too.
    monkeypatch.setattr(home, "_tells_case_apart", lambda stage: False)
    for path in (tmp_path / "base/out/hostile/results").glob("*.json"):
        path.unlink()
    shutil.rmtree(tmp_path / "base")
    (tmp_path / "base").mkdir()
    verdict = suffered(both)
    assert verdict.code == 3 and "results/A.json: the same name as results/a.json" in verdict.said


@pytest.mark.parametrize("size", [10**15, 10**12, 2**62])
def test_a_size_costs_nothing_until_the_bytes_have_come(suffered, size):
    good = entry(f"{CLAIMED}/jobs/{JOB}/result", "results/a.json", b"{}")
    verdict = suffered(Lie(entries=[{**good, "size": size}]))
    assert verdict.problems == [] and verdict.code == 3 and "MiB free" in verdict.said
    assert verdict.memory < 20 << 20 and verdict.seconds < 3


def test_a_file_stops_at_its_announced_size(suffered, tmp_path):
    announced = b"x" * 1000
    verdict = suffered(Lie(entries=[entry("/dev/zero", "results/a.json", announced)]))
    assert verdict.code == 0 and verdict.problems == []
    assert (tmp_path / "base/out/hostile/results/a.json").read_bytes() == announced
    wrong = {**entry("/dev/zero", "results/b.json", announced), "sha256": hashlib.sha256(b"").hexdigest()}
    assert suffered_again(suffered, tmp_path, Lie(entries=[wrong])).code == 1


def suffered_again(suffered, tmp_path, attack):
    shutil.rmtree(tmp_path / "base")
    (tmp_path / "base").mkdir()
    return suffered(attack)


def test_log_lines_can_only_be_read(suffered):
    log = b"\x1b]0;owned\x07\n::error::owned\n  ::warning::x\n##[error]x\n" + b"y" * 10_000 + b"\nplain\n"
    verdict = suffered(Lie(log=log))
    assert verdict.problems == [] and verdict.code == 0
    lines = verdict.said.splitlines()
    assert "\\x1b]0;owned\\x07" in lines and "\\x3a:error::owned" in lines and "plain" in lines
    assert max(map(len, lines)) < 2100


def test_an_endless_log_and_a_job_that_never_ends_leave_ctrl_c(suffered, tmp_path):
    verdict = suffered(Lie(log=None, status={"exit_code": "later"}))
    assert verdict.code == 4 and verdict.problems == []

    class ForEver(Lie):
        def files(self, job, folder):
            return {"log": None}

        def reply(self, request):
            return super().reply(request) if request["op"] != "status" else ([line(
                {"jobs": [{"id": JOB, "state": "running", "fetched": False, "since": "now"}]})], b"", 0)  # fmt: skip

    verdict = suffered_again(suffered, tmp_path, ForEver())
    assert verdict.code == 130 and verdict.interrupted and verdict.problems == []
    assert "goes on there" in verdict.said


def test_a_job_that_has_ended_without_a_status_is_not_waited_for(suffered):
    class NoStatus(Lie):
        def files(self, job, folder):
            return {"log": b""}

    verdict = suffered(NoStatus())
    assert verdict.code == 3 and "without an exit status" in verdict.said and verdict.seconds < 3


@pytest.mark.parametrize("operation", ["hello", "status", "doctor"])
def test_an_answer_of_many_wrong_values_costs_little(suffered, operation):
    class Many(Lie):
        def reply(self, request):
            if request["op"] != operation:
                return super().reply(request)
            return [line({"missing": {str(n): "x" for n in range(17_000)}, "jobs": [0] * 20_000})], b"", 0

    verdict = suffered(Many(command="attach" if operation == "status" else "build"))
    assert verdict.code == 4 and verdict.problems == [] and verdict.memory < 100 << 20, verdict.memory


def test_the_ordeal_sees_what_it_looks_for(suffered, monkeypatch, tmp_path):
    """Without the guards the same lies are found out here."""
    import sr_deploy.cli.shared as shared
    import sr_deploy.pipeline.ship.remote as pipeline
    import sr_deploy.remote.follow as follow
    import sr_deploy.remote.home as home

    monkeypatch.setattr(home, "_is_result", lambda to, job: True)
    monkeypatch.setattr(home, "confined", lambda folder, name, *more, **other: folder / name)
    there = entry(f"{CLAIMED}/jobs/{JOB}/result", "../../victim/.ssh/authorized_keys", b"{}")
    (problem,) = suffered(Lie(entries=[there])).problems
    assert problem.startswith("changed or removed") and problem.endswith("victim/.ssh/authorized_keys")

    monkeypatch.setattr(follow, "log_line", str)
    monkeypatch.setattr(pipeline, "log_line", str)
    monkeypatch.setattr(shared, "log_lines", str)
    verdict = suffered_again(suffered, tmp_path, Lie(log=b"\x1b]0;x\x07\n::error::x\n"))
    assert verdict.problems == ["a control character on the screen", "a command for a CI log on the screen"]

    monkeypatch.setattr(home, "_is_result", lambda to, job: 1 / 0)
    problem, *_ = suffered_again(suffered, tmp_path, Lie()).problems
    assert problem.startswith("traceback: ZeroDivisionError")


@pytest.mark.parametrize("number", range(0, 1000, 17))
def test_attacks_in_this_process(net, tmp_path, number):
    picture = tmp_path / "a.png"
    shutil.copy(ASSETS / "demo.png", picture)
    base = tmp_path / "base"
    base.mkdir()
    attack = Attack(number)
    assert in_process(attack, net, picture, base).problems == [], attack


@pytest.mark.parametrize("number", [3, 8, 22])
def test_attacks_through_a_real_sshd(board, net, tmp_path, number):
    base = tmp_path / "base"
    base.mkdir()
    picture = tmp_path / "a.png"
    shutil.copy(ASSETS / "demo.png", picture)
    key = Path(board.home / ".ssh" / "id_ed25519")
    attack = Attack(number)
    assert through_sshd(attack, net, picture, base, board.server, key).problems == [], attack
