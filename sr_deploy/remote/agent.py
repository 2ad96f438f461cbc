"""What runs on the board beside srdeploy itself: the lock, the detached job, hashes. Standard library only.

The PC sends this file's text over SSH to ``python3 -``, followed by one call of ``answer``. So nothing has to be
installed or kept in step on the board, nothing is written to a disk that is full, and no shell quotes anything.
It runs on Python 3.7 and newer and imports nothing of srdeploy, because the board may hold another version of it.

In the working folder: ``store/`` (files by SHA-256), ``deployments/`` (folders of links into it, with the engines and
results made there), ``jobs/ID/`` (``job.json``, ``log``, ``output``, ``status.json``, inputs, pictures), ``lock``.
Both locks are the kernel's (flock) and their descriptors are inherited by the job: they end with its last process.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time

#: Where pip and the playbook put the command; a session without a terminal often has a bare PATH.
PLACES = ("{workdir}/venv/bin", "~/.local/bin", "/opt/srdeploy/bin", "/usr/local/bin")
#: Room kept for the exit status, which must be written even when the job has filled the disk.
RESERVE_BYTES = 1 << 16


def answer(request, mark):
    """Carry out one request (a dict with ``op``) and print the reply as one line of JSON after ``mark``."""
    try:
        reply = OPERATIONS[request["op"]](request)
    except OSError as error:
        named = str(error.filename or "")
        reply = {"errno": error.errno, "error": f"{error.strerror or error}{named and ': ' + named}"}
    print("\n" + mark + json.dumps(reply))
    sys.stdout.flush()


def hello(request):
    """Make the working folder; say where it is, how much room it has, what is missing, who holds the lock."""
    root = workdir_of(request)
    for name in ("store", "deployments", "jobs"):
        os.makedirs(os.path.join(root, name), exist_ok=True)
    missing = {}
    for sha in request["files"]:
        if not os.path.exists(os.path.join(root, "store", sha)):
            part = part_of(root, sha, request["client"])
            missing[sha] = os.path.getsize(part) if os.path.exists(part) else 0
    return {
        "workdir": root,
        "free_bytes": free_bytes(root),
        "srdeploy": command_of(root, request["srdeploy"]),
        "missing": missing,
        "busy": holder_of(root),
        "job": job_state(root, request["job"]) if request.get("job") else None,
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
        "out": done.stdout.decode("utf-8", "replace"),
        "err": done.stderr.decode("utf-8", "replace")[-2000:],
    }


def commit(request):
    """Move complete uploads into the store; remove those whose hash is not their name, and say which."""
    root, bad = workdir_of(request), []
    for sha in request["files"]:
        part, stored = part_of(root, sha, request["client"]), os.path.join(root, "store", sha)
        if os.path.exists(part):
            if sha256_of(part) == sha:
                os.chmod(part, 0o444)
                os.replace(part, stored)
            else:
                os.unlink(part)
        if not os.path.exists(stored):
            bad.append(sha)
    return {"bad": bad, "free_bytes": free_bytes(root)}


def discard(request):
    """Remove this client's incomplete uploads, so that a full disk is no fuller than before."""
    root = workdir_of(request)
    for sha in request["files"]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part_of(root, sha, request["client"]))
    return {"free_bytes": free_bytes(root)}


def start(request):
    """Take the board's lock and start the job detached; a job that is there already is not started again."""
    root, job = workdir_of(request), request["job"]
    known = job_state(root, job["id"])
    if known["state"] == "running" or (known["state"] == "ended" and not known["fetched"]):
        return known
    lock = os.open(os.path.join(root, "lock"), os.O_RDWR | os.O_CREAT, 0o664)
    # Who only looks at the lock holds it for a moment.
    if not any(taken(lock) or time.sleep(0.1) for _ in range(5)):
        # Between asking and locking the same job may have been started from elsewhere.
        known = job_state(root, job["id"])
        return known if known["state"] == "running" else {"busy": holder_of(root) or {}}
    folder = os.path.join(root, "jobs", job["id"])
    try:
        return run_detached(root, folder, job, request["command"], lock)
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
    alive = os.open(os.path.join(folder, "alive"), os.O_RDWR | os.O_CREAT, 0o664)
    fcntl.flock(alive, fcntl.LOCK_EX)
    argv = command + [word.replace("{job}", folder).replace("{deployment}", deployment) for word in job["arguments"]]
    said, told = os.pipe()
    if os.fork() == 0:
        detach_and_run(root, folder, deployment, argv, (lock, alive), holder, told)
    os.close(told)
    os.wait()
    # The pipe ends when the supervisor has gone on: only then is the job sure to outlive this connection.
    os.read(said, 1)
    return dict(job_state(root, job["id"]), started=True)


def detach_and_run(root, folder, deployment, argv, locks, holder, told):
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
            # Who holds the lock is told for the message only; the lock itself is the kernel's.
            with contextlib.suppress(OSError):
                os.ftruncate(locks[0], 0)
                os.pwrite(locks[0], json.dumps(dict(holder, pid=process.pid)).encode(), 0)
            os.write(told, b"1")
            os.close(told)
            status["exit_code"] = process.wait()
        status["files"] = made(root, folder, deployment, before)
    except Exception as error:
        status["error"] = f"{type(error).__name__}: {error}"
    finally:
        status["seconds"], status["ended"] = round(time.monotonic() - begun, 3), now()
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(folder, "reserve"))
        with contextlib.suppress(OSError):
            write(os.path.join(folder, "status.json"), json.dumps(status))
        os._exit(0)


