"""What runs on the board beside srdeploy itself: the lock, the detached job, hashes. Standard library only.

The PC sends the text of this file, agent_files.py and agent_place.py over SSH to ``python3 -``, followed by one call
of ``answer``. So nothing has to be installed or kept in step on the board, nothing is written to a disk that is full,
and no shell quotes anything. It runs on Python 3.7 and newer and imports nothing of srdeploy, because the board may
hold another version of it.

In the working folder: ``lock``, and ``uid-N/`` for each user: ``store/`` (files by SHA-256), ``deployments/`` (folders
of links into it, with the engines and results made there), ``jobs/ID/`` (``job.json``, ``pid``, ``log``, ``output``,
``files``, ``status.json``, inputs, pictures). The board's lock and each job's ``alive`` are the kernel's (flock) and
their descriptors are inherited by the job: they end with its last process. remote/replies.py describes every reply.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

from agent_files import assemble, free_bytes, link, load, made, now, part_of, sha256_of, snapshot, write
from agent_place import (
    Unsafe,
    command_of,
    environment_of,
    folders_of,
    holder_of,
    known_id,
    open_lock,
    own_folder,
    taken,
)

#: Room kept for the exit status, which must be written even when the job has filled the disk.
RESERVE_BYTES = 1 << 16
#: What is told at most: jobs, and characters of doctor's output.
MOST_JOBS, MOST_DOCTOR = 100, 1 << 16


def answer(request, mark):
    """Carry out one request (a dict with ``op``); print one line: the mark, REPLY or FAULT, and JSON."""
    try:
        word, reply = "REPLY", OPERATIONS[request["op"]](request)
    except Unsafe as error:
        word, reply = "FAULT", {"errno": 0, "error": str(error)}
    except OSError as error:
        text = ": ".join(filter(None, (error.strerror or str(error), os.fsdecode(error.filename or ""))))
        word, reply = "FAULT", {"errno": error.errno or 0, "error": text[:500]}
    # A name that is not UTF-8 stands here for people only; where it counts it is quoted.
    line = json.dumps(reply, ensure_ascii=False).encode("utf-8", "replace")
    sys.stdout.buffer.write(b"\n" + mark.encode() + word.encode() + b" " + line + b"\n")
    sys.stdout.flush()


def hello(request):
    """Make the folders; say where they are, how much room there is, what is missing, who holds the lock."""
    shared, own = folders_of(request)
    missing = {}
    for sha in request["files"]:
        if not os.path.exists(os.path.join(own, "store", sha)):
            part = part_of(own, sha, request["client"])
            missing[sha] = os.path.getsize(part) if os.path.exists(part) else 0
    command, skipped = command_of(shared, request["srdeploy"])
    return {
        "workdir": own,
        "free_bytes": free_bytes(own),
        "srdeploy": command,
        "skipped": [text[:500] for text in skipped[:10]],
        "missing": missing,
        "busy": holder_of(shared, own),
        "job": job_state(own, request["job"]) if request.get("job") else None,
    }


def doctor(request):
    """What ``srdeploy doctor --json`` prints here."""
    done = subprocess.run(
        request["command"] + ["doctor", "--json"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment_of(request["command"]),
    )
    return {
        "code": done.returncode,
        "out": done.stdout.decode("utf-8", "replace")[:MOST_DOCTOR],
        "err": done.stderr.decode("utf-8", "replace")[-2000:],
    }


def commit(request):
    """Move complete uploads into the store and hash what lies there; remove and name what is not its name."""
    own, bad = own_folder(request), []
    for sha in request["files"]:
        part, stored = part_of(own, sha, request["client"]), os.path.join(own, "store", sha)
        if os.path.exists(part):
            os.chmod(part, 0o444)
            os.replace(part, stored)
        if not os.path.exists(stored):
            bad.append(sha)
        elif sha256_of(stored) != sha:
            os.unlink(stored)
            bad.append(sha)
    return {"bad": bad, "free_bytes": free_bytes(own)}


def discard(request):
    """Remove this client's incomplete uploads, so that a full disk is no fuller than before."""
    own = own_folder(request)
    for sha in request["files"]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part_of(own, sha, request["client"]))
    return {"free_bytes": free_bytes(own)}


