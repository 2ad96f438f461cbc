"""What the command line and the inventory are taken for; no board is asked."""

from __future__ import annotations

import json

import pytest

from sr_deploy.cli.remote import board_command
from sr_deploy.core.errors import BadInput, EnvironmentFault, UsageError
from sr_deploy.core.host.device import Facts, doctor_findings
from sr_deploy.core.host.machine import Jetson, Machine
from sr_deploy.core.host.packages import Software
from sr_deploy.pipeline.ship.remote import RemoteOptions, job_of
from sr_deploy.remote.check import check_doctor
from sr_deploy.remote.inventory import Board, boards_of, parse_target, read_inventory
from sr_deploy.remote.job import Job, LocalFile
from sr_deploy.remote.replies import Doctor


@pytest.mark.parametrize(
    ("text", "name", "host", "user", "port"),
    [
        ("nx", "nx", "nx", None, None),
        ("nvidia@192.0.2.7", "192.0.2.7", "192.0.2.7", "nvidia", None),
        ("nvidia@nx.lab:2222", "nx.lab_2222", "nx.lab", "nvidia", 2222),
        ("[2001:db8::7]:22", "2001_db8__7", "2001:db8::7", None, 22),
    ],
)
def test_targets(text, name, host, user, port):
    assert parse_target(text) == Board(name, host, user, port)


@pytest.mark.parametrize("text", ["", "a b", "nx:70000", "nx:0", "-oProxyCommand=x", "a@b@c", "../up", "nx:22:22"])
def test_words_that_name_no_board(text):
    with pytest.raises(UsageError):
        parse_target(text)


def test_an_inventory(tmp_path):
    path = tmp_path / "boards.toml"
    path.write_text('[boards.a]\nhost = "192.0.2.7"\nport = 2222\nkey = "~/k"\n[boards.b]\nhost = "b.lab"\n')
    assert [board.name for board in boards_of(["all"], path)] == ["a", "b"]
    (a,) = boards_of(["a"], path)
    assert (a.host, a.port, a.key, a.python, a.srdeploy) == ("192.0.2.7", 2222, "~/k", "python3", "srdeploy")
    assert boards_of(["a"], path, tmp_path / "other")[0].key == str(tmp_path / "other")
    assert [board.host for board in boards_of(["b", "c.lab"], path)] == ["b.lab", "c.lab"]
    with pytest.raises(UsageError, match="named twice"):
        boards_of(["a", "all"], path)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[boards.a]\nhost = "x"\nhots = 1\n', "key boards.a.hots is unknown"),
        ("[boards.a]\nport = 22\n", "boards.a.host is missing"),
        ('[boards.a]\nhost = "x"\nport = "22"\n', "port is '22'"),
        ('[boards.a]\nhost = "x"\nport = true\n', "port is True"),
        ('[boards.a]\nhost = "x"\nport = 0\n', "port is 0"),
        ('[boards.a]\nhost = "x"\nuser = 5\n', "user is 5"),
        ('[boards."../a"]\nhost = "x"\n', "boards.../a is"),
        ('[boards.all]\nhost = "x"\n', "no name for a board"),
        ('[boards.a]\nhost = "-oProxyCommand=x"\n', "boards.a.host is"),
        ('[boards.a]\nhost = "x"\nworkdir = "a\\nb"\n', "boards.a.workdir is"),
        ("[boards]\n", "boards is {}"),
        ('[board.a]\nhost = "x"\n', "key board is unknown"),
        ("[boards.a\n", "is no inventory.*\nwanted: valid TOML"),
    ],
)
def test_inventories_that_are_refused(tmp_path, text, named):
    path = tmp_path / "boards.toml"
    path.write_text(text)
    with pytest.raises(BadInput, match=named.replace("(", r"\(")):
        read_inventory(path)


def test_the_example_inventory_is_one():
    from tests.remote.loopback import REPOSITORY

    boards = read_inventory(REPOSITORY / "jetson" / "inventory.example.toml")
    assert set(boards) == {"nx-desk", "orin-rack"} and boards["nx-desk"].workdir == "/var/lib/srdeploy"