def status(request):
    """The states of all jobs whose ids begin with ``job``; last the one that runs, else the newest not yet home."""
    root, wanted = workdir_of(request), request.get("job") or ""
    folder = os.path.join(root, "jobs")
    names = [name for name in (os.listdir(folder) if os.path.isdir(folder) else []) if name.startswith(wanted)]
    about = {name: load(os.path.join(folder, name, "job.json")) or {} for name in names}
    states = [dict(job_state(root, name), since=about[name].get("since", "")) for name in names]
    states.sort(key=lambda state: (state["state"] == "running", not state["fetched"], state["since"]))
    return {"jobs": states}


def fetched(request):
    """Note that the results are home; they stay until the next job starts."""
    write(os.path.join(workdir_of(request), "jobs", request["job"], "fetched"), now())
    return {}


def stop(request):
    """End a running job: SIGTERM to its processes, SIGKILL after ten seconds."""
    root = workdir_of(request)
    holder = holder_of(root) or {}
    if holder.get("job") != request["job"] or not holder.get("pid"):
        return {"stopped": False}
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(holder["pid"], kind)
        for _ in range(100):
            if job_state(root, request["job"])["state"] != "running":
                return {"stopped": True}
            time.sleep(0.1)
    return {"stopped": False}


def workdir_of(request):
    """The working folder, absolute. Where its group may write, the group may write all that is made in it."""
    root = os.path.abspath(os.path.expanduser(request["workdir"]))
    if os.path.isdir(root) and os.stat(root).st_mode & stat.S_IWGRP:
        os.umask(0o002)
    return root


def command_of(root, command):
    """The command for srdeploy with its program's full path; None where there is none."""
    words = shlex.split(command)
    here = os.pathsep.join([os.environ.get("PATH", "")] + [os.path.expanduser(p.format(workdir=root)) for p in PLACES])
    program = shutil.which(os.path.expanduser(words[0]), path=here)
    return [program] + words[1:] if program else None


def environment_of(command):
    """The environment of a job: unbuffered UTF-8, wide tables, and the board's tools in PATH."""
    more = [os.path.dirname(command[0]), "/usr/local/bin", "/usr/sbin", "/usr/local/cuda/bin"]
    path = os.pathsep.join([os.environ.get("PATH", os.defpath)] + [place for place in more if place])
    return dict(os.environ, PATH=path, PYTHONUNBUFFERED="1", PYTHONUTF8="1", COLUMNS="120")


def holder_of(root):
    """What the holder of the board's lock wrote of itself; None where the lock is free."""
    try:
        lock = os.open(os.path.join(root, "lock"), os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        if taken(lock):
            return None
        try:
            return json.loads(os.pread(lock, 1 << 16, 0).decode())
        except ValueError:
            return {}
    finally:
        os.close(lock)


def taken(lock):
    """Take the lock without waiting; False where another process has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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
    found = load(os.path.join(folder, "status.json"))
    if found is not None:
        return dict(state, state="ended", status=found)
    return dict(state, state="running" if running else "died")


def clear_old_jobs(root, name):
    """Make room: jobs whose results are home, and the remains of this one. Called with the lock held."""
    for other in os.listdir(os.path.join(root, "jobs")):
        folder = os.path.join(root, "jobs", other)
        if other == name or os.path.exists(os.path.join(folder, "fetched")):
            shutil.rmtree(folder)


def assemble(root, name, files):
    """The deployment's folder, made of links into the store; one that is there keeps its engines and results."""
    folder = os.path.join(root, name)
    for path, sha in files.items():
        place = os.path.join(folder, path)
        if not os.path.exists(place) or os.path.getsize(place) != os.path.getsize(os.path.join(root, "store", sha)):
            link(root, sha, place)
    return folder


def link(root, sha, place):
    """Put a stored file at ``place``, whole or not at all; a copy where the file system has no hard links."""
    os.makedirs(os.path.dirname(place), exist_ok=True)
    temporary = place + ".new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    try:
        os.link(os.path.join(root, "store", sha), temporary)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EXDEV):
            raise
        shutil.copyfile(os.path.join(root, "store", sha), temporary)
    os.replace(temporary, place)


def walk(folder):
    """All files below a folder but hidden ones."""
    for place, _, names in os.walk(folder):
        for name in names:
            if not name.startswith("."):
                yield os.path.join(place, name)


def snapshot(deployment):
    """Modification times of engines and results, so that afterwards those of this job are known."""
    return {
        path: os.stat(path).st_mtime_ns
        for part in ("engines", "results")
        for path in walk(os.path.join(deployment, part))
    }


def made(root, folder, deployment, before):
    """What goes home: manifests of new engines, new results, pictures, the log and the output."""
    found = []
    for path, changed in snapshot(deployment).items():
        home = os.path.relpath(path, deployment)
        if before.get(path) != changed and (home.startswith("results") or path.endswith(".json")):
            found.append((path, home))
    out = os.path.join(folder, "out")
    found += [(path, os.path.join("pictures", os.path.relpath(path, out))) for path in walk(out)]
    found += [
        (os.path.join(folder, name), os.path.join("jobs", os.path.basename(folder), name)) for name in ("log", "output")
    ]
    return [
        {"path": path, "to": home, "size": os.path.getsize(path), "sha256": sha256_of(path)}
        for path, home in sorted(found)
    ]


def part_of(root, sha, client):
    """Where a client's incomplete upload lies."""
    return os.path.join(root, "store", f".{sha}.{client}.part")


def free_bytes(folder):
    """What this user may still write there."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def sha256_of(path):
    """The SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def write(path, text):
    """Write a text file whole or not at all."""
    with open(path + ".new", "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(path + ".new", path)


def load(path):
    """A JSON file, or None where there is none."""
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError):
        return None


def now():
    """This moment in UTC, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


OPERATIONS = {each.__name__: each for each in (hello, doctor, commit, discard, start, status, fetched, stop)}