def start(request):
    """Take the board's lock and start the job detached; a job that is there already is not started again."""
    (shared, own), job = folders_of(request), request["job"]
    known = job_state(own, job["id"])
    if known["state"] == "running" or (known["state"] == "ended" and not known["fetched"]):
        return {"job": known}
    lock = open_lock(shared, make=True)
    # Who only looks at the lock holds it for a moment.
    if not any(taken(lock) or time.sleep(0.1) for _ in range(5)):
        # Between asking and locking the same job may have been started from elsewhere.
        known = job_state(own, job["id"])
        return {"job": known} if known["state"] == "running" else {"busy": holder_of(shared, own) or {}}
    folder = os.path.join(own, "jobs", job["id"])
    try:
        return {"job": run_detached(own, folder, job, request["command"], lock)}
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def run_detached(root, folder, job, command, lock):
    """Lay out the job's folder and start its supervisor; the lock is held."""
    clear_old_jobs(root, job["id"])
    deployment = assemble(root, os.path.join("deployments", job["deployment"]), job["files"])
    os.makedirs(os.path.join(folder, "out"))
    for name, sha in job["inputs"].items():
        link(root, sha, os.path.join(folder, "inputs", name))
    write(os.path.join(folder, "reserve"), "\0" * RESERVE_BYTES)
    holder = {"holder": job["holder"], "since": now(), "job": job["id"], "command": job["title"]}
    write(os.path.join(folder, "job.json"), json.dumps(dict(job, since=holder["since"])))
    alive = os.open(os.path.join(folder, "alive"), os.O_RDWR | os.O_CREAT, 0o600)
    taken(alive)
    argv = command + [word.replace("{job}", folder).replace("{deployment}", deployment) for word in job["arguments"]]
    said, told = os.pipe()
    if os.fork() == 0:
        detach_and_run(folder, deployment, argv, (lock, alive), holder, told)
    os.close(told)
    os.wait()
    # The pipe ends when the supervisor has gone on: only then is the job sure to outlive this connection.
    os.read(said, 1)
    return job_state(root, job["id"])


def detach_and_run(folder, deployment, argv, locks, holder, told):
    """In the child: leave the session of the connection, run the command, write its exit status. Never returns."""
    os.setsid()
    if os.fork():
        os._exit(0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    begun, before = time.monotonic(), snapshot(deployment)
    status = {"exit_code": 126}
    try:
        with open(os.path.join(folder, "output"), "wb") as output, open(os.path.join(folder, "log"), "wb") as log:
            process = subprocess.Popen(
                argv,
                cwd=deployment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                env=environment_of(argv),
                pass_fds=locks,
                start_new_session=True,
            )
            write(os.path.join(folder, "pid"), str(process.pid))
            # Who holds the lock is told for the message only; the lock itself is the kernel's.
            with contextlib.suppress(OSError):
                os.ftruncate(locks[0], 0)
                os.pwrite(locks[0], json.dumps(dict(holder, pid=process.pid)).encode(), 0)
            os.write(told, b"1")
            os.close(told)
            status["exit_code"] = process.wait()
        found = made(folder, deployment, before)
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(folder, "reserve"))
        write(os.path.join(folder, "files"), "".join(json.dumps(file) + "\n" for file in found))
        status["files"], status["bytes"] = len(found), sum(file["size"] for file in found)
    except Exception as error:
        status["error"] = f"{type(error).__name__}: {error}"[:500].encode("utf-8", "replace").decode()
    finally:
        status["seconds"], status["ended"] = round(time.monotonic() - begun, 3), now()
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(folder, "reserve"))
        with contextlib.suppress(OSError):
            write(os.path.join(folder, "status.json"), json.dumps(status))
        os._exit(0)


def status(request):
    """The states of all jobs whose ids begin with ``job``; last the one that runs, else the newest not yet home."""
    root, wanted = own_folder(request), request.get("job") or ""
    folder = os.path.join(root, "jobs")
    names = [name for name in os.listdir(folder) if name.startswith(wanted) and known_id(name)]
    about = {name: load(os.path.join(folder, name, "job.json")) or {} for name in names}
    states = [dict(job_state(root, name), since=about[name].get("since", "")) for name in names]
    states.sort(key=lambda state: (state["state"] == "running", not state["fetched"], state["since"]))
    return {"jobs": states[-MOST_JOBS:]}


def fetched(request):
    """Note that the results are home; they stay until the next job starts."""
    write(os.path.join(own_folder(request), "jobs", request["job"], "fetched"), now())
    return {}


def stop(request):
    """End a running job: SIGTERM to its processes, SIGKILL after ten seconds."""
    root = own_folder(request)
    # From the job's own folder: what stands in the lock may have been written by anybody.
    pid = load(os.path.join(root, "jobs", request["job"], "pid"))
    if not pid or job_state(root, request["job"])["state"] != "running":
        return {"stopped": False}
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, kind)
        for _ in range(100):
            if job_state(root, request["job"])["state"] != "running":
                return {"stopped": True}
            time.sleep(0.1)
    return {"stopped": False}


def job_state(root, name):
    """``absent``, ``running``, ``ended`` (with its status) or ``died`` (no status, and nothing of it runs)."""
    folder = os.path.join(root, "jobs", name)
    state = {"id": name, "state": "absent", "fetched": os.path.exists(os.path.join(folder, "fetched"))}
    if not os.path.exists(os.path.join(folder, "alive")):
        return state
    alive = os.open(os.path.join(folder, "alive"), os.O_RDWR)
    try:
        running = not taken(alive)
    finally:
        os.close(alive)
    if os.path.exists(os.path.join(folder, "status.json")):
        return dict(state, state="ended")
    return dict(state, state="running" if running else "died")


def clear_old_jobs(root, name):
    """Make room: jobs whose results are home, and the remains of this one. Called with the lock held."""
    for other in os.listdir(os.path.join(root, "jobs")):
        folder = os.path.join(root, "jobs", other)
        if other == name or os.path.exists(os.path.join(folder, "fetched")):
            shutil.rmtree(folder)


OPERATIONS = {each.__name__: each for each in (hello, doctor, commit, discard, start, status, fetched, stop)}