def test_the_words_of_a_board_s_command():
    _, one, pictures, force = board_command("build", ["net", "--size", "24", "--force", "--backend=onnxruntime"])
    _, two, _, _ = board_command("build", ["--backend", "onnxruntime", "net", "--force", "--size", "24"])
    assert one == two == ("--backend", "onnxruntime", "--size", "24", "--force", "--json")
    assert pictures == () and force
    bundle, arguments, pictures, _ = board_command("run", ["net.srd", "-i", "a.png", "--input", "b"])
    assert (str(bundle), arguments) == ("net.srd", ())
    assert [(option, list(map(str, paths))) for option, paths in pictures] == [("-i", ["a.png", "b"])]
    assert board_command("verify", ["net", "--lr", "l", "--hr", "h"])[1] == ("--json", "--no-torch")


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (["nx"], 2, "names no command"),
        (["bench", "net"], 2, "names no board"),
        (["nx", "--size", "24", "bench", "net"], 2, "no option --size here"),
        (["nx", "bench", "net", "--sizzes", "24"], 2, "--sizzes"),
        (["nx", "bench"], 2, "Missing argument"),
        (["nx", "run", "net"], 2, "--input"),
        (["nx", "build", "net", "--dry-run"], 2, "no meaning on a board"),
        (["nx", "attach", "a", "b"], 2, "attach takes a job's id"),
        (["nx", "build", "no-such-folder"], 4, "no-such-folder does not exist"),
        (["n x", "build", "net"], 2, "names no board"),
    ],
)
def test_words_that_are_refused_before_any_board_is_asked(srdeploy, tmp_path, monkeypatch, words, code, named):
    monkeypatch.chdir(tmp_path)
    outcome = srdeploy("remote", *words)
    assert outcome.code == code and named in outcome.err, outcome.err
    assert list(tmp_path.iterdir()) == []


def test_the_same_request_is_the_same_job_and_any_change_another(net, tmp_path):
    options = RemoteOptions((), tmp_path, net, "build", ("--backend", "onnxruntime"))
    job = job_of(net, "net", options)
    assert job_of(net, "net", options).id == job.id
    assert set(job.files) == {"model.onnx", "manifest.json"}
    other = RemoteOptions((), tmp_path, net, "build", ("--backend", "tensorrt"))
    assert job_of(net, "net", other).id != job.id
    changed = {**job.files, "model.onnx": LocalFile(net / "model.onnx", "0" * 64, 1)}
    assert Job("build", "net", changed, {}, job.arguments).deployment != job.deployment


def facts(jetson, **software):
    machine = Machine("cpu", "aarch64", 6, 2**33, 2**32, "Ubuntu", "3.8.10", (), jetson)
    found = {"packages": {}, "onnxruntime_providers": (), "onnxruntime_problem": "", "tensorrt": ()}
    found.update({"system_tensorrt": None, "cuda_binding": None}, **software)
    return Facts(machine, Software(**found))


def doctor_reply(given):
    findings = [finding.to_dict() for finding in doctor_findings(given)]
    jetson = None if given.machine.jetson is None else {"l4t": given.machine.jetson.l4t}
    return Doctor(0, json.dumps({"findings": findings, "environment": {"jetson": jetson}}), "")


def test_a_jetson_without_tensorrt_is_told_before_it_falls_back_to_its_processor():
    reply = doctor_reply(facts(Jetson("NVIDIA Jetson Xavier NX", "35.4.1", 5, "MODE_10W_DESKTOP")))
    for command in ("build", "bench"):
        with pytest.raises(EnvironmentFault, match="nx cannot .*TensorRT engines, which " + command):
            check_doctor("nx", reply, [command, "net"])
    with pytest.raises(EnvironmentFault, match="cannot run on the CPU"):
        check_doctor("nx", reply, ["bench", "net", "--backend", "onnxruntime"])
    with pytest.raises(EnvironmentFault, match="pc cannot run on the CPU, which bench needs"):
        check_doctor("pc", doctor_reply(facts(None)), ["bench", "net"])
    runs = facts(None, onnxruntime_providers=("CPUExecutionProvider",))
    assert check_doctor("pc", doctor_reply(runs), ["bench", "net"]) == ()
    with pytest.raises(EnvironmentFault, match="doctor does not run there"):
        check_doctor("nx", Doctor(1, "", "Traceback\nImportError: numpy"), ["bench", "net"])
